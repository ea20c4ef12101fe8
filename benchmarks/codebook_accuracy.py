"""Codebooks on ImageNet networks: bits a weight against accuracy, alone, with 8-bit inputs, and levels of activations.

Calibrates on the 128 photos at odd positions among the first 256 of imagenet500, each as it is and mirrored; evaluates
on the other 372, in the files that `save` writes. The even bits (2, 3, 4) give every layer the same width; a fraction
is an average that is spent by sensitivity. For activations the weights are codebooks of 8 bits, refined for inputs of
so few levels; "alone" leaves the float weights as they are, "fitted" keeps them float, fits them to such inputs
(`refit`) and chooses the levels by the output (`output_aware`).

Command, from the checkout's root; `--only` picks a network, `--part` weights or activations, `--rows` those of the
latter (such as "fitted"):

    python -m benchmarks.codebook_accuracy
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import amct_lite as amct
from amct_lite.evaluators import ArrayData
from benchmarks.imagenet import (
    EFFICIENTNET_LITE0,
    SQUEEZENET,
    Network,
    compare,
    comparison_cells,
    reporting_photos,
    run_model,
)
from benchmarks.plain_config import write_plain_config
from benchmarks.table import print_table

CALIBRATION = range(1, 256, 2)
BATCH_SIZE = 16
BITS = (4, 4.1, 3, 3.1, 2.5, 2, 2.1)
LEVELS = (64, 32, 16, 8)
NEARLY_FLOAT = {"wts_algo": "codebook_quantize", "num_bits": 8, "level_type": "float16", "refine": "gptq"}
HEADINGS = ["", "bits stored", "bytes", "of float", "top-1 %", "drop", "lost/won", "KL", "KL, first / second half"]

Batches = list[Any]


def split_photos(network: Network, calibration: Sequence[int] = CALIBRATION) -> tuple[Batches, Any]:
    """(calibration batches of photos at these positions, all other photos to evaluate on)."""
    photos = reporting_photos(network)
    images = photos.read(0, len(photos))
    chosen = np.array(calibration)
    rest = np.setdiff1d(np.arange(len(photos)), chosen)
    kept = images[chosen]
    mirrored = np.stack([kept, kept[..., ::-1]], axis=1).reshape(-1, *images.shape[1:])
    evaluation = ArrayData(images[rest])
    evaluation.accepted = photos.accepted[rest]
    return [mirrored[i : i + BATCH_SIZE] for i in range(0, len(mirrored), BATCH_SIZE)], evaluation


def main(
    only: Annotated[str, typer.Option(help="Part of a network's name.")] = "",
    part: Annotated[str, typer.Option(help="weights or activations; both by default.")] = "",
    rows_with: Annotated[str, typer.Option("--rows", help="Part of the name of an activations row.")] = "",
) -> None:
    """Print a table for each network."""
    for network in (SQUEEZENET, EFFICIENTNET_LITE0):
        if only.lower() not in network.name.lower():
            continue
        batches, photos = split_photos(network)
        float_scores = run_model(network.model_file, photos)
        with tempfile.TemporaryDirectory() as folder:
            rows = [[f"{network.name}, float", "32", f"{network.model_file.stat().st_size:,}", "1", *[""] * 5]]
            rows[0][4] = f"{compare(float_scores, float_scores, photos.accepted).top1:.1f}"
            made = [*(_weights(network, batches, Path(folder)) if part != "activations" else ())]
            for name, bits, file in made:
                cells = comparison_cells(float_scores, run_model(file, photos), photos.accepted)
                rows.append([*size_cells(network, name, bits, file), *cells])
            if part != "weights":
                for name, file in _activations(network, batches, Path(folder), rows_with):
                    rows.append(
                        [name, "", "", "", *comparison_cells(float_scores, run_model(file, photos), photos.accepted)]
                    )
            print_table(HEADINGS, rows)


def size_cells(network: Network, name: str, bits: float, file: Path) -> list[str]:
    """Cells of a table: the name, bits a weight stored, bytes, and their share of the float file's."""
    size = file.stat().st_size
    return [name, f"{bits:.3f}", f"{size:,}", f"{size / network.model_file.stat().st_size:.4f}"]


def _weights(network: Network, batches: Batches, folder: Path) -> Iterator[tuple[str, float, Path]]:
    for bits in BITS:
        yield compress_to_bits(network, batches, folder, f"{bits:g} bits", bits=bits)
    yield compress_to_bits(network, batches, folder, "4.1 bits, 8-bit inputs", bits=4.1, activation_bits=8)


def compress_to_bits(
    network: Network, batches: Batches, folder: Path, name: str, **options: Any
) -> tuple[str, float, Path]:
    """(name, bits a weight stored, the file); compressed with these options, saved in a folder of that name."""
    saved = amct.compress(network.model_file, batches=batches, **options).save(folder / name)
    layers = [layer for layer in saved.summary.layers if layer.form == "codebook"]
    bits = 8 * sum(layer.bytes_after for layer in layers) / sum(layer.num_weights for layer in layers)
    return name, bits, saved.files["deploy_model"]


def _activations(network: Network, batches: Batches, folder: Path, rows_with: str) -> Iterator[tuple[str, Path]]:
    for levels in LEVELS:
        for name, weights, output_aware in (
            (f"{levels} levels, alone", {"wts_algo": "none"}, False),
            (f"{levels} levels, fitted", {"wts_algo": "none", "refit": True}, True),
            (f"{levels} levels", NEARLY_FLOAT, False),
        ):
            if rows_with not in name:
                continue
            config_file, record_file = folder / "config.json", folder / "record.txt"
            write_plain_config(config_file, network.model_file, batch_num=len(batches))
            config = json.loads(config_file.read_text())
            config["integer_operators"] = []
            nuq = {"target_compression_ratio": levels / 256, "output_aware": output_aware}
            for block in config.values():
                if isinstance(block, dict) and "activation_quant_params" in block:
                    block["activation_quant_params"]["nuq"] = nuq
                    if "weight_quant_params" in block:
                        block["weight_quant_params"] = weights
            config_file.write_text(json.dumps(config))
            graph = amct.init(config_file, network.model_file, None, record_file)
            amct.calibrate(graph, batches)
            yield name, amct.save_model(graph, "Fakequant", folder / name).files["fake_quant_model"]


if __name__ == "__main__":
    typer.run(main)
