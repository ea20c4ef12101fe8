"""Uniform weights repaired on samples: each choice of the config brings unseen data nearer to the float network."""

import json

import numpy as np
import pytest

import amct_lite as amct
from amct_lite.errors import ParameterError
from amct_lite.export.editor import GraphEditor
from amct_lite.files.config import ArqParams
from amct_lite.graph.model import load_model
from amct_lite.graph.runtime import create_session
from amct_lite.quantize.weight_rows import to_rows
from amct_lite.refine.layer_inputs import LayerInputs
from amct_lite.refine.output_statistics import output_deviations, re_estimated_factors
from amct_lite.refine.uniform_weights import UniformRows, fit_uniform_rows
from amct_lite.samples.digits.data import MODEL_FILE, load_split
from amct_lite.uniform.mse_scales import mse_scales

DIGITS = load_split()
BATCHES = [DIGITS.calibration.images[start : start + 50] for start in range(0, 200, 50)]

CHOICES = {
    "plain": {},
    "mse": {"scale_algo": "mse"},
    "bias": {"bias_correction": True},
    "batch_norm": {"batch_norm_reestimation": True},
    "gptq": {"rounding": "gptq"},
    "adaround": {"rounding": "adaround"},
    "per tensor": {"channel_wise": False},
    "per tensor, gptq": {"channel_wise": False, "rounding": "gptq", "scale_algo": "mse"},
}


def plan(folder, choice, *, float_inputs=True):
    config_file = folder / "config.json"
    amct.create_quant_config(config_file, MODEL_FILE, batch_num=len(BATCHES), target="onnxruntime")
    config = json.loads(config_file.read_text())
    for block in config.values():
        if isinstance(block, dict) and "weight_quant_params" in block:
            block["weight_quant_params"] = {"wts_algo": "arq_quantize", "num_bits": 4, **choice}
            if float_inputs:
                block["activation_quant_params"] = {"act_algo": "none"}
    if float_inputs:
        del config["pool"]
    config_file.write_text(json.dumps(config))
    return amct.init(config_file, MODEL_FILE, None, folder / "record.txt")


@pytest.fixture(scope="module")
def errors(tmp_path_factory, run_digits):
    expected = run_digits(MODEL_FILE)
    found = {}
    for name, choice in CHOICES.items():
        folder = tmp_path_factory.mktemp("repair")
        graph = plan(folder, choice)
        amct.calibrate(graph, BATCHES)
        file = amct.save_model(graph, "Fakequant", folder / "digits").files["fake_quant_model"]
        found[name] = float(np.sum(np.square(run_digits(file) - expected)) / np.sum(np.square(expected)))
    return found


def test_each_repair_helps(errors):
    for name in ("bias", "batch_norm", "gptq", "adaround"):
        assert errors[name] < errors["plain"], (name, errors)
    for name in ("gptq", "adaround"):
        assert errors[name] < 0.5 * errors["plain"], (name, errors)
    assert errors["per tensor, gptq"] < 0.5 * errors["per tensor"]


def test_forms_agree_with_quantized_inputs(tmp_path, run_digits):
    graph = plan(tmp_path, {"rounding": "gptq", "scale_algo": "mse"}, float_inputs=False)
    amct.calibrate(graph, BATCHES)
    files = amct.save_model(graph, "Both", tmp_path / "digits").files
    expected = run_digits(files["fake_quant_model"], optimize=False)
    for kind, optimize in (("fake_quant_model", True), ("deploy_model", False), ("deploy_model", True)):
        found = run_digits(files[kind], optimize=optimize)
        assert np.mean(found.argmax(axis=1) == expected.argmax(axis=1)) > 0.98, (kind, optimize)
        assert np.sum(np.square(found - expected)) < 1e-3 * np.sum(np.square(expected)), (kind, optimize)


def test_the_users_own_loop_is_refused_by_name(tmp_path):
    graph = plan(tmp_path, {"bias_correction": True}, float_inputs=False)
    with pytest.raises(ParameterError, match='"bias_correction": true'):
        amct.quantize_model(graph, tmp_path / "modified.onnx")


def test_scales_are_fitted_and_levels_stay_in_range():
    rng = np.random.default_rng(0)
    target = rng.standard_t(4, size=(2, 3, 10))
    quadratic = np.stack([np.eye(10) + 0.1, np.eye(10)])
    for rounding in ("nearest", "gptq", "adaround"):
        for channel_wise in (True, False):
            if rounding == "nearest":
                scales = mse_scales(target.reshape(6, 10), axis=0 if channel_wise else None, num_bits=4)
                rows = UniformRows.nearest(target.reshape(6, 10), scales, 4)
            else:
                params = ArqParams(num_bits=4, rounding=rounding, scale_algo="mse")
                rows = fit_uniform_rows(target, quadratic, params, channel_wise=channel_wise)
            assert rows.scales.shape == ((6,) if channel_wise else (1,))
            assert -8 <= rows.levels.min() <= rows.levels.max() <= 7
            assert rows.decode().shape == (6, 10)


def test_a_bias_too_large_for_int32_raises_the_scales():
    params = ArqParams(num_bits=8, rounding="gptq")
    rows = fit_uniform_rows(np.full((1, 1, 4), 1e-3), np.eye(4)[None], params, channel_wise=True)
    raised = rows.with_room_for(np.array([1e6]), 1e-3, 8)
    assert raised.scales[0] > rows.scales[0]
    assert 1e6 / (float(raised.scales[0]) * 1e-3) < 2**31


def test_deviations_are_those_of_the_outputs(write_network):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 2, 3, 3)).astype(np.float32)
    text = "g (float[N,4,6,6] x) => (y) { [conv] y = Conv <group = 2, pads = [1, 1, 1, 1]> (x, w) }"
    model = load_model(write_network(text, {"w": weight}))
    (layer,) = model.layers
    x = rng.normal(size=(5, 4, 6, 6)).astype(np.float32)
    inputs = LayerInputs.of_node(layer, GraphEditor(model).node_of(layer))
    rows = to_rows(weight, layer)
    wanted, found = output_deviations(inputs, (rows, 2 * rows), [(x[:2], 3 * x[:2]), (x[2:], 3 * x[2:])], seed=0)
    y = create_session(model.ir).run(None, {"x": x})[0]
    assert np.allclose(wanted, y.std(axis=(0, 2, 3)), rtol=1e-4)
    assert np.allclose(found, 6 * wanted, rtol=1e-4)
    assert np.allclose(re_estimated_factors(wanted, wanted), 1.0)
    about_zero, _ = output_deviations(inputs, (rows, rows), [(x, x)], seed=0, centred=False)
    assert np.allclose(about_zero, np.sqrt(np.square(y).mean(axis=(0, 2, 3))), rtol=1e-4)
