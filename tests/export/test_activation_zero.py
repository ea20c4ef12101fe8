"""Zeros behind a Relu stay exact zeros in both forms, however few levels activation NUQ keeps."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

NETWORK = """net (float[N, 4, 9, 9] x) => (y) {
    [first] a = Conv (x, v)
    [relu] r = Relu (a)
    [second] y = Conv (r, w)
}"""


def with_levels(ratio: float, reserve_zero: bool | None) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        nuq = {"target_compression_ratio": ratio}
        if reserve_zero is not None:
            nuq["reserve_zero"] = reserve_zero
        document["second"]["activation_quant_params"]["nuq"] = nuq

    return edit


def input_of(model: ir.Model, name: str, x: np.ndarray) -> np.ndarray:
    """What a layer gets, as ONNX Runtime computes it without optimizations."""
    node = next(node for node in model.graph if node.name == name)
    model.graph.outputs.append(node.inputs[0])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run([node.inputs[0].name], {"x": x})[0]


@pytest.mark.parametrize("form", ["fake_quant_model", "deploy_model"])
@pytest.mark.parametrize("shift", [0.0, 2.5], ids=["many zeros", "few zeros"])
@pytest.mark.parametrize("ratio", [2 / 256, 8 / 256, 0.25])
def test_zero_behind_a_relu_stays_zero(
    write_network: Callable[..., Any], quantize: Callable[..., Any], form: str, shift: float, ratio: float
) -> None:
    rng = np.random.default_rng(1)
    weights = {name: rng.normal(size=(4, 4, 3, 3)).astype(np.float32) / 6 for name in "vw"}
    # The mean of the input decides how often the Relu is off: 0 is a frequent value, or one that counts for little.
    x = rng.normal(size=(8, 4, 9, 9)).astype(np.float32) + np.float32(shift) * np.sign(weights["v"].sum())
    flow = quantize(write_network(NETWORK, weights), [x], edit=with_levels(ratio, None))
    seen = input_of(flow.model(form), "second", x)
    assert (seen >= 0).all()
    assert (seen == 0).any()
    assert flow.layers["second"].grid.offset in flow.layers["second"].activation_levels


def test_a_zero_that_is_not_reserved_may_move(write_network: Callable[..., Any], quantize: Callable[..., Any]) -> None:
    rng = np.random.default_rng(1)
    weights = {name: np.abs(rng.normal(size=(4, 4, 3, 3))).astype(np.float32) / 6 for name in "vw"}
    x = rng.normal(size=(8, 4, 9, 9)).astype(np.float32) + np.float32(0.3)
    file = write_network(NETWORK, weights)
    free = quantize(file, [x], edit=with_levels(2 / 256, False)).layers["second"]
    reserved = quantize(file, [x], edit=with_levels(2 / 256, True)).layers["second"]
    assert free.grid.offset not in free.activation_levels
    assert reserved.grid.offset in reserved.activation_levels
