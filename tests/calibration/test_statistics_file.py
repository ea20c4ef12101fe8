"""Statistics in a file: the same again, or a refusal that says why."""

from pathlib import Path

import numpy as np
import pytest

from amct_lite.calibration.statistics import Statistics, load_statistics, save_statistics, statistics_digest
from amct_lite.errors import AmctError, CalibrationError, FileError
from amct_lite.types import Layer, LayerKind

KEYS = {"model": "abc", "data": "def"}
TENSORS = {"plain": 1, "with/slash.and name": 0, "never seen": 1}


def observed() -> Statistics:
    statistics = Statistics(TENSORS)
    rng = np.random.default_rng(0)
    for _ in range(3):
        statistics.observe("plain", rng.normal(size=(2, 3, 4)).astype(np.float32))
        statistics.observe("with/slash.and name", rng.normal(size=(5, 2)).astype(np.float32))
        statistics.batches += 1
        statistics.samples += 2
    return statistics


def layer_on(tensor: str) -> Layer:
    return Layer("layer", "Conv", LayerKind.CONVOLUTION, tensor, 0, TENSORS[tensor], "y")


def test_round_trip(tmp_path: Path) -> None:
    before = observed()
    save_statistics(before, tmp_path / "s.npz", KEYS)
    after = load_statistics(tmp_path / "s.npz", KEYS)
    assert (after.batches, after.samples, after.tensors) == (3, 6, TENSORS)
    assert statistics_digest(after) == statistics_digest(before)
    for tensor in TENSORS:
        layer = layer_on(tensor)
        np.testing.assert_equal(after.histogram(layer).to_arrays(), before.histogram(layer).to_arrays())
        np.testing.assert_array_equal(after.mean_squares(layer), before.mean_squares(layer))
    # And it goes on as if nothing had happened.
    more = np.full((1, 3, 4), 9, np.float32)
    for statistics in (before, after):
        statistics.observe("plain", more)
    assert statistics_digest(after) == statistics_digest(before)


def test_statistics_without_moments_say_so(tmp_path: Path) -> None:
    statistics = Statistics(TENSORS, moments=False)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 3, 70_000)).astype(np.float32)
    statistics.observe("plain", values)
    with_moments = Statistics(TENSORS)
    with_moments.observe("plain", values)
    save_statistics(statistics, tmp_path / "s.npz", KEYS)
    found = load_statistics(tmp_path / "s.npz", KEYS)
    assert (found.has_moments, with_moments.has_moments) == (False, True)
    layer = layer_on("plain")
    expected = with_moments.histogram(layer).to_arrays()
    for other in (statistics, found):
        np.testing.assert_equal(other.histogram(layer).to_arrays(), expected)
        assert other.snapshot(layer).batch_ranges.tolist() == [[values.min(), values.max()]]
    with pytest.raises(CalibrationError, match=r"Layer 'layer': .*did not observe the channels"):
        found.mean_squares(layer)


def test_same_statistics_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        save_statistics(observed(), tmp_path / name, KEYS)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("key", ["model", "data"])
def test_file_of_something_else_is_refused(key: str, tmp_path: Path) -> None:
    save_statistics(observed(), tmp_path / "s.npz", KEYS)
    with pytest.raises(CalibrationError, match=f"was made for another {key}"):
        load_statistics(tmp_path / "s.npz", {**KEYS, key: "other"})


def test_tensor_that_was_not_observed_is_named() -> None:
    with pytest.raises(CalibrationError, match="Layer 'layer': Its input 'plain' was not observed"):
        Statistics({"other": 1}).histogram(layer_on("plain"))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read"):
        load_statistics(tmp_path / "none.npz", KEYS)


def flip_bit(content: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


def test_damage_is_found_and_never_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    save_statistics(observed(), path, KEYS)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    expected = statistics_digest(observed())
    damaged = [whole[:length] for length in (0, 1, 30, len(whole) // 2, len(whole) - 1)]
    for position in rng.integers(0, len(whole), 150):
        damaged.append(flip_bit(whole, int(position), int(rng.integers(8))))  # noqa: PERF401 - longer as a list
    refused = 0
    for content in (*damaged, b"not a zip", b"\x93NUMPY"):
        path.write_bytes(content)
        try:
            # A bit that nothing reads (a time stamp, say) may be flipped unseen.
            assert statistics_digest(load_statistics(path, KEYS)) == expected
        except AmctError:
            refused += 1
    assert refused > 100


def test_array_file_is_no_statistics_file(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(FileError, match="cannot be read"):
        load_statistics(path, KEYS)
