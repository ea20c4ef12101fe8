"""Learners on Fashion-MNIST: LeNet (a Caffe pair, 90.60 % in float) with all layers at 2 and 4 bits, fine-tuned.

Trains on 55,000 of the 60,000 training images (the float network has seen all of them), chooses the best epoch on the
other 5,000 where there are several, and reports top-1 on the 10,000 test images, mean of seeds 0, 1, 2, which decide
the order of the images. Adam, batches of 128, a learning rate of 1e-3 that falls to 0 along a cosine. `bits`, `init`
and `modes` train one pass over the first 20,000 images, so that a part ends within ten minutes on two cores;
`--images 55000` takes all. `small` is what the package is for: two passes over all, saved, run by ONNX Runtime.

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


def run(name: str, make: Any, options: Mapping[str, Any], images: int, epochs: int, seed: int) -> tuple[float, Learner]:
    """Train once; (top-1 on the test images, the learner)."""
    start = time.perf_counter()
    learner = make(*LENET, quantize_all_layers=True, **options)
    train = batches_of("train", slice(HELD_OUT, HELD_OUT + images), BATCH_SIZE, shuffle=True, seed=seed)
    held_out = batches_of("train", slice(HELD_OUT), 500, shuffle=False)
    learner.fit(train, epochs=epochs, seed=seed, validation=held_out if epochs > 1 else None)
    found = learner.evaluate(batches_of("t10k", slice(None), 500, shuffle=False))
    print(f"{name}, seed {seed}: {found:.4f} in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return found, learner


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
        found, files = [], []
        for seed in range(seeds):
            top1, learner = run(name, make, options, images or (55_000 if small else SHORT), epochs or 1 + small, seed)
            found.append(top1)
            if small:
                theirs, size_bytes = saved_top1(learner)
                files.append((abs(theirs - top1), size_bytes))
        each = " ".join(f"{100 * top1:.2f}" for top1 in found)
        row = [name, f"{100 * np.mean(found):.2f}", f"{100 * (FLOAT_TOP1 - np.mean(found)):+.2f}", each]
        if small:
            row += [
                f"{max(size_bytes for _, size_bytes in files):,}",
                f"{100 * max(difference for difference, _ in files):.2f}",
            ]
        rows.append(row)
    headings = ["", "top-1 %", "drop", "each seed", *(["bytes", "ONNX Runtime less PyTorch, points"] if small else [])]
    print_table(headings, rows)


if __name__ == "__main__":
    typer.run(main)
