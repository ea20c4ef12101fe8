"""Few levels of every input, weights float: chosen by the output's error, and weights fitted to them."""

import json

import numpy as np
import pytest

import amct_lite as amct
from amct_lite.errors import ParameterError, RecordError
from amct_lite.graph.model import load_model
from amct_lite.graph.runtime import create_session
from amct_lite.quantize.weight_rows import to_rows
from amct_lite.refine.calibration import find_records
from amct_lite.samples.digits.data import MODEL_FILE, load_split

DIGITS = load_split()
BATCHES = [DIGITS.calibration.images[start : start + 50] for start in range(0, 200, 50)]
NUM_LEVELS = 6
MODEL = load_model(MODEL_FILE)


def plan(folder, *, output_aware=False, refit=False, weights=None, skip=None):
    folder.mkdir(exist_ok=True)
    config_file = folder / "config.json"
    amct.create_quant_config(config_file, MODEL_FILE, batch_num=len(BATCHES), target="onnxruntime")
    config = json.loads(config_file.read_text())
    for name, block in config.items():
        if isinstance(block, dict) and "weight_quant_params" in block:
            nuq = {"target_compression_ratio": NUM_LEVELS / 256, "output_aware": output_aware}
            block["activation_quant_params"]["nuq"] = nuq
            block["weight_quant_params"] = weights or {"wts_algo": "none", "refit": refit}
            block["quant_enable"] = name != skip
    config_file.write_text(json.dumps(config))
    return amct.init(config_file, MODEL_FILE, None, folder / "record.txt")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(output_aware, refit) -> the files written."""
    files = {}
    for output_aware, refit in ((False, False), (True, False), (False, True), (True, True)):
        folder = tmp_path_factory.mktemp("few_levels")
        graph = plan(folder, output_aware=output_aware, refit=refit)
        amct.calibrate(graph, BATCHES)
        files[output_aware, refit] = amct.save_model(graph, "Both", folder / "digits").files
    return files


def test_each_brings_unseen_data_nearer_to_the_float_network(saved, run_digits):
    expected = run_digits(MODEL_FILE)
    errors = {
        key: np.sum(np.square(run_digits(files["fake_quant_model"]) - expected)) / np.sum(np.square(expected))
        for key, files in saved.items()
    }
    assert errors[True, False] < errors[False, False]
    assert errors[False, True] < errors[False, False]
    assert errors[True, True] < min(errors[True, False], errors[False, True])


def test_a_fitted_layer_keeps_the_spread_and_the_mean_of_its_outputs(saved):
    """On the samples that it was fitted to, of which every position is looked at."""
    feed = {"image": np.concatenate(BATCHES)}
    quantized = load_model(saved[True, True]["fake_quant_model"])
    for layer in MODEL.layers:
        before, after = (
            create_session(graph.ir, extra_outputs=[layer.output]).run([layer.output], feed)[0]
            for graph in (MODEL, quantized)
        )
        if layer.weight is None:
            continue
        axes = tuple(axis for axis in range(before.ndim) if axis != 1)
        wanted, found = before.std(axis=axes), after.std(axis=axes)
        assert np.allclose(found, wanted, rtol=0.03), layer.name
        assert np.allclose(after.mean(axis=axes), before.mean(axis=axes), atol=0.03 * wanted.max()), layer.name


def test_a_fine_codebook_for_inputs_of_few_levels_is_the_fitted_weight(tmp_path):
    codebook = {"wts_algo": "codebook_quantize", "num_bits": 8, "level_type": "float16", "refine": "gptq"}
    # The codebook of conv1 would be larger than its floats.
    choices = {"fitted": {"refit": True}, "codebook": {"weights": codebook}}
    found = {
        name: find_records(plan(tmp_path / name, skip="conv1", **choice), BATCHES) for name, choice in choices.items()
    }
    refined = {name: record for name, record in found["codebook"].items() if record.codebook is not None}
    assert refined
    for name, record in refined.items():
        layer = MODEL.layer(name)
        own, fitted = to_rows(MODEL.weight(layer.weight), layer), to_rows(found["fitted"][name].weight, layer)
        distance = np.linalg.norm(record.codebook.decode() - fitted)
        assert distance < 0.6 * np.linalg.norm(own - fitted), name


def test_both_forms_give_the_same_numbers_whether_optimized_or_not(saved, run_digits):
    files = saved[True, True]
    expected = run_digits(files["fake_quant_model"], optimize=False)
    for kind in ("fake_quant_model", "deploy_model"):
        for optimize in (False, True):
            found = run_digits(files[kind], optimize=optimize)
            # Sums in another order: one that lies on a bound between two of 6 levels may fall on the other side.
            same = np.isclose(found, expected, rtol=1e-4, atol=1e-4).all(axis=1)
            assert same.mean() >= 0.99, (kind, optimize)


def test_two_runs_give_the_same_record(saved, tmp_path):
    again = plan(tmp_path, output_aware=True, refit=True)
    amct.calibrate(again, BATCHES)
    files = amct.save_model(again, "Deploy", tmp_path / "digits").files
    assert files["deploy_model"].read_bytes() == saved[True, True]["deploy_model"].read_bytes()


def test_a_record_without_its_weights_is_refused(tmp_path):
    graph = plan(tmp_path, refit=True)
    amct.calibrate(graph, BATCHES)
    (tmp_path / "record.txt.weights.npz").unlink()
    with pytest.raises(RecordError, match=r"no file record\.txt\.weights\.npz beside"):
        amct.save_model(graph, "Deploy", tmp_path / "digits")


@pytest.mark.parametrize("key", ["output_aware", "refit"])
def test_what_reads_the_data_once_refuses_by_name(tmp_path, key):
    graph = plan(tmp_path, **{key: True})
    with pytest.raises(ParameterError, match=f'"{key}": true'):
        amct.quantize_model(graph, tmp_path / "modified.onnx")
