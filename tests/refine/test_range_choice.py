"""`act_algo: "auto"`: chosen by the error at the layers' outputs, and it can be asked why."""

import json

import numpy as np
import pytest

import amct_lite
from amct_lite.calibration.ranges import RANGE_ALGORITHMS
from amct_lite.errors import FileError
from amct_lite.files.range_file import range_file
from amct_lite.graph.model import load_model
from amct_lite.graph.runtime import create_session
from amct_lite.samples.digits.data import MODEL_FILE, load_split
from amct_lite.uniform.grid import dequantize, grid_from_range, quantize

DIGITS = load_split()
BATCHES = [DIGITS.calibration.images[start : start + 16] for start in range(0, 64, 16)]


def configured(folder, model_file, act_algo="auto", **global_keys):
    amct_lite.create_quant_config(folder / "c.json", model_file, batch_num=len(BATCHES), target="onnxruntime")
    config = json.loads((folder / "c.json").read_text()) | global_keys
    for block in config.values():
        if isinstance(block, dict):
            block["activation_quant_params"] = {"act_algo": act_algo}
            block.get("weight_quant_params", {}).pop("rounding", None)
    (folder / "c.json").write_text(json.dumps(config))
    return amct_lite.init(folder / "c.json", model_file, None, folder / "record.txt")


@pytest.fixture
def calibrated(tmp_path):
    graph = configured(tmp_path, MODEL_FILE)
    amct_lite.calibrate(graph, BATCHES)
    return graph


def test_every_layer_has_a_choice_by_its_output_and_the_record_follows_it(calibrated):
    choices = amct_lite.explain_ranges(calibrated)
    records = calibrated.read_records()
    assert list(choices) == [layer.name for layer in calibrated.quantized_layers]
    for name, choice in choices.items():
        assert choice.measure == "layer output"
        assert name in choice.layers
        errors = [candidate.error for candidate in choice.candidates]
        assert errors == sorted(errors)
        assert {each for candidate in choice.candidates for each in candidate.algorithms} == set(RANGE_ALGORITHMS)
        grid = grid_from_range(choice.chosen.clip, with_offset=choice.with_offset)
        assert (records[name].scale_d, records[name].offset_d) == (grid.scale, grid.offset)


def test_the_errors_are_those_at_the_layers_output(tmp_path, write_network):
    """A product small enough for every row to be taken: the error spelled out."""
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(12, 5)).astype(np.float32)
    file = write_network("g (float[N,12] x) => (y) { [layer] y = MatMul (x, w) }", {"w": weight})
    x = rng.standard_t(3, size=(64, 12)).astype(np.float32)
    graph = configured(tmp_path, file, batch_num=1)
    amct_lite.calibrate(graph, [x])
    choice = amct_lite.explain_ranges(graph)["layer"]
    assert len(choice.candidates) > 2
    for candidate in choice.candidates:
        grid = grid_from_range(candidate.clip, with_offset=True)
        noise = (dequantize(quantize(x, grid), grid) - x) @ weight
        assert candidate.error == pytest.approx(float(np.sum(noise**2) / np.sum((x @ weight) ** 2)), rel=1e-3)


def test_what_no_weight_reads_may_be_cut_off(tmp_path, write_network):
    """By the tensor's own error the large column decides; the layer does not look at it."""
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(8, 6)).astype(np.float32)
    weight[0] = 0.0
    file = write_network("g (float[N,8] x) => (y) { [layer] y = MatMul (x, w) }", {"w": weight})
    x = rng.normal(size=(4096, 8)).astype(np.float32)
    x[:, 0] *= np.where(rng.random(4096) < 1e-3, 200.0, 1.0)
    graph = configured(tmp_path, file, batch_num=1)
    amct_lite.calibrate(graph, [x])
    chosen = amct_lite.explain_ranges(graph)["layer"].chosen.clip
    other = configured(tmp_path, file, "mse", batch_num=1)
    amct_lite.calibrate(other, [x])
    scale_of_mse = other.read_records()["layer"].scale_d
    assert grid_from_range(chosen, with_offset=True).scale < 0.5 * scale_of_mse


def test_layers_that_read_one_tensor_get_one_range(tmp_path, write_network):
    rng = np.random.default_rng(3)
    shapes = {"v": (6, 3, 3, 3), "w": (4, 3, 1, 1)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    file = write_network("g (float[N,3,8,8] x) => (y, z) { [a] y = Conv (x, v)\n [b] z = Conv (x, w) }", weights)
    graph = configured(tmp_path, file, batch_num=1)
    amct_lite.calibrate(graph, [rng.normal(size=(32, 3, 8, 8)).astype(np.float32)])
    choices = amct_lite.explain_ranges(graph)
    assert choices["a"] == choices["b"]
    assert choices["a"].layers == ("a", "b")


def test_a_users_own_loop_chooses_by_the_histogram_and_says_so(tmp_path):
    graph = configured(tmp_path, MODEL_FILE)
    amct_lite.quantize_model(graph, tmp_path / "modified.onnx")
    session = amct_lite.InferenceSession(tmp_path / "modified.onnx")
    for batch in BATCHES:
        session.run(None, {session.get_inputs()[0].name: batch})
    for choice in amct_lite.explain_ranges(graph).values():
        assert choice.measure == "histogram"
        assert "mse" in choice.chosen.algorithms
        assert "no samples" in str(choice)


def test_the_summary_and_the_text_tell_each_candidate(calibrated, tmp_path):
    saved = amct_lite.save_model(calibrated, "Fakequant", tmp_path / "net")
    document = json.loads(saved.files["summary"].read_text())
    for layer in document["layers"]:
        choice = layer["range_choice"]
        assert choice["candidates"][0]["error"] == min(each["error"] for each in choice["candidates"])
    text = str(next(iter(amct_lite.explain_ranges(calibrated).values())))
    for name in RANGE_ALGORITHMS:
        assert name in text


def test_two_runs_give_the_same_files(tmp_path):
    files = []
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        graph = configured(tmp_path / run, MODEL_FILE)
        amct_lite.calibrate(graph, BATCHES)
        files.append([path.read_bytes() for path in (graph.record_file, range_file(graph.record_file))])
    assert files[0] == files[1]


def test_an_explanation_of_another_record_is_passed_over_and_a_damaged_one_refused(calibrated):
    path = range_file(calibrated.record_file)
    text = path.read_text()
    path.write_text(text.replace('"candidates"', '"nonsense"'))
    with pytest.raises(FileError, match="damaged"):
        amct_lite.explain_ranges(calibrated)
    path.write_text(text)
    calibrated.record_file.write_text(calibrated.record_file.read_text() + "\n")
    assert amct_lite.explain_ranges(calibrated) == {}


def test_another_algorithm_leaves_no_explanation_behind(calibrated, tmp_path):
    assert range_file(calibrated.record_file).exists()
    other = configured(tmp_path, MODEL_FILE, "minmax")
    amct_lite.calibrate(other, BATCHES)
    assert not range_file(other.record_file).exists()
    assert amct_lite.explain_ranges(other) == {}


def test_auto_keeps_the_network_as_it_is(calibrated, tmp_path):
    saved = amct_lite.save_model(calibrated, "Both", tmp_path / "net")
    name = calibrated.model.ir.graph.inputs[0].name
    feed = {name: BATCHES[0]}
    before = create_session(calibrated.model.ir).run(None, feed)[0]
    for form in ("fake_quant_model", "deploy_model"):
        after = create_session(load_model(saved.files[form]).ir).run(None, feed)[0]
        assert (after.argmax(axis=1) == before.argmax(axis=1)).mean() > 0.9
