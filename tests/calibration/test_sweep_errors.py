"""What is wrong with a batch is said, and nothing is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amct_lite
from amct_lite.errors import CalibrationError
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.samples.digits.data import MODEL_FILE

GOOD = np.zeros((2, 1, 8, 8), np.float32)


@pytest.fixture
def planned(tmp_path: Path) -> PlannedGraph:
    amct_lite.create_quant_config(tmp_path / "config.json", MODEL_FILE, batch_num=2)
    return amct_lite.init(tmp_path / "config.json", MODEL_FILE, scale_offset_record_file=tmp_path / "record.txt")


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({}, "lacks the input 'image'"),
        ({"img": GOOD}, "input 'img', which the model does not have.*inputs are: image"),
        ({"image": GOOD, "mask": GOOD}, "'mask', which the model does not have"),
        (GOOD.astype(np.float64), "'image' must be float32; batch 2 has float64.*astype"),
        (GOOD.astype(np.uint8), "'image' must be float32; batch 2 has uint8"),
        (GOOD[0], r"'image' has shape \[\?, 1, 8, 8\]; batch 2 has \[1, 8, 8\]"),
        (ones(2, 3, 8, 8), r"batch 2 has \[2, 3, 8, 8\]"),
        ([ones(1, 1, 8, 8), ones(1, 1, 7, 8)], "Batch 2 is no array of one shape"),
        (None, "'image' must be float32; batch 2 has object"),
    ],
)
def test_batch_that_does_not_fit(batch: Any, message: str, planned: PlannedGraph, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=f"(?s){message}"):
        amct_lite.calibrate(planned, [GOOD, batch])
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_value_that_is_not_finite_names_tensor_and_batch(bad: float, planned: PlannedGraph, tmp_path: Path) -> None:
    batch = GOOD.copy()
    batch[1, 0, 3, 3] = bad
    with pytest.raises(CalibrationError, match=r"'image' is not finite in batch 2: .* among the 128"):
        amct_lite.calibrate(planned, [GOOD, batch])
    assert not (tmp_path / "record.txt").exists()


def test_overflow_inside_names_the_tensor(write_network: Callable[..., Path], quantize: Callable[..., Any]) -> None:
    text = "g (float[N,4] x) => (y) { big = Exp (x) [layer] y = MatMul (big, w) }"
    file = write_network(text, {"w": np.eye(4, dtype=np.float32)})
    with pytest.raises(CalibrationError, match="'big' is not finite in batch 1: 0 NaN and 8 infinite"):
        quantize(file, [np.full((2, 4), 100, np.float32)])


@pytest.mark.parametrize("given", [0, 1])
def test_too_few_batches(given: int, planned: PlannedGraph, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=f"not enough: batch_num is 2, but there were only {given}"):
        amct_lite.calibrate(planned, [GOOD] * given)
    assert not (tmp_path / "record.txt").exists()


def test_no_value_at_all_names_the_layer(planned: PlannedGraph, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="Layer 'conv1': Its input 'image' had no values"):
        amct_lite.calibrate(planned, [GOOD[:0], GOOD[:0]])
    assert not (tmp_path / "record.txt").exists()


def test_exception_of_the_users_generator_is_the_users(planned: PlannedGraph) -> None:
    def batches() -> Any:
        yield GOOD
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        amct_lite.calibrate(planned, batches())


def test_one_array_for_two_inputs(write_network: Callable[..., Path], quantize: Callable[..., Any]) -> None:
    text = "g (float[N,4] a, float[N,4] b) => (y) { s = Add (a, b) [layer] y = MatMul (s, w) }"
    file = write_network(text, {"w": np.eye(4, dtype=np.float32)})
    with pytest.raises(CalibrationError, match="Batch 1 is one array, but the model has 2 inputs: a, b"):
        quantize(file, [ones(2, 4)])


def test_calibration_without_a_record_file_fails_before_it_reads(tmp_path: Path) -> None:
    amct_lite.create_quant_config(tmp_path / "config.json", MODEL_FILE)
    graph = amct_lite.init(tmp_path / "config.json", MODEL_FILE)
    with pytest.raises(amct_lite.AmctError, match="scale_offset_record_file"):
        amct_lite.calibrate(graph, iter(lambda: pytest.fail("read"), None))
