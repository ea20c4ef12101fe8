"""N2UQ against uniform quantization-aware training, weights and activations of the same few bits.

Shows that N2UQLearner at W2/A2 beats UniformLearner at W2/A2 by at least half a point on LeNet and Fashion-MNIST,
90.60 % in float: the same layers (all but the first and the last, which stay float), the same 20,000 training images
once through, Adam at 1e-3 falling to 0 along a cosine, batches of 128; top-1 on the 10,000 test images for seeds 0, 1,
2, which decide the images' order. Beside it what the saved network gives in ONNX Runtime: its thresholds are a table in
front of int8 levels there. "even thresholds" is N2UQ with its thresholds left where they start.

Command, from the checkout's root, 8 to 17 minutes on two cores, a third of that with --bits 2 alone:

    python -m benchmarks.n2uq
"""

import sys
import time
from typing import Annotated, Any

import numpy as np
import typer

from amct_lite.learn import ArrayBatches, Learner, N2UQLearner, UniformLearner
from amct_lite.samples.fashion_lenet_caffe.data import load_part
from amct_lite.samples.fashion_lenet_caffe.run import MODEL_FOLDER
from benchmarks.learners import saved_top1
from benchmarks.table import print_table

LENET = MODEL_FOLDER / "deploy.prototxt", MODEL_FOLDER / "lenet_fashion.caffemodel"
IMAGES = 20_000
BATCH_SIZE = 128


class EvenThresholds(N2UQLearner):
    """N2UQ's weights and scales, thresholds in the middle between even levels."""

    def parameters(self, learning_rate: float) -> list[Any]:
        """All but where the thresholds lie."""
        fixed = [p for inputs in self._inputs.values() for p in (inputs.start, inputs.intervals)]
        return [p for p in super().parameters(learning_rate) if not any(p is other for other in fixed)]


def make(name: str, bits: int) -> Learner:
    """A learner of one row."""
    if name == "uniform":
        return UniformLearner(*LENET, weight_bits=bits, activation_bits=bits)
    kind = EvenThresholds if name == "N2UQ, even thresholds" else N2UQLearner
    return kind(*LENET, weight_bits=bits, activation_bits=bits)


def main(
    bits: Annotated[str, typer.Option(help="Widths, separated by commas.")] = "2,3,4",
    seeds: Annotated[int, typer.Option(help="Seeds 0, 1, ...")] = 3,
    rows: Annotated[str, typer.Option(help="Rows, separated by /.")] = "uniform/N2UQ, even thresholds/N2UQ",
    images: Annotated[int, typer.Option(help="Training images.")] = IMAGES,
) -> None:
    """Train and print the table."""
    (train, labels), test = load_part("train"), load_part("t10k")
    chosen = np.random.default_rng(0).permutation(len(labels))[:images]
    table = []
    for width in map(int, bits.split(",")):
        for name in rows.split("/"):
            found, exported = [], []
            for seed in range(seeds):
                start = time.perf_counter()
                learner = make(name, width)
                learner.fit(ArrayBatches(train[chosen], labels[chosen], BATCH_SIZE, seed=seed), seed=seed)
                found.append(learner.evaluate(ArrayBatches(test[0], test[1], 500, shuffle=False)))
                exported.append(saved_top1(learner))
                took = time.perf_counter() - start
                print(f"W{width}/A{width} {name} {seed}: {found[-1]:.4f}, {took:.0f} s", file=sys.stderr, flush=True)
            table.append(
                [
                    f"W{width}/A{width}",
                    name,
                    f"{100 * np.mean(found):.2f}",
                    " ".join(f"{100 * top1:.2f}" for top1 in found),
                    f"{100 * max(abs(a - b) for a, (b, _) in zip(found, exported, strict=True)):.2f}",
                    f"{exported[0][1]:,}",
                ]
            )
    headings = ["", "learner", "top-1 %", "each seed", "ONNX Runtime less PyTorch, points", "bytes"]
    print_table(headings, table)


if __name__ == "__main__":
    typer.run(main)
