"""Convolutions split into two: what it saves in SqueezeNet 1.1, and what it costs without training.

One row a share of energy that each filter keeps: how many of the nine 3 x 3 convolutions are split, the weights and
multiply-adds of those split against before (bytes are those of the whole file), and top-1 on the 500 photos of
imagenet500, which nothing was tuned on. Command, from the checkout's root, about 1 minute on 2 cores:

    python -m benchmarks.decomposition
"""

import tempfile
from pathlib import Path

import amct_lite
from benchmarks.imagenet import SQUEEZENET, compare, reporting_photos, run_model
from benchmarks.table import print_table

KEPT_ENERGIES = (0.99, 0.98, 0.97, 0.95, 0.9, 0.8)


def main() -> None:
    """Print the table."""
    photos = reporting_photos(SQUEEZENET)
    float_scores = run_model(SQUEEZENET.model_file, photos)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kept_energy in KEPT_ENERGIES:
            path = Path(folder) / "net.onnx"
            splits = amct_lite.auto_decomposition(SQUEEZENET.model_file, path, kept_energy=kept_energy)
            before = sum(split.weights for split in splits)
            weights = sum(split.weights_now for split in splits) / max(before, 1)
            products = sum(split.weights * split.products_share for split in splits) / max(before, 1)
            comparison = compare(float_scores, run_model(path, photos), photos.accepted)
            rows.append(
                [
                    f"{kept_energy:g}",
                    len(splits),
                    f"{weights:.2f}",
                    f"{products:.2f}",
                    f"{path.stat().st_size / SQUEEZENET.model_file.stat().st_size:.2f}",
                    f"{comparison.top1:.1f}",
                    f"{comparison.drop:+.1f}",
                ]
            )
    print_table(["energy kept", "split", "weights", "multiply-adds", "file", "top-1", "loses"], rows)


if __name__ == "__main__":
    main()
