"""Bits for each layer at the same average: our search against PocketFlow's agent, which may evaluate far more.

Shows that at 3 bits of a weight on average the search's bits are at least as good as the agent's (DDPG, 100 roll-outs
at most, the first quarter of which fill the buffer, layers in random order) with a tenth of its evaluations. LeNet and
Fashion-MNIST, 90.60 % in float; UniformLearner on all layers, 2 to 8 bits each. An evaluation tunes for 10 steps of 64
training images and measures top-1 on 1,000 others; "found" is the best of these, and so rises with their number. What
counts is "test top-1": with the bits found the learner is trained once through 20,000 training images (Adam at 1e-3
falling to 0, batches of 128) and measured on the 10,000 test images. "the same bits" has 3 everywhere. Mean of seeds 0,
1, 2, which decide the agent, the tuning's randomness, and the images' order. "search, 4" may evaluate 4 choices. The
agent ends where it only repeats itself; repeats, which PocketFlow evaluates again, are not counted.

Command, from the checkout's root, about ten minutes on two cores:

    python -m benchmarks.bit_allocation
"""

import sys
import time
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import typer

from amct_lite.learn import ArrayBatches, BitsFound, Learner, UniformLearner, allocate_bits
from amct_lite.samples.fashion_lenet_caffe.data import load_part
from amct_lite.samples.fashion_lenet_caffe.run import MODEL_FOLDER
from benchmarks.table import print_table

LENET = MODEL_FOLDER / "deploy.prototxt", MODEL_FOLDER / "lenet_fashion.caffemodel"
EQUIVALENT_BITS = 3
IMAGES, MEASURED = 20_000, 1000
STEPS = 10


def make(bits: Mapping[str, int]) -> Learner:
    """A learner with these bits; 3 for layers without."""
    names = ("conv1", "conv2", "ip1", "ip2")
    return UniformLearner(
        *LENET, weight_bits={name: bits.get(name, EQUIVALENT_BITS) for name in names}, quantize_all_layers=True
    )


def main(
    seeds: Annotated[int, typer.Option(help="Seeds 0, 1, ...")] = 3,
    nb_rlouts: Annotated[int, typer.Option(help="The agent's evaluations at most.")] = 100,
    rows: Annotated[str, typer.Option(help="Rows, separated by /.")] = "search, 4/search, 10/agent/the same bits",
) -> None:
    """Search, train and print the table."""
    (images, labels), test = load_part("train"), load_part("t10k")
    order = np.random.default_rng(0).permutation(len(labels))
    measured, chosen = order[:MEASURED], order[MEASURED : MEASURED + IMAGES]
    validation = ArrayBatches(images[measured], labels[measured], 500, shuffle=False)
    results: dict[str, list[tuple[float, BitsFound | None]]] = {}
    for seed in range(seeds):
        for name in rows.split("/"):
            start, found = time.perf_counter(), None
            if name != "the same bits":
                found = allocate_bits(
                    make,
                    ArrayBatches(images[chosen], labels[chosen], 64, seed=seed),
                    validation,
                    equivalent_bits=EQUIVALENT_BITS,
                    strategy="ddpg" if name == "agent" else "frontier",
                    max_evaluations=int(name.removeprefix("search, ")) if name != "agent" else nb_rlouts,
                    nb_rlouts=nb_rlouts,
                    nb_tune_global_steps=STEPS,
                    seed=seed,
                )
            learner = make({} if found is None else found.weight_bits)
            learner.fit(ArrayBatches(images[chosen], labels[chosen], 128, seed=seed), seed=seed)
            top1 = learner.evaluate(ArrayBatches(test[0], test[1], 500, shuffle=False))
            results.setdefault(name, []).append((top1, found))
            said = "" if found is None else f", {len(found.trials)} evaluations, {found.metric:.4f} {found.weight_bits}"
            print(f"{name} {seed}: {top1:.4f}{said}, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    table = []
    for name, runs in results.items():
        searches = [found for _, found in runs if found is not None]
        table.append(
            [
                name,
                f"{np.mean([len(found.trials) for found in searches]):.0f}" if searches else "",
                f"{100 * np.mean([found.metric for found in searches]):.2f}" if searches else "",
                f"{100 * np.mean([top1 for top1, _ in runs]):.2f}",
                " ".join(f"{100 * top1:.2f}" for top1, _ in runs),
                "; ".join("/".join(map(str, found.weight_bits.values())) for found in searches),
            ]
        )
    print_table(["", "evaluations", "found", "test top-1 %", "each seed", "bits of conv1/conv2/ip1/ip2"], table)


if __name__ == "__main__":
    typer.run(main)
