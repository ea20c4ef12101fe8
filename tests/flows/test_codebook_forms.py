"""Codebooks end to end: every form of one quantization gives the same numbers, and the small file is small."""

import json

import numpy as np
import onnxruntime
import pytest

import amct_lite as amct
from amct_lite.errors import CalibrationError, ConfigError, RecordError
from amct_lite.samples.digits.data import MODEL_FILE, load_split


def run(path, images, *, optimize=True):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


@pytest.fixture(scope="module")
def digits():
    return load_split()


@pytest.fixture(scope="module")
def compressed(digits):
    return amct.compress(MODEL_FILE, bits=3, batches=[digits.calibration.images[:64]])


@pytest.mark.parametrize("activation_bits", [None, 8])
def test_every_storage_and_form_gives_the_same_outputs(digits, activation_bits, tmp_path) -> None:
    batches = [digits.calibration.images[:64]]
    found = amct.compress(MODEL_FILE, bits=4, batches=batches, activation_bits=activation_bits)
    images = digits.validation.images[:50]
    kinds = ["packed", "dense"] + (["int8"] if activation_bits else [])
    saved = {kind: found.save(tmp_path / kind, storage=kind, save_type="Both").files for kind in kinds}
    expected = run(saved["packed"]["fake_quant_model"], images, optimize=False)
    for kind in kinds:
        for optimize in (False, True):
            outputs = run(saved[kind]["deploy_model"], images, optimize=optimize)
            # With quantized inputs a sum that falls on the other side of a tie moves a level; the classes stay.
            tolerance = 0.5 if activation_bits else 1e-3
            np.testing.assert_allclose(outputs, expected, atol=tolerance)
    sizes = {kind: saved[kind]["deploy_model"].stat().st_size for kind in kinds}
    assert sizes["packed"] < 0.2 * MODEL_FILE.stat().st_size < sizes["dense"]


def test_refinement_with_data_is_nearer_to_float(digits, tmp_path) -> None:
    images = digits.validation.images
    float_scores = run(MODEL_FILE, images)

    def error(refine):
        found = amct.compress(MODEL_FILE, bits=2, batches=[digits.calibration.images[:96]], refine=refine)
        files = found.save(tmp_path / refine).files
        return float(np.square(run(files["deploy_model"], images) - float_scores).mean())

    errors = [error(refine) for refine in ("none", "bias", "gptq", "lnq")]
    assert errors[1] < errors[0]
    assert max(errors[2:]) < 0.7 * errors[1]


def test_two_runs_give_the_same_bytes(digits, compressed, tmp_path) -> None:
    again = amct.compress(MODEL_FILE, bits=3, batches=[digits.calibration.images[:64]])
    first, second = compressed.save(tmp_path / "a"), again.save(tmp_path / "b")
    assert first.files.keys() == second.files.keys()
    for kind, path in first.files.items():
        assert path.read_bytes() == second.files[kind].read_bytes(), kind


def test_a_config_edited_by_hand_gives_what_compress_gives(digits, compressed, tmp_path) -> None:
    config_file, record_file = tmp_path / "config.json", tmp_path / "record.txt"
    amct.create_quant_config(config_file, MODEL_FILE, target="onnxruntime")
    config = json.loads(config_file.read_text())
    # Codes of 6 bits for pairs where their table is small beside them, of 3 bits elsewhere.
    pairs = {"num_bits": 6, "vector_size": 2}
    for name, block in config.items():
        if isinstance(block, dict) and "weight_quant_params" in block:
            codes = pairs if name == "fc1" else {"num_bits": 3}
            block["weight_quant_params"] = {"wts_algo": "codebook_quantize", **codes}
            block["activation_quant_params"] = {"act_algo": "none"}
    del config["pool"]
    config_file.write_text(json.dumps(config))
    graph = amct.init(config_file, MODEL_FILE, None, record_file)
    amct.calibrate(graph, [digits.calibration.images[:64]])
    by_hand = amct.save_model(graph, "Deploy", tmp_path / "digits")
    at_once = compressed.save(tmp_path / "once")
    assert by_hand.files["deploy_model"].read_bytes() == at_once.files["deploy_model"].read_bytes()

    codebooks = tmp_path / "record.txt.weights.npz"
    whole = codebooks.read_bytes()
    codebooks.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(amct.AmctError, match="cannot be read"):
        amct.save_model(graph, "Deploy", tmp_path / "digits")
    codebooks.unlink()
    with pytest.raises(RecordError, match=r"no file record.txt.weights.npz beside.*calibrate again"):
        amct.save_model(graph, "Deploy", tmp_path / "digits")
    codebooks.write_bytes(whole)
    record_file.write_text(record_file.read_text() + "\n")
    with pytest.raises(RecordError, match="made for another record"):
        amct.save_model(graph, "Deploy", tmp_path / "digits")


def test_a_fraction_of_bits_bounds_the_average(digits, tmp_path) -> None:
    found = amct.compress(MODEL_FILE, bits=3.4, batches=[digits.calibration.images[:64]])
    summary = found.save(tmp_path).summary
    layers = [layer for layer in summary.layers if layer.form == "codebook"]
    assert len({layer.levels for layer in layers}) > 1
    assert 8 * sum(layer.bytes_after for layer in layers) <= 3.4 * sum(layer.num_weights for layer in layers)


def test_a_fraction_of_bits_bounds_layers_whose_channels_run_along_two_axes(write_network, tmp_path) -> None:
    """Such a layer has no scales of channels beside int8 levels: its vectors have float16 ones, of twice the bytes."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(32, 32, 3, 3)).astype(np.float32)
    body = "[layer] y = ConvTranspose<group=2>(x, w)"
    path = write_network(f"g (float[4,32,6,6] x) => (float[4,64,8,8] y) {{ {body} }}", {"w": weight})
    batches = [rng.normal(size=(4, 32, 6, 6)).astype(np.float32) for _ in range(4)]
    for bits in (1.8, 2.1, 3.8, 4.5):
        (layer,) = amct.compress(path, bits=bits, batches=batches).save(tmp_path / str(bits)).summary.layers
        assert layer.form == "codebook"
        assert 8 * layer.bytes_after <= bits * layer.num_weights, bits


def test_the_ascend_target_refuses_codebooks_and_float_inputs(tmp_path) -> None:
    config_file = tmp_path / "config.json"
    amct.create_quant_config(config_file, MODEL_FILE)
    for part, change in (
        ("weight_quant_params", {"wts_algo": "codebook_quantize"}),
        ("activation_quant_params", {"act_algo": "none"}),
    ):
        config = json.loads(config_file.read_text())
        config["conv2"][part] = change
        edited = tmp_path / "edited.json"
        edited.write_text(json.dumps(config))
        with pytest.raises(ConfigError, match="onnxruntime"):
            amct.init(edited, MODEL_FILE)


def test_data_that_is_missing_or_not_finite_is_an_error(digits) -> None:
    with pytest.raises(amct.AmctError, match="needs calibration data"):
        amct.compress(MODEL_FILE, bits=3.5)
    images = digits.calibration.images[:8].copy()
    images[3] = np.nan
    with pytest.raises(CalibrationError, match="'image' is not finite in batch 1"):
        amct.compress(MODEL_FILE, bits=4, batches=[images])
