"""The log follows AMCT's environment variables, in its line format, and leaves no file that was not asked for."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import amct_lite as amct
from amct_lite.logs import logged_call
from amct_lite.samples.fashion_lenet_caffe.run import MODEL_FOLDER

SCRIPT = """
import amct_lite as amct
from amct_lite.samples.digits.data import MODEL_FILE, load_split
amct.create_quant_config("config.json", MODEL_FILE)
amct.create_quant_config("config.json", MODEL_FILE)
graph = amct.init("config.json", MODEL_FILE, None, "record.txt")
amct.quantize_model(graph, "modified.onnx")
amct.InferenceSession("modified.onnx").run(None, {"image": load_split().calibration.images[:16]})
amct.save_model(graph, "Both", "out/net")
"""
# The pattern that fault-diagnosis tools parse AMCT's logs by.
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - (DEBUG|INFO|WARNING|ERROR) - \[AMCT\]:\[\w+\]: .+")
MESSAGES = [
    "Generate config file:config.json success!",
    "The file already exists at config.json, and it will be overwritten by AMCT",
    'Doing layer: "image" calibration, already store 1/1 data.',
    "Use 1 batch to do layer conv1 data calibration.",
    "Do layer conv1 data calibration succeeded!",
    "[save_model]: The model is saved in out/net_fake_quant_model.onnx",
]


def run(folder: Path, **environment: str) -> str:
    """What a script that goes through the verbs writes to the terminal."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AMCT_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        env={**plain, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


def test_without_the_variables_nothing_is_shown_and_no_log_is_written(tmp_path: Path) -> None:
    assert run(tmp_path) == ""
    assert not (tmp_path / "amct_log").exists()


def test_the_terminal_shows_amcts_messages_in_its_format(tmp_path: Path) -> None:
    shown = run(tmp_path, AMCT_LOG_LEVEL="info")
    assert all(LINE.fullmatch(line) for line in shown.splitlines())
    for message in MESSAGES:
        assert message in shown
    assert not (tmp_path / "amct_log").exists()


def test_the_file_is_written_where_its_variable_asks_for_it_and_the_terminal_stays_quiet(tmp_path: Path) -> None:
    assert run(tmp_path, AMCT_LOG_FILE_LEVEL="info") == ""
    log = (tmp_path / "amct_log" / "amct_lite.log").read_text()
    for message in MESSAGES:
        assert message in log


def test_a_file_for_errors_alone_stays_away_where_there_is_none(tmp_path: Path) -> None:
    run(tmp_path, AMCT_LOG_FILE_LEVEL="error")
    assert not (tmp_path / "amct_log").exists()


def test_a_level_that_is_none_is_told_and_taken_as_info(tmp_path: Path) -> None:
    shown = run(tmp_path, AMCT_LOG_LEVEL="verbose")
    assert "AMCT_LOG_LEVEL must be one of debug, info, warning, error. Got 'verbose'" in shown
    assert MESSAGES[0] in shown


def test_searches_log_amcts_banner(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="amct_lite"), logged_call("auto_nuq"):
        pass
    assert "#>Func name: auto_nuq" in caplog.text
    assert re.search(r"#>Cost time: 0 hours, 0 minutes, \d+\.\d\d seconds", caplog.text)


@pytest.mark.skipif(not MODEL_FOLDER.is_dir(), reason="../shared/models/lenet_fashion is not there")
def test_saving_a_caffe_pair_tells_where_its_weights_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, weights = MODEL_FOLDER / "deploy.prototxt", MODEL_FOLDER / "lenet_fashion.caffemodel"
    amct.create_quant_config(tmp_path / "config.json", model, weights)
    graph = amct.init(tmp_path / "config.json", model, weights, tmp_path / "record.txt")
    amct.calibrate(graph, [np.random.default_rng(0).random((4, 1, 28, 28), np.float32)])
    with caplog.at_level("INFO", logger="amct_lite"):
        amct.save_model(graph, "Fakequant", tmp_path / "net")
    assert f"The weights_file is saved in {tmp_path / 'net_fake_quant_weights.caffemodel'}" in caplog.text
