"""Uniform weights of few bits, inputs float: what each repair without training brings.

Every layer's weights on a uniform grid of so many bits with a scale per output channel; no layer is left out.
Calibrates on the 128 photos of imagenet500 at odd positions and their mirror images, evaluates on the other 372. KL is
the mean of KL(float || quantized), nats; *s* is the wall time of calibration.

Command, from the checkout's root; `--only` picks a network, `--row` a repair:

    python -m benchmarks.uniform_bits
"""

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

import amct_lite as amct
from benchmarks.codebook_accuracy import split_photos
from benchmarks.imagenet import EFFICIENTNET_LITE0, SQUEEZENET, Network, comparison_cells, run_model
from benchmarks.table import print_table

REPAIRS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "scale_algo mse": {"scale_algo": "mse"},
    "bias_correction": {"bias_correction": True},
    "batch_norm_reestimation": {"batch_norm_reestimation": True},
    "rounding gptq": {"rounding": "gptq"},
    "rounding adaround": {"rounding": "adaround"},
    "mse, gptq": {"scale_algo": "mse", "rounding": "gptq"},
    "mse, adaround": {"scale_algo": "mse", "rounding": "adaround"},
}
HEADINGS = ["top-1 %", "drop", "lost/won", "KL", "KL, halves", "s"]


def main(
    bits: Annotated[int, typer.Option(min=4, max=8, help="Width of the weights.")] = 4,
    only: Annotated[str, typer.Option(help="Part of a network's name.")] = "",
    row: Annotated[list[str] | None, typer.Option(help="A repair to measure; all by default.")] = None,
) -> None:
    """Print a table for each network."""
    for network in (SQUEEZENET, EFFICIENTNET_LITE0):
        if only.lower() not in network.name.lower():
            continue
        batches, photos = split_photos(network)
        float_scores = run_model(network.model_file, photos)
        rows = []
        for name in row or REPAIRS:
            with tempfile.TemporaryDirectory() as folder:
                file, seconds = _quantize(network, batches, {"num_bits": bits, **REPAIRS[name]}, Path(folder))
                rows.append(
                    [name, *comparison_cells(float_scores, run_model(file, photos), photos.accepted), f"{seconds:.0f}"]
                )
        print_table([f"{network.name}, {bits} bits", *HEADINGS], rows)


def _quantize(network: Network, batches: list[Any], weights: Mapping[str, Any], folder: Path) -> tuple[Path, float]:
    config_file = folder / "config.json"
    amct.create_quant_config(config_file, network.model_file, batch_num=len(batches), target="onnxruntime")
    config = json.loads(config_file.read_text())
    for block in config.values():
        if isinstance(block, dict) and "activation_quant_params" in block:
            block["quant_enable"] = "weight_quant_params" in block
            if block["quant_enable"]:
                block["activation_quant_params"] = {"act_algo": "none"}
                block["weight_quant_params"] = {"wts_algo": "arq_quantize", **weights}
    config_file.write_text(json.dumps(config))
    graph = amct.init(config_file, network.model_file, None, folder / "record.txt")
    start = time.perf_counter()
    amct.calibrate(graph, batches)
    seconds = time.perf_counter() - start
    return amct.save_model(graph, "Fakequant", folder / "net").files["fake_quant_model"], seconds


if __name__ == "__main__":
    typer.run(main)
