"""Calibration in the user's own loop: a calibration model, its session, and the record in the end."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import amct_lite
from amct_lite.errors import CalibrationError, ModelError
from amct_lite.samples.digits.data import MODEL_FILE, load_split

IMAGES = load_split().calibration.images[:48]
BATCHES = [IMAGES[:16], IMAGES[16:32], IMAGES[32:]]


class Calibration:
    """A folder with the float model, its config, and the calibration model."""

    def __init__(self, folder: Path, batch_num: int = 3) -> None:
        self.folder = folder
        self.float_model = folder / "float.onnx"
        self.config, self.record, self.modified = (folder / n for n in ("config.json", "record.txt", "modified.onnx"))
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(MODEL_FILE, self.float_model)
        amct_lite.create_quant_config(self.config, self.float_model, batch_num=batch_num)
        self.graph = amct_lite.init(self.config, self.float_model, scale_offset_record_file=self.record)
        amct_lite.quantize_model(self.graph, self.modified)

    def expected_record(self) -> bytes:
        """What `calibrate` writes for the same batches."""
        amct_lite.calibrate(self.graph, BATCHES)
        content = self.record.read_bytes()
        self.record.unlink()
        return content


@pytest.fixture
def calibration(tmp_path: Path) -> Calibration:
    return Calibration(tmp_path / "work")


def names(values: list[Any]) -> list[str]:
    return [value.name for value in values]


def test_record_is_the_one_of_calibrate_and_comes_after_the_last_batch(calibration: Calibration) -> None:
    expected = calibration.expected_record()
    session = amct_lite.InferenceSession(calibration.modified)
    for batch in BATCHES:
        assert not calibration.record.exists()
        session.run(None, {"image": batch})
    assert calibration.record.read_bytes() == expected
    assert len(list(calibration.folder.iterdir())) == 4


def test_session_looks_like_the_float_models(calibration: Calibration) -> None:
    session = amct_lite.InferenceSession(calibration.modified)
    plain = onnxruntime.InferenceSession(str(MODEL_FILE))
    for ours, theirs in ((session.get_inputs(), plain.get_inputs()), (session.get_outputs(), plain.get_outputs())):
        assert [(v.name, v.type, v.shape) for v in ours] == [(v.name, v.type, v.shape) for v in theirs]
    for output_names in (None, [], ["logits"]):
        (logits,) = session.run(output_names, {"image": BATCHES[0]})
        np.testing.assert_allclose(logits, plain.run(None, {"image": BATCHES[0]})[0], rtol=1e-4, atol=1e-4)


def test_runs_after_the_last_batch_only_compute(calibration: Calibration) -> None:
    session = amct_lite.InferenceSession(calibration.modified)
    for batch in BATCHES:
        session.run(["logits"], {"image": batch}, onnxruntime.RunOptions())
    calibration.record.unlink()
    session.run(None, {"image": np.full((1, 1, 8, 8), np.nan, np.float32)})
    assert not calibration.record.exists()


def test_other_process_finishes_the_calibration(calibration: Calibration, tmp_path: Path) -> None:
    expected = calibration.expected_record()
    np.save(tmp_path / "images.npy", IMAGES)
    code = (
        "import sys, numpy, amct_lite\n"
        "session = amct_lite.InferenceSession(sys.argv[1])\n"
        "for batch in numpy.split(numpy.load(sys.argv[2]), 3):\n"
        "    session.run(None, {'image': batch})\n"
    )
    (tmp_path / "elsewhere").mkdir()
    command = [sys.executable, "-c", code, str(calibration.modified), str(tmp_path / "images.npy")]
    subprocess.run(command, check=True, cwd=tmp_path / "elsewhere")
    assert calibration.record.read_bytes() == expected
    assert not list((tmp_path / "elsewhere").iterdir())


def calibrate_with(modified: Path) -> None:
    session = amct_lite.InferenceSession(modified)
    for batch in BATCHES:
        session.run(None, {"image": batch})


def test_moved_folder_goes_on_working(calibration: Calibration, tmp_path: Path) -> None:
    expected = calibration.expected_record()
    moved = tmp_path / "far" / "away"
    shutil.copytree(calibration.folder, moved)
    shutil.rmtree(calibration.folder)
    calibrate_with(moved / "modified.onnx")
    assert (moved / "record.txt").read_bytes() == expected


def test_folder_behind_a_link_works(calibration: Calibration, tmp_path: Path) -> None:
    real = tmp_path / "somewhere" / "deeper" / "real"
    real.mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    amct_lite.quantize_model(calibration.graph, tmp_path / "link" / "modified.onnx")
    calibrate_with(tmp_path / "link" / "modified.onnx")
    assert calibration.record.exists()


def test_relative_paths_do_not_depend_on_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Calibration(tmp_path / "work")
    monkeypatch.chdir(work.folder)
    graph = amct_lite.init("config.json", "float.onnx", scale_offset_record_file="record.txt")
    amct_lite.quantize_model(graph, "modified.onnx")
    monkeypatch.chdir(tmp_path)
    calibrate_with(Path("work/modified.onnx"))
    assert work.record.exists()


def test_calibration_model_is_stock_onnx(calibration: Calibration) -> None:
    onnx.checker.check_model(str(calibration.modified), full_check=True)
    plain = onnxruntime.InferenceSession(str(calibration.modified))
    assert names(plain.get_outputs()) == ["logits"]
    expected = onnxruntime.InferenceSession(str(calibration.float_model)).run(None, {"image": BATCHES[0]})
    np.testing.assert_allclose(plain.run(None, {"image": BATCHES[0]}), expected, rtol=1e-4, atol=1e-4)
    assert not calibration.record.exists()
    # What is observed leaves no trace in the graph that is saved afterwards.
    calibrate_with(calibration.modified)
    saved = amct_lite.save_model(calibration.graph, "Fakequant", calibration.folder / "net")
    assert not ir.load(saved.files["fake_quant_model"]).metadata_props
    session = amct_lite.InferenceSession(saved.files["fake_quant_model"])
    assert names(session.get_outputs()) == ["logits"]


def test_float_model_that_changed_is_refused(calibration: Calibration) -> None:
    session = amct_lite.InferenceSession(calibration.modified)
    model = ir.load(calibration.float_model)
    weight = model.graph.initializers["fc2.weight"]
    weight.const_value = ir.tensor(weight.const_value.numpy() * 2, name="fc2.weight")
    ir.save(model, calibration.float_model)
    with pytest.raises(CalibrationError, match=r"has changed since the calibration model was written.*quantize_model"):
        for batch in BATCHES:
            session.run(None, {"image": batch})
    assert not calibration.record.exists()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"tensors": 5, "outputs": ["logits"], "batch_num": 1, "model_digest": "a", '
     '"model_file": "m", "config_file": "c"}'],
)  # fmt: skip
def test_damaged_metadata_is_an_error(text: str, calibration: Calibration) -> None:
    model = ir.load(calibration.modified)
    model.metadata_props["amct_lite.calibration"] = text
    ir.save(model, calibration.modified)
    with pytest.raises(ModelError, match=r"modified\.onnx has damaged metadata.*quantize_model"):
        amct_lite.InferenceSession(calibration.modified)


def test_batch_with_nan_ends_the_calibration(calibration: Calibration) -> None:
    session = amct_lite.InferenceSession(calibration.modified)
    bad = BATCHES[0].copy()
    bad[0] = np.nan
    with pytest.raises(CalibrationError, match="not finite in batch 1"):
        session.run(None, {"image": bad})
    # Part of its tensors may have been counted, so what follows cannot give the record of the good batches.
    with pytest.raises(CalibrationError, match=r"earlier batch.*failed"):
        session.run(None, {"image": BATCHES[0]})
    assert not calibration.record.exists()


def test_run_that_onnxruntime_refuses_counts_for_nothing(calibration: Calibration) -> None:
    expected = calibration.expected_record()
    session = amct_lite.InferenceSession(calibration.modified)
    with pytest.raises(Exception, match="nothing"):
        session.run(["nothing"], {"image": BATCHES[0]})
    with pytest.raises(CalibrationError, match="lacks the input 'image'"):
        session.run(None, {})
    for batch in BATCHES:
        session.run(None, {"image": batch})
    assert calibration.record.read_bytes() == expected


def test_observed_input_and_output_are_not_doubled(write_network: Callable[..., Path], tmp_path: Path) -> None:
    w = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    text = "g (float[N,4] x) => (y, h) { [a] h = MatMul (x, w) [b] y = MatMul (h, v) }"
    file = write_network(text, {"w": w, "v": w})
    amct_lite.create_quant_config(tmp_path / "c.json", file, target="onnxruntime")
    graph = amct_lite.init(tmp_path / "c.json", file, scale_offset_record_file=tmp_path / "r.txt")
    amct_lite.quantize_model(graph, tmp_path / "m.onnx")
    session = amct_lite.InferenceSession(tmp_path / "m.onnx")
    assert names(session.get_outputs()) == names(onnxruntime.InferenceSession(str(tmp_path / "m.onnx")).get_outputs())
    y, h = session.run(["y", "h"], {"x": np.eye(4, dtype=np.float32)})
    assert (tmp_path / "r.txt").exists()
    np.testing.assert_allclose(y, h @ w, rtol=1e-5, atol=1e-6)


def test_session_needs_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no model"):
        amct_lite.InferenceSession(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="cannot load"):
        amct_lite.InferenceSession(tmp_path / "bad.onnx")
