"""Sweeps in shards give the bytes of a sweep in one piece, on every backend, and say which shard failed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amct_lite
from amct_lite.calibration import sharding
from amct_lite.calibration.statistics import statistics_digest
from amct_lite.calibration.sweep import sweep
from amct_lite.errors import CalibrationError, OptionalDependencyError, ParameterError
from amct_lite.graph import load_model
from amct_lite.samples.digits.data import MODEL_FILE, load_split

IMAGES = load_split().calibration.images
# Batches of changing sizes; the last shard of the last round is not full.
BATCHES = np.array_split(IMAGES, 18)


def digest(**options: Any) -> str:
    model = load_model(MODEL_FILE)
    return statistics_digest(sweep(model, model.layers, iter(BATCHES), len(BATCHES), **options))


def calibrated(folder: Path, **options: Any) -> bytes:
    folder.mkdir()
    amct_lite.create_quant_config(folder / "config.json", MODEL_FILE, batch_num=len(BATCHES))
    graph = amct_lite.init(folder / "config.json", MODEL_FILE, None, folder / "record.txt")
    amct_lite.calibrate(graph, BATCHES, **options)
    return (folder / "record.txt").read_bytes()


# Before the fixture below makes a client.
def test_dask_without_a_client_says_how_to_get_one() -> None:
    distributed = pytest.importorskip("distributed", reason="dask[distributed] is not installed")
    del distributed
    with pytest.raises(ParameterError, match=r"needs a Dask client.*distributed\.Client\(\)"):
        digest(backend="dask")


@pytest.mark.parametrize("options", [{"n_jobs": 2, "backend": "threading"}, {"n_jobs": 3, "backend": "threading"}])
def test_threads_give_the_bytes_of_one(options: dict[str, Any]) -> None:
    assert digest(**options) == digest()


@pytest.mark.slow
def test_processes_give_the_bytes_of_one(tmp_path: Path) -> None:
    assert digest(n_jobs=2) == digest()
    assert calibrated(tmp_path / "two", n_jobs=2) == calibrated(tmp_path / "one")


@pytest.fixture(scope="module")
def dask_client() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed", reason="dask[distributed] is not installed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.slow
def test_a_dask_cluster_gives_the_bytes_of_one(dask_client: Any, tmp_path: Path) -> None:
    assert len(dask_client.scheduler_info()["workers"]) == 2
    assert digest(backend="dask") == digest()
    assert calibrated(tmp_path / "dask", backend="dask") == calibrated(tmp_path / "one")


@pytest.mark.slow
def test_an_error_on_a_dask_cluster_names_shard_and_batch(dask_client: Any) -> None:
    model = load_model(MODEL_FILE)
    bad = [*BATCHES[:5], np.full((1, 1, 8, 8), np.nan, np.float32)]
    with pytest.raises(CalibrationError, match=r"Shard 2 failed in batch 6: .*'image' is not finite in batch 6"):
        sweep(model, model.layers, bad, 6, backend="dask")


@pytest.mark.slow
def test_ray_gives_the_bytes_of_one() -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        assert digest(backend="ray") == digest()
    finally:
        ray.shutdown()


def test_an_error_in_a_shard_names_it_and_the_batch() -> None:
    model = load_model(MODEL_FILE)
    bad = [*BATCHES[:5], np.full((1, 1, 8, 8), np.inf, np.float32)]
    with pytest.raises(CalibrationError, match=r"Shard 2 failed in batch 6: .*64 infinite values"):
        sweep(model, model.layers, bad, 6, n_jobs=2, backend="threading")


@pytest.mark.slow
def test_a_worker_that_dies_is_told_with_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "_observe_remotely", _die)
    with pytest.raises(CalibrationError, match="worker of the backend 'loky' died on the shards of batches 1 to 16"):
        digest(n_jobs=2)


def _die(*_arguments: Any) -> None:
    import os

    os._exit(1)


def test_batches_are_read_only_some_shards_ahead() -> None:
    model, read, merged = load_model(MODEL_FILE), [], []

    def batches() -> Iterator[np.ndarray]:
        for number in range(64):
            read.append(number)
            yield IMAGES[:2]

    def progress(done: int, _total: int) -> None:
        merged.append(done)
        assert len(read) - done < 2 * 2 * sharding.SHARD_BATCHES

    sweep(model, model.layers, batches(), 64, n_jobs=2, backend="threading", progress=progress)
    assert merged == list(range(4, 65, 4))


def test_too_few_batches_are_told(tmp_path: Path) -> None:
    model = load_model(MODEL_FILE)
    with pytest.raises(CalibrationError, match="batch_num is 30, but there were only 18"):
        sweep(model, model.layers, BATCHES, 30, n_jobs=2, backend="threading")


def test_a_generator_may_use_one_array_again(tmp_path: Path) -> None:
    def one_array() -> Iterator[np.ndarray]:
        space = np.empty_like(IMAGES[:5])
        for start in range(0, 100, 5):
            space[...] = IMAGES[start : start + 5]
            yield space

    model = load_model(MODEL_FILE)
    expected = sweep(model, model.layers, [IMAGES[start : start + 5] for start in range(0, 100, 5)], 20)
    for options in ({}, {"n_jobs": 2, "backend": "threading"}):
        found = sweep(model, model.layers, one_array(), 20, **options)
        assert statistics_digest(found) == statistics_digest(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "spark"}, "'backend' parameter must be one of loky, threading, dask, ray. Got 'spark'"),
        ({"n_jobs": 0}, "'n_jobs' parameter must be an int other than 0"),
        ({"n_jobs": 2, "sess_options": "some"}, "cannot be sent to them.*threading"),
    ],
)
def test_parameters_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        digest(**options)


@pytest.mark.parametrize(("backend", "module"), [("dask", "distributed"), ("ray", "ray.util.joblib")])
def test_a_missing_package_names_its_extra(backend: str, module: str, hide: Callable[[str], None]) -> None:
    hide(module)
    with pytest.raises(OptionalDependencyError, match=rf"pip install 'amct-lite\[{backend}\]'"):
        digest(backend=backend)


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    import sys

    return lambda module: monkeypatch.setitem(sys.modules, module, None)
