"""Which part of int8 quantization costs how much: KL(float || W8A8) with one kind of tensor quantized, or all but one.

The factors are those of a config with AMCT's ranges and rounding (`plain_config`), found once; each row writes the
fake-quant form with some of them left out. *alone*: only this is quantized; *without*: all but this. Calibrates on the
first 128 photos of imagenet500 at odd positions, and evaluates on the other 372. Command, from the checkout's root,
about 3 minutes on 2 cores; a network's name gives its table alone:

    python -m benchmarks.int8_parts [squeezenet | efficientnet]
"""

import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from amct_lite.api import calibrate, init
from amct_lite.export.fake_quant import fake_quant_model
from amct_lite.files.record import read_record
from amct_lite.graph.saving import save_ir
from amct_lite.quantize.apply_record import quantized_layers
from amct_lite.quantize.quantized_layer import QuantizedLayer
from benchmarks.imagenet import (
    EFFICIENTNET_LITE0,
    SQUEEZENET,
    Network,
    calibration_batches,
    compare,
    photos_of,
    run_model,
)
from benchmarks.plain_config import write_plain_config
from benchmarks.table import print_table

CALIBRATION = range(1, 256, 2)
EVALUATION = [index for index in range(500) if index not in CALIBRATION]
NETWORKS = {"squeezenet": SQUEEZENET, "efficientnet": EFFICIENTNET_LITE0}

Operand = str
"""What of a layer is quantized: "input", "weight" or "bias"."""

Part = Callable[[QuantizedLayer, Operand], bool]
"""Whether an operand of a layer belongs to the part."""


def _is_between(layer: QuantizedLayer) -> bool:
    return layer.layer.weight is None


def _is_depthwise(layer: QuantizedLayer) -> bool:
    return layer.layer.group > 1


def _operand(name: Operand, *, of: Callable[[QuantizedLayer], bool] = lambda _layer: True) -> Part:
    return lambda layer, operand: operand == name and not _is_between(layer) and of(layer)


def _between(*op_types: str) -> Part:
    return lambda layer, operand: operand == "input" and _is_between(layer) and layer.layer.op_type in op_types


PARTS: Mapping[str, Part] = {
    "layers' inputs": _operand("input"),
    "weights": _operand("weight"),
    "biases": _operand("bias"),
    "between layers": lambda layer, operand: operand == "input" and _is_between(layer),
    "inputs, depthwise": _operand("input", of=_is_depthwise),
    "inputs, others": _operand("input", of=lambda layer: not _is_depthwise(layer)),
    "weights, depthwise": _operand("weight", of=_is_depthwise),
    "weights, others": _operand("weight", of=lambda layer: not _is_depthwise(layer)),
    "between: Add": _between("Add"),
    "between: pools": _between("GlobalAveragePool", "AveragePool", "MaxPool"),
    "between: others": lambda layer, operand: (
        operand == "input"
        and _is_between(layer)
        and layer.layer.op_type not in ("Add", "GlobalAveragePool", "AveragePool", "MaxPool")
    ),
}


def main(names: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Print a table for each network."""
    for network in (NETWORKS[name] for name in names or NETWORKS):
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(network, Path(folder))
        print_table([network.name, "tensors", "KL, alone", "KL, without"], rows)


def measure(network: Network, folder: Path) -> list[list[str]]:
    """A row for everything, and for each part alone and left out."""
    photos, held_out = photos_of(network, "imagenet500", CALIBRATION), photos_of(network, "imagenet500", EVALUATION)
    float_scores = run_model(network.model_file, held_out)
    batches = calibration_batches(photos)
    write_plain_config(folder / "config.json", network.model_file, batch_num=len(batches))
    graph = init(folder / "config.json", network.model_file, None, folder / "record.txt")
    calibrate(graph, batches)
    layers = quantized_layers(graph.model, read_record(folder / "record.txt"))

    def divergence(part: Part) -> str:
        save_ir(fake_quant_model(graph.model, [restrict(layer, part) for layer in layers]), folder / "part.onnx")
        return f"{compare(float_scores, run_model(folder / 'part.onnx', held_out), held_out.accepted).divergence:.5f}"

    rows = [["everything", "", "", divergence(lambda _layer, _operand: True)]]
    for name, part in PARTS.items():
        count = sum(part(layer, operand) for layer in layers for operand in quantized_operands(layer))
        if count:
            rows.append([name, str(count), divergence(part), divergence(lambda *which: not part(*which))])  # noqa: B023
            print(*rows[-1], file=sys.stderr)
    return rows


def quantized_operands(layer: QuantizedLayer) -> list[Operand]:
    """What of a layer is quantized."""
    found = {"input": layer.grid is not None, "weight": layer.has_weight, "bias": layer.has_bias}
    return [operand for operand, is_quantized in found.items() if is_quantized]


def restrict(layer: QuantizedLayer, part: Part) -> QuantizedLayer:
    """The layer with those of its operands quantized that belong to a part."""
    kept = {operand for operand in quantized_operands(layer) if part(layer, operand)}
    return replace(
        layer,
        grid=layer.grid if "input" in kept else None,
        weight=layer.weight if "weight" in kept else None,
        bias=None,
        float_bias=layer.decode_bias() if "bias" in kept else None,
    )


if __name__ == "__main__":
    typer.run(main)
