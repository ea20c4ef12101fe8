"""accuracy_based_auto_calibration on the digits network: what it rolls back, saves, refuses, and survives."""

import hashlib
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import amct_lite as amct
from amct_lite.common.auto_calibration import (
    AutoCalibrationEvaluatorBase,
    BinarySearchStrategy,
    CosineSimilaritySensitivity,
    MseSensitivity,
)
from amct_lite.errors import ConfigError, EvaluatorError, FileError, ParameterError, SearchError
from amct_lite.evaluators import ArrayData, ClassificationEvaluator
from amct_lite.samples.digits.data import MODEL_FILE, load_split

EVALUATOR_FILE = Path(__file__).with_name("calibration_evaluator.py")
LAYERS = ["conv1", "conv2", "conv3", "fc1", "fc2", "pool"]
START = "accuracy_based_auto_calibration"


def load_evaluator(**options):
    return runpy.run_path(str(EVALUATOR_FILE))["DigitsCalibration"](**options)


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


def calibrate(folder, config_file, evaluator=None, **options):
    return amct.accuracy_based_auto_calibration(
        MODEL_FILE, evaluator or load_evaluator(), config_file, folder / "record.txt", folder, **options
    )


def ranking(folder):
    return json.loads((folder / f"{START}_ranking_information.json").read_text())


def rolled_back(result):
    return {name for name in LAYERS if not result.config[name]["quant_enable"]}


def floats_of(result, trial):
    return [name for name, option in zip(result.units, trial.options, strict=True) if option == "float"]


def digests(folder):
    return {path.name: hashlib.sha256(content_of(path)).hexdigest() for path in sorted(folder.iterdir())}


def content_of(path):
    # How long evaluations took is all that may differ.
    return re.sub(rb'"seconds":[0-9.]+', b"", path.read_bytes()) if path.suffix == ".jsonl" else path.read_bytes()


class Fixed(AutoCalibrationEvaluatorBase):
    """Answers by how many layers are float, without a look at data; calibrates on noise."""

    def __init__(self, accepts=lambda floats: True, verdict=None):
        super().__init__()
        self.accepts, self.verdict, self.calls = accepts, verdict, 0

    def calibration(self, model_file):
        session = amct.InferenceSession(model_file)
        for batch in calibration_batches():
            session.run(None, {"image": batch})

    def evaluate(self, model_file):
        self.calls += 1
        if Path(model_file) == MODEL_FILE:
            return 1.0
        return 0.9 if self.accepts(self.float_layers(model_file)) else 0.1

    def metric_eval(self, original_metric, new_metric):
        return self.verdict if self.verdict is not None else (new_metric >= 0.9, original_metric - new_metric)

    @staticmethod
    def float_layers(model_file):
        """The layers whose input no quantizer makes, in a fake-quant model."""
        import onnx_ir as ir

        nodes = {node.name: node for node in ir.load(model_file).graph}
        inputs = {name: nodes[name].inputs[0].producer() for name in LAYERS}
        return {name for name, node in inputs.items() if node is None or node.op_type not in ("Mul", "Gather")}


def test_where_everything_quantized_satisfies_that_is_saved_after_one_evaluation(tmp_path, config_file):
    result = calibrate(tmp_path / "out", config_file, load_evaluator(max_loss=1.0))
    assert result.satisfied
    assert len(result.trials) == 2
    assert rolled_back(result) == set()
    assert "All 6 layers are quantized" in result.message


def test_layers_are_rolled_back_until_the_test_accepts(tmp_path, config_file):
    result = calibrate(tmp_path / "out", config_file)
    assert not result.trials[1].satisfied, "everything quantized was evaluated first"
    assert set(result.trials[1].options) == {"int8"}
    assert result.satisfied
    assert 0 < len(rolled_back(result)) < len(LAYERS)
    forms = {layer.name: layer.form for layer in result.summary.layers}
    assert {name for name, form in forms.items() if form == "float"} == rolled_back(result)
    assert min(t.size_bytes for t in result.trials[1:] if t.satisfied) == result.size_bytes


def test_the_message_has_amcts_lines(tmp_path, config_file):
    result = calibrate(tmp_path / "out", config_file)
    lines = result.message.splitlines()
    number = r"-?[0-9.e-]+"
    for wanted in (
        rf"Accuracy of original model is         {number}",
        rf"Accuracy of global quantized model is {number}",
        rf"Accuracy of saved model is            {number}",
        re.escape(f"The generated model is stored in dir: {tmp_path / 'out'}"),
        re.escape(f"The records file is stored in dir: {tmp_path / 'out' / 'record.txt'}"),
    ):
        assert any(re.fullmatch(wanted, line) for line in lines), wanted
    assert float(lines[2].split()[-1]) == pytest.approx(result.metric)


def test_what_is_written_is_what_the_result_names(tmp_path, config_file):
    result = calibrate(tmp_path / "out", config_file)
    assert {path.name for path in result.files.values()} == {path.name for path in (tmp_path / "out").iterdir()}
    for kind in ("config:_final_config.json", "ranking:_ranking_information.json", "journal:_journal.jsonl"):
        name, _, ending = kind.partition(":")
        assert result.files[name].name == f"{START}{ending}"


def test_the_saved_model_is_the_one_that_was_evaluated(tmp_path, config_file):
    result = calibrate(tmp_path / "out", config_file)
    assert load_evaluator().evaluate(str(result.files["fake_quant_model"])) == result.metric


def test_the_final_config_and_record_give_the_same_models_through_the_other_verbs(tmp_path, config_file):
    result = calibrate(tmp_path / "out", config_file)
    graph = amct.init(result.files["config"], MODEL_FILE, None, result.files["record"])
    saved = amct.save_model(graph, "Both", tmp_path / "again" / "digits")
    for kind in ("fake_quant_model", "deploy_model", "summary"):
        assert saved.files[kind].read_bytes() == result.files[kind].read_bytes()


def test_without_rolling_back_the_record_is_that_of_a_plain_calibration(tmp_path, config_file):
    batches = calibration_batches()
    result = calibrate(tmp_path / "out", config_file, load_evaluator(max_loss=1.0), calibration_data=batches)
    graph = amct.init(config_file, MODEL_FILE, None, tmp_path / "plain.txt")
    amct.calibrate(graph, batches)
    assert result.files["record"].read_bytes() == (tmp_path / "plain.txt").read_bytes()


@pytest.mark.parametrize("target", ["ascend", "onnxruntime"])
def test_data_and_the_evaluators_own_run_over_it_calibrate_alike(tmp_path, target):
    config = tmp_path / "config.json"
    amct.create_quant_config(config, MODEL_FILE, batch_num=4, target=target)
    own = calibrate(tmp_path / "own", config)
    given = calibrate(tmp_path / "given", config, calibration_data=iter(calibration_batches()))
    assert own.trials == given.trials
    assert own.files["record"].read_bytes() == given.files["record"].read_bytes()
    assert own.files["deploy_model"].read_bytes() == given.files["deploy_model"].read_bytes()


def test_two_runs_write_the_same_bytes(tmp_path, config_file):
    for name in ("one", "two"):
        calibrate(tmp_path / name, config_file)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_a_layer_that_alone_is_to_blame_is_the_one_rolled_back(tmp_path, config_file):
    result = calibrate(tmp_path / "out", config_file, Fixed(lambda floats: "conv2" in floats))
    assert result.satisfied
    assert rolled_back(result) == {"conv2"}


def test_where_no_choice_satisfies_there_is_no_model_and_the_message_is_amcts(tmp_path, config_file):
    result = calibrate(tmp_path / "out", config_file, Fixed(lambda floats: False))
    assert not result.satisfied
    assert "No quantized model are generated due to all quant layers are roll backed" in result.message
    assert "stored in dir" not in result.message
    assert rolled_back(result) == set(LAYERS)
    assert {layer.form for layer in result.summary.layers} == {"float"}
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".jsonl", ".npz"}, "no model, no record"


def test_models_of_an_earlier_run_do_not_outlive_a_run_that_has_none(tmp_path, config_file):
    class Moody(Fixed):
        limit = 0.9

        def metric_eval(self, original_metric, new_metric):
            return new_metric >= self.limit, original_metric - new_metric

    first = calibrate(tmp_path / "out", config_file, Moody())
    assert first.files["deploy_model"].is_file()
    Moody.limit = 0.95
    second = calibrate(tmp_path / "out", config_file, Moody(lambda floats: False))
    assert not second.satisfied
    for kind in ("fake_quant_model", "deploy_model", "record", "summary"):
        assert not first.files[kind].exists()


def test_a_spent_budget_saves_a_best_effort_and_says_so(tmp_path, config_file):
    result = calibrate(tmp_path / "out", config_file, Fixed(lambda floats: False), max_evaluations=3)
    assert not result.satisfied
    assert len(result.trials) == 3
    assert "best effort" in result.message
    assert result.files["deploy_model"].is_file()


def test_no_evaluation_starts_after_max_seconds(tmp_path, config_file):
    result = calibrate(tmp_path / "out", config_file, max_seconds=1e-6)
    assert len(result.trials) == 1
    assert not result.satisfied
    assert result.stop == "max_seconds"
    assert "Accuracy of saved model is            unknown" in result.message
    assert "called again, the search goes on" in result.message


@pytest.mark.parametrize("strategy", ["BinarySearch", BinarySearchStrategy()])
def test_binary_search_rolls_back_a_prefix_of_the_cosine_ranking(tmp_path, config_file, strategy):
    result = calibrate(
        tmp_path / "out", config_file, strategy=strategy, calibration_data=calibration_batches(), sensitivity=None
    )
    order = ranking(tmp_path / "out")
    assert list(order.values()) == sorted(order.values()), "ascending"
    assert all(0.5 < value < 1 for value in order.values())
    assert sorted(order) == LAYERS
    count = len(rolled_back(result))
    assert count > 0
    assert rolled_back(result) == set(list(order)[:count])
    tried = [set(floats_of(result, trial)) for trial in result.trials[1:]]
    assert set(list(order)[: count - 1]) in tried, "one layer less was tried, and did not satisfy"


def test_another_strategy_reuses_what_the_first_one_evaluated(tmp_path, config_file):
    calibrate(tmp_path / "out", config_file)
    journal = tmp_path / "out" / f"{START}_journal.jsonl"
    before = [json.loads(line).get("key") for line in journal.read_text().splitlines()]
    result = calibrate(tmp_path / "out", config_file, strategy="BinarySearch")
    after = [json.loads(line).get("key") for line in journal.read_text().splitlines()]
    assert after[: len(before)] == before
    assert len(after) == len(set(after)), "nothing was evaluated twice"
    assert {trial.key for trial in result.trials} <= set(after)


@pytest.mark.parametrize(
    ("sensitivity", "rises"),
    [
        (None, False),
        ("CosineSimilarity", True),
        (CosineSimilaritySensitivity(), True),
        ("MSE", False),
        (MseSensitivity(do_normalization=True), False),
        (MseSensitivity(), False),
    ],
)
def test_the_ranking_starts_at_the_most_sensitive_layer(tmp_path, config_file, sensitivity, rises):
    batches = calibration_batches()
    options = {"sensitivity": sensitivity, "calibration_data": batches, "max_evaluations": 3}
    result = calibrate(tmp_path / "out", config_file, **options)
    values = list(ranking(tmp_path / "out").values())
    assert values == sorted(values, reverse=not rises)
    assert "derived" not in result.message


def test_without_samples_the_message_says_that_the_sensitivity_is_derived(tmp_path, config_file):
    first = calibrate(tmp_path / "out", config_file, sensitivity="CosineSimilarity", max_evaluations=2)
    assert "derived" not in first.message
    first.files["samples"].unlink()
    result = calibrate(tmp_path / "out", config_file, sensitivity="CosineSimilarity", max_evaluations=2)
    assert "CosineSimilarity is derived from calibration's statistics" in result.message
    assert all(0.99 < value < 1 for value in ranking(tmp_path / "out").values())


@pytest.mark.parametrize("sensitivity", [None, "CosineSimilarity"])
def test_the_evaluators_own_run_leaves_the_samples_that_data_would_have_given(tmp_path, config_file, sensitivity):
    calibrate(tmp_path / "own", config_file, sensitivity=sensitivity, max_evaluations=2)
    data = calibration_batches()
    calibrate(tmp_path / "given", config_file, sensitivity=sensitivity, max_evaluations=2, calibration_data=data)
    assert ranking(tmp_path / "own") == ranking(tmp_path / "given")


def test_damaged_samples_are_told_with_their_file(tmp_path, config_file):
    result = calibrate(tmp_path / "out", config_file, max_evaluations=2)
    result.files["samples"].write_bytes(b"no archive")
    with pytest.raises(FileError, match=r"calibration samples .*samples\.npz cannot be read"):
        calibrate(tmp_path / "out", config_file, max_evaluations=2)


def test_nuq_in_the_config_is_what_layers_are_rolled_back_from(tmp_path, config_file):
    nuq = {"wts_algo": "nuq_quantize", "num_steps": 16}
    edit(config_file, lambda config: config["fc1"].update(weight_quant_params=nuq))
    result = calibrate(tmp_path / "out", config_file, load_evaluator(max_loss=5.0))
    assert result.trials[1].options == ("int8", "int8", "int8", "int8", "nuq16", "int8")


def test_layers_that_the_user_disabled_stay_float_and_are_no_units(tmp_path, config_file):
    edit(config_file, lambda config: config["conv1"].update(quant_enable=False))
    result = calibrate(tmp_path / "out", config_file, load_evaluator(max_loss=1.0))
    assert "conv1" not in result.units
    assert rolled_back(result) == {"conv1"}
    assert "conv1" not in ranking(tmp_path / "out")


def test_a_ready_made_evaluator_serves_as_well(tmp_path, config_file):
    validation = load_split().validation
    evaluator = ClassificationEvaluator(ArrayData(validation.images, validation.labels), max_drop=0.01, batch_size=25)
    result = calibrate(tmp_path / "out", config_file, evaluator)
    assert result.satisfied
    assert result.original_metric - result.metric <= 0.01


def test_a_script_of_amcts_manual_runs_with_another_import(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os\n"
        "import numpy as np\n"
        "import amct_lite as amct\n"
        "from amct_lite.common.auto_calibration import AutoCalibrationEvaluatorBase\n"
        "from amct_lite.samples.digits.data import MODEL_FILE, load_split\n"
        "class ModelEvaluator(AutoCalibrationEvaluatorBase):\n"
        "    def __init__(self, batch_num):\n"
        "        super().__init__()\n"
        "        self.diff = 0.01\n"
        "        self.batch_num = batch_num\n"
        "    def calibration(self, model_file):\n"
        "        ort_session = amct.InferenceSession(model_file)\n"
        "        for i in range(self.batch_num):\n"
        "            ort_session.run(None, {'image': load_split().calibration.images[i * 16:(i + 1) * 16]})\n"
        "    def evaluate(self, model_file):\n"
        "        data = load_split().validation\n"
        "        logits = amct.InferenceSession(model_file).run(None, {'image': data.images})[0]\n"
        "        return np.mean(logits.argmax(1) == data.labels)\n"
        "    def metric_eval(self, original_metric, new_metric):\n"
        "        loss = original_metric - new_metric\n"
        "        if loss * 100 < self.diff * 100:\n"
        "            return True, loss\n"
        "        return False, loss\n"
        "config_file = os.path.join('tmp', 'config.json')\n"
        "amct.create_quant_config(config_file=config_file, model_file=str(MODEL_FILE), skip_layers=None, batch_num=2)\n"
        "scale_offset_record_file = os.path.join('tmp', 'scale_offset_record.txt')\n"
        "amct.accuracy_based_auto_calibration(\n"
        "    model_file=str(MODEL_FILE), model_evaluator=ModelEvaluator(2), config_file=config_file,\n"
        "    record_file=scale_offset_record_file, save_dir='results', strategy='BinarySearch',\n"
        "    sensitivity='CosineSimilarity')\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "digits_deploy_model.onnx").is_file()
    assert (tmp_path / "tmp" / "scale_offset_record.txt").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"results", "tmp", "script.py"}, "nothing lands elsewhere"


def test_importing_amcts_module_imports_nothing_heavy():
    code = "import sys, amct_lite.common.auto_calibration; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"numpy", "onnx", "onnx_ir", "onnxruntime", "pydantic", "sklearn", "rich"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda e, c: ((MODEL_FILE, e, c), {}), "missing a required argument: 'record_file'"),
        (lambda e, c: ((MODEL_FILE, "net.caffemodel", e, c, "r", "s"), {}), "no Caffe network"),
        (lambda e, c: (("net.prototxt", e, c, "r", "s"), {}), "is a Caffe network, and no weights_file"),
        (lambda e, c: ((e, MODEL_FILE, c, "r", "s"), {}), "missing a required argument: 'save_dir'"),
        (lambda e, c: ((e, e, c, "r", "s"), {}), "'model_file' parameter"),
        (lambda e, c: ((MODEL_FILE, c, e, "r", "s"), {}), "missing a required argument: 'save_dir'"),
        (lambda e, c: ((MODEL_FILE, None, e, c, "r", "s"), {"weights_file": None}), "multiple values"),
        (lambda e, c: ((MODEL_FILE, e, c, "r", "s"), {"stategy": "x"}), "unexpected keyword argument 'stategy'"),
        (lambda e, c: ((MODEL_FILE, e, c, "r", "s", "Bisect"), {}), "'strategy' parameter.*BinarySearch.*Bisect"),
        (lambda e, c: ((MODEL_FILE, e, c, "r", "s", None, "KL"), {}), "'sensitivity' parameter.*CosineSimilarity.*KL"),
        (lambda e, c: ((MODEL_FILE, e, c, "r", "s"), {"max_evaluations": 1}), "max_evaluations"),
    ],
)
def test_a_wrong_call_is_told_before_anything_is_computed(config_file, given, message):
    evaluator = Fixed()
    arguments, keywords = given(evaluator, config_file)
    with pytest.raises(ParameterError, match=message):
        amct.accuracy_based_auto_calibration(*arguments, **keywords)
    assert evaluator.calls == 0


def test_keywords_and_positions_mean_the_same(tmp_path, config_file):
    evaluator = load_evaluator(max_loss=1.0)
    places = (config_file, tmp_path / "a" / "r.txt", tmp_path / "a")
    one = amct.accuracy_based_auto_calibration(MODEL_FILE, None, evaluator, *places)
    two = amct.accuracy_based_auto_calibration(
        save_dir=tmp_path / "b",
        record_file=tmp_path / "b" / "r.txt",
        config_file=config_file,
        model_evaluator=evaluator,
        model_file=MODEL_FILE,
    )
    assert one.trials == two.trials


def test_an_evaluator_for_caffe_is_refused_for_onnx(tmp_path, config_file):
    class ForCaffe(Fixed):
        def evaluate(self, model_file, weights_file):
            return 1.0

    with pytest.raises(EvaluatorError, match=r"evaluate of ForCaffe cannot be called with \(model_file\)"):
        calibrate(tmp_path / "out", config_file, ForCaffe())


@pytest.mark.parametrize("evaluator", [object(), Fixed, None])
def test_what_is_no_evaluator_is_refused(tmp_path, config_file, evaluator):
    with pytest.raises(EvaluatorError, match="'model_evaluator' parameter"):
        amct.accuracy_based_auto_calibration(
            model_file=MODEL_FILE,
            model_evaluator=evaluator,
            config_file=config_file,
            record_file=tmp_path / "r",
            save_dir=tmp_path / "out",
        )


@pytest.mark.parametrize("verdict", ["yes", (1, 0.5), (True,), 1.0])
def test_a_verdict_that_is_none_is_refused(tmp_path, config_file, verdict):
    with pytest.raises(EvaluatorError, match=r"metric_eval must return \(satisfied, loss\)"):
        calibrate(tmp_path / "out", config_file, Fixed(verdict=verdict))


def test_an_evaluator_that_refuses_the_float_model_is_told_so(tmp_path, config_file):
    with pytest.raises(EvaluatorError, match=r"metric_eval\(1\.0, 1\.0\) is False: the evaluator refuses the float"):
        calibrate(tmp_path / "out", config_file, Fixed(verdict=(False, 0.0)))


def test_an_evaluator_that_does_not_calibrate_is_told_so(tmp_path, config_file):
    with pytest.raises(EvaluatorError, match=r"calibration ran, but did not calibrate over batch_num = 4"):
        calibrate(tmp_path / "out", config_file, load_evaluator(batch_num=3))


def test_codebook_layers_are_refused_by_name(tmp_path):
    file = tmp_path / "config.json"
    amct.create_quant_config(file, MODEL_FILE, batch_num=4, target="onnxruntime")
    edit(file, lambda c: c["conv2"].update(weight_quant_params={"wts_algo": "codebook_quantize", "num_bits": 4}))
    with pytest.raises(ConfigError, match=r"conv2.*codebook"):
        calibrate(tmp_path / "out", file)


def test_a_journal_of_another_evaluator_is_refused(tmp_path, config_file):
    calibrate(tmp_path / "out", config_file, Fixed())
    with pytest.raises(SearchError, match="belongs to another search: evaluator"):
        calibrate(tmp_path / "out", config_file, load_evaluator())


def test_an_interrupt_saves_the_best_so_far(tmp_path, config_file):
    class Interrupted(Fixed):
        def evaluate(self, model_file):
            metric = super().evaluate(model_file)
            if self.calls == 4:
                raise KeyboardInterrupt
            return metric

    result = calibrate(tmp_path / "out", config_file, Interrupted(lambda floats: len(floats) > 2))
    assert result.stop == "interrupted"
    assert len(result.trials) == 3
    assert result.files["deploy_model"].is_file()


def test_workers_find_what_one_finds(tmp_path, config_file):
    alone = calibrate(tmp_path / "alone", config_file)
    together = calibrate(tmp_path / "together", config_file, n_jobs=2, backend="threading")
    assert together.trials == alone.trials
    assert together.config == alone.config


def run_process(folder, config_file, kill_at):
    code = (
        "import sys, runpy\n"
        "import amct_lite as amct\n"
        "evaluator = runpy.run_path(sys.argv[1])['DigitsCalibration']()\n"
        "model, config, out = sys.argv[2:5]\n"
        "amct.accuracy_based_auto_calibration(model, evaluator, config, out + '/record.txt', out)\n"
    )
    environment = {**os.environ, "EVALUATIONS": str(folder / "trace"), "KILL_AT": str(kill_at)}
    arguments = [str(EVALUATOR_FILE), str(MODEL_FILE), str(config_file), str(folder / "out")]
    return subprocess.run([sys.executable, "-c", code, *arguments], env=environment, check=False).returncode


@pytest.mark.slow
def test_a_run_killed_at_any_evaluation_ends_in_the_same_result(tmp_path, config_file):
    whole = tmp_path / "whole"
    whole.mkdir()
    assert run_process(whole, config_file, kill_at=-1) == 0
    expected = digests(whole / "out")
    evaluations = len((whole / "trace").read_text().splitlines())
    assert evaluations > 3
    for kill_at in range(1, evaluations + 1):
        folder = tmp_path / f"killed_{kill_at}"
        folder.mkdir()
        assert run_process(folder, config_file, kill_at) == -9
        assert run_process(folder, config_file, kill_at=-1) == 0
        assert digests(folder / "out") == expected, f"killed at evaluation {kill_at}"
        # The evaluation in flight when the process died was never journalled: it alone runs once more.
        assert len((folder / "trace").read_text().splitlines()) == evaluations + 1


def test_an_equalized_and_balanced_network_is_rolled_back_alike(tmp_path, config_file):
    def change(config):
        config["cross_layer_equalization"] = True
        for block in config.values():
            if isinstance(block, dict) and "weight_quant_params" in block:
                block["dmq_balancer_param"] = 0.5

    edit(config_file, change)
    result = calibrate(tmp_path / "out", config_file, Fixed(lambda floats: True))
    assert result.satisfied
    graph = amct.init(result.files["config"], MODEL_FILE, scale_offset_record_file=result.files["record"])
    again = amct.save_model(graph, "Fakequant", tmp_path / "again" / "net")
    images = load_split().validation.images[:50]
    outputs = [
        amct.InferenceSession(file).run(None, {"image": images})[0]
        for file in (result.files["fake_quant_model"], again.files["fake_quant_model"])
    ]
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-4)
