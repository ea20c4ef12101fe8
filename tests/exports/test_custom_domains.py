"""Operators of domains that ONNX Runtime does not know are left alone, and run where their library is given."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

import amct_lite as amct
from amct_lite.graph import save_ir

NET = """<ir_version: 8, opset_import: ["": 13, "{domain}": 1]> g (float[N,8] x) => (float[N,4] y) {{
    a = Gemm<transB = 1>(x, w) {operator} c = Gemm<transB = 1>(b, v) y = Relu(c) }}"""


def write(path, domain, operator):
    rng = np.random.default_rng(0)
    model = ir.from_onnx_text(NET.format(domain=domain, operator=operator))
    free = {value.name: value for node in model.graph for value in node.inputs}
    for name, shape in {"w": (64, 8), "v": (4, 64)}.items():
        value, array = free[name], (rng.normal(size=shape) / np.sqrt(shape[1])).astype(np.float32)
        value.const_value, value.shape = ir.Tensor(array, name=name), ir.Shape(shape)
        model.graph.register_initializer(value)
    save_ir(model, path)
    return path


def test_an_unknown_operator_is_loaded_planned_and_saved_as_it_is(tmp_path) -> None:
    path = write(tmp_path / "net.onnx", "acme", '[twist] b = acme.Twist<strength = 2.5, mode = "left">(a)')
    amct.create_quant_config(tmp_path / "config.json", path, target="onnxruntime")
    graph = amct.init(tmp_path / "config.json", path)
    assert [plan.reason for plan in graph.plans] == [None, None]
    saved = amct.compress(path, bits=4).save(tmp_path / "out", save_type="Both")
    for form in ("fake_quant_model", "deploy_model"):
        model = ir.load(saved.files[form])
        (twist,) = (node for node in model.graph if node.op_type == "Twist")
        assert (twist.domain, twist.name, model.opset_imports["acme"]) == ("acme", "twist", 1)
        assert twist.attributes.get_float("strength") == 2.5
        assert twist.attributes.get_string("mode") == "left"


def test_calibrating_an_unknown_operator_without_its_library_says_what_to_do(tmp_path) -> None:
    path = write(tmp_path / "net.onnx", "acme", "b = acme.Twist(a)")
    amct.create_quant_config(tmp_path / "config.json", path, target="onnxruntime")
    graph = amct.init(tmp_path / "config.json", path, scale_offset_record_file=tmp_path / "record.txt")
    with pytest.raises(amct.AmctError, match="custom operators in the session options"):
        amct.calibrate(graph, [np.zeros((1, 8), np.float32)])


@pytest.mark.parametrize("target", ["onnxruntime", "ascend"])
def test_a_custom_operator_runs_with_its_library_in_the_session_options(
    near_float: Callable, tmp_path, target: str
) -> None:
    extensions = pytest.importorskip("onnxruntime_extensions")
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(extensions.get_library_path())
    path = write(tmp_path / "net.onnx", "ai.onnx.contrib", "n, b = ai.onnx.contrib.NegPos(a)")
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.normal(size=(16, 8)).astype(np.float32)} for _ in range(2)]
    outcome = near_float(path, feeds, target=target, least=0.98, sess_options=options)
    assert not outcome.reasons
    assert [n.op_type for n in outcome.model("fake_quant_model").graph if n.domain] == ["NegPos"]
