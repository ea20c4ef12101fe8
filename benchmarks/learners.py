"""Learners on Fashion-MNIST: LeNet (a Caffe pair, 90.60 % in float) with all layers at 2 and 4 bits, fine-tuned.

The float network has seen all 60,000 training images. Here 55,000 train, the other 5,000 choose, and the 10,000 test
images report: top-1, the mean of seeds 0, 1 and 2, which decide the order of the images. Adam, batches of 128, a
learning rate that falls to 0 along a cosine. `bits`, `init` and `modes` train one pass over 20,000 images, so that a
part ends within ten minutes on two cores, from 1e-3 or 3e-4, whichever is better on the 5,000 with seed 0. `small` is
what the package is for: two passes over all 55,000, saved, and judged by ONNX Runtime.

Command, from the checkout's root, once for each part:

    python -m benchmarks.learners bits
    python -m benchmarks.learners init
    python -m benchmarks.learners modes
    python -m benchmarks.learners small
"""

import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import typer

from amct_lite.learn import ArrayBatches, Learner, NonUniformLearner, UniformLearner
from amct_lite.samples.fashion_lenet_caffe.data import load_part
from amct_lite.samples.fashion_lenet_caffe.run import MODEL_FOLDER
from benchmarks.table import print_table

LENET = MODEL_FOLDER / "deploy.prototxt", MODEL_FOLDER / "lenet_fashion.caffemodel"
FLOAT_TOP1 = 0.9060
HELD_OUT = 5000
BATCH_SIZE = 128
SHORT = 20_000
RATES = (1e-3, 3e-4)
SMALL_RATE = 3e-4

PARTS: dict[str, dict[str, tuple[type, Mapping[str, Any]]]] = {
    "bits": {
        "uniform, 2 bits": (UniformLearner, {"weight_bits": 2}),
        "non-uniform, 2 bits": (NonUniformLearner, {"weight_bits": 2}),
        "uniform, 4 bits": (UniformLearner, {"weight_bits": 4}),
        "non-uniform, 4 bits": (NonUniformLearner, {"weight_bits": 4}),
    },
    "init": {
        f"2 bits, init_style {style!r}": (NonUniformLearner, {"weight_bits": 2, "init_style": style})
        for style in ("quantile", "uniform", "optimal")
    },
    "modes": {
        f"2 bits, opt_mode {mode!r}": (NonUniformLearner, {"weight_bits": 2, "opt_mode": mode})
        for mode in ("weights", "clusters", "both")
    },
    "small": {"non-uniform, 2 bits": (NonUniformLearner, {"weight_bits": 2})},
}


def batches_of(part: str, chosen: slice, batch_size: int, *, shuffle: bool, seed: int = 0) -> ArrayBatches:
    """Some images of a part, in an order of their own that no seed changes."""
    images, labels = load_part(part)
    order = np.random.default_rng(0).permutation(len(labels))[chosen]
    return ArrayBatches(images[order], labels[order], batch_size, shuffle=shuffle, seed=seed)


@dataclass(frozen=True)
class Trained:
    """One training.

    Attributes:
        learner: With the trained network.
        held_out: Top-1 on the held-out training images, for choices.
        top1: Top-1 on the test images.
    """

    learner: Learner
    held_out: float
    top1: float


def run(name: str, make: Any, options: Mapping[str, Any], images: int, epochs: int, rate: float, seed: int) -> Trained:
    """Train once."""
    start = time.perf_counter()
    learner = make(*LENET, quantize_all_layers=True, **options)
    train = batches_of("train", slice(HELD_OUT, HELD_OUT + images), BATCH_SIZE, shuffle=True, seed=seed)
    held_out = batches_of("train", slice(HELD_OUT), 500, shuffle=False)
    history = learner.fit(train, epochs=epochs, learning_rate=rate, seed=seed, validation=held_out)
    top1 = learner.evaluate(batches_of("t10k", slice(None), 500, shuffle=False))
    seconds = time.perf_counter() - start
    print(f"{name}, rate {rate:g}, seed {seed}: {top1:.4f} in {seconds:.0f} s", file=sys.stderr, flush=True)
    return Trained(learner, max(epoch.metric or 0.0 for epoch in history), top1)


def saved_top1(learner: Learner) -> tuple[float, int]:
    """Top-1 of the saved file by ONNX Runtime, and its bytes."""
    images, labels = load_part("t10k")
    with tempfile.TemporaryDirectory() as folder:
        file = learner.save(Path(folder) / "lenet", "Deploy").files["deploy_model"]
        session = onnxruntime.InferenceSession(str(file))
        feeds = ({session.get_inputs()[0].name: images[at : at + 500]} for at in range(0, len(images), 500))
        scores = np.concatenate([session.run(None, feed)[0] for feed in feeds])
        return float((scores.argmax(1) == labels).mean()), file.stat().st_size


def main(
    part: Annotated[str, typer.Argument(help="bits, init, modes or small.")],
    images: Annotated[int | None, typer.Option(help="Images to train on, 55000 at most.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over them.")] = None,
    seeds: Annotated[int, typer.Option(help="Seeds 0, 1, ...")] = 3,
    only: Annotated[str, typer.Option(help="Rows whose name has this.")] = "",
) -> None:
    """Train and print one of the tables."""
    small = part == "small"
    rows = []
    for name, (make, options) in PARTS[part].items():
        if only not in name:
            continue
        given = name, make, options, images or (55_000 if small else SHORT), epochs or 1 + small
        first = {rate: run(*given, rate, 0) for rate in ((SMALL_RATE,) if small else RATES)}
        rate = max(first, key=lambda rate: first[rate].held_out)
        found = [first[rate], *(run(*given, rate, seed) for seed in range(1, seeds))]
        mean = float(np.mean([trained.top1 for trained in found]))
        each = " ".join(f"{100 * trained.top1:.2f}" for trained in found)
        row = [name, f"{rate:g}", f"{100 * mean:.2f}", f"{100 * (FLOAT_TOP1 - mean):+.2f}", each]
        if small:
            files = [saved_top1(trained.learner) for trained in found]
            apart = max(abs(theirs - trained.top1) for (theirs, _), trained in zip(files, found, strict=True))
            row += [f"{max(size_bytes for _, size_bytes in files):,}", f"{100 * apart:.2f}"]
        rows.append(row)
    more = ["bytes, at most", "PyTorch apart, points"] if small else []
    print_table(["", "rate", "top-1 %", "drop", "each seed", *more], rows)


if __name__ == "__main__":
    typer.run(main)
