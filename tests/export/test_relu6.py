"""Relu6 becomes Relu in deploy models exactly where the quantizer behind it cannot hold 6."""

import json
from collections.abc import Callable

import numpy as np
import pytest

import amct_lite as amct
from amct_lite.files.protos import message_class
from tests.ascend_reference.agreement import assert_onnx_layers_agree
from tests.ascend_reference.caffe_networks import residual_pair

SERIES = """g (float[N,3,6,6] x) => (float[N,4,2,2] y) {
    low = Constant<value = float {0}>() high = Constant<value = float {HIGH}>()
    [one] a = Conv(x, w) [clip] r = Clip(a, low, high) [two] y = Conv(r, v) }"""


def network(write_network: Callable, weight: float, high: str = "6", text: str = SERIES):
    rng = np.random.default_rng(0)
    weights = {
        name: rng.normal(0, weight, s).astype(np.float32) for name, s in (("w", (4, 3, 3, 3)), ("v", (4, 4, 3, 3)))
    }
    return write_network(text.replace("HIGH", high), weights)


@pytest.fixture
def deploy(quantize) -> Callable:
    def run(path, **options):
        feeds = {"x": np.random.default_rng(1).normal(size=(2, 3, 6, 6)).astype(np.float32)}
        flow = quantize(path, [feeds], target="ascend", **options)
        files = flow.saved.files
        values = assert_onnx_layers_agree(files["fake_quant_model"], files["deploy_model"], flow.layers, feeds)
        return flow.layers["two"].grid, flow.model("deploy_model").graph.node("clip"), values

    return run


def minmax(document: dict) -> None:
    for block in document.values():
        if isinstance(block, dict):
            block["activation_quant_params"] = {"act_algo": "minmax"}


def test_a_grid_that_ends_below_6_makes_it_relu(write_network, deploy) -> None:
    grid, node, values = deploy(network(write_network, 0.3), edit=minmax)
    assert (127 - grid.offset) * grid.scale < 6
    assert node.op_type == "Relu" and len(node.inputs) == 1
    assert values["r"].max() < 6


def test_a_grid_that_reaches_6_keeps_it(write_network, deploy) -> None:
    grid, node, values = deploy(network(write_network, 3.0), edit=minmax)
    assert (127 - grid.offset) * grid.scale >= 6
    assert node.op_type == "Clip" and values["r"].max() == 6


def test_levels_are_the_same_where_values_beyond_6_are_cut_by_the_quantizer(write_network, deploy) -> None:
    """A symmetric or searched range can end below 6 although values go beyond it."""
    params = {"max_percentile": 0.6, "search_range": [0.3, 0.4]}

    def narrow(document: dict) -> None:
        document["two"]["activation_quant_params"] = params

    grid, node, values = deploy(network(write_network, 3.0), edit=narrow)
    assert (127 - grid.offset) * grid.scale < 6 < values["r"].max()
    assert node.op_type == "Relu"
    quant = 1 / np.float32(grid.scale)
    cut = np.rint(np.minimum(values["r"], 6) * quant) + grid.offset
    np.testing.assert_array_equal(
        np.clip(cut, -128, 127), np.clip(np.rint(values["r"] * quant) + grid.offset, -128, 127)
    )


@pytest.mark.parametrize(
    ("text", "high"),
    [
        (SERIES, "4"),
        (SERIES.replace("y) {", "y, r) {"), "6"),
        (SERIES.replace("[two] y", "[other] z = Sigmoid(r) [two] y").replace("y) {", "y, z) {"), "6"),
        (SERIES.replace("[one] a = Conv(x, w)", "[one] b = Conv(x, w) [half] a = Neg(b)"), "6"),
    ],
    ids=["another bound", "an output", "a float reader", "no dequant before"],
)
def test_anything_else_stays(text: str, high: str, write_network, deploy) -> None:
    _, node, _ = deploy(network(write_network, 0.3, high, text), edit=minmax)
    assert node.op_type == "Clip"


@pytest.mark.parametrize(("scale", "expected"), [(1.0, "ReLU"), (40.0, "ReLU6")])
def test_caffes_relu6(scale: float, expected: str, tmp_path) -> None:
    pair = residual_pair(tmp_path)
    config = tmp_path / "config.json"
    amct.create_quant_config(config, *pair)
    document = json.loads(config.read_text())
    minmax(document)
    config.write_text(json.dumps(document))
    graph = amct.init(config, *pair, tmp_path / "record.txt")
    data = np.random.default_rng(1).normal(0, scale, (2, 3, 12, 12)).astype(np.float32)
    amct.calibrate(graph, [{"data": data}])
    saved = amct.save_model(graph, "Both", tmp_path / "out" / "net")
    weights = message_class("caffe", "caffe.NetParameter").FromString(saved.files["deploy_weights"].read_bytes())
    found = {layer.name: layer for layer in weights.layer}
    quant = found["conv2_0_quant_layer"].quant_param
    ends = (127 - np.frombuffer(quant.offset, np.int8)[0].astype(int)) / quant.scale
    assert (ends < 6) == (expected == "ReLU")
    assert found["relu1"].type == expected and found["relu1"].HasField("relu6_param") is False
