"""Mixed precision: each layer gets one of the ways that the config offers, and the result is what was evaluated."""

import json

import numpy as np
import onnxruntime
import pytest

import amct_lite as amct
from amct_lite.errors import CalibrationError, ConfigError
from amct_lite.evaluators import ArrayData, ClassificationEvaluator, DivergenceEvaluator
from amct_lite.samples.digits.data import MODEL_FILE, load_split

SPACE = ["float", "int8", "nuq32", "codebook6", "codebook4", "codebook3", "codebook2", "uniform4"]
SPLIT = load_split()


def calibration_batches():
    images = SPLIT.calibration.images
    return [images[i : i + 25] for i in range(0, 100, 25)]


def evaluator(max_drop=0.01):
    return ClassificationEvaluator(ArrayData(SPLIT.validation.images, SPLIT.validation.labels), max_drop=max_drop)


@pytest.fixture
def config_file(tmp_path):
    return write_config(tmp_path)


def write_config(folder, target="onnxruntime", edit=None, space=SPACE):
    file = folder / "config.json"
    amct.create_quant_config(file, MODEL_FILE, batch_num=4, target=target)
    config = json.loads(file.read_text())
    config["search_space"] = space
    config.pop("integer_operators", None)
    if edit is not None:
        edit(config)
    file.write_text(json.dumps(config))
    return file


def search(folder, config_file, test=None, **options):
    options.setdefault("calibration_data", calibration_batches())
    return amct.auto_nuq(MODEL_FILE, None, test or evaluator(), config_file, folder / "record.txt", folder, **options)


def blocks(result):
    return {name: block for name, block in result.config.items() if isinstance(block, dict)}


def test_the_smallest_that_satisfies_is_far_smaller_than_int8_and_runs_in_onnxruntime(tmp_path, config_file):
    result = search(tmp_path / "out", config_file)
    assert result.satisfied
    assert result.size_bytes < 0.6 * result.uniform_bytes
    session = onnxruntime.InferenceSession(result.files["deploy_model"])
    images, labels = SPLIT.validation.images, SPLIT.validation.labels
    accuracy = (session.run(None, {"image": images})[0].argmax(1) == labels).mean()
    assert result.original_metric - accuracy <= 0.01 + 2 / len(labels), "fake-quant and integer kernels round apart"
    # The weights' bytes are the deploy model's, but for its graph and biases.
    assert abs(result.files["deploy_model"].stat().st_size - result.size_bytes) < 12_000


def test_every_layer_gets_a_way_that_it_is_offered(tmp_path):
    def edit(config):
        config["conv1"]["search_space"] = ["float"]
        config["fc1"]["search_space"] = ["codebook3", "uniform4"]

    result = search(tmp_path / "out", write_config(tmp_path, edit=edit))
    by_unit = dict(zip(result.units, result.trials[-1].options, strict=True))
    assert by_unit["weight of conv1"] == "float"
    assert by_unit["weight of fc1"] in ("codebook3", "uniform4")
    assert blocks(result)["conv1"]["quant_enable"] is False
    assert set().union(*(trial.options for trial in result.trials)) <= set(SPACE)


@pytest.mark.parametrize(("asked", "size"), [({}, 2), ({"vector_size": 1}, 1), ({"refine": "none"}, 1)])
def test_codebooks_of_large_layers_take_codes_for_several_channels_where_the_user_does_not_choose(
    tmp_path, asked, size
):
    def edit(config):
        config["fc1"]["search_space"] = ["codebook3"]
        if asked:
            config["fc1"]["weight_quant_params"] = {"wts_algo": "codebook_quantize", "refine": "gptq", **asked}

    result = search(tmp_path / "out", write_config(tmp_path, edit=edit), max_evaluations=2)
    chosen = blocks(result)["fc1"]["weight_quant_params"]
    assert (chosen["num_bits"], chosen["vector_size"]) == (3 * size, size)


def test_the_final_config_and_record_give_the_same_models_through_the_other_verbs(tmp_path, config_file):
    result = search(tmp_path / "out", config_file, max_evaluations=6)
    graph = amct.init(result.files["config"], MODEL_FILE, None, result.files["record"])
    saved = amct.save_model(graph, "Both", tmp_path / "again" / "digits", storage="packed")
    for kind in ("fake_quant_model", "deploy_model", "summary"):
        assert saved.files[kind].read_bytes() == result.files[kind].read_bytes()


def test_a_second_run_evaluates_nothing_again_and_other_data_is_noticed(tmp_path, config_file):
    first = search(tmp_path / "out", config_file, max_evaluations=6)

    class Silent(ClassificationEvaluator):
        def eval_model(self, model_file, weights_file, batch_num):
            raise AssertionError("evaluated again")

    silent = Silent(ArrayData(SPLIT.validation.images, SPLIT.validation.labels), max_drop=0.01)
    silent.fingerprint = evaluator().fingerprint
    assert search(tmp_path / "out", config_file, silent, max_evaluations=6).trials == first.trials
    other = [batch[::-1].copy() * 0.9 for batch in calibration_batches()]
    with pytest.raises(amct.AmctError, match="calibration data"):
        search(tmp_path / "out", config_file, max_evaluations=6, calibration_data=other)


def test_the_best_within_equivalent_bits_stays_within_them(tmp_path, config_file):
    data = ArrayData(SPLIT.validation.images, SPLIT.validation.labels)
    test = DivergenceEvaluator(data, float_model_file=MODEL_FILE, max_divergence=1.0)
    result = search(tmp_path / "out", config_file, test, objective="best", equivalent_bits=4.5, greater_is_better=False)
    num_weights = sum(layer.num_weights for layer in amct.init(config_file, MODEL_FILE).model.layers)
    assert result.satisfied
    assert result.size_bytes <= 4.5 * num_weights / 8
    assert result.metric == min(trial.metric for trial in result.trials[1:])


def test_the_front_trades_bytes_for_the_metric(tmp_path, config_file):
    data = ArrayData(SPLIT.validation.images, SPLIT.validation.labels)
    test = DivergenceEvaluator(data, float_model_file=MODEL_FILE, max_divergence=0.05)
    result = search(tmp_path / "out", config_file, test, objective="front", greater_is_better=False, max_evaluations=12)
    sizes = [trial.size_bytes for trial in result.front]
    metrics = [trial.metric for trial in result.front]
    assert sizes == sorted(sizes)
    assert metrics == sorted(metrics, reverse=True)
    assert len(sizes) >= 5
    assert result.satisfied
    assert result.metric <= 0.05


def test_predicted_errors_rank_the_front_as_the_divergence_does(tmp_path, config_file):
    """Without any evaluation: what the options' errors add up to follows what the network's output then shows."""
    data = ArrayData(SPLIT.validation.images, SPLIT.validation.labels)
    test = DivergenceEvaluator(data, float_model_file=MODEL_FILE, max_divergence=1e-9)
    result = search(tmp_path / "out", config_file, test, objective="front", greater_is_better=False, max_evaluations=12)
    by_size = sorted(result.trials[1:], key=lambda trial: trial.size_bytes)
    ranks = np.argsort(np.argsort([-trial.metric for trial in by_size]))
    assert np.corrcoef(ranks, np.arange(len(ranks)))[0, 1] > 0.8


def test_under_ascend_layers_keep_to_what_the_target_allows(tmp_path):
    file = write_config(tmp_path, target="ascend-rank4", space=["float", "int8", "nuq16", "codebook4"])
    result = search(tmp_path / "out", file, max_evaluations=6)
    used = set().union(*(trial.options for trial in result.trials))
    assert "codebook4" not in used
    assert used <= {"float", "int8", "nuq16"}


def test_without_data_it_says_what_for(tmp_path, config_file):
    with pytest.raises(CalibrationError, match=r"search_space fits its options on samples.*calibration_data"):
        search(tmp_path / "out", config_file, calibration_data=None)
    assert not (tmp_path / "out").exists()


def test_a_layer_without_any_allowed_option_is_named(tmp_path):
    file = write_config(tmp_path, target="ascend", space=["codebook4"])
    with pytest.raises(ConfigError, match=r"conv1.*allows none of codebook4.*Add"):
        search(tmp_path / "out", file)


@pytest.mark.parametrize("name", ["int4", "codebook9", "nuq1", "nuq257", "uniform3", "float32", ""])
def test_an_unknown_option_is_refused_by_the_config(tmp_path, name):
    file = write_config(tmp_path, space=["int8", name])
    with pytest.raises(ConfigError, match="search_space"):
        amct.init(file, MODEL_FILE)
