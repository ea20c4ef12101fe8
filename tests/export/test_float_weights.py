"""Layers of which only the input is quantized (`wts_algo: "none"`), in both forms, after any graph optimization."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from amct_lite.errors import ExportError
from amct_lite.export.ascend import ascend_model
from amct_lite.samples.digits.data import MODEL_FILE, load_split
from amct_lite.uniform import grid

NETWORK = """net (float[N, 4, 9, 9] x) => (y) {
    [only] y = Conv (x, w, b)
}"""
SHARING = """net (float[N, 4, 9, 9] x) => (y, z) {
    [one] y = Conv (x, w, b)
    [two] z = Conv (x, v, b)
}"""
SHARING_WEIGHTS = {"one": "w", "two": "v"}


def keep_weights(*names: str, ratio: float | None = None) -> Callable[[dict[str, Any]], None]:
    """Edit a config so that the named layers, or all, keep their weights float."""

    def edit(document: dict[str, Any]) -> None:
        for name, block in document.items():
            if isinstance(block, dict) and "weight_quant_params" in block and (not names or name in names):
                block["weight_quant_params"] = {"wts_algo": "none"}
                if ratio is not None:
                    block["activation_quant_params"]["nuq"] = {"target_compression_ratio": ratio}

    return edit


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {
        "w": rng.normal(size=(6, 4, 3, 3)).astype(np.float32),
        "v": rng.normal(size=(6, 4, 3, 3)).astype(np.float32),
        "b": rng.normal(size=6).astype(np.float32),
        "x": rng.normal(size=(5, 4, 9, 9)).astype(np.float32),
    }


@pytest.mark.parametrize("form", ["fake_quant_model", "deploy_model"])
@pytest.mark.parametrize("ratio", [None, 0.0625])
def test_the_layer_is_the_float_one_on_a_quantized_input(
    write_network: Callable[..., Any],
    quantize: Callable[..., Any],
    run_network: Callable[..., Any],
    arrays: dict[str, np.ndarray],
    form: str,
    ratio: float | None,
) -> None:
    x = arrays.pop("x")
    del arrays["v"]
    file = write_network(NETWORK, arrays)
    flow = quantize(file, [x], edit=keep_weights(ratio=ratio))
    layer = flow.layers["only"]
    assert layer.has_float_weights
    expected = run_network(file, {"x": decoded(layer, x)})["y"]
    path = flow.saved.files[form]
    onnx.checker.check_model(str(path), full_check=True)
    for level in ("DISABLE", "BASIC", "EXTENDED", "ALL"):
        # ONNX Runtime must not quantize the weights again: that error would be a thousand times as large.
        np.testing.assert_allclose(run_network(path, {"x": x}, level)["y"], expected, rtol=1e-5, atol=1e-5)


def decoded(layer: Any, x: np.ndarray) -> np.ndarray:
    levels = grid.quantize(x, layer.grid)
    table = layer.activation_table()
    return grid.dequantize(levels if table is None else table[levels.astype(int) + 128], layer.grid)


@pytest.mark.parametrize("quantized", ["one", "two"])
def test_a_layer_on_the_same_input_may_be_quantized(
    write_network: Callable[..., Any],
    quantize: Callable[..., Any],
    run_network: Callable[..., Any],
    arrays: dict[str, np.ndarray],
    quantized: str,
) -> None:
    x = arrays.pop("x")
    other = {"one": "two", "two": "one"}[quantized]
    flow = quantize(write_network(SHARING, arrays), [x], edit=keep_weights(other))
    fake = run_network(flow.saved.files["fake_quant_model"], {"x": x})
    deployed = run_network(flow.saved.files["deploy_model"], {"x": x})
    for name, expected in fake.items():
        np.testing.assert_allclose(deployed[name], expected, rtol=1e-4, atol=1e-4)
    nodes = {node.name: node for node in flow.model("deploy_model").graph}
    weights = {name: nodes[name].inputs[1].name for name in SHARING_WEIGHTS}
    assert weights[other] == SHARING_WEIGHTS[other]
    assert weights[quantized] != SHARING_WEIGHTS[quantized]


def test_integer_layers_beside_it_stay_integer(
    quantize: Callable[..., Any], run_network: Callable[..., Any], optimized: Callable[..., Any]
) -> None:
    split = load_split()
    plain = quantize(MODEL_FILE, [split.calibration.images])
    first = next(name for name, layer in plain.layers.items() if layer.weight is not None)
    flow = quantize(MODEL_FILE, [split.calibration.images], edit=keep_weights(first))
    deploy = flow.saved.files["deploy_model"]
    operators = Counter(node.op_type for node in optimized(deploy).graph)
    assert operators["QGemm"] == 2
    assert operators["QLinearConv"] >= 1
    feeds = {"image": split.held_out.images}
    fake = run_network(flow.saved.files["fake_quant_model"], feeds)["logits"]
    assert np.mean(run_network(deploy, feeds)["logits"].argmax(axis=1) == fake.argmax(axis=1)) > 0.995


def test_the_summary_says_float_and_counts_input_levels(
    write_network: Callable[..., Any], quantize: Callable[..., Any], arrays: dict[str, np.ndarray]
) -> None:
    x = arrays.pop("x")
    del arrays["v"]
    flow = quantize(write_network(NETWORK, arrays), [x], edit=keep_weights(ratio=0.0625))
    (row,) = flow.saved.summary.layers
    assert (row.form, row.bytes_after, row.activation_levels) == ("float", row.bytes_before, 16)
    assert flow.graph.read_records()["only"].float_weights
    assert "weight float, activation int8 mse NUQ 0.0625" in " ".join(str(flow.graph).split())


def test_forms_of_integer_layers_refuse_it(
    write_network: Callable[..., Any], quantize: Callable[..., Any], arrays: dict[str, np.ndarray]
) -> None:
    x = arrays.pop("x")
    del arrays["v"]
    flow = quantize(write_network(NETWORK, arrays), [x], edit=keep_weights())
    with pytest.raises(ExportError, match="Its weights stay float") as caught:
        ascend_model(flow.graph.model, list(flow.layers.values()))
    assert caught.value.layer == "only"
