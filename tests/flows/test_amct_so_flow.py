"""Calibration inside plain `onnxruntime.InferenceSession(modified_model, amct.AMCT_SO)`, as amct_onnx's users do it."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import amct_lite as amct
from amct_lite import observing_operators
from amct_lite.errors import CalibrationError, OptionalDependencyError, ParameterError
from amct_lite.samples.digits.data import MODEL_FILE, load_split

IMAGES = load_split().calibration.images[:48]
BATCHES = [IMAGES[:16], IMAGES[16:32], IMAGES[32:]]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return {name: str(tmp_path / name) for name in ("config.json", "modified.onnx", "record.txt", "out/net")}


def write_calibration_model(files: dict[str, str], batch_num: int = 3) -> None:
    amct.create_quant_config(files["config.json"], MODEL_FILE, [], batch_num)
    amct.quantize_model(files["config.json"], MODEL_FILE, files["modified.onnx"], files["record.txt"])


def plain_session(files: dict[str, str]) -> Any:
    return onnxruntime.InferenceSession(files["modified.onnx"], amct.AMCT_SO, providers=["CPUExecutionProvider"])


def test_a_plain_session_with_amct_so_writes_the_record_that_ours_writes(files: dict[str, str]) -> None:
    write_calibration_model(files)
    record = Path(files["record.txt"])
    ours = amct.InferenceSession(files["modified.onnx"])
    for batch in BATCHES:
        ours.run(None, {"image": batch})
    expected = record.read_bytes()
    record.unlink()
    plain = plain_session(files)
    for batch in BATCHES:
        assert not record.exists()
        plain.run(None, {"image": batch})
    assert record.read_bytes() == expected


def test_save_model_of_the_calibration_model_writes_both_models(files: dict[str, str]) -> None:
    write_calibration_model(files)
    session = plain_session(files)
    for batch in BATCHES:
        session.run(None, {"image": batch})
    saved = amct.save_model(files["modified.onnx"], files["record.txt"], files["out/net"])
    names = sorted(path.name for path in Path(files["out/net"]).parent.iterdir())
    assert names == ["net_deploy_model.onnx", "net_fake_quant_model.onnx", "net_quant.json", "net_summary.json"]
    fake_quant = onnxruntime.InferenceSession(str(saved.files["fake_quant_model"]))
    assert (
        fake_quant.run(None, {"image": IMAGES})[0].argmax(1) == session.run(None, {"image": IMAGES})[0].argmax(1)
    ).mean() > 0.9


def test_runs_after_the_last_batch_only_compute_until_the_model_is_written_again(files: dict[str, str]) -> None:
    write_calibration_model(files, batch_num=1)
    record = Path(files["record.txt"])
    session = plain_session(files)
    session.run(None, {"image": BATCHES[0]})
    first = record.read_bytes()
    session.run(None, {"image": BATCHES[1] * 3})
    assert record.read_bytes() == first
    write_calibration_model(files, batch_num=1)
    plain_session(files).run(None, {"image": BATCHES[1] * 3})
    assert record.read_bytes() != first


def test_a_batch_that_cannot_be_used_is_told_by_save_model_and_ends_no_process(
    files: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    write_calibration_model(files)
    session = plain_session(files)
    session.run(None, {"image": np.full_like(BATCHES[0], np.nan)})
    for batch in BATCHES:
        session.run(None, {"image": batch})
    assert "not finite in batch 1" in caplog.text
    assert not Path(files["record.txt"]).exists()
    with pytest.raises(CalibrationError, match="not finite in batch 1"):
        amct.save_model(files["modified.onnx"], files["record.txt"], files["out/net"])


def test_a_calibration_model_that_was_moved_is_told(files: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    write_calibration_model(files)
    moved = Path(files["modified.onnx"]).rename(Path(files["modified.onnx"]).with_name("moved.onnx"))
    session = onnxruntime.InferenceSession(str(moved), amct.AMCT_SO, providers=["CPUExecutionProvider"])
    session.run(None, {"image": BATCHES[0]})
    assert "no more at" in caplog.text
    assert "Run quantize_model again" in caplog.text


def test_too_few_batches_leave_no_record_and_save_model_says_so(files: dict[str, str]) -> None:
    write_calibration_model(files)
    plain_session(files).run(None, {"image": BATCHES[0]})
    with pytest.raises(amct.AmctError, match=r"record\.txt"):
        amct.save_model(files["modified.onnx"], files["record.txt"], files["out/net"])


def test_options_set_on_amct_so_stay_set() -> None:
    before = amct.AMCT_SO.intra_op_num_threads
    try:
        amct.AMCT_SO.intra_op_num_threads = 1
        assert amct.AMCT_SO.intra_op_num_threads == 1
    finally:
        amct.AMCT_SO.intra_op_num_threads = before


def test_without_the_extra_the_error_names_it_and_our_own_session(monkeypatch: pytest.MonkeyPatch) -> None:
    observing_operators._calibrating_session_options.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
    with pytest.raises(OptionalDependencyError, match=r"amct-lite\[amct-so\].*amct_lite.InferenceSession"):
        _ = amct.AMCT_SO


class Evaluator(amct.AutoCalibrationEvaluatorBase):
    """As in AMCT's samples: plain onnxruntime, AMCT_SO for calibration and evaluation alike."""

    def calibration(self, model_file: str) -> None:
        session = onnxruntime.InferenceSession(model_file, amct.AMCT_SO, providers=["CPUExecutionProvider"])
        for batch in BATCHES:
            session.run(None, {"image": batch})

    def evaluate(self, model_file: str) -> float:
        digits = load_split().validation
        session = onnxruntime.InferenceSession(model_file, amct.AMCT_SO, providers=["CPUExecutionProvider"])
        logits = session.run(None, {"image": digits.images})[0]
        return float((logits.argmax(1) == digits.labels).mean())

    def metric_eval(self, original_metric: float, new_metric: float) -> tuple[bool, float]:
        loss = original_metric - new_metric
        return loss < 0.02, loss


def test_accuracy_based_auto_calibration_runs_on_it(files: dict[str, str], tmp_path: Path) -> None:
    amct.create_quant_config(files["config.json"], MODEL_FILE, batch_num=3)
    result = amct.accuracy_based_auto_calibration(
        MODEL_FILE, Evaluator(), files["config.json"], files["record.txt"], str(tmp_path / "out")
    )
    assert result.satisfied
    assert Path(files["record.txt"]).exists()


class BrokenEvaluator(Evaluator):
    """Calibrates on what is no image."""

    def calibration(self, model_file: str) -> None:
        session = onnxruntime.InferenceSession(model_file, amct.AMCT_SO, providers=["CPUExecutionProvider"])
        session.run(None, {"image": np.full_like(BATCHES[0], np.inf)})


def test_a_failed_calibration_of_an_evaluator_is_the_verbs_error(files: dict[str, str], tmp_path: Path) -> None:
    amct.create_quant_config(files["config.json"], MODEL_FILE, batch_num=3)
    with pytest.raises(CalibrationError, match="not finite in batch 1"):
        amct.accuracy_based_auto_calibration(
            MODEL_FILE, BrokenEvaluator(), files["config.json"], files["record.txt"], str(tmp_path / "out")
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("config.json", MODEL_FILE, "modified.onnx"), "graph must be the one that init returned"),
        (("config.json", "net.prototxt", "modified.prototxt", "record.txt"), "called as for ONNX"),
        (("config.json", MODEL_FILE, "a", "b", "c"), "too many positional arguments.*as amct_caffe does.*as amct_onnx"),
    ],
)
def test_a_mixed_up_quantize_model_is_told_both_forms(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        amct.quantize_model(*arguments)


def test_a_mixed_up_save_model_is_told_what_was_missing() -> None:
    with pytest.raises(ParameterError, match="no calibration model of an ONNX network"):
        amct.save_model(MODEL_FILE, "record.txt", "out/net")
    with pytest.raises(ParameterError, match=r"save_model\(graph, save_type, save_path\)"):
        amct.save_model(3, "Both", "out/net")  # type: ignore[call-overload]


def test_a_caffe_network_in_the_onnx_form_of_create_quant_config_is_told_where_its_weights_go(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="behind model_file"):
        amct.create_quant_config(tmp_path / "c.json", "net.prototxt", ["conv1"], 2)


def test_both_orders_of_create_quant_config_write_the_same(tmp_path: Path) -> None:
    amct.create_quant_config(tmp_path / "caffe.json", MODEL_FILE, None, ["conv1"], 2, False)
    amct.create_quant_config(tmp_path / "onnx.json", MODEL_FILE, ["conv1"], 2, False)
    assert (tmp_path / "caffe.json").read_bytes() == (tmp_path / "onnx.json").read_bytes()
    amct.create_quant_config(tmp_path / "none.json", MODEL_FILE, None, 2, False)
    amct.create_quant_config(tmp_path / "names.json", model_file=MODEL_FILE, batch_num=2, activation_offset=False)
    assert (tmp_path / "none.json").read_bytes() == (tmp_path / "names.json").read_bytes()
