"""Every operator set that ONNX Runtime takes, from 7 to the newest, through the whole pipeline."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

NET = """g (float[N,3,16,16] x) => (float[N,10] y) {
    a = Conv<pads = [1,1,1,1]>(x, w, b) c = BatchNormalization(a, scale, shift, mean, var) d = Relu(c)
    e = MaxPool<kernel_shape = [2,2], strides = [2,2]>(d) g = Conv<pads = [1,1,1,1], group = 16>(e, k)
    i = Add(e, g) j = AveragePool<kernel_shape = [8,8]>(i) f = Flatten(j) h = Gemm<transB = 1>(f, v, u)
    y = Softmax<axis = 1>(h) }"""


def newest_opset() -> int:
    """The newest operator set that the installed onnx can name and whose QuantizeLinear onnxruntime has."""
    graph = "g (float[1] x, float s) => (uint8[1] y) { y = QuantizeLinear(x, s) }"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for version in range(onnx.defs.onnx_opset_version(), 12, -1):
        model = ir.to_proto(
            ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": {version}]> {graph}')
        ).SerializeToString()
        try:
            onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception:  # a status code each has its class
            continue
        return version
    raise AssertionError("onnxruntime runs no operator set of the installed onnx")


@pytest.mark.parametrize("opset", range(7, newest_opset() + 1))
def test_every_opset_goes_through_the_pipeline(opset: int, near_float: Callable, write_network: Callable) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(16, 3, 3, 3)) * 0.3,
        "b": rng.normal(size=16) * 0.1,
        "scale": rng.uniform(0.5, 2, size=16),
        "shift": rng.normal(size=16),
        "mean": rng.normal(size=16) * 0.1,
        "var": rng.uniform(0.5, 2, size=16),
        "k": rng.normal(size=(16, 1, 3, 3)) * 0.3,
        "v": rng.normal(size=(10, 16)),
        "u": rng.normal(size=10) * 0.1,
    }
    path = write_network(NET, {name: values.astype(np.float32) for name, values in weights.items()}, opset=opset)
    feeds = [{"x": rng.normal(size=(8, 3, 16, 16)).astype(np.float32)} for _ in range(2)]
    outcome = near_float(path, feeds, least=0.995)
    assert not outcome.reasons
    assert outcome.model("deploy_model").opset_imports[""] == max(opset, 13)
