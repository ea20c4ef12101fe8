"""What cross-layer equalization and balancing bring where channels differ: KL(float || int8) of whole networks.

Inputs int8 with an offset, weights int8 with one scale a tensor, where spread between channels hurts most, and with
one a channel for comparison; the fake-quant form is measured. Calibrates on 64 photos of imagenet500 at odd positions,
evaluates on 122 others, against the float network of the row. "spread" is the same network made worse: every channel
between two layers that can be equalized is scaled by exp(N(0, 1.5)), which keeps the float function. "Relu" has Relu in
place of Relu6, as Nagel et al. 2019, section 5.1, do before they equalize. Command, from the checkout's root, about 10
minutes:

    python -m benchmarks.channel_spread
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import typer

from amct_lite.api import calibrate, init, save_model
from amct_lite.files.config_file import read_config, write_config
from amct_lite.graph.constants import replace_array
from amct_lite.graph.model import load_model
from amct_lite.graph.saving import save_ir
from amct_lite.quantize.equalization import find_pairs
from amct_lite.quantize.weight_rows import from_channels, to_channels
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

CALIBRATION = range(1, 128, 2)
EVALUATION = range(130, 496, 3)
WAYS = ("per channel", "per tensor", "per tensor, equalized", "per tensor, balanced", "per tensor, both")


def main() -> None:
    """Print a table for each network."""
    with tempfile.TemporaryDirectory() as folder:
        for network in (EFFICIENTNET_LITE0, SQUEEZENET):
            rows = []
            variants = [network, spread(network, Path(folder))]
            if network is EFFICIENTNET_LITE0:
                variants.append(without_relu6(network, Path(folder)))
            for one in variants:
                rows += measure(one, Path(folder))
            print_table(["network, pairs", "weights", "KL", "top-1 %", "drop"], rows)


def without_relu6(network: Network, folder: Path) -> Network:
    """Relu in place of every Relu6: another network, of nearly the same function."""
    graph = load_model(network.model_file).clone()
    for node in list(graph.graph):
        if node.op_type == "Clip":
            relu = ir.node("Relu", [node.inputs[0]], name=node.name)
            relu.outputs[0].name = node.outputs[0].name
            ir.convenience.replace_nodes_and_values(graph.graph, node, [node], [relu], node.outputs, relu.outputs)
    file = folder / "relu.onnx"
    save_ir(graph, file)
    return replace(network, name=f"{network.name}, Relu", model_file=file)


def spread(network: Network, folder: Path) -> Network:
    """The same function with channels scaled at random, where equalization could scale them back."""
    random = np.random.default_rng(0)
    model = load_model(network.model_file)
    graph = model.clone()
    for pair in find_pairs(model):
        for layer, is_first in ((pair.first, True), (pair.second, False)):
            assert layer.weight is not None
            value = graph.graph.initializers[layer.weight]
            assert value.const_value is not None
            channels = to_channels(value.const_value.numpy(), layer).astype(np.float64)
            if is_first:
                scales = np.exp(random.normal(0.0, 1.5, channels.shape[0] * channels.shape[1]))
                channels = channels * scales.reshape(*channels.shape[:2], 1, 1)
                bias = graph.graph.initializers.get(layer.bias or "")
                if bias is not None and bias.const_value is not None:
                    replace_array(bias, (bias.const_value.numpy() * scales).astype(np.float32))
            else:
                taps = channels.shape[0] * channels.shape[2] // scales.size
                channels = channels / np.repeat(scales, taps).reshape(channels.shape[0], 1, -1, 1)
            replace_array(value, from_channels(channels, layer).astype(np.float32))
    file = folder / "spread.onnx"
    save_ir(graph, file)
    return replace(network, name=f"{network.name}, spread", model_file=file)


def measure(network: Network, folder: Path) -> list[list[str]]:
    """Quantize in each way and compare with the float network."""
    held_out = photos_of(network, "imagenet500", EVALUATION)
    batches = calibration_batches(photos_of(network, "imagenet500", CALIBRATION))
    float_scores = run_model(network.model_file, held_out)
    config_file = folder / "config.json"
    write_plain_config(config_file, network.model_file, batch_num=len(batches))
    plain = read_config(config_file)
    title = f"{network.name}, {len(find_pairs(load_model(network.model_file)))}"
    rows = []
    for way in WAYS:
        document = plain.to_document()
        document["cross_layer_equalization"] = way.endswith(("equalized", "both"))
        for name in plain.layers:
            weights = document[name].get("weight_quant_params")
            if weights is not None and way != "per channel":
                weights["channel_wise"] = False
            if weights is not None and way.endswith(("balanced", "both")):
                document[name]["dmq_balancer_param"] = 0.5
        write_config(type(plain).model_validate(document), config_file)
        graph = init(config_file, network.model_file, None, folder / "record.txt")
        calibrate(graph, batches)
        saved = save_model(graph, "Fakequant", folder / "net")
        found = compare(float_scores, run_model(saved.files["fake_quant_model"], held_out), held_out.accepted)
        rows.append([title, way, f"{found.divergence:.4f}", f"{found.top1:.1f}", f"{found.drop:+.1f}"])
    return rows


if __name__ == "__main__":
    typer.run(main)
