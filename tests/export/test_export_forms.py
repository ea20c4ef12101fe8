"""Every kind of layer in every form that its target has, uniform and with NUQ."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.uniform.grid import dequantize, quantize


@dataclass(frozen=True)
class Case:
    """A graph with one layer called `layer`."""

    text: str
    shape: tuple[int, ...]
    weight: tuple[int, ...] = ()
    bias: tuple[int, ...] = ()
    ascend: bool = True
    nuq_on_ascend: bool = False


def case(attributes: str, shape: tuple[int, ...], weight: tuple[int, ...] = (), **options: Any) -> Case:
    inputs = "x" + (", w" if weight else "") + (", b" if options.get("bias") else "")
    sizes = ",".join(map(str, ("N", *shape[1:])))
    return Case(f"g (float[{sizes}] x) => (y) {{ [layer] y = {attributes} ({inputs}) }}", shape, weight, **options)


CASES = {
    "conv": case("Conv", (4, 3, 9, 9), (8, 3, 4, 4), bias=(8,), nuq_on_ascend=True),
    "conv_without_bias": case("Conv", (4, 3, 9, 9), (8, 3, 4, 4), nuq_on_ascend=True),
    "conv_strided": case("Conv<strides=[2,2], pads=[1,1,1,1], dilations=[2,2]>", (4, 4, 9, 9), (6, 4, 3, 3), bias=(6,)),
    "conv_grouped": case("Conv<group=2>", (4, 8, 7, 7), (6, 4, 3, 3), bias=(6,)),
    "conv_depthwise": case("Conv<group=16>", (4, 16, 9, 9), (16, 1, 3, 3), bias=(16,)),
    "conv_1d": case("Conv", (8, 6, 20), (8, 6, 5), bias=(8,), ascend=False),
    "conv_3d": case("Conv", (2, 3, 5, 6, 7), (8, 3, 2, 3, 3), bias=(8,)),
    "conv_transpose": case("ConvTranspose<strides=[2,2]>", (4, 8, 5, 5), (8, 6, 3, 3), bias=(6,)),
    "conv_transpose_grouped": case("ConvTranspose<group=2>", (4, 8, 5, 5), (8, 3, 3, 3), bias=(6,)),
    "gemm": case("Gemm", (64, 24), (24, 10), bias=(10,), nuq_on_ascend=True),
    "gemm_trans_b": case("Gemm<transB=1>", (64, 24), (10, 24), bias=(10,), nuq_on_ascend=True),
    "gemm_row_bias": case("Gemm<transB=1>", (64, 24), (10, 24), bias=(1, 10), nuq_on_ascend=True),
    "gemm_scalar_bias": case("Gemm<transB=1>", (64, 24), (10, 24), bias=(1,), nuq_on_ascend=True),
    "gemm_without_bias": case("Gemm<transB=1>", (64, 24), (10, 24), nuq_on_ascend=True),
    "gemm_trans_a": Case(
        "g (float[24,64] x) => (y) { [layer] y = Gemm<transA=1> (x, w, b) }", (24, 64), (24, 10), (10,), False
    ),
    "matmul": case("MatMul", (64, 24), (24, 10), nuq_on_ascend=True),
    "matmul_rank_3": case("MatMul", (4, 16, 24), (24, 10)),
    "matmul_constant_first": Case(
        "g (float[N,24,16] x) => (y) { [layer] y = MatMul (w, x) }", (4, 24, 16), (10, 24), ascend=False
    ),
    "average_pool": case("AveragePool<kernel_shape=[3,3], strides=[2,2]>", (4, 5, 9, 9)),
    "average_pool_padded": case("AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>", (4, 5, 9, 9)),
}


@pytest.fixture
def network(request: pytest.FixtureRequest, write_network: Callable[..., Path]) -> tuple[Case, Path, np.ndarray]:
    found = CASES[request.param]
    rng = np.random.default_rng(3)
    weights = {}
    if found.weight:
        weights["w"] = rng.normal(size=found.weight).astype(np.float32)
    if found.bias:
        weights["b"] = rng.normal(size=found.bias).astype(np.float32)
    return found, write_network(found.text, weights), rng.normal(size=found.shape).astype(np.float32)


def relative_noise(layer: QuantizedLayer, model: Any, x: np.ndarray) -> float:
    """Noise / signal that independent errors of weight and input predict at the output (zero-mean operands)."""
    levels = quantize(x, layer.grid).astype(np.int64)
    table = layer.activation_table()
    if table is not None:
        levels = table[levels + 128]
    noise = float(np.mean((dequantize(levels, layer.grid) - x) ** 2) / np.mean(x**2))
    if layer.weight is not None:
        w = model.weight(layer.layer.weight)
        noise += float(np.mean((layer.decode_weight() - w) ** 2) / np.mean(w**2))
    return noise


def check_error(found: Case, layer: QuantizedLayer, model: Any, x: np.ndarray, exact: Any, actual: Any) -> None:
    assert actual.shape == exact.shape
    # A pool's mean of k * k values lowers signal and noise alike.
    bias = 0.0
    if layer.layer.bias is not None or found.bias:
        values = model.weight("b")
        bias = values.reshape((-1,) + (1,) * (exact.ndim - 2)) if layer.layer.op_type.startswith("Conv") else values
    measured = float(np.mean((actual - exact) ** 2) / np.mean((exact - bias) ** 2))
    predicted = relative_noise(layer, model, x)
    assert 0.5 * predicted < measured < 2 * predicted
    if layer.activation_levels is None and layer.weight_levels is None:
        assert predicted < 1e-3  # 30 dB: eight bits of a normal distribution


@pytest.mark.parametrize("with_nuq", [False, True], ids=["uniform", "nuq"])
@pytest.mark.parametrize("network", CASES, indirect=True)
def test_layer_for_onnxruntime(
    network: Any,
    with_nuq: bool,
    quantize: Callable[..., Any],
    nuq: Callable[..., Any],
    run_network: Callable[..., Any],
) -> None:
    found, file, x = network
    flow = quantize(file, [x], edit=nuq() if with_nuq else None)
    layer = flow.layers["layer"]
    assert (layer.activation_levels is not None) == (with_nuq and found.weight != ())
    deploy = flow.saved.files["deploy_model"]
    onnx.checker.check_model(str(deploy), full_check=True)
    onnx.checker.check_model(str(flow.saved.files["fake_quant_model"]), full_check=True)
    exact = run_network(file, {"x": x})["y"]
    fake = run_network(flow.saved.files["fake_quant_model"], {"x": x})["y"]
    check_error(found, layer, flow.graph.model, x, exact, fake)
    for level in ("DISABLE", "ALL"):
        # One layer on equal operands: nothing but the order of summation differs.
        np.testing.assert_allclose(run_network(deploy, {"x": x}, level)["y"], fake, rtol=1e-4, atol=1e-4)
    check_stored(flow.model("fake_quant_model"), layer)
    check_stored(flow.model("deploy_model"), layer)


ON_ASCEND = [
    pytest.param(name, with_nuq, id=f"{name}-{'nuq' if with_nuq else 'uniform'}")
    for name, one in CASES.items()
    for with_nuq in (False, True)
    if one.ascend and (one.nuq_on_ascend or not with_nuq)  # the manual's table refuses the others
]


@pytest.mark.parametrize(("network", "with_nuq"), ON_ASCEND, indirect=["network"])
def test_layer_for_ascend(
    network: Any,
    with_nuq: bool,
    quantize: Callable[..., Any],
    nuq: Callable[..., Any],
    run_network: Callable[..., Any],
    run_ascend: Callable[..., Any],
) -> None:
    found, file, x = network
    flow = quantize(file, [x], target="ascend", edit=nuq() if with_nuq else None)
    layer = flow.layers["layer"]
    exact = run_network(file, {"x": x})["y"]
    fake = run_network(flow.saved.files["fake_quant_model"], {"x": x})["y"]
    check_error(found, layer, flow.graph.model, x, exact, fake)
    check_stored(flow.model("deploy_model"), layer)
    deployed = run_ascend(flow.saved.files["deploy_model"], {"x": x})["y"]
    np.testing.assert_allclose(deployed, fake, rtol=1e-4, atol=1e-4)


def check_stored(model: ir.Model, layer: QuantizedLayer) -> None:
    """A form's stored constants decode to the layer's numbers, bit for bit."""
    if layer.weight is None:
        return
    node = next(node for node in model.graph if node.name == layer.layer.name)
    weight = node.inputs[layer.layer.weight_index]
    assert np.array_equal(decoded(weight, layer.weight, layer.decode_weight()), layer.decode_weight())
    if layer.bias is not None:
        bias = decoded(node.inputs[2], layer.bias, layer.decode_bias()).reshape(-1)
        assert np.array_equal(bias, layer.decode_bias())


def decoded(value: ir.Value, integers: np.ndarray, floats: np.ndarray) -> np.ndarray:
    producer = value.producer()
    if producer is None:
        stored = value.const_value.numpy()
        if stored.dtype == np.float32:
            return stored
        assert stored.dtype == integers.dtype
        assert np.array_equal(stored.reshape(-1), integers.reshape(-1))
        return floats.reshape(stored.shape)
    assert producer.op_type == "DequantizeLinear"
    stored, scale, zero = (operand.const_value.numpy() for operand in producer.inputs)
    assert stored.dtype == integers.dtype == zero.dtype
    assert not zero.any()
    if scale.ndim:
        shape = [1] * stored.ndim
        shape[producer.attributes.get_int("axis", 1)] = -1
        scale = scale.reshape(shape)
    return stored.astype(np.float32) * scale
