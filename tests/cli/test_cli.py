"""The command line as a person uses it: in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnxruntime import InferenceSession

from amct_lite.samples.digits.data import MODEL_FILE, load_split
from amct_lite.version import VERSION

EVALUATOR = Path(__file__).parents[1] / "search" / "digits_evaluator.py"
CALIBRATOR = Path(__file__).parents[1] / "search" / "calibration_evaluator.py"


def amct_lite(*arguments, cwd, **environment):
    command = [sys.executable, "-c", "from amct_lite.cli import main; main()", *map(str, arguments)]
    variables = {**os.environ, "COLUMNS": "140", **environment}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=variables)


@pytest.fixture
def data_file(tmp_path):
    path = tmp_path / "digits.npz"
    part = load_split().calibration
    np.savez(path, image=part.images, labels=part.labels)
    return path


@pytest.fixture
def config_file(tmp_path):
    done = amct_lite("config", "--model", MODEL_FILE, "--config", "config.json", "--batch-num", 4, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "success!" in done.stdout
    return tmp_path / "config.json"


def test_the_demo_runs_to_the_end_and_says_where_the_results_lie(tmp_path):
    done = amct_lite("demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "held-out images: float 99" in done.stdout
    for line in done.stdout.splitlines():
        if line.startswith(("deploy_model: amct", "record: ")):
            assert (tmp_path / line.partition(": ")[2]).is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["amct_lite_demo"], "nothing lands in the current folder unasked"
    assert done.stderr == "", "no progress in a pipe"


def test_config_calibrate_and_save_make_the_models(tmp_path, config_file, data_file):
    done = amct_lite(
        *("calibrate", "--model", MODEL_FILE, "--config", config_file, "--record", "record.txt"),
        *("--data", data_file, "--batch-size", 25, "--save", "out/digits"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "deploy_model: " in done.stdout
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "digits_fake_quant_model.onnx",
        "digits_deploy_model.onnx",
        "digits_quant.json",
        "digits_summary.json",
    }


def test_calibrate_keeps_its_statistics_and_needs_no_data_then(tmp_path, config_file, data_file):
    command = ("calibrate", "--model", MODEL_FILE, "--config", config_file, "--statistics", "kept.npz")
    first = amct_lite(
        *(*command, "--record", "a.txt", "--data", data_file, "--batch-size", 25),
        *("--jobs", 2, "--backend", "threading"),
        cwd=tmp_path,
    )
    assert first.returncode == 0, first.stderr
    again = amct_lite(*command, "--record", "b.txt", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()


def test_auto_nuq_takes_an_evaluator_from_a_file(tmp_path, config_file, data_file):
    done = amct_lite(
        *("auto-nuq", "--model", MODEL_FILE, "--config", config_file, "--record", "record.txt"),
        *("--evaluator", f"{EVALUATOR}:DigitsEvaluator", "--save-dir", "out", "--data", data_file),
        *("--batch-size", 25),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "The smallest of" in done.stdout


def test_auto_nuq_finds_the_best_within_bytes(tmp_path, config_file, data_file):
    command = (
        *("auto-nuq", "--model", MODEL_FILE, "--config", config_file, "--record", "record.txt"),
        *("--evaluator", f"{EVALUATOR}:DigitsEvaluator", "--save-dir", "out", "--data", data_file),
        *(
            "--batch-size",
            25,
            "--max-evaluations",
            4,
            "--strategy",
            "frontier",
            "--n-jobs",
            2,
            "--backend",
            "threading",
        ),
    )
    refused = amct_lite(*command, "--objective", "smallest", "--max-bytes", 30_000, cwd=tmp_path)
    assert refused.returncode == 1
    assert "'max_bytes' parameter of auto_nuq goes with the objective 'best'" in refused.stderr
    both = amct_lite(*command, "--objective", "best", "--max-bytes", 9, "--equivalent-bits", 4, cwd=tmp_path)
    assert "not both" in both.stderr
    assert "must be one of smallest, best, front" in amct_lite(*command, "--objective", "tiny", cwd=tmp_path).stderr
    done = amct_lite(*command, cwd=tmp_path)
    assert done.returncode in (0, 3), done.stderr
    assert len((tmp_path / "out" / "digits_auto_nuq_journal.jsonl").read_text().splitlines()) >= 4


def auto_calibration(tmp_path, config_file, *more, evaluator="DigitsCalibration"):
    return amct_lite(
        *("auto-calibration", "--model", MODEL_FILE, "--config", config_file, "--record", "record.txt"),
        *("--evaluator", f"{CALIBRATOR}:{evaluator}", "--save-dir", "out", *more),
        cwd=tmp_path,
    )


def test_auto_calibration_rolls_layers_back_and_says_so(tmp_path, config_file):
    done = auto_calibration(tmp_path, config_file)
    assert done.returncode == 0, done.stderr
    assert "Accuracy of global quantized model is" in done.stdout
    assert "rolled back to float" in done.stdout
    assert (tmp_path / "out" / "accuracy_based_auto_calibration_final_config.json").is_file()
    assert (tmp_path / "record.txt").is_file()


def test_auto_calibration_takes_amcts_names_and_data(tmp_path, config_file, data_file):
    amcts = ("--strategy", "BinarySearch", "--sensitivity", "CosineSimilarity")
    done = auto_calibration(tmp_path, config_file, *amcts, "--data", data_file, "--batch-size", 25)
    assert done.returncode == 0, done.stderr
    assert "derived" not in done.stdout
    wrong = auto_calibration(tmp_path, config_file, "--strategy", "Bisect")
    assert wrong.returncode == 1
    assert "BinarySearch" in wrong.stderr


def test_auto_calibration_without_a_model_leaves_with_exit_code_3(tmp_path, config_file):
    evaluator = tmp_path / "never.py"
    evaluator.write_text(
        f"import runpy\nBase = runpy.run_path({str(CALIBRATOR)!r})['DigitsCalibration']\n"
        "class Never(Base):\n    def metric_eval(self, old, new):\n        return old == new, old - new\n"
    )
    done = amct_lite(
        *("auto-calibration", "--model", MODEL_FILE, "--config", config_file, "--record", "record.txt"),
        *("--evaluator", f"{evaluator}:Never", "--save-dir", "out"),
        cwd=tmp_path,
    )
    assert done.returncode == 3, done.stderr
    assert "No quantized model are generated due to all quant layers are roll backed" in done.stdout


def test_history_shows_what_was_evaluated(tmp_path, config_file):
    auto_calibration(tmp_path, config_file, "--max-evaluations", 3)
    journal = tmp_path / "out" / "accuracy_based_auto_calibration_journal.jsonl"
    trials = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    with journal.open("a") as file:
        file.write('{"key":"torn')  # a search that runs, or was killed
    done = amct_lite("history", journal, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"amct_lite version: {VERSION}" in done.stdout
    assert "evaluator: DigitsCalibration" in done.stdout
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert [row[1] for row in rows] == [f"{trial['size_bytes']:,}" for trial in trials]
    assert [row[2] for row in rows] == [f"{trial['metric']:.6g}" for trial in trials]
    assert [row[4] for row in rows] == ["yes" if trial["satisfied"] else "no" for trial in trials]
    assert rows[0][3] == ""
    assert float(rows[1][3]) == pytest.approx(trials[1]["metric"] - trials[0]["metric"], rel=1e-4)
    assert rows[0][6] == "the float model"
    assert rows[1][6] == "6 x int8"


def test_history_of_what_is_no_journal_is_an_error(tmp_path, config_file):
    assert "is damaged at line 1" in amct_lite("history", config_file, cwd=tmp_path).stderr
    assert "cannot be read" in amct_lite("history", "absent.jsonl", cwd=tmp_path).stderr


def test_a_best_effort_leaves_with_its_own_exit_code(tmp_path, config_file, data_file):
    evaluator = tmp_path / "never.py"
    evaluator.write_text(
        "from amct_lite.auto_nuq import AutoNuqEvaluatorBase\n"
        "class Never(AutoNuqEvaluatorBase):\n"
        "    def eval_model(self, model_file, weights_file, batch_num):\n"
        "        return 0.0 if 'candidate' in model_file else 1.0\n"
        "    def is_satisfied(self, original_metric, new_metric):\n"
        "        return original_metric == new_metric\n"
    )
    done = amct_lite(
        *("auto-nuq", "--model", MODEL_FILE, "--config", config_file, "--record", "record.txt"),
        *("--evaluator", f"{evaluator}:Never", "--save-dir", "out", "--data", data_file, "--batch-size", 25),
        *("--max-evaluations", 3),
        cwd=tmp_path,
    )
    assert done.returncode == 3, done.stderr
    assert "best effort" in done.stdout


def test_inspect_shows_each_layer_with_its_reason(tmp_path):
    done = amct_lite("inspect", "--model", MODEL_FILE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("conv1", "conv2", "conv3", "fc1", "fc2", "pool"):
        assert name in done.stdout
    assert "found AveragePool" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_error_is_a_sentence_without_a_traceback(tmp_path):
    done = amct_lite("inspect", "--model", "absent.onnx", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "absent.onnx" in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(tmp_path):
    done = amct_lite("--debug", "inspect", "--model", "absent.onnx", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_an_exception_of_the_evaluators_keeps_its_traceback(tmp_path, config_file, data_file):
    evaluator = tmp_path / "broken.py"
    evaluator.write_text("class Broken:\n    def __init__(self):\n        raise ZeroDivisionError('mine')\n")
    done = amct_lite(
        *("auto-nuq", "--model", MODEL_FILE, "--config", config_file, "--record", "record.txt"),
        *("--evaluator", f"{evaluator}:Broken", "--save-dir", "out", "--data", data_file),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "ZeroDivisionError: mine" in done.stderr
    assert "broken.py" in done.stderr


@pytest.mark.parametrize(
    ("evaluator", "message"),
    [("nowhere", "file.py:Name"), ("nowhere.py:X", "no evaluator file"), (f"{EVALUATOR}:Absent", "does not define")],
)
def test_an_evaluator_that_cannot_be_found_is_named(tmp_path, config_file, data_file, evaluator, message):
    done = amct_lite(
        *("auto-nuq", "--model", MODEL_FILE, "--config", config_file, "--record", "record.txt"),
        *("--evaluator", evaluator, "--save-dir", "out", "--data", data_file),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert message in done.stderr


def test_a_hand_edited_config_with_a_mistake_names_the_place(tmp_path, config_file):
    config = json.loads(config_file.read_text())
    config["conv1"]["weight_quant_params"]["num_step"] = 32
    config_file.write_text(json.dumps(config))
    done = amct_lite("inspect", "--model", MODEL_FILE, "--config", config_file, cwd=tmp_path)
    assert done.returncode == 1
    assert "$.conv1.weight_quant_params.num_step" in done.stderr


def test_version_and_help(tmp_path):
    assert amct_lite("--version", cwd=tmp_path).stdout.strip() == VERSION
    text = amct_lite("--help", cwd=tmp_path).stdout
    for verb in ("demo", "config", "inspect", "calibrate", "auto-nuq", "auto-calibration", "history"):
        assert verb in text
        assert "Example" in amct_lite(verb, "--help", cwd=tmp_path).stdout


def test_wrong_usage_has_exit_code_2(tmp_path):
    assert amct_lite("config", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize("options", [["--bits", "4"], ["--bits", "3.5"], ["--bits", "4", "--activation-bits", "8"]])
def test_nuq_makes_a_small_model_that_runs(options, tmp_path, data_file):
    done = amct_lite("nuq", MODEL_FILE, *options, "--data", data_file, "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "No data was given" not in done.stdout
    line = [line for line in done.stdout.splitlines() if line.startswith("deploy_model: ")][-1]
    small = tmp_path / line.partition(": ")[2]
    assert small.stat().st_size < MODEL_FILE.stat().st_size / 4
    part = load_split().validation
    logits = InferenceSession(str(small)).run(None, {"image": part.images})[0]
    assert (logits.argmax(1) == part.labels).mean() > 0.95


def test_nuq_without_data_says_what_data_would_bring(tmp_path):
    done = amct_lite("nuq", MODEL_FILE, "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "No data was given" in done.stdout


def test_nuq_refuses_a_fraction_of_bits_without_data(tmp_path):
    done = amct_lite("nuq", MODEL_FILE, "--bits", "3.5", "-o", "out", cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_inspect_compares_a_quantized_file_or_a_record_with_the_float_network(tmp_path, config_file, data_file):
    calibrated = amct_lite(
        *("calibrate", "--model", MODEL_FILE, "--config", config_file, "--record", "record.txt"),
        *("--data", data_file, "--batch-size", 25, "--save", "out/digits"),
        cwd=tmp_path,
    )
    assert calibrated.returncode == 0, calibrated.stderr
    by_file = amct_lite(
        *("inspect", MODEL_FILE, "--compare", "out/digits_fake_quant_model.onnx", "--data", data_file), cwd=tmp_path
    )
    by_record = amct_lite(
        *("inspect", "--model", MODEL_FILE, "--config", config_file, "--record", "record.txt", "--data", data_file),
        cwd=tmp_path,
    )
    for done in (by_file, by_record):
        assert done.returncode == 0, done.stderr
        assert "What each layer loses, the worst first" in done.stdout
        assert "own cosine" in done.stdout and "conv1" in done.stdout


def test_inspect_says_what_a_comparison_lacks(tmp_path, config_file):
    for arguments, message in {
        (MODEL_FILE, "--compare", "x.onnx"): "needs --data",
        (MODEL_FILE, "--record", "r.txt", "--data", "d.npz"): "--record needs the --config",
        (): "Give the float network once",
    }.items():
        done = amct_lite("inspect", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr


def test_ranges_are_explained(tmp_path, config_file, data_file):
    config = json.loads(config_file.read_text())
    for block in config.values():
        if isinstance(block, dict):
            block["activation_quant_params"] = {"act_algo": "auto"}
    config_file.write_text(json.dumps(config))
    common = ("--model", MODEL_FILE, "--config", config_file, "--record", "record.txt")
    done = amct_lite("calibrate", *common, "--data", data_file, "--batch-size", 25, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = amct_lite("explain-ranges", *common, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "noise / signal at the output of" in done.stdout
    assert "entropy" in done.stdout
