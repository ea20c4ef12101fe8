"""A statistics file replaces the sweep it was made by, and no other."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amct_lite
from amct_lite.calibration import reuse
from amct_lite.errors import CalibrationError
from amct_lite.samples.digits.data import MODEL_FILE, load_split

IMAGES = load_split().calibration.images
BATCHES = [IMAGES[:50], IMAGES[50:]]


class Case:
    """Calibrations in one folder that share a statistics file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "statistics.npz"
        self.config = folder / "config.json"

    def calibrate(self, batches: Any, *, model: Path = MODEL_FILE, share: bool = True, **edits: Any) -> bytes:
        amct_lite.create_quant_config(
            self.config, model, batch_num=edits.get("batch_num", 2), skip_layers=edits.get("skip_layers")
        )
        if "act_algo" in edits:
            config = json.loads(self.config.read_text())
            for block in config.values():
                if isinstance(block, dict) and "activation_quant_params" in block:
                    block["activation_quant_params"] = {"act_algo": edits["act_algo"]}
            self.config.write_text(json.dumps(config))
        record = self.folder / "record.txt"
        graph = amct_lite.init(self.config, model, None, record)
        amct_lite.calibrate(graph, batches, statistics_file=self.file if share else None)
        return record.read_bytes()


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


@pytest.fixture
def no_sweep(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(reuse, "sweep", lambda *_: pytest.fail("swept again"))


def test_the_second_calibration_sweeps_no_more_and_writes_the_same(case: Case, no_sweep: Callable[[], None]) -> None:
    first = case.calibrate(BATCHES)
    assert case.calibrate(np.stack(BATCHES), share=False) == first
    no_sweep()
    assert case.calibrate(BATCHES) == first
    assert case.calibrate([{"image": batch} for batch in BATCHES]) == first
    assert case.calibrate(np.stack(BATCHES)) == first, "an array of batches is a sequence of them"
    assert case.calibrate(None) == first


def test_another_algorithm_needs_no_new_sweep(case: Case, no_sweep: Callable[[], None]) -> None:
    ifmr = case.calibrate(BATCHES)
    expected = case.calibrate(BATCHES, act_algo="minmax", share=False)
    assert expected != ifmr
    no_sweep()
    assert case.calibrate(None, act_algo="minmax") == expected


def test_fewer_layers_are_found_in_a_file_with_more(case: Case, no_sweep: Callable[[], None]) -> None:
    case.calibrate(BATCHES)
    no_sweep()
    case.calibrate(None, skip_layers=["conv1"])


def test_a_layer_that_was_not_observed_is_named(case: Case) -> None:
    case.calibrate(BATCHES, skip_layers=["conv1"])
    with pytest.raises(CalibrationError, match=r"Layer 'conv1': .*another config: it lacks this layer's input 'image'"):
        case.calibrate(BATCHES)


def test_another_number_of_batches_is_named(case: Case) -> None:
    case.calibrate(BATCHES)
    with pytest.raises(CalibrationError, match="another batch_num: 2 there, 1 here"):
        case.calibrate(BATCHES, batch_num=1)


@pytest.mark.parametrize("other", [[IMAGES[:50], IMAGES[:50]], [IMAGES[:40], IMAGES[40:]], BATCHES[::-1]])
def test_other_data_is_named(other: list[np.ndarray], case: Case) -> None:
    case.calibrate(BATCHES)
    with pytest.raises(CalibrationError, match="another calibration data"):
        case.calibrate(other)


def test_another_model_is_named(case: Case, write_network: Callable[..., Path]) -> None:
    case.calibrate(BATCHES)
    text = "g (float[N,1,8,8] image) => (y) { [layer] y = Conv (image, w) }"
    other = write_network(text, {"w": np.ones((8, 1, 5, 5), np.float32)})
    with pytest.raises(CalibrationError, match="another model"):
        case.calibrate(BATCHES, model=other)


def test_too_few_batches_beside_a_file(case: Case) -> None:
    case.calibrate(BATCHES)
    with pytest.raises(CalibrationError, match="batch_num is 2, but there were only 1"):
        case.calibrate(BATCHES[:1])


def test_neither_file_nor_data(case: Case) -> None:
    with pytest.raises(CalibrationError, match="no calibration data"):
        case.calibrate(None)


def test_no_file_is_written_by_a_sweep_that_fails(case: Case) -> None:
    def batches() -> Iterator[np.ndarray]:
        yield BATCHES[0]
        yield np.full_like(BATCHES[1], np.nan)

    with pytest.raises(CalibrationError, match="not finite in batch 2"):
        case.calibrate(batches())
    assert not case.file.exists()
