"""Balanced layers: the float function stays, the factors are AMCT's formula, and every form has them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import amct_lite
from amct_lite.errors import CalibrationError, ConfigError, RecordError
from amct_lite.files.record import read_record, write_record
from amct_lite.graph import save_ir
from amct_lite.quantize.balancing import balanced_graph
from tests.conftest import EditConfig, quantize_file, run_file, write_graph

CHANNELS = 6
SPREAD = np.array([0.01, 0.1, 1.0, 5.0, 20.0, 50.0], np.float32)

# Kind of layer -> ONNX text with the spread input x, the layer's weight, and the input's shape behind the batch.
LAYERS = {
    "Conv": ("[n] y = Conv<pads = [1, 1, 1, 1]>(x, w, b)", (8, CHANNELS, 3, 3), (CHANNELS, 5, 5)),
    "grouped Conv": ("[n] y = Conv<group = 2>(x, w, b)", (8, CHANNELS // 2, 3, 3), (CHANNELS, 5, 5)),
    "depthwise": ("[n] y = Conv<group = 6>(x, w, b)", (12, 1, 3, 3), (CHANNELS, 5, 5)),
    "ConvTranspose": ("[n] y = ConvTranspose(x, w, b)", (CHANNELS, 8, 3, 3), (CHANNELS, 5, 5)),
    "grouped ConvTranspose": ("[n] y = ConvTranspose<group = 2>(x, w, b)", (CHANNELS, 4, 3, 3), (CHANNELS, 5, 5)),
    "Gemm": ("[n] y = Gemm<transB = 1>(x, w, b)", (8, CHANNELS), (CHANNELS,)),
    "MatMul": ("[n] y = MatMul(x, w)", (CHANNELS, 8), (3, CHANNELS)),
    "MatMul, data second": ("[n] y = MatMul(w, x)", (8, CHANNELS), (CHANNELS, 3)),
}


def network(path: Path, kind: str) -> tuple[Path, list[np.ndarray]]:
    """A network of one layer whose input's channels differ by 5000, weights that make up for it, and two batches."""
    node, weight_shape, shape = LAYERS[kind]
    random = np.random.default_rng(0)
    weights = {"w": (random.normal(size=weight_shape) / by_input_channel(SPREAD, kind)).astype(np.float32)}
    if ", b)" in node:
        channels = 12 if kind == "depthwise" else 8
        weights["b"] = random.normal(size=channels).astype(np.float32)
    sizes, out = ", ".join(map(str, shape)), ", ".join(f"d{axis}" for axis in range(len(shape)))
    text = f"g (float[batch, {sizes}] x) => (float[batch, {out}] y) {{ {node} }}"
    axis = shape.index(CHANNELS)
    spread = SPREAD.reshape(-1, *(1 for _ in shape[axis + 1 :]))
    batches = [(random.normal(size=(4, *shape)) * spread).astype(np.float32) for _ in range(2)]
    return write_graph(path, text, weights), batches


def by_input_channel(numbers: np.ndarray, kind: str) -> np.ndarray:
    """One number for each input channel, shaped so that it meets that channel's weights."""
    if kind == "grouped Conv":
        return np.repeat(numbers.reshape(2, 3), 4, axis=0)[:, :, None, None]
    if kind == "depthwise":
        return numbers.repeat(2)[:, None, None, None]
    axes_behind = {"Conv": 2, "ConvTranspose": 3, "grouped ConvTranspose": 3, "MatMul": 1}
    return numbers.reshape(-1, *(1 for _ in range(axes_behind.get(kind, 0))))


def balancing(strength: float | None = 0.5, per_tensor: bool = True, **weights: Any) -> EditConfig:
    def edit(document: dict[str, Any]) -> None:
        for block in document.values():
            if isinstance(block, dict) and "weight_quant_params" in block:
                if strength is not None:
                    block["dmq_balancer_param"] = strength
                # As a loop of the user's own and a search round.
                block["weight_quant_params"].update({"rounding": "nearest"} | weights)
                if per_tensor:
                    block["weight_quant_params"]["channel_wise"] = False

    return edit


def error_of(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.square(found - expected).mean() / np.square(expected).mean())


@pytest.mark.parametrize("kind", LAYERS)
def test_the_float_function_stays(tmp_path: Path, kind: str) -> None:
    path, batches = network(tmp_path / "net.onnx", kind)
    amct_lite.create_quant_config(tmp_path / "config.json", path, target="onnxruntime")
    graph = amct_lite.init(tmp_path / "config.json", path)
    factors = tuple(map(float, np.exp(np.random.default_rng(1).normal(0, 2, CHANNELS)).astype(np.float32)))
    balanced = balanced_graph(graph, {"n": factors})
    save_ir(balanced.model.ir, tmp_path / "balanced.onnx")
    expected, found = (run_file(file, {"x": batches[0]})["y"] for file in (path, tmp_path / "balanced.onnx"))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert balanced_graph(balanced, {"n": factors}) is balanced
    assert "Mul" not in [node.op_type for node in graph.model.ir.graph]


@pytest.mark.parametrize("kind", LAYERS)
def test_factors_are_amcts_formula_and_the_error_falls_in_every_form(tmp_path: Path, kind: str) -> None:
    path, batches = network(tmp_path / "net.onnx", kind)
    expected = run_file(path, {"x": batches[0]})["y"]
    errors = {}
    for strength in (None, 0.5):
        folder = tmp_path / str(strength)
        folder.mkdir()
        flow = quantize_file(folder, path, batches, edit=balancing(strength), batch_num=2)
        found = {
            form: run_file(flow.saved.files[f"{form}_model"], {"x": batches[0]})["y"]
            for form in ("fake_quant", "deploy")
        }
        np.testing.assert_allclose(found["deploy"], found["fake_quant"], atol=1e-4 * np.abs(expected).max())
        errors[strength] = error_of(found["fake_quant"], expected)
    # The channels with small values and large weights were rounded away.
    assert errors[0.5] < 0.1 * errors[None]
    record = read_record(tmp_path / "0.5" / "record.txt")["n"]
    shape = LAYERS[kind][2]
    axis = shape.index(CHANNELS) + 1
    activation = np.abs(np.concatenate(batches)).max(axis=tuple(a for a in range(len(shape) + 1) if a != axis))
    weight = np.abs(weight_of(path))
    np.testing.assert_allclose(
        record.tensor_balance_factor, np.sqrt(activation / input_maxima(weight, kind)), rtol=1e-5
    )


def weight_of(path: Path) -> np.ndarray:
    tensor = ir.load(path).graph.initializers["w"].const_value
    assert tensor is not None
    return tensor.numpy()


def input_maxima(weight: np.ndarray, kind: str) -> np.ndarray:
    """By hand, output by output."""
    if kind == "grouped Conv":
        return np.concatenate([weight[:4].max(axis=(0, 2, 3)), weight[4:].max(axis=(0, 2, 3))])
    if kind == "depthwise":
        return np.array([weight[2 * channel : 2 * channel + 2].max() for channel in range(CHANNELS)])
    axis = {"Conv": 1, "ConvTranspose": 0, "grouped ConvTranspose": 0, "Gemm": 1, "MatMul": 0, "MatMul, data second": 1}
    return weight.max(axis=tuple(other for other in range(weight.ndim) if other != axis[kind]))


TWO_READERS = """g (float[n, 6, 5, 5] x) => (float[n, 4, 5, 5] y, float[n, 4, 5, 5] z) {
    [one] y = Conv(x, w1)
    [two] z = Conv(x, w2)
}"""


@pytest.mark.parametrize("same", [True, False])
def test_layers_with_equal_factors_share_one_division_and_quantizer(tmp_path: Path, same: bool) -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(4, 6, 1, 1)).astype(np.float32)
    weights = {"w1": weight, "w2": -weight if same else random.normal(size=weight.shape).astype(np.float32)}
    path = write_graph(tmp_path / "net.onnx", TWO_READERS, weights)
    batch = (random.normal(size=(4, 6, 5, 5)) * SPREAD.reshape(-1, 1, 1)).astype(np.float32)
    flow = quantize_file(tmp_path, path, [batch], edit=balancing())
    operators = [node.op_type for node in flow.model("deploy_model").graph]
    assert (operators.count("Mul"), operators.count("QuantizeLinear")) == ((1, 1) if same else (2, 2))


def test_only_the_layer_that_asks_is_balanced(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = {name: random.normal(size=(4, 6, 1, 1)).astype(np.float32) for name in ("w1", "w2")}
    path = write_graph(tmp_path / "net.onnx", TWO_READERS, weights)
    batch = (random.normal(size=(4, 6, 5, 5)) * SPREAD.reshape(-1, 1, 1)).astype(np.float32)

    def one(document: dict[str, Any]) -> None:
        document["one"]["dmq_balancer_param"] = 0.5

    flow = quantize_file(tmp_path, path, [batch], edit=one)
    records = read_record(tmp_path / "record.txt")
    assert len(records["one"].tensor_balance_factor) == 6
    assert records["two"].tensor_balance_factor == ()
    mul = next(node for node in flow.model("fake_quant_model").graph if node.op_type == "Mul")
    assert mul.inputs[0] is not None and mul.inputs[0].name == "x"
    assert records["one"].scale_d is not None and records["two"].scale_d is not None
    # The one tensor is divided before it is quantized, the other is not.
    assert records["two"].scale_d > 2 * records["one"].scale_d


VARIANTS = {
    "NUQ": {"wts_algo": "nuq_quantize", "num_steps": 32},
    "codebook": {"wts_algo": "codebook_quantize", "num_bits": 6, "refine": "gptq"},
    "float weights, fitted": {"wts_algo": "none", "refit": True},
    "AdaRound": {"scale_algo": "mse", "rounding": "adaround", "bias_correction": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_weights_are_balanced_too(tmp_path: Path, variant: str) -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(32, 6, 3, 3)).astype(np.float32)
    text = "g (float[n, 6, 5, 5] x) => (float[n, 32, 3, 3] y) { [n] y = Conv(x, w) }"
    path = write_graph(tmp_path / "net.onnx", text, {"w": weight})
    batch = (random.normal(size=(64, 6, 5, 5)) * SPREAD.reshape(-1, 1, 1)).astype(np.float32)

    def edit(document: dict[str, Any]) -> None:
        document["n"]["weight_quant_params"] = VARIANTS[variant]
        document["n"]["dmq_balancer_param"] = 0.5

    flow = quantize_file(tmp_path, path, [batch], edit=edit)
    expected = run_file(path, {"x": batch})["y"]
    found = [run_file(flow.saved.files[f"{form}_model"], {"x": batch})["y"] for form in ("fake_quant", "deploy")]
    np.testing.assert_allclose(found[1], found[0], atol=1e-4 * np.abs(expected).max())
    assert error_of(found[0], expected) < 0.01


def test_the_users_own_loop_writes_the_same_record(tmp_path: Path) -> None:
    path, batches = network(tmp_path / "net.onnx", "Conv")
    flow = quantize_file(tmp_path, path, batches, edit=balancing(), batch_num=2)
    record = (tmp_path / "record.txt").read_text()
    (tmp_path / "record.txt").unlink()
    amct_lite.quantize_model(flow.graph, tmp_path / "modified.onnx")
    session = amct_lite.InferenceSession(tmp_path / "modified.onnx")
    for batch in batches:
        session.run(None, {"x": batch})
    assert (tmp_path / "record.txt").read_text() == record


def test_the_ascend_form_divides_in_front_of_ascendquant(tmp_path: Path) -> None:
    path, batches = network(tmp_path / "net.onnx", "Conv")
    flow = quantize_file(tmp_path, path, batches, edit=balancing(), target="ascend")
    quantizer = next(node for node in flow.model("deploy_model").graph if node.op_type == "AscendQuant")
    divided = quantizer.inputs[0]
    assert divided is not None
    producer = divided.producer()
    assert producer is not None
    assert producer.op_type == "Mul"
    factors = flow.graph.read_records()["n"].tensor_balance_factor
    scale = producer.inputs[1]
    assert scale is not None and scale.const_value is not None
    np.testing.assert_allclose(scale.const_value.numpy().reshape(-1), 1 / np.array(factors), rtol=1e-6)


def test_a_record_with_another_number_of_factors_is_refused(tmp_path: Path) -> None:
    path, batches = network(tmp_path / "net.onnx", "Conv")
    flow = quantize_file(tmp_path, path, batches, edit=balancing())
    text = (tmp_path / "record.txt").read_text()
    (tmp_path / "record.txt").write_text(
        text.replace("tensor_balance_factor", "tensor_balance_factor: 1.0 tensor_balance_factor", 1)
    )
    with pytest.raises(RecordError, match="7 numbers in tensor_balance_factor, the layer has 6"):
        amct_lite.save_model(flow.graph, "Both", tmp_path / "again")


def test_a_factor_is_read_back_and_must_be_positive(tmp_path: Path) -> None:
    path, batches = network(tmp_path / "net.onnx", "Conv")
    quantize_file(tmp_path, path, batches, edit=balancing())
    records = read_record(tmp_path / "record.txt")
    write_record(records, tmp_path / "again.txt")
    assert (tmp_path / "again.txt").read_text() == (tmp_path / "record.txt").read_text()
    text = (tmp_path / "record.txt").read_text()
    (tmp_path / "record.txt").write_text(text.replace("tensor_balance_factor: ", "tensor_balance_factor: -", 1))
    with pytest.raises(RecordError, match="not within"):
        read_record(tmp_path / "record.txt")


REFUSED = {
    "a layer without weights": ("[n] y = AveragePool<kernel_shape = [3, 3]>(x)", {}),
    "tied weights": ("[n] a = Conv(x, w) [m] y = Conv(a, w)", {"wts_algo": "arq_quantize"}),
    "a float input": ("[n] y = Conv(x, w)", {"act_algo": "none"}),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_balanced_is_refused(tmp_path: Path, why: str) -> None:
    node, change = REFUSED[why]
    weights = {"w": np.ones((6, 6, 1, 1), np.float32)} if ", w)" in node else {}
    path = write_graph(tmp_path / "net.onnx", f"g (float[n, 6, 5, 5] x) => (float[n, 6, h, v] y) {{ {node} }}", weights)
    config_file = tmp_path / "config.json"
    amct_lite.create_quant_config(config_file, path, target="onnxruntime")
    document = json.loads(config_file.read_text())
    document["n"]["dmq_balancer_param"] = 0.5
    if "act_algo" in change:
        document["n"]["activation_quant_params"] = change
        document["n"]["weight_quant_params"] = {"wts_algo": "codebook_quantize"}
    config_file.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="dmq_balancer_param cannot be used here"):
        amct_lite.init(config_file, path)


@pytest.mark.parametrize("key", ["cross_layer_equalization", "dmq_balancer_param"])
def test_the_digits_network_stays_as_good(tmp_path: Path, key: str) -> None:
    from amct_lite.samples.digits.data import MODEL_FILE, load_split

    def edit(document: dict[str, Any]) -> None:
        balancing(0.5 if key == "dmq_balancer_param" else None)(document)
        document["cross_layer_equalization"] = key == "cross_layer_equalization"

    split = load_split()
    flow = quantize_file(tmp_path, MODEL_FILE, [split.calibration.images], edit=edit)
    part = split.held_out
    for kind in ("fake_quant_model", "deploy_model"):
        logits = amct_lite.InferenceSession(flow.saved.files[kind]).run(None, {"image": part.images})[0]
        assert (logits.argmax(1) == part.labels).mean() >= 0.98


BETWEEN = """g (float[n, 6, 5, 5] x) => (float[n, 4, 5, 5] y, float[n, 6, 5, 5] z) {
    [before] a = Conv(x, w1)
    [balanced] y = Conv(a, w2)
    [other] z = Sigmoid(a)
}"""


def test_what_is_quantized_between_layers_is_the_same_with_balancing(tmp_path: Path) -> None:
    """A grid in front of the division would bring back what the balancing avoids."""
    random = np.random.default_rng(0)
    weights = {
        "w1": (random.normal(size=(6, 6, 1, 1)) * SPREAD.reshape(-1, 1, 1, 1)).astype(np.float32),
        "w2": (random.normal(size=(4, 6, 1, 1)) / SPREAD.reshape(-1, 1, 1)).astype(np.float32),
    }
    path = write_graph(tmp_path / "net.onnx", BETWEEN, weights)
    batch = random.normal(size=(4, 6, 5, 5)).astype(np.float32)

    def edit(document: dict[str, Any]) -> None:
        document["balanced"]["dmq_balancer_param"] = 0.5

    flow = quantize_file(tmp_path, path, [batch], edit=edit)
    assert [plan.layer.name for plan in flow.graph.tensor_plans] == ["other:0"]
    assert set(flow.graph.read_records()) == {"before", "balanced", "other:0"}
    divider = next(node for node in flow.model("deploy_model").graph if node.name == "balanced.balanced")
    source = divider.inputs[0]
    assert source is not None
    producer = source.producer()
    assert producer is not None
    assert producer.op_type == "Conv"


@pytest.mark.parametrize("options", [{"n_jobs": 2, "backend": "threading"}, {"n_jobs": 2, "backend": "loky"}])
def test_shards_and_a_statistics_file_give_the_same_record(tmp_path: Path, options: dict[str, Any]) -> None:
    path, batches = network(tmp_path / "net.onnx", "Conv")
    batches = batches * 3
    flow = quantize_file(tmp_path, path, batches, edit=balancing(), batch_num=6)
    record = (tmp_path / "record.txt").read_text()
    amct_lite.calibrate(flow.graph, batches, statistics_file=tmp_path / "statistics.npz", **options)
    assert (tmp_path / "record.txt").read_text() == record
    amct_lite.calibrate(flow.graph, None, statistics_file=tmp_path / "statistics.npz")
    assert (tmp_path / "record.txt").read_text() == record


def test_a_statistics_file_without_channels_is_refused(tmp_path: Path) -> None:
    path, batches = network(tmp_path / "net.onnx", "Conv")
    (tmp_path / "plain").mkdir()
    plain = quantize_file(tmp_path / "plain", path, batches)
    amct_lite.calibrate(plain.graph, batches, statistics_file=tmp_path / "statistics.npz")
    flow = quantize_file(tmp_path, path, batches, edit=balancing())
    with pytest.raises(CalibrationError, match="not channel by channel"):
        amct_lite.calibrate(flow.graph, batches, statistics_file=tmp_path / "statistics.npz")
