"""The deploy model for ONNX Runtime runs in integers and computes what the fake-quant model computes."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from amct_lite.evaluators import Batches
from amct_lite.samples.digits.data import MODEL_FILE, load_split
from amct_lite.samples.squeezenet_imagenet.data import SHARED_DATA, shared_images


@pytest.mark.parametrize("kind", ["uniform", "nuq"])
def test_digits_run_in_integers(
    kind: str,
    quantize: Callable[..., Any],
    nuq: Callable[..., Any],
    run_network: Callable[..., Any],
    optimized: Callable[..., Any],
) -> None:
    split = load_split()
    flow = quantize(MODEL_FILE, [split.calibration.images], edit=nuq() if kind == "nuq" else None)
    deploy = flow.saved.files["deploy_model"]
    onnx.checker.check_model(str(deploy), full_check=True)
    operators = Counter(node.op_type for node in optimized(deploy).graph)
    assert operators["QLinearConv"] >= 2
    assert operators["QGemm"] == 2
    assert operators["QLinearAveragePool"] == 1
    assert operators["GatherElements"] == (5 if kind == "nuq" else 0)
    feeds = {"image": split.held_out.images}
    fake = run_network(flow.saved.files["fake_quant_model"], feeds)["logits"]
    deployed = run_network(deploy, feeds)["logits"]
    # Integer sums are exact and float ones are not, so a value may round the other way now and then.
    assert np.median(np.abs(deployed - fake)) < 1e-4
    assert np.mean(deployed.argmax(axis=1) == fake.argmax(axis=1)) > 0.995


@pytest.mark.parametrize("kind", ["uniform", "nuq"])
def test_squeezenet_agrees_on_photos(
    kind: str,
    find_model: Callable[[str], Path],
    quantize: Callable[..., Any],
    nuq: Callable[..., Any],
    run_network: Callable[..., Any],
    optimized: Callable[..., Any],
) -> None:
    file = find_model("squeezenet1.1/squeezenet1.1.onnx")
    if not SHARED_DATA.is_dir():
        pytest.skip("there are no photos in ../shared")
    photos = next(iter(Batches(shared_images("tuxpaint141"), batch_size=8)))
    flow = quantize(file, [photos], edit=nuq() if kind == "nuq" else None)
    deploy = flow.saved.files["deploy_model"]
    onnx.checker.check_model(str(deploy), full_check=True)
    assert Counter(node.op_type for node in optimized(deploy).graph)["QLinearConv"] >= 9
    fake = run_network(flow.saved.files["fake_quant_model"], {"x": photos})["logits"]
    deployed = run_network(deploy, {"x": photos})["logits"]
    assert np.mean(deployed.argmax(axis=1) == fake.argmax(axis=1)) > 0.8
    assert np.abs(deployed - fake).max() < 0.05 * np.abs(fake).max()


def test_types_and_scales_are_those_that_integer_kernels_want(quantize: Callable[..., Any]) -> None:
    flow = quantize(MODEL_FILE, [load_split().calibration.images])
    model = flow.model("deploy_model")
    activations = [node for node in model.graph if node.op_type == "QuantizeLinear"]
    assert {node.inputs[2].const_value.dtype for node in activations} == {ir.DataType.UINT8}
    for layer in flow.layers.values():
        if layer.weight is None:
            continue
        node = next(node for node in model.graph if node.name == layer.layer.name)
        weight, bias = (node.inputs[index].producer() for index in (1, 2))
        assert weight.inputs[0].const_value.dtype == ir.DataType.INT8
        assert weight.inputs[1].const_value.shape.numpy() == (layer.weight.shape[layer.scale_axis],)
        assert bias.inputs[0].const_value.dtype == ir.DataType.INT32
        activation_scale = node.inputs[0].producer().inputs[1].const_value.numpy()
        np.testing.assert_array_equal(
            bias.inputs[1].const_value.numpy(), weight.inputs[1].const_value.numpy() * activation_scale
        )


@pytest.mark.parametrize("target", ["onnxruntime", "ascend"])
def test_forms_agree_on_activation_tables(target: str, quantize: Callable[..., Any], nuq: Callable[..., Any]) -> None:
    flow = quantize(MODEL_FILE, [load_split().calibration.images], target=target, edit=nuq())
    fake, deploy = flow.model("fake_quant_model"), flow.model("deploy_model")
    tables = 0
    for name, layer in flow.layers.items():
        if layer.activation_levels is None:
            continue
        levels = deploy.graph.initializers[f"{name}.quant.nuq.table"].const_value.numpy()
        assert levels.dtype == (np.uint8 if target == "onnxruntime" else np.int8)
        signed = levels.astype(np.int64) - (128 if target == "onnxruntime" else 0)
        values = fake.graph.initializers[f"{name}.quant.nuq.table"].const_value.numpy()
        steps = (signed - layer.grid.offset).astype(np.float32)
        np.testing.assert_array_equal(values, steps * np.float32(layer.grid.scale))
        assert set(signed) == set(layer.activation_levels)
        tables += 1
    assert tables == 5
