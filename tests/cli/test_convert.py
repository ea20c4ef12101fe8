"""`amct-lite convert`: AMCT's command and options, for QDQ models and for records."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from amct_lite.cli import app
from amct_lite.errors import ParameterError
from amct_lite.samples.digits.data import MODEL_FILE
from amct_lite.samples.fashion_lenet_caffe.run import MODEL_FOLDER

QDQ = """net (float[N, 4] x) => (y)
{ q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) v = DequantizeLinear (w, s) [fc] y = MatMul (d, v) }"""


def run(*arguments: object):
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


@pytest.fixture
def qdq_file(write_network: Callable[..., Path]) -> Path:
    weights: dict[str, Any] = {"s": np.float32(0.1), "z": np.uint8(7), "w": np.arange(12, dtype=np.int8).reshape(4, 3)}
    return write_network(QDQ, weights)


@pytest.fixture
def record_file(tmp_path: Path) -> Path:
    path = tmp_path / "given.txt"
    path.write_text('record { key: "fc1" value { scale_d: 0.1 scale_w: 0.01 } }')
    return path


@pytest.mark.parametrize("spelling", ["--save_path=out/net", "--save-path=out/net", "--save_path out/net"])
def test_a_qdq_model_is_converted_with_amcts_options(tmp_path, monkeypatch, qdq_file, spelling: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(f"--model={qdq_file}", *spelling.split(), "--record", "record.txt")
    assert done.exit_code == 0, done.output
    assert "fake_quant_model: out/net_fake_quant_model.onnx" in done.output
    assert "The record is written to record.txt." in done.output
    assert 'key: "fc"' in (tmp_path / "record.txt").read_text()
    for name in ("fake_quant_model.onnx", "deploy_model.onnx", "quant.json", "summary.json"):
        assert (tmp_path / "out" / f"net_{name}").is_file()


@pytest.mark.parametrize("option", ["--record_file", "--record-file"])
def test_a_float_model_is_converted_with_its_record(tmp_path, monkeypatch, record_file, option: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("--model", MODEL_FILE, option, record_file, "--save_path", "out/net", "--target", "onnxruntime")
    assert done.exit_code == 0, done.output
    assert "Quantized for onnxruntime" in done.output
    assert "conv1 stays float: it is not in the record." in done.output


@pytest.mark.skipif(not MODEL_FOLDER.is_dir(), reason="../shared/models/lenet_fashion is not there")
def test_a_caffe_pair_is_converted_with_its_record(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    record = tmp_path / "record.txt"
    record.write_text('record { key: "ip1" value { scale_d: 0.1 scale_w: 0.01 channels: 50 height: 4 width: 4 } }')
    pair = "--model", MODEL_FOLDER / "deploy.prototxt", "--weights", MODEL_FOLDER / "lenet_fashion.caffemodel"
    done = run(*pair, "--record_file", record, "--save_path", "out/net")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "net_deploy_weights.caffemodel").is_file()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--model", "n.prototxt", "--weights", "n.caffemodel"), "with its --record_file and --weights"),
        (("--model", "n.onnx", "--weights", "n.caffemodel"), "with its --record_file and --weights"),
        (("--model", "n.onnx", "--record", "r", "--record_file", "r"), "there is a record already"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(more, message: str) -> None:
    done = run(*more, "--save_path", "out/net")
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", " ").split())


def test_a_mix_up_of_formats_is_an_error(record_file) -> None:
    done = run("--model", MODEL_FILE, "--weights", "n.caffemodel", "--record_file", record_file, "--save_path", "o/n")
    assert isinstance(done.exception, ParameterError)
    assert "called as for Caffe, but" in str(done.exception)
