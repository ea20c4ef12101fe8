"""Codebooks calibrated on four different sets of photos: how much of a drop is chance.

`codebook_accuracy` evaluates on 372 photos, where a photo more or less is 0.27 points. Here the same network is
compressed four times, calibrated on 128 photos each, every second one of the first and of the last 256 of imagenet500,
mirrored as well, and evaluated on the other 372 each time: 1488 answers, each photo three times, and the four
networks' mistakes differ. Command, from the checkout's root; about 4 minutes a width of SqueezeNet, 13 of
EfficientNet-Lite0 on 2 cores:

    python -m benchmarks.codebook_splits --only lite0 --bits 4.1
"""

import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.codebook_accuracy import HEADINGS, compress_to_bits, size_cells, split_photos
from benchmarks.imagenet import EFFICIENTNET_LITE0, SQUEEZENET, comparison_cells, run_model
from benchmarks.table import print_table

SPLITS = {
    "odd of the first 256": range(1, 256, 2),
    "even of the first 256": range(0, 256, 2),
    "odd of the last 256": range(245, 500, 2),
    "even of the last 256": range(244, 500, 2),
}


def main(
    bits: Annotated[list[float], typer.Option(help="Average bits of a weight; may be given several times.")],
    only: Annotated[str, typer.Option(help="Part of a network's name.")] = "",
) -> None:
    """Print a row for each split, and one for all of them together."""
    for network in (SQUEEZENET, EFFICIENTNET_LITE0):
        if only.lower() not in network.name.lower():
            continue
        for width in bits:
            rows, scores, right = [], [], []
            for name, chosen in SPLITS.items():
                batches, photos = split_photos(network, chosen)
                float_scores = run_model(network.model_file, photos)
                with tempfile.TemporaryDirectory() as folder:
                    _, stored, file = compress_to_bits(network, batches, Path(folder), name, bits=width)
                    scores.append((float_scores, run_model(file, photos)))
                    right.append(photos.accepted)
                    cells = comparison_cells(*scores[-1], right[-1])
                    rows.append([*size_cells(network, name, stored, file), *cells])
            float_all, all_scores = (np.concatenate(side) for side in zip(*scores, strict=True))
            rows.append(["all four", "", "", "", *comparison_cells(float_all, all_scores, np.concatenate(right))])
            print_table([f"{network.name}, {width:g} bits", *HEADINGS[1:]], rows)


if __name__ == "__main__":
    typer.run(main)
