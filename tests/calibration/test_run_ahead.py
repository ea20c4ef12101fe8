"""Batches run one ahead of the caller, in order, and failures on either side reach the caller."""

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

from amct_lite.calibration.observed_session import run_ahead

FEEDS = [{"x": np.full(1, number)} for number in range(5)]


def test_each_feed_comes_with_what_it_gave_in_order() -> None:
    pairs = list(run_ahead(lambda feed: {"y": 2 * feed["x"]}, FEEDS))
    assert [(int(feed["x"][0]), int(values["y"][0])) for feed, values in pairs] == [(i, 2 * i) for i in range(5)]
    assert list(run_ahead(lambda feed: feed, [])) == []


def test_the_next_batch_runs_while_the_caller_has_one() -> None:
    started = [threading.Event() for _ in FEEDS]

    def run(feed: dict[str, Any]) -> dict[str, Any]:
        started[int(feed["x"][0])].set()
        return feed

    for number, _ in enumerate(run_ahead(run, FEEDS)):
        assert number == 4 or started[number + 1].wait(10)
        assert number >= 3 or not started[number + 2].is_set()


def test_two_batches_are_in_memory_at_most() -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    def run(feed: dict[str, Any]) -> dict[str, Any]:
        gc.collect()
        assert sum(reference() is not None for reference in alive) <= 1
        values = np.zeros(3)
        alive.append(weakref.ref(values))
        return {"y": values}

    for pair in run_ahead(run, FEEDS):
        del pair
    assert len(alive) == 5


def test_failures_of_the_run_and_of_the_data_reach_the_caller() -> None:
    def broken(feed: dict[str, Any]) -> dict[str, Any]:
        if feed["x"][0] == 2:
            raise ZeroDivisionError("run")
        return feed

    seen = run_ahead(broken, FEEDS)
    assert [int(next(seen)[0]["x"][0]) for _ in range(2)] == [0, 1]
    with pytest.raises(ZeroDivisionError, match="run"):
        next(seen)
    with pytest.raises(ZeroDivisionError):
        list(run_ahead(lambda feed: feed, (FEEDS[1 // left] for left in (1, 1, 0))))


def test_leaving_early_ends_the_thread() -> None:
    before = threading.active_count()
    seen = run_ahead(lambda feed: feed, FEEDS)
    next(seen)
    seen.close()
    assert threading.active_count() == before
