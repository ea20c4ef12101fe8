"""Whether a deploy model and a fake-quant model are one quantization: layer by layer, each on the same input.

So no difference hides behind the network's own. Where a value falls on a rounding bound, x / scale and x * (1 / scale)
can take different levels; all else are float32 sums, and the bias behind a MatMul, which only the deploy model rounds
to the accumulator's unit.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from amct_lite.caffe.network import CaffeNetwork
from amct_lite.caffe.reading import read_network
from amct_lite.graph.runtime import create_session
from amct_lite.quantize.quantized_layer import QuantizedLayer
from tests.ascend_reference.caffe_deploy import run_deploy_pair, run_layers
from tests.ascend_reference.onnx_deploy import run_every_value

Arrays = dict[str, np.ndarray]


def assert_onnx_layers_agree(
    fake_file: Path, deploy_file: Path, layers: Mapping[str, QuantizedLayer], feeds: Mapping[str, np.ndarray]
) -> Arrays:
    """Hold each quantized layer of two ONNX forms together.

    Returns:
        Every value of the deploy model.
    """
    fake, deploy = ir.load(fake_file), ir.load(deploy_file)
    values = run_every_value(deploy, feeds)
    nodes = {node.name: node for node in deploy.graph}
    for layer in layers.values():
        output = layer.layer.output
        if values[output].dtype != np.float32:  # MatMul's dequantization stands behind the Add of its bias
            output = str(nodes[f"{layer.layer.name}.dequant"].outputs[0].name)
        expected = run_part(fake, output, values)
        step = output_step(layers.values(), output, expected)
        unit = float(layer.bias_scale().max()) if layer.layer.op_type == "MatMul" else 0.0
        assert_within_a_step(values[output], expected, step, layer.layer.name, unit)
    return values


def run_part(model: ir.Model, output: str, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """One value of a model, from the nearest values before it that are known; what is computed anew is not."""
    produced = {value.name: node for node in model.graph for value in node.outputs}
    inputs, reached, waiting = {}, set(), [output]
    while waiting:
        name = waiting.pop()
        if name in reached or name in model.graph.initializers:
            continue
        reached.add(name)
        known = name in values and values[name].dtype == np.float32 and name != output
        if known or name not in produced:
            inputs[name] = values[name]
        else:
            waiting += [value.name for value in produced[name].inputs if value is not None]
    part = ir.convenience.extract(model.graph, list(inputs), [output])
    for value in part.inputs:
        value.shape = ir.Shape(inputs[value.name].shape)
    session = create_session(ir.Model(part, ir_version=model.ir_version), optimize=False)
    return session.run([output], inputs)[0]


def output_step(layers: Any, output: str, values: np.ndarray) -> float:
    """The step of the grid that the output is quantized on, else the one that would hold its values."""
    steps = [q.grid.scale for q in layers if q.grid is not None and q.layer.activation == output]
    return min(steps, default=max(float(np.abs(values).max()), 1e-6) / 127)


def assert_within_a_step(ours: np.ndarray, expected: np.ndarray, step: float, name: str, unit: float = 0.0) -> None:
    difference = np.abs(ours.astype(np.float64) - expected)
    assert ours.shape == expected.shape, name
    assert difference.max(initial=0) <= step, f"{name}: {difference.max() / step} steps"
    assert np.median(difference) < 2e-3 * step + unit / 2, f"{name}: the median is {np.median(difference) / step} steps"


def assert_caffe_layers_agree(
    fake: tuple[Path, Path],
    deploy: tuple[Path, Path],
    layers: Mapping[str, QuantizedLayer],
    feeds: Mapping[str, np.ndarray],
) -> Arrays:
    """Hold each quantized layer of two Caffe pairs together.

    Returns:
        Every value of the deploy pair.
    """
    values = run_deploy_pair(*deploy, feeds)
    network, deployed = read_network(*fake), read_network(*deploy)
    for layer in layers.values():
        name = layer.layer.node_name
        expected = _run_fake_layer(network, name, deployed, values)
        ours = values[_float_top(deployed, name)]
        assert_within_a_step(ours, expected, max(float(np.abs(expected).max()), 1e-6) / 127, name)
    return values


def _float_top(network: CaffeNetwork, name: str) -> str:
    """The value that a quantized layer's dequantization makes of its top."""
    layers = {layer.name: layer for layer in network.layers}
    for ending in ("bias_layer", "dequant_layer", "anti_quant_layer"):
        if f"{name}_{ending}" in layers:
            return layers[f"{name}_{ending}"].tops[0]
    return layers[name].tops[0]


def _run_fake_layer(network: CaffeNetwork, name: str, deployed: CaffeNetwork, values: Arrays) -> np.ndarray:
    """A layer of the fake-quant pair with its quantizers and its shift, on the deploy pair's inputs."""
    layers = {layer.name: layer for layer in network.layers}
    layer, twin = layers[name], {layer.name: layer for layer in deployed.layers}
    by_top = {top: producer for producer in network.layers for top in producer.tops}
    part, inputs = [layer], {}
    for place, bottom in enumerate(layer.bottoms):
        producer = by_top.get(bottom)
        if producer is not None and producer.type == "Python" and "FakeQuant" in producer.params.python_param.layer:
            part.insert(0, producer)
            inputs[producer.bottoms[0]] = values[twin[producer.name].bottoms[0]]
        else:
            inputs[bottom] = values[twin[name].bottoms[place]]
    behind = network.layers[network.layers.index(layer) + 1 :]
    part += [other for other in behind if other.name in (f"{name}_shift_layer", f"{name}_bias_layer")]
    return run_layers(network, tuple(part), inputs)[part[-1].tops[0]]
