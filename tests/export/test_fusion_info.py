"""`quant.json` names, for each deploy operator, the operators of the user's model that it stands for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import amct_lite as amct
from tests.ascend_reference.caffe_networks import residual_pair

NETWORK = """g (float[N,4,8,8] x) => (float[N,4,4,4] y) {
    [conv] a = Conv<pads = [1,1,1,1]>(x, w) [bn] b = BatchNormalization(a, one, zero, zero, one) [relu] r = Relu(b)
    [pool] p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(r)
    [norm] q = BatchNormalization(p, one, zero, zero, one) [point] y = Conv(q, v) }"""


def read(path: Path) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in json.loads(path.read_text())["graph"][0]["op"]}


def origins(entry: dict[str, Any]) -> list[str]:
    (attribute,) = entry["attr"]
    return attribute["value"]["list"]["s"]


def origin_name(entry: dict[str, Any]) -> str | None:
    found = {a["key"]: a["value"] for output in entry.get("output_desc", ()) for a in output["attr"]}
    return found["_datadump_origin_name"]["s"] if found else None


def test_onnx_operators_name_what_was_folded_into_them(write_network: Callable, quantize: Callable) -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, 4, 3, 3)).astype(np.float32), "v": rng.normal(size=(4, 4, 1, 1))}
    weights |= {"one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32), "v": np.float32(weights["v"])}
    x = rng.normal(size=(2, 4, 8, 8)).astype(np.float32)
    tensors = {"tensor_quantize": [{"layer_name": "pool"}]}
    flow = quantize(write_network(NETWORK, weights), [x], target="ascend", edit=lambda d: d.update(tensors))
    found = read(flow.saved.files["quant_json"])
    assert {name: origins(entry) for name, entry in found.items()} == {
        "conv.quant": [],
        "conv": ["conv", "bn"],
        "conv.dequant": ["conv", "bn"],
        "relu": ["relu"],
        "pool.quant": [],
        "pool": ["pool"],
        "pool.anti_quant": ["pool"],
        "point.quant": [],
        "point": ["norm", "point"],
        "point.dequant": ["norm", "point"],
    }
    # What an operator makes is what the last of them made.
    assert origin_name(found["conv.dequant"]) == "bn" and origin_name(found["point"]) == "point"
    assert origin_name(found["conv.quant"]) is None


def test_caffe_layers_name_what_was_folded_into_them(tmp_path: Path) -> None:
    pair, config = residual_pair(tmp_path), tmp_path / "config.json"
    amct.create_quant_config(config, *pair)
    tensors = [{"layer_name": "pool1"}, {"layer_name": "sum"}]
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tensor_quantize": tensors}))
    graph = amct.init(config, *pair, tmp_path / "record.txt")
    amct.calibrate(graph, [np.random.default_rng(0).normal(size=(2, 3, 12, 12)).astype(np.float32)])
    found = read(amct.save_model(graph, "Deploy", tmp_path / "net").files["quant_json"])
    assert "data" not in found
    for name in ("conv1", "conv1_dequant_layer"):
        assert origins(found[name]) == ["conv1", "bn1", "scale1"] and origin_name(found[name]) == "scale1"
    assert found["conv1_dequant_layer"]["type"] == "DeQuant"
    for name in ("conv1_0_quant_layer", "pool1_0_quant_layer", "sum_0_quant_layer", "sum_0_anti_quant_layer"):
        assert origins(found[name]) == [] and "output_desc" not in found[name]
    assert origins(found["pool1_anti_quant_layer"]) == ["pool1"] and origins(found["relu1"]) == ["relu1"]
