"""`convert_qat_model`: the factors of a QDQ model give its own outputs again, as fake-quant and as deploy model."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import amct_lite as amct
from amct_lite.errors import ModelError, ParameterError
from amct_lite.evaluators import Batches
from amct_lite.files.record import read_record
from amct_lite.samples.digits.data import MODEL_FILE, load_split
from amct_lite.samples.squeezenet_imagenet.data import SHARED_DATA, shared_images

# Every operand that has a grid: x (scale s, zero point z), w (t, u) and one behind the layer.
CONV = """net (float[N, 3, 6, 6] x) => (y)
{ q = QuantizeLinear (x, s, z)
  d = DequantizeLinear (q, s, z)
  v = DequantizeLinear <axis = 0> (w, t, u)
  [conv] y = Conv (d, v, b) }"""
SCALES = np.array([0.01, 0.02, 0.03, 0.04], np.float32)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def conv_weights(rng: np.random.Generator, **changes: np.ndarray) -> dict[str, np.ndarray]:
    weights = {
        "s": np.float32(0.05),
        "z": np.uint8(100),
        "w": rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "t": SCALES,
        "u": np.zeros(4, np.int8),
        "b": rng.normal(size=4).astype(np.float32),
    }
    return {name: np.asarray(array) for name, array in {**weights, **changes}.items()}


class Reader(CalibrationDataReader):
    def __init__(self, name: str, batches: Iterable[np.ndarray]) -> None:
        self._feeds = iter([{name: batch} for batch in batches])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def quantize_with_onnxruntime(folder: Path, model: Path, batches: Iterable[np.ndarray], **options: Any) -> Path:
    name = ir.load(model).graph.inputs[0].name
    quant_pre_process(model, folder / "prepared.onnx")
    quantize_static(
        folder / "prepared.onnx",
        folder / "qdq.onnx",
        Reader(name, batches),
        quant_format=QuantFormat.QDQ,
        **{"weight_type": QuantType.QInt8, **options},
    )
    return folder / "qdq.onnx"


def check_same_function(run, qdq: Path, saved, feeds, *, atol: float = 1e-5) -> None:
    """Where every grid is in front of a layer, nothing but the order of float sums may differ."""
    expected, found = run(qdq, feeds, "DISABLE"), run(saved.files["fake_quant_model"], feeds)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("zero_point", [np.uint8(100), np.uint8(0), np.int8(-28), np.int8(0)])
def test_integers_of_either_sign_give_the_same_function(tmp_path, write_network, run_network, rng, zero_point) -> None:
    qdq = write_network(CONV, conv_weights(rng, z=zero_point))
    saved = amct.convert_qat_model(qdq, tmp_path / "out" / "net", tmp_path / "record.txt")
    record = read_record(tmp_path / "record.txt")["conv"]
    assert record.scale_d == float(np.float32(0.05))
    assert record.offset_d == int(zero_point) - (128 if zero_point.dtype == np.uint8 else 0)
    assert record.scale_w == tuple(map(float, SCALES))
    feeds = {"x": rng.normal(0, 4, (2, 3, 6, 6)).astype(np.float32)}
    # The bias is on a grid of its own now, as AMCT has it: scale_w * scale_d.
    check_same_function(run_network, qdq, saved, feeds, atol=float(SCALES.max()) * 0.05)
    graph = ir.load(saved.files["deploy_model"]).graph
    assert [node.op_type for node in graph] == ["AscendQuant", "Conv", "AscendDequant"]


def test_unsigned_weights_around_128_are_symmetric(tmp_path, write_network, run_network, rng) -> None:
    weights = conv_weights(rng)
    weights["w"], weights["u"] = (weights["w"].astype(np.int16) + 128).astype(np.uint8), np.full(4, 128, np.uint8)
    qdq = write_network(CONV, weights)
    saved = amct.convert_qat_model(qdq, tmp_path / "out" / "net")
    feeds = {"x": rng.normal(0, 4, (2, 3, 6, 6)).astype(np.float32)}
    check_same_function(run_network, qdq, saved, feeds, atol=float(SCALES.max()) * 0.05)
    assert not (tmp_path / "record.txt").exists()


AS_PYTORCH_EXPORTS = {
    "Conv": ("float[N, 3, 6, 6] x", "Conv (d, v, b)", (4, 3, 3, 3), 0),
    "ConvTranspose": ("float[N, 3, 6, 6] x", "ConvTranspose (d, v, b)", (3, 4, 3, 3), 1),
    "Gemm": ("float[N, 3] x", "Gemm <transB = 1> (d, v, b)", (4, 3), 0),
    "MatMul": ("float[N, 5, 3] x", "MatMul (d, v)", (3, 4), 1),
}


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("name", AS_PYTORCH_EXPORTS)
def test_float_weights_behind_both_operators_give_the_same_function(
    tmp_path, write_network, run_network, rng, name: str, per_channel: bool
) -> None:
    declared, call, shape, axis = AS_PYTORCH_EXPORTS[name]
    text = f"""net ({declared}) => (y)
    {{ q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z)
      r = QuantizeLinear <axis = {axis}> (w, t, u) v = DequantizeLinear <axis = {axis}> (r, t, u)
      [layer] y = {call} }}"""
    weights = conv_weights(rng, w=rng.normal(size=shape).astype(np.float32))
    if not per_channel:
        weights |= {"t": np.asarray(SCALES[0]), "u": np.asarray(np.int8(0))}
    if "b)" not in call:
        del weights["b"]
    qdq = write_network(text, weights)
    saved = amct.convert_qat_model(qdq, tmp_path / "out" / "net", target="onnxruntime")
    dims = [2, *(int(size) for size in declared.split("]")[0].split(", ")[1:])]
    feeds = {"x": rng.normal(0, 4, dims).astype(np.float32)}
    check_same_function(run_network, qdq, saved, feeds, atol=float(SCALES.max()) * 0.05)
    assert [layer.form for layer in saved.summary.layers] == ["int8"]


def test_a_weight_that_is_transposed_behind_its_grid_keeps_it(tmp_path, write_network, run_network, rng) -> None:
    text = """net (float[N, 5, 3] x) => (y)
    { q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z)
      v = DequantizeLinear <axis = 0> (w, t, u) p = Transpose (v) [layer] y = MatMul (d, p) }"""
    weights = conv_weights(rng, w=rng.integers(-127, 128, (4, 3)).astype(np.int8))
    del weights["b"]
    qdq = write_network(text, weights)
    saved = amct.convert_qat_model(qdq, tmp_path / "out" / "net", target="onnxruntime")
    assert [layer.form for layer in saved.summary.layers] == ["int8"]
    check_same_function(run_network, qdq, saved, {"x": rng.normal(0, 4, (2, 5, 3)).astype(np.float32)})


def test_a_bias_in_int32_becomes_the_layers_bias(tmp_path, write_network, run_network, rng) -> None:
    text = CONV.replace("Conv (d, v, b)", "Conv (d, v, f)").replace(
        "[conv]", "f = DequantizeLinear <axis = 0> (b, c, o) [conv]"
    )
    weights = conv_weights(rng, b=rng.integers(-9999, 9999, 4).astype(np.int32), c=SCALES * np.float32(0.05))
    qdq = write_network(text, {**weights, "o": np.zeros(4, np.int32)})
    saved = amct.convert_qat_model(qdq, tmp_path / "out" / "net")
    check_same_function(run_network, qdq, saved, {"x": rng.normal(0, 4, (2, 3, 6, 6)).astype(np.float32)}, atol=1e-4)
    biases = [value.const_value for name, value in ir.load(saved.files["deploy_model"]).graph.initializers.items()]
    stored = next(tensor.numpy() for tensor in biases if tensor.dtype == ir.DataType.INT32)
    np.testing.assert_array_equal(stored, weights["b"])


@pytest.mark.parametrize("zero_point", [np.uint8(0), np.int8(-128)])
def test_a_relu_that_the_grid_stands_for_comes_back(tmp_path, write_network, run_network, rng, zero_point) -> None:
    """ONNX Runtime leaves Relu out where the grid behind it starts at 0; Neg has no grid of its own."""
    text = CONV.replace("y = Conv", "c = Conv").replace(
        "b) }", "b) qc = QuantizeLinear (c, k, m) dc = DequantizeLinear (qc, k, m) y = Neg (dc) }"
    )
    qdq = write_network(text, conv_weights(rng, k=np.float32(0.01), m=zero_point))
    saved = amct.convert_qat_model(qdq, tmp_path / "out" / "net")
    feeds = {"x": rng.normal(0, 4, (2, 3, 6, 6)).astype(np.float32)}
    expected = run_network(qdq, feeds, "DISABLE")["y"]
    found = run_network(saved.files["fake_quant_model"], feeds)["y"]
    assert expected.min() == found.min() == -np.float32(255) * np.float32(0.01)
    assert found.max() == 0
    np.testing.assert_allclose(found, expected, atol=0.011)


@pytest.mark.parametrize("activation", [QuantType.QUInt8, QuantType.QInt8])
@pytest.mark.parametrize("options", [{}, {"extra_options": {"AddQDQPairToWeight": True}}], ids=["int8", "float"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_the_digits_of_onnxruntimes_quantizer_stay(tmp_path, run_network, activation, options, per_channel) -> None:
    split = load_split()
    images = [split.calibration.images]
    qdq = quantize_with_onnxruntime(
        tmp_path, MODEL_FILE, images, per_channel=per_channel, activation_type=activation, **options
    )
    saved = amct.convert_qat_model(qdq, tmp_path / "out" / "net", tmp_path / "record.txt")
    assert list(read_record(tmp_path / "record.txt")) == ["conv1", "conv2", "conv3", "fc1", "fc2"]
    feeds = {"image": split.held_out.images}
    expected = run_network(qdq, feeds, "DISABLE")["logits"]
    found = run_network(saved.files["fake_quant_model"], feeds)["logits"]
    # The QDQ model quantizes outputs too, the logits to this step.
    step = onnx_scale(qdq, "logits_scale")
    assert np.median(np.abs(found - expected)) < step
    assert np.mean(found.argmax(axis=1) == expected.argmax(axis=1)) > 0.995


def onnx_scale(path: Path, name: str) -> float:
    return float(ir.load(path).graph.initializers[name].const_value.numpy())


def test_the_classes_of_squeezenet_stay(tmp_path, find_model, run_network) -> None:
    model = find_model("squeezenet1.1/squeezenet1.1.onnx")
    if not SHARED_DATA.is_dir():
        pytest.skip("there are no photos in ../shared")
    photos = list(Batches(shared_images("tuxpaint141"), batch_size=8))[:4]
    qdq = quantize_with_onnxruntime(tmp_path, model, photos[:1], per_channel=True)
    saved = amct.convert_qat_model(qdq, tmp_path / "out" / "net")
    assert [layer.form for layer in saved.summary.layers] == ["int8"] * 26
    feeds = {"x": np.concatenate(photos[1:])}
    floats = run_network(model, feeds)["logits"]
    expected = run_network(qdq, feeds, "DISABLE")["logits"]
    found = run_network(saved.files["fake_quant_model"], feeds)["logits"]
    assert np.mean(found.argmax(axis=1) == expected.argmax(axis=1)) > 0.9
    # Same factors: nearer to the QDQ model than that is to the float one, though it quantizes outputs, too.
    assert np.abs(found - expected).mean() < 0.6 * np.abs(floats - expected).mean()
    assert np.median(np.abs(found - expected)) < np.ptp(expected) / 255


def test_the_record_converts_the_float_model_of_the_same_weights(tmp_path, write_network, rng, run_network) -> None:
    weights = conv_weights(rng)
    qdq = write_network(CONV, weights)
    first = amct.convert_qat_model(qdq, tmp_path / "first" / "net", tmp_path / "record.txt")
    floats = {"b": weights["b"], "v": weights["w"].astype(np.float32) * SCALES.reshape(-1, 1, 1, 1)}
    model = write_network("net (float[N, 3, 6, 6] x) => (y) { [conv] y = Conv (x, v, b) }", floats, name="float.onnx")
    second = amct.convert_model(model, tmp_path / "record.txt", tmp_path / "second" / "net")
    feeds = {"x": rng.normal(0, 4, (2, 3, 6, 6)).astype(np.float32)}
    pair = [run_network(saved.files["fake_quant_model"], feeds)["y"] for saved in (first, second)]
    np.testing.assert_array_equal(*pair)


def changed(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    ("pairs", "weights", "message"),
    [
        ((("b) }", "b) n = QuantizeLinear (y, s, z) }"), ("(y)\n", "(y, n)\n")), {}, "has no DequantizeLinear behind"),
        (
            (("q = QuantizeLinear (x, s, z)", "q = Cast <to = 2> (x)"),),
            {},
            "which no QuantizeLinear makes: they must be paired",
        ),
        (
            (("d = DequantizeLinear (q, s, z)", "d = DequantizeLinear (q, k, z)"),),
            {"k": np.float32(0.06)},
            "have different factors",
        ),
        (
            (("d = DequantizeLinear (q, s, z)", "d = DequantizeLinear (q, s, k)"),),
            {"k": np.uint8(5)},
            "have different factors",
        ),
        ((), {"s": np.float32([0.1, 0.2, 0.3]), "z": np.zeros(3, np.uint8)}, "3 scales, one for each channel"),
        ((), {"u": np.array([0, 1, 0, 0], np.int8)}, "weights must be symmetric"),
        ((("<axis = 0>", "<axis = 1>"),), {"t": SCALES[:3], "u": np.zeros(3, np.int8)}, "each channel of axis 1"),
        ((), {"s": np.float32(0)}, "its scale must be finite and greater than 0"),
        ((), {"z": np.uint16(3)}, "its levels are of type uint16, and only int8 and uint8 are supported"),
    ],
)
def test_a_grid_that_no_record_can_express_is_refused(tmp_path, write_network, rng, pairs, weights, message) -> None:
    every = conv_weights(rng, **weights)
    text = changed(CONV, *pairs)
    qdq = write_network(text, {name: every[name] for name in every if f"{name}" in _operands(text)}, opset=21)
    with pytest.raises(ModelError) as caught:
        amct.convert_qat_model(qdq, tmp_path / "out" / "net")
    assert message in str(caught.value)
    assert caught.value.layer
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()


def _operands(text: str) -> set[str]:
    return {name for call in text.split("(")[1:] for name in call.split(")")[0].replace(" ", "").split(",")}


def test_an_opset_that_is_too_old_says_which_one_is_wanted(tmp_path, write_network, rng) -> None:
    text = CONV.replace(" <axis = 0>", "").replace("[conv]", "n = Affine (v) [conv]").replace("(d, v, b)", "(d, n, b)")
    qdq = write_network(text, conv_weights(rng, t=np.float32(0.01), u=np.int8(0)), opset=10)
    with pytest.raises(ModelError, match="operator set 10 cannot be raised to 13"):
        amct.convert_qat_model(qdq, tmp_path / "out" / "net")


def test_opset_10_is_raised(tmp_path, write_network, run_network, rng) -> None:
    text = CONV.replace(" <axis = 0>", "")
    qdq = write_network(text, conv_weights(rng, t=np.float32(0.01), u=np.int8(0)), opset=10)
    saved = amct.convert_qat_model(qdq, tmp_path / "out" / "net")
    feeds = {"x": rng.normal(0, 4, (2, 3, 6, 6)).astype(np.float32)}
    check_same_function(run_network, qdq, saved, feeds, atol=0.01 * 0.05)


def test_a_float_model_and_a_caffe_network_are_sent_to_convert_model(tmp_path) -> None:
    with pytest.raises(ModelError, match="for a float model and a record use convert_model"):
        amct.convert_qat_model(MODEL_FILE, tmp_path / "out" / "net")
    with pytest.raises(ParameterError, match="must be an ONNX file") as caught:
        amct.convert_qat_model("net.prototxt", tmp_path / "out" / "net")
    assert "convert_model" in str(caught.value)


def test_a_layer_with_a_grid_on_one_side_stays_float_and_is_named(tmp_path, write_network, rng, caplog) -> None:
    text = CONV.replace("b) }", "b) [second] z2 = Conv (d, w2) }").replace("(y)", "(y, z2)")
    floats = rng.normal(size=(2, 3, 1, 1)).astype(np.float32)
    qdq = write_network(text, conv_weights(rng, w2=floats))
    with caplog.at_level(logging.WARNING):
        saved = amct.convert_qat_model(qdq, tmp_path / "out" / "net")
    assert "'second' stays float: its weight does not come from DequantizeLinear" in "\n".join(caplog.messages)
    assert {layer.name: layer.form for layer in saved.summary.layers} == {"conv": "int8", "second": "float"}


def test_a_layer_that_the_target_cannot_run_stays_float_and_is_named(tmp_path, write_network, rng, caplog) -> None:
    text = CONV.replace(
        "b) }", "b) w3 = DequantizeLinear (k, m) [up] y2 = ConvTranspose <dilations = [2, 2]> (d, w3) }"
    )
    more = {"k": rng.integers(-9, 9, (3, 2, 3, 3)).astype(np.int8), "m": np.float32(0.1)}
    qdq = write_network(text.replace("=> (y)", "=> (y, y2)"), conv_weights(rng, **more))
    with caplog.at_level(logging.WARNING):
        saved = amct.convert_qat_model(qdq, tmp_path / "out" / "net")
    assert "'up' stays float under the target 'ascend': dilation must be 1" in "\n".join(caplog.messages)
    assert {layer.name: layer.form for layer in saved.summary.layers} == {"conv": "int8", "up": "float"}


def test_outputs_and_inputs_keep_name_type_and_shape(tmp_path, write_network, run_network, rng) -> None:
    """Also where the network returns what it reads, quantized."""
    text = changed(CONV, ("=> (y)", "=> (y, d)"))
    qdq = write_network(text, conv_weights(rng))
    saved = amct.convert_qat_model(qdq, tmp_path / "out" / "net")
    before, after = ir.load(qdq).graph, ir.load(saved.files["fake_quant_model"]).graph
    assert [(v.name, v.dtype, v.shape) for v in before.inputs] == [(v.name, v.dtype, v.shape) for v in after.inputs]
    assert [value.name for value in after.outputs] == ["y", "d"]
    feeds = {"x": rng.normal(0, 4, (2, 3, 6, 6)).astype(np.float32)}
    found, expected = run_network(saved.files["fake_quant_model"], feeds), run_network(qdq, feeds, "DISABLE")
    assert np.abs(found["y"] - expected["y"]).max() < 0.01
    np.testing.assert_array_equal(found["d"], feeds["x"])
