"""Evaluations by workers: the result of one worker, whatever the backend, and whoever dies."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

import amct_lite as amct
from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.errors import SearchError
from amct_lite.samples.digits.data import MODEL_FILE, load_split


def calibration_batches():
    images = load_split().calibration.images
    return [images[i : i + 25] for i in range(0, 100, 25)]


class DigitsEvaluator(AutoNuqEvaluatorBase):
    """Top-1 of 300 digits; in workers it can sleep, fail, or take its process down once."""

    def __init__(self, folder, *, sleep=0.0, die_at=None, fail_at=None):
        super().__init__(6)
        self.folder, self.sleep, self.die_at, self.fail_at = str(folder), sleep, die_at, fail_at

    def fingerprint(self):
        return "digits"

    def eval_model(self, model_file, weights_file, batch_num):
        import amct_lite
        from amct_lite.samples.digits.data import load_split

        number = self._count()
        if number == self.fail_at:
            raise ZeroDivisionError("the user's own mistake")
        if number == self.die_at or self.die_at == "always":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.sleep)
        data = load_split().validation
        logits = amct_lite.InferenceSession(model_file).run(None, {"image": data.images[:300]})[0]
        return float((logits.argmax(1) == data.labels[:300]).mean())

    def _count(self):
        """How many evaluations have begun, this one included, over all processes."""
        with (Path(self.folder) / "begun").open("ab", buffering=0) as file:
            file.write(b".")
            # Where this very byte came to lie: two that begin at once must not both see the file after them.
            return file.tell()

    def is_satisfied(self, original_metric, new_metric):
        return original_metric - new_metric <= 0.01 + 1e-9


def search(folder, config_file, evaluator=None, **options):
    folder.mkdir(exist_ok=True)
    return amct.auto_nuq(
        MODEL_FILE,
        None,
        evaluator or DigitsEvaluator(folder),
        config_file,
        folder / "record.txt",
        folder,
        calibration_data=calibration_batches(),
        **options,
    )


@pytest.fixture
def config_file(tmp_path):
    file = tmp_path / "config.json"
    amct.create_quant_config(file, MODEL_FILE, batch_num=4)
    return file


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    amct.create_quant_config(folder / "config.json", MODEL_FILE, batch_num=4)
    return search(folder / "out", folder / "config.json")


def assert_same(result, alone):
    assert result.config == alone.config
    assert result.trials == alone.trials
    assert result.outlook == alone.outlook
    for kind in ("deploy_model", "fake_quant_model", "config", "record", "summary", "result"):
        assert result.files[kind].read_bytes() == alone.files[kind].read_bytes()


@pytest.fixture(scope="module")
def dask_client():
    distributed = pytest.importorskip("distributed", reason="dask[distributed] is not installed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_four_threads_find_what_one_finds(tmp_path, config_file, alone):
    assert_same(search(tmp_path / "out", config_file, n_jobs=4, backend="threading"), alone)


@pytest.mark.slow
def test_processes_find_what_one_finds(tmp_path, config_file, alone):
    assert_same(search(tmp_path / "out", config_file, n_jobs=2), alone)


@pytest.mark.slow
def test_a_process_that_is_killed_in_the_middle_costs_nothing(tmp_path, config_file, alone):
    folder = tmp_path / "out"
    folder.mkdir()
    assert_same(search(folder, config_file, DigitsEvaluator(folder, die_at=5), n_jobs=2), alone)
    assert_each_trial_was_journalled_once(folder)


@pytest.mark.slow
def test_a_dask_cluster_finds_what_one_finds(tmp_path, config_file, alone, dask_client):
    assert_same(search(tmp_path / "out", config_file, backend="dask"), alone)


@pytest.mark.slow
def test_a_dask_worker_that_is_killed_in_the_middle_costs_nothing(tmp_path, config_file, alone, dask_client):
    folder = tmp_path / "out"
    folder.mkdir()
    assert_same(search(folder, config_file, DigitsEvaluator(folder, die_at=5), backend="dask"), alone)
    assert_each_trial_was_journalled_once(folder)


@pytest.mark.slow
def test_ray_finds_what_one_finds(tmp_path, config_file, alone):
    ray = pytest.importorskip("ray", reason="ray is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        assert_same(search(tmp_path / "out", config_file, n_jobs=2, backend="ray"), alone)
    finally:
        ray.shutdown()


def assert_each_trial_was_journalled_once(folder):
    lines = [json.loads(line) for line in next(folder.glob("*_journal.jsonl")).read_text().splitlines()]
    keys = [line["key"] for line in lines[1:]]
    assert len(keys) == len(set(keys))


@pytest.mark.slow
def test_workers_that_die_again_and_again_end_the_search_with_advice(tmp_path, config_file):
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(SearchError, match=r"(?s)worker of the backend 'loky' died 3 times.*goes on where it stopped"):
        search(folder, config_file, DigitsEvaluator(folder, die_at="always"), n_jobs=2)


@pytest.mark.parametrize("backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)])
def test_an_exception_of_the_evaluator_comes_back_from_a_worker_and_the_other_results_are_kept(
    tmp_path, config_file, alone, backend
):
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(ZeroDivisionError, match="the user's own mistake") as caught:
        search(folder, config_file, DigitsEvaluator(folder, fail_at=3), n_jobs=2, backend=backend)
    assert "eval_model" in str(caught.value.__cause__), "where it was raised in the worker"
    kept = len(next(folder.glob("*_journal.jsonl")).read_text().splitlines()) - 1
    assert kept == 3, "two of the first round, and the other one of the second"
    assert_same(search(folder, config_file, n_jobs=2, backend=backend), alone)


@pytest.mark.slow
def test_four_workers_are_faster_than_one_on_an_evaluator_that_sleeps(tmp_path, config_file):
    rounds = {}
    for workers in (1, 4):
        folder = tmp_path / str(workers)
        folder.mkdir()
        start = time.monotonic()
        search(folder, config_file, DigitsEvaluator(folder, sleep=1.0), n_jobs=workers, backend="threading")
        rounds[workers] = time.monotonic() - start
    # The figure itself is in benchmarks/; here it only has to be parallel at all.
    assert rounds[4] < 0.7 * rounds[1]
