"""joint_quant: tensors that are added up get one grid that holds all of them, and no others do."""

import json
from collections.abc import Callable

import numpy as np
import pytest

import amct_lite as amct
from amct_lite.errors import ConfigError
from amct_lite.files.record import LayerRecord, read_record
from amct_lite.search.calibration import refuse_refinement
from tests.ascend_reference.agreement import assert_onnx_layers_agree
from tests.ascend_reference.caffe_networks import residual_pair

# The tensors a and b are added up and read by layers, too; c by one layer alone.
RESIDUAL = """g (float[N,4,8,8] x) => (float[N,4,8,8] y, z, u) {
    [one] a = Conv<pads = [1,1,1,1]>(x, w) [big] t = Mul(x, ten) [two] b = Conv<pads = [1,1,1,1]>(t, w2)
    [add] s = Add(a, b) [after] y = Conv(s, v) [left] z = Conv(a, v2) [right] u = Conv(b, v3) }"""
SHAPES = {
    "w": (4, 4, 3, 3),
    "w2": (4, 4, 3, 3),
    "v": (4, 4, 1, 1),
    "v2": (4, 4, 1, 1),
    "v3": (4, 4, 1, 1),
    "ten": (),
    "k": (4, 1, 1),
}


def ends(record: LayerRecord) -> tuple[float, float]:
    return (-128 - record.offset_d) * record.scale_d, (127 - record.offset_d) * record.scale_d


@pytest.fixture
def flows(write_network: Callable, quantize: Callable) -> Callable:
    def run(text: str = RESIDUAL, target: str = "ascend", **keys):
        rng = np.random.default_rng(0)
        weights = {name: rng.normal(size=s).astype(np.float32) for name, s in SHAPES.items() if f" {name})" in text}
        if "ten" in weights:
            weights["ten"] = np.float32(10)
        path = write_network(text, weights)
        feeds = {"x": rng.normal(size=(2, 4, 8, 8)).astype(np.float32)}
        found = []
        for joint in (False, True):
            flow = quantize(path, [feeds], target=target, edit=lambda d, j=joint: d.update(keys, joint_quant=j))
            found.append(flow)
        return *found, feeds

    return run


def test_readers_of_summands_share_a_grid_that_holds_both(flows) -> None:
    apart, joint, feeds = flows()
    before, after = apart.graph.read_records(), joint.graph.read_records()
    assert ends(after["left"]) == ends(after["right"])
    low, high = ends(after["left"])
    step = after["left"].scale_d
    for name in ("left", "right"):
        own_low, own_high = ends(before[name])
        assert low - own_low < step / 2 + 1e-6 and own_high - high < step / 2 + 1e-6
    # What is not added up keeps its grid.
    assert before["after"] == after["after"] and before["two"] == after["two"]
    assert before["left"].scale_d < 0.5 * after["left"].scale_d
    files = joint.saved.files
    assert_onnx_layers_agree(files["fake_quant_model"], files["deploy_model"], joint.layers, feeds)


def test_a_bias_and_a_single_quantized_summand_join_nothing(flows) -> None:
    text = """g (float[N,4,8,8] x) => (y, z) { [one] a = Conv<pads = [1,1,1,1]>(x, w) [bias] q = Add(a, k)
        [neg] n = Neg(a) [left] z = Conv(q, v2) [sum] s = Add(q, n) [right] y = Conv(s, v3) }"""
    apart, joint, _ = flows(text)
    assert apart.graph.read_records() == joint.graph.read_records()


def test_tensor_quantize_joins_too_without_an_offset_where_one_may_have_none(flows) -> None:
    entry = {"layer_name": "add", "input_index": 0}
    _, joint, _ = flows(tensor_quantize=[entry])
    records = joint.graph.read_records()
    shared = {(records[name].scale_d, records[name].offset_d) for name in ("left", "right", "add:0")}
    assert len(shared) == 1 and shared.pop()[1] == 0


def test_caffes_eltwise_joins_its_bottoms(tmp_path) -> None:
    pair, config = residual_pair(tmp_path), tmp_path / "config.json"
    amct.create_quant_config(config, *pair)
    tensors = [{"layer_name": "sum", "input_index": index} for index in (0, 1)]
    config.write_text(json.dumps(json.loads(config.read_text()) | {"joint_quant": True, "tensor_quantize": tensors}))
    graph = amct.init(config, *pair, tmp_path / "record.txt")
    amct.calibrate(graph, [np.random.default_rng(0).normal(size=(2, 3, 12, 12)).astype(np.float32)])
    records = read_record(tmp_path / "record.txt")
    assert records["sum:0"] == records["sum:1"]
    with pytest.raises(ConfigError, match="joint_quant makes layers share them"):
        refuse_refinement(graph)


def test_onnx_runtime_gets_joint_grids_between_layers(flows) -> None:
    _, joint, _ = flows(target="onnxruntime")
    records = joint.graph.read_records()
    assert ends(records["add:0"]) == ends(records["add:1"]) == ends(records["left"])
