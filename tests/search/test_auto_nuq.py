"""The automatic search on the digits network: what it finds, saves, refuses, and survives."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import amct_lite as amct
from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.errors import CalibrationError, ConfigError, EvaluatorError, ParameterError, SearchError
from amct_lite.evaluators import ArrayData, ClassificationEvaluator
from amct_lite.samples.digits.data import MODEL_FILE, load_split

EVALUATOR_FILE = Path(__file__).with_name("digits_evaluator.py")


def load_evaluator():
    import importlib.util

    spec = importlib.util.spec_from_file_location("digits_evaluator", EVALUATOR_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.DigitsEvaluator()


def calibration_batches():
    images = load_split().calibration.images
    return [images[i : i + 25] for i in range(0, 100, 25)]


@pytest.fixture
def config_file(tmp_path):
    file = tmp_path / "config.json"
    amct.create_quant_config(file, MODEL_FILE, batch_num=4)
    return file


def edit(config_file, change):
    config = json.loads(config_file.read_text())
    change(config)
    config_file.write_text(json.dumps(config))


def search(folder, config_file, evaluator=None, **options):
    options.setdefault("calibration_data", calibration_batches())
    return amct.auto_nuq(
        MODEL_FILE, None, evaluator or load_evaluator(), config_file, folder / "record.txt", folder, **options
    )


def digests(folder):
    return {path.name: hashlib.sha256(content_of(path)).hexdigest() for path in sorted(folder.iterdir())}


def content_of(path):
    if path.suffix != ".jsonl":
        return path.read_bytes()
    # How long evaluations took is all that may differ.
    return re.sub(rb'"seconds":[0-9.]+', b"", path.read_bytes())


class Fixed(AutoNuqEvaluatorBase):
    """Answers without looking at the model."""

    def __init__(self, metrics, limit=0.01):
        super().__init__(1)
        self.metrics, self.limit, self.calls = iter(metrics), limit, 0

    def eval_model(self, model_file, weights_file, batch_num):
        self.calls += 1
        return next(self.metrics)

    def is_satisfied(self, original_metric, new_metric):
        return original_metric - new_metric <= self.limit


def always(value):
    while True:
        yield value


def test_the_result_satisfies_is_smaller_than_int8_and_lies_where_it_says(tmp_path, config_file):
    result = search(tmp_path / "out", config_file)
    assert result.satisfied
    assert result.original_metric - result.metric <= 0.01 + 1e-9
    assert result.size_bytes < 0.5 * result.uniform_bytes
    assert len(result.trials) <= 25
    for path in result.files.values():
        assert path.is_file()
    assert {path.name for path in result.files.values()} == {p.name for p in (tmp_path / "out").iterdir()}
    document = json.loads(result.files["result"].read_text())
    assert document["satisfied"] is True
    assert document["metric"] == result.metric


def test_the_saved_model_is_the_one_that_was_evaluated(tmp_path, config_file):
    result = search(tmp_path / "out", config_file)
    evaluator = load_evaluator()
    saved = evaluator.eval_model(str(result.files["fake_quant_model"]), None, evaluator.evaluate_batch_num)
    assert saved == result.metric


@pytest.mark.parametrize(
    ("strategy", "package"),
    [("BinarySearch", "numpy"), ("tpe", "optuna"), ("nsga2", "optuna"), ("ddpg", "stable_baselines3")],
)
def test_other_strategies_find_a_model_too_and_go_on_from_the_journal(tmp_path, config_file, strategy, package):
    pytest.importorskip(package, reason=f"needs {package}")
    result = search(tmp_path / "out", config_file, strategy=strategy, max_evaluations=12)
    assert result.satisfied
    assert 2 <= len(result.trials) <= 12
    assert len({trial.key for trial in result.trials}) == len(result.trials)
    assert result.size_bytes <= (1.0 if strategy == "BinarySearch" else 0.8) * result.uniform_bytes

    class Spent(type(load_evaluator())):
        def eval_model(self, model_file, weights_file, batch_num):
            raise AssertionError("evaluated again")

        def fingerprint(self):
            return load_evaluator().fingerprint()

    again = search(tmp_path / "out", config_file, Spent(), strategy=strategy, max_evaluations=12)
    assert again.trials == result.trials


def test_the_final_config_and_record_give_the_same_models_through_the_other_verbs(tmp_path, config_file):
    result = search(tmp_path / "out", config_file)
    graph = amct.init(result.files["config"], MODEL_FILE, None, result.files["record"])
    saved = amct.save_model(graph, "Both", tmp_path / "again" / "digits")
    for kind in ("fake_quant_model", "deploy_model", "summary"):
        assert saved.files[kind].read_bytes() == result.files[kind].read_bytes()


def test_two_searches_write_the_same_bytes(tmp_path, config_file):
    search(tmp_path / "one", config_file)
    search(tmp_path / "two", config_file)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_only_layers_that_the_target_allows_are_clustered(tmp_path, config_file):
    result = search(tmp_path / "out", config_file)
    forms = {layer.name: layer.form for layer in result.summary.layers}
    assert forms["pool"] == "int8"
    assert "nuq" in forms.values()


def test_activations_take_part_where_the_config_asks(tmp_path, config_file):
    def ask(config):
        config["fc1"]["activation_quant_params"]["nuq"] = {"target_compression_ratio": 0.25}

    edit(config_file, ask)
    result = search(tmp_path / "out", config_file)
    clustered = {layer.name for layer in result.summary.layers if layer.activation_levels != 256}
    assert clustered <= {"fc1"}
    assert any(layer.name == "fc1" and layer.activation_levels < 256 for layer in result.summary.layers)


def test_the_configs_level_counts_are_the_only_ones_tried(tmp_path, config_file):
    edit(config_file, lambda config: config.update(auto_nuq={"num_steps": [16, 32]}))
    result = search(tmp_path / "out", config_file)
    steps = {
        block["weight_quant_params"]["num_steps"]
        for block in result.config.values()
        if isinstance(block, dict) and block.get("weight_quant_params", {}).get("wts_algo") == "nuq_quantize"
    }
    assert steps
    assert steps <= {16, 32}


def test_the_configs_entropy_weight_goes_along_with_every_level_count(tmp_path, config_file):
    aware = {"wts_algo": "nuq_quantize", "entropy_weight": 4.0}
    edit(config_file, lambda config: config["fc1"].update(weight_quant_params=aware))
    result = search(tmp_path / "out", config_file, Fixed(always(0.9)), max_evaluations=4)
    blocks = [result.config[name]["weight_quant_params"] for name in ("conv3", "fc1")]
    assert [block["wts_algo"] for block in blocks] == ["nuq_quantize"] * 2
    assert [block.get("entropy_weight") for block in blocks] == [None, 4.0]


def test_layers_that_the_user_disabled_stay_float(tmp_path, config_file):
    edit(config_file, lambda config: config["conv1"].update(quant_enable=False))
    result = search(tmp_path / "out", config_file)
    assert {layer.name: layer.form for layer in result.summary.layers}["conv1"] == "float"


def test_without_data_the_evaluators_own_run_calibrates_to_the_same_record(tmp_path, config_file):
    evaluator = load_evaluator()
    images = evaluator.validation.images
    own = search(tmp_path / "own", config_file, evaluator, calibration_data=None)
    batches = [images[i : i + 50] for i in range(0, 200, 50)]
    given = search(tmp_path / "given", config_file, load_evaluator(), calibration_data=batches)
    assert own.files["record"].read_bytes() == given.files["record"].read_bytes()


def test_without_data_an_evaluator_that_does_not_run_the_model_is_told_so(tmp_path, config_file):
    with pytest.raises(EvaluatorError, match=r"did not calibrate.*InferenceSession"):
        search(tmp_path / "out", config_file, Fixed(always(0.5)), calibration_data=None)


def test_when_nothing_satisfies_the_best_effort_is_saved_and_marked(tmp_path, config_file):
    first = iter([0.9])
    evaluator = Fixed(iter(lambda: next(first, 0.1), object()))
    result = search(tmp_path / "out", config_file, evaluator)
    assert not result.satisfied
    assert "best effort" in result.message
    assert result.files["deploy_model"].is_file()
    assert json.loads(result.files["result"].read_text())["satisfied"] is False
    sizes = [trial.size_bytes for trial in result.trials[1:]]
    assert result.size_bytes == max(sizes), "the best effort is the most exact model that was tried"


def test_a_spent_budget_ends_with_the_best_so_far(tmp_path, config_file):
    result = search(tmp_path / "out", config_file, max_evaluations=4)
    assert len(result.trials) == 4
    passed = [trial.size_bytes for trial in result.trials[1:] if trial.satisfied]
    assert result.satisfied == bool(passed)
    if passed:
        assert result.size_bytes == min(passed)


def test_no_trial_starts_after_max_seconds(tmp_path, config_file):
    result = search(tmp_path / "out", config_file, max_seconds=1e-6)
    assert len(result.trials) == 1
    assert not result.satisfied


def test_a_second_run_evaluates_nothing_again(tmp_path, config_file):
    first = search(tmp_path / "out", config_file)
    before = digests(tmp_path / "out")

    class Silent(type(load_evaluator())):
        def eval_model(self, model_file, weights_file, batch_num):
            raise AssertionError("evaluated again")

    Silent.__qualname__ = "DigitsEvaluator"
    second = search(tmp_path / "out", config_file, Silent())
    assert second.trials == first.trials
    assert digests(tmp_path / "out") == before


def test_a_journal_of_another_search_is_refused_naming_the_difference(tmp_path, config_file):
    search(tmp_path / "out", config_file, max_evaluations=2)
    edit(config_file, lambda config: config["conv1"].update(quant_enable=False))
    with pytest.raises(SearchError, match="belongs to another search: config"):
        search(tmp_path / "out", config_file, max_evaluations=2)


def test_other_calibration_data_is_noticed(tmp_path, config_file):
    search(tmp_path / "out", config_file, max_evaluations=2)
    other = [batch * 0.5 for batch in calibration_batches()]
    with pytest.raises(SearchError, match="calibration data"):
        search(tmp_path / "out", config_file, calibration_data=other, max_evaluations=2)


def test_a_changed_limit_reuses_the_metrics_and_asks_again(tmp_path, config_file):
    search(tmp_path / "out", config_file, Fixed([0.9, 0.5], limit=1.0), max_evaluations=2)
    strict = Fixed([0.9, 0.9, 0.9], limit=0.0)
    result = search(tmp_path / "out", config_file, strict, max_evaluations=3)
    assert strict.calls == 1, "the float model and the first candidate come from the journal"
    assert [trial.satisfied for trial in result.trials[:2]] == [True, False]


def test_an_exception_of_the_evaluator_reaches_the_user_and_the_search_goes_on_later(tmp_path, config_file):
    class Broken(AutoNuqEvaluatorBase):
        def eval_model(self, model_file, weights_file, batch_num):
            if "candidate" in model_file:
                raise ZeroDivisionError("the user's own mistake")
            return 0.9

        def is_satisfied(self, original_metric, new_metric):
            return True

    with pytest.raises(ZeroDivisionError, match="the user's own mistake") as caught:
        search(tmp_path / "out", config_file, Broken())
    assert caught.traceback[-1].path == Path(__file__)
    assert len((tmp_path / "out" / "digits_auto_nuq_journal.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("metric", [None, "good", [1, 2], np.array([1.0, 2.0]), float("nan")])
def test_a_metric_that_is_no_number_is_refused(tmp_path, config_file, metric):
    with pytest.raises(EvaluatorError, match=r"eval_model (must return one number|returned nan)"):
        search(tmp_path / "out", config_file, Fixed(always(metric)))


def test_an_evaluator_that_refuses_the_float_model_is_told_so(tmp_path, config_file):
    with pytest.raises(EvaluatorError, match="refuses the float model"):
        search(tmp_path / "out", config_file, Fixed(always(0.9), limit=-1))


def test_the_class_instead_of_an_object_is_refused(tmp_path, config_file):
    with pytest.raises(EvaluatorError, match="must be an object"):
        search(tmp_path / "out", config_file, Fixed)


def test_an_object_without_the_methods_is_refused(tmp_path, config_file):
    with pytest.raises(EvaluatorError, match="eval_model"):
        search(tmp_path / "out", config_file, object())


@pytest.mark.parametrize("options", [{"max_evaluations": 1}, {"max_evaluations": True}, {"max_seconds": 0}])
def test_a_budget_that_allows_nothing_is_refused(tmp_path, config_file, options):
    with pytest.raises(ParameterError, match=next(iter(options))):
        search(tmp_path / "out", config_file, **options)


def test_too_few_calibration_batches_are_an_error_before_anything_is_evaluated(tmp_path, config_file):
    evaluator = Fixed(always(0.9))
    with pytest.raises(CalibrationError, match="not enough"):
        search(tmp_path / "out", config_file, evaluator, calibration_data=calibration_batches()[:2])
    assert evaluator.calls == 0


def run_search_process(folder, config_file, kill_at):
    return start_search_process(folder, config_file, kill_at).wait()


def start_search_process(folder, config_file, kill_at):
    trace = folder / "trace"
    code = (
        "import sys, importlib.util\n"
        "spec = importlib.util.spec_from_file_location('digits_evaluator', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "import amct_lite as amct\n"
        "images = module.load_split().calibration.images\n"
        "batches = [images[i:i + 25] for i in range(0, 100, 25)]\n"
        "model, config, out = sys.argv[2:5]\n"
        "amct.auto_nuq(model, None, module.DigitsEvaluator(), config, out + '/record.txt', out,\n"
        "              calibration_data=batches)\n"
    )
    environment = {**os.environ, "EVALUATIONS": str(trace), "KILL_AT": str(kill_at)}
    arguments = [str(EVALUATOR_FILE), str(MODEL_FILE), str(config_file), str(folder / "out")]
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment)


@pytest.mark.slow
def test_a_search_killed_at_any_trial_ends_in_the_same_result_and_repeats_no_finished_evaluation(tmp_path, config_file):
    whole = tmp_path / "whole"
    whole.mkdir()
    assert run_search_process(whole, config_file, kill_at=-1) == 0
    expected = digests(whole / "out")
    evaluations = len((whole / "trace").read_text().splitlines())
    assert evaluations > 4
    for kill_at in range(1, evaluations + 1):
        folder = tmp_path / f"killed_{kill_at}"
        folder.mkdir()
        assert run_search_process(folder, config_file, kill_at) == -9
        # The evaluation in flight when the process died was never journalled: it alone runs once more.
        assert run_search_process(folder, config_file, kill_at=-1) == 0
        assert digests(folder / "out") == expected, f"killed at evaluation {kill_at}"
        assert len((folder / "trace").read_text().splitlines()) == evaluations + 1


def test_a_ready_made_evaluator_on_other_data_is_another_search(tmp_path, config_file):
    validation = load_split().validation

    def evaluator(images):
        return ClassificationEvaluator(ArrayData(images, validation.labels), max_drop=0.01)

    search(tmp_path / "out", config_file, evaluator(validation.images), max_evaluations=2)
    search(tmp_path / "out", config_file, evaluator(validation.images), max_evaluations=2)
    with pytest.raises(SearchError, match="belongs to another search: evaluator"):
        search(tmp_path / "out", config_file, evaluator(validation.images[::-1]), max_evaluations=2)


def test_codebook_layers_are_refused_by_name_before_anything_runs(tmp_path):
    file = tmp_path / "config.json"
    amct.create_quant_config(file, MODEL_FILE, batch_num=4, target="onnxruntime")
    edit(file, lambda c: c["conv2"].update(weight_quant_params={"wts_algo": "codebook_quantize", "num_bits": 4}))
    evaluator = Fixed([])
    with pytest.raises(ConfigError, match=r"conv2.*codebook") as error:
        search(tmp_path / "out", file, evaluator)
    assert "compress" in str(error.value)
    assert evaluator.calls == 0
    assert not (tmp_path / "out").exists()


def test_layers_refined_on_samples_are_refused_by_name(tmp_path):
    file = tmp_path / "config.json"
    amct.create_quant_config(file, MODEL_FILE, batch_num=4, target="onnxruntime")
    nuq = {"target_compression_ratio": 0.25, "output_aware": True}
    edit(file, lambda c: c["conv2"]["activation_quant_params"].update(nuq=nuq))
    with pytest.raises(ConfigError, match=r"conv2.*output_aware"):
        search(tmp_path / "out", file, Fixed([]))


def test_an_equalized_and_balanced_network_is_searched_and_saved_alike(tmp_path, config_file):
    def change(config):
        config["cross_layer_equalization"] = True
        for block in config.values():
            if isinstance(block, dict) and "weight_quant_params" in block:
                block["dmq_balancer_param"] = 0.5

    edit(config_file, change)
    result = search(tmp_path / "out", config_file, max_evaluations=6)
    assert result.satisfied
    found_config = tmp_path / "out" / f"{MODEL_FILE.stem}_auto_nuq_config.json"
    assert json.loads(found_config.read_text())["cross_layer_equalization"] is True
    graph = amct.init(found_config, MODEL_FILE, scale_offset_record_file=tmp_path / "out" / "record.txt")
    records = graph.read_records().values()
    assert all(bool(record.tensor_balance_factor) == bool(record.scale_w) for record in records)
    again = amct.save_model(graph, "Fakequant", tmp_path / "again" / "net")
    images = load_split().validation.images[:50]
    outputs = [
        amct.InferenceSession(file).run(None, {"image": images})[0]
        for file in (result.files["fake_quant_model"], again.files["fake_quant_model"])
    ]
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-4)


def test_two_processes_share_the_work_of_one_search(tmp_path, config_file):
    """Both end with the same result, and no model is evaluated twice."""
    (tmp_path / "out").mkdir()
    processes = [start_search_process(tmp_path, config_file, kill_at=-1) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    alone = search(tmp_path / "alone", config_file)
    evaluations = len((tmp_path / "trace").read_text().splitlines())
    # The float model and every trial of a search alone, once each.
    assert evaluations == len(alone.trials)
    for name in ("digits_deploy_model.onnx", "digits_auto_nuq_config.json", "record.txt"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_ctrl_c_ends_with_the_best_saved_and_the_search_goes_on_later(tmp_path, config_file):
    evaluator = load_evaluator()
    whole = search(tmp_path / "whole", config_file)

    class Interrupted(type(evaluator)):
        count = 0

        def eval_model(self, model_file, weights_file, batch_num):
            Interrupted.count += 1
            if Interrupted.count == 8:
                raise KeyboardInterrupt
            return super().eval_model(model_file, weights_file, batch_num)

    Interrupted.__qualname__ = "DigitsEvaluator"
    stopped = search(tmp_path / "out", config_file, Interrupted())
    assert stopped.stop == "interrupted"
    assert stopped.trials == whole.trials[:7]
    assert "goes on" in stopped.message
    assert stopped.files["deploy_model"].is_file()
    passed = [trial.size_bytes for trial in stopped.trials[1:] if trial.satisfied]
    assert stopped.satisfied
    assert stopped.size_bytes == min(passed)
    assert search(tmp_path / "out", config_file).trials == whole.trials


def test_ctrl_c_before_anything_is_known_is_the_users(tmp_path, config_file):
    class Interrupted(Fixed):
        def eval_model(self, model_file, weights_file, batch_num):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "out", config_file, Interrupted([]))


def test_an_objective_that_a_strategy_does_not_have_is_refused_at_the_door(tmp_path, config_file):
    with pytest.raises(ParameterError, match=r"'tpe' has the objectives smallest, best\. .*'frontier', 'nsga2'"):
        search(tmp_path / "out", config_file, strategy="tpe", objective="front")
    assert not (tmp_path / "out").exists()


def test_an_unknown_strategy_is_refused_naming_those_there_are(tmp_path, config_file):
    with pytest.raises(ParameterError, match="'strategy' parameter of auto_nuq must be one of frontier"):
        search(tmp_path / "out", config_file, strategy="guessing")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "fastest"}, "'objective' parameter of auto_nuq must be one of smallest, best, front"),
        ({"objective": "best"}, "needs max_bytes or equivalent_bits"),
        ({"objective": "best", "max_bytes": 10, "equivalent_bits": 4}, "not both"),
        ({"objective": "best", "max_bytes": 0}, "'max_bytes' parameter of auto_nuq must be > 0"),
        ({"max_bytes": 10}, "'max_bytes' parameter of auto_nuq goes with the objective 'best'"),
        ({"n_jobs": 0}, "'n_jobs' parameter must be an int other than 0"),
        ({"backend": "mpi"}, "'backend' parameter must be one of loky"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(tmp_path, config_file, options, message):
    with pytest.raises(ParameterError, match=message):
        search(tmp_path / "out", config_file, **options)
