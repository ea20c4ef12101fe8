"""The fake-quant model computes the same at every level of ONNX Runtime's graph optimization."""

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from amct_lite.evaluators import Batches
from amct_lite.samples.digits.data import MODEL_FILE, load_split
from amct_lite.samples.squeezenet_imagenet.data import SHARED_DATA, shared_images

INTEGER_OPERATORS = {"QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "QGemm", "MatMulIntegerToFloat"}


def photos(size: int, scale: float) -> np.ndarray:
    if not SHARED_DATA.is_dir():
        pytest.skip("there are no photos in ../shared")
    batch = next(iter(Batches(shared_images("tuxpaint141"), batch_size=2)))
    return np.ascontiguousarray(batch[:, :, :size, :size] * np.float32(scale))


def network(name: str, find_model: Callable[[str], Path]) -> tuple[Path, np.ndarray]:
    rng = np.random.default_rng(0)
    if name == "digits":
        return MODEL_FILE, load_split().held_out.images[:16]
    if name == "squeezenet1.1":
        return find_model("squeezenet1.1/squeezenet1.1.onnx"), photos(227, 1.0)
    if name == "efficientnet_lite0":
        return find_model("efficientnet_lite0.onnx"), photos(224, 1 / 128)
    shape = (8, 3, 32, 32) if name == "cifar10_model" else (8, 1, 28, 28)
    return find_model(f"{name}.onnx"), rng.normal(size=shape).astype(np.float32)


def divergence(expected: np.ndarray, actual: np.ndarray) -> float:
    """The largest KL divergence of a sample, in nats, of logits."""
    first, second = (a.astype(np.float64) - a.max(axis=1, keepdims=True) for a in (expected, actual))
    first -= np.log(np.exp(first).sum(axis=1, keepdims=True))
    second -= np.log(np.exp(second).sum(axis=1, keepdims=True))
    return float((np.exp(first) * (first - second)).sum(axis=1).max())


def with_dequantize_linear(model: ir.Model) -> ir.Model:
    """The same model as a plain Q/DQ pair in front of float weights: what the fake-quant form must not be."""
    for node in list(model.graph):
        if node.op_type == "QuantizeLinear":
            scaled = node.outputs[0].uses()[0].node
            while scaled.op_type != "Mul":
                scaled = scaled.outputs[0].uses()[0].node
            pair = ir.node("DequantizeLinear", [node.outputs[0], *node.inputs[1:]])
            model.graph.insert_after(node, pair)
            scaled.outputs[0].replace_all_uses_with(pair.outputs[0])
    return model


CASES = [
    *itertools.product(("digits", "ccexam_mnist", "cifar10_model", "squeezenet1.1"), ("uniform", "nuq")),
    ("efficientnet_lite0", "nuq"),
]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_optimization_changes_nothing(
    name: str,
    kind: str,
    find_model: Callable[[str], Path],
    quantize: Callable[..., Any],
    nuq: Callable[..., Any],
    run_network: Callable[..., Any],
    optimized: Callable[..., Any],
) -> None:
    file, x = network(name, find_model)
    flow = quantize(file, [x], edit=nuq() if kind == "nuq" else None, save_type="Fakequant")
    fake = flow.saved.files["fake_quant_model"]
    feeds = {flow.graph.model.ir.graph.inputs[0].name: x}
    plain, *others = (run_network(fake, feeds, level)["logits"] for level in ("DISABLE", "BASIC", "EXTENDED"))
    for other in others:
        np.testing.assert_array_equal(other, plain)
    # The level above lays tensors out in blocks of channels and so sums in another order: a last bit may differ,
    # which can carry a value over a rounding bound, and deeper networks spread that. It is not a change of weights:
    blocked = run_network(fake, feeds, "ALL")["logits"]
    assert divergence(plain, blocked) < 3e-2
    really_run = optimized(fake)
    assert not INTEGER_OPERATORS & {node.op_type for node in really_run.graph}
    stored = Counter(nonzero(value.const_value) for value in really_run.graph.initializers.values() if is_weight(value))
    # There are others where a BatchNormalization that could not be folded runs as a depthwise Conv.
    assert Counter(nonzero(layer.decode_weight()) for layer in flow.layers.values() if layer.layer.weight) <= stored


def is_weight(value: ir.Value) -> bool:
    return value.const_value.dtype == ir.DataType.FLOAT and len(value.const_value.shape) >= 2


def nonzero(weight: Any) -> bytes:
    """The numbers of a weight in a form that does not depend on its layout, which may be filled up with zeros."""
    array = np.sort(np.asarray(weight.numpy() if hasattr(weight, "numpy") else weight), axis=None)
    return array[array != 0].tobytes()


@pytest.mark.parametrize("name", ["digits", "squeezenet1.1", "efficientnet_lite0"])
def test_plain_pair_in_front_of_float_weights_is_requantized(
    name: str,
    find_model: Callable[[str], Path],
    quantize: Callable[..., Any],
    run_network: Callable[..., Any],
    optimized: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Shows that the test above can fail."""
    file, x = network(name, find_model)
    flow = quantize(file, [x], save_type="Fakequant")
    feeds = {flow.graph.model.ir.graph.inputs[0].name: x}
    control = tmp_path / "control.onnx"
    ir.save(with_dequantize_linear(flow.model("fake_quant_model")), control)
    fake = flow.saved.files["fake_quant_model"]
    plain = run_network(fake, feeds, "DISABLE")["logits"]
    np.testing.assert_array_equal(run_network(control, feeds, "DISABLE")["logits"], plain)
    changed = divergence(plain, run_network(control, feeds, "ALL")["logits"])
    assert changed > 5 * divergence(plain, run_network(fake, feeds, "ALL")["logits"])
    assert INTEGER_OPERATORS & {node.op_type for node in optimized(control).graph}
