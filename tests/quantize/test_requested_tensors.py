"""`tensor_quantize`: which inputs can be named, what is refused and why, and that they are calibrated."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import amct_lite as amct
from amct_lite.errors import ConfigError, RecordError
from amct_lite.files.record import read_record, write_record

NETWORK = """g (float[N,4,8,8] x, float[4,1,1] c) => (float[N,4,4,4] y) {
    [conv] a = Conv<pads = [1,1,1,1]>(x, w) [relu] r = Relu(a) [plus] q = Add(r, c) [add] s = Add(q, a)
    [pool] p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(s) [shift] h = Add(p, b) [out] y = Conv(h, v) }"""


@pytest.fixture
def start(write_network: Callable, tmp_path) -> Callable:
    def init(entries: list[dict[str, Any]], target: str = "ascend", text: str = NETWORK, **keys):
        rng = np.random.default_rng(0)
        shapes = {"w": (4, 4, 3, 3), "v": (4, 4, 1, 1), "b": (4, 1, 1)}
        path = write_network(text, {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()})
        amct.create_quant_config(tmp_path / "config.json", path, target=target)
        document = json.loads((tmp_path / "config.json").read_text()) | {"tensor_quantize": entries} | keys
        (tmp_path / "config.json").write_text(json.dumps(document))
        return amct.init(tmp_path / "config.json", path, scale_offset_record_file=tmp_path / "record.txt")

    return init


def test_named_inputs_are_calibrated_under_amcts_key(start, tmp_path) -> None:
    graph = start([{"layer_name": "pool"}, {"layer_name": "add", "input_index": 1}])
    assert [plan.layer.name for plan in graph.tensor_plans] == ["add:1", "pool:0"]
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 4, 8, 8)).astype(np.float32)
    amct.calibrate(graph, [{"x": x, "c": np.ones((4, 1, 1), np.float32)}])
    records = read_record(tmp_path / "record.txt")
    assert list(records) == ["conv", "out", "add:1", "pool:0"]
    # AscendAntiQuant only multiplies, so these grids are symmetric, whatever activation_offset says.
    assert records["pool:0"].offset_d == 0 and records["pool:0"].scale_d > 0
    del records["pool:0"]
    write_record(records, tmp_path / "record.txt")
    with pytest.raises(RecordError, match=r"'pool:0'.*lacks this layer"):
        amct.save_model(graph, "Both", tmp_path / "out" / "net")


def test_what_is_asked_for_counts_where_the_target_would_choose_too(start) -> None:
    entry = {"layer_name": "add", "input_index": 1, "activation_quant_params": {"act_algo": "minmax"}}
    graph = start([entry], target="onnxruntime")
    found = {plan.layer.name: plan.config.activation_quant_params.act_algo for plan in graph.tensor_plans}
    assert (found["add:0"], found["add:1"]) == ("mse", "minmax")
    assert list(found) == ["relu:0", "plus:0", "plus:1", "add:0", "add:1", "pool:0"]
    assert next(plan for plan in graph.tensor_plans if plan.layer.name == "add:1").with_offset


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"layer_name": "pol"}], r"Layer pol does not exist in the graph\. Did you mean 'pool'\?"),
        ([{"layer_name": "relu"}], r"layer relu does not support quant\..* of MaxPool and Add; this is Relu"),
        ([{"layer_name": "conv"}], r"layer conv does not support quant\..*this is Conv"),
        ([{"layer_name": "pool", "input_index": 1}], r"input_index must be below 1, but is 1"),
        ([{"layer_name": "shift", "input_index": 1}], r"Its input 1 is a constant"),
        ([{"layer_name": "add"}, {"layer_name": "add", "input_index": 1}], r"Of an Add a single input"),
        ([{"layer_name": "pool", "activation_quant_params": {"num_bits": 16}}], r"num_bits must be 8 under the target"),
    ],
)
def test_what_cannot_be_quantized_is_refused_with_the_reason(start, entries, message) -> None:
    with pytest.raises(ConfigError, match=message):
        start(entries)


def test_tensors_of_float16_are_refused(start) -> None:
    text = """g (float[N,4,8,8] x, float[4,1,1] c) => (y) {
        [conv] a = Conv<pads = [1,1,1,1]>(x, w) [half] h = Cast<to = 10>(a) [pool] p = MaxPool<kernel_shape = [2,2]>(h)
        [back] q = Cast<to = 1>(p) [shift] s = Add(q, b) [out] y = Conv(s, v) }"""
    with pytest.raises(ConfigError, match=r"layer pool does not support quant\..*FLOAT16, not FLOAT"):
        start([{"layer_name": "pool"}], text=text)
