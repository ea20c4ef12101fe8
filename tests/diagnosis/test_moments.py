import math

import numpy as np
import pytest

from amct_lite.diagnosis.moments import ErrorMoments, InputMoments
from amct_lite.uniform.error import sqnr_db


def test_sums_over_batches_are_those_of_all_values_at_once() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(40, 7)).astype(np.float32)
    values = reference + rng.normal(size=(40, 7)).astype(np.float32) * 0.01
    moments = ErrorMoments()
    for start, stop in ((0, 1), (1, 1), (1, 30), (30, 40)):
        moments.update(reference[start:stop], values[start:stop])
    assert moments.sqnr_db == pytest.approx(sqnr_db(reference, values))
    x, y = reference.astype(float).ravel(), values.astype(float).ravel()
    assert moments.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_limits_are_no_errors() -> None:
    same, silent = ErrorMoments(), ErrorMoments()
    same.update(np.zeros(3), np.zeros(3))
    silent.update(np.zeros(3), np.ones(3))
    assert (same.sqnr_db, same.cosine) == (math.inf, 1.0)
    assert (silent.sqnr_db, silent.cosine) == (-math.inf, 0.0)


def test_crest_is_the_largest_value_over_the_rms() -> None:
    moments = InputMoments()
    assert moments.crest == 0
    moments.update(np.zeros((0, 4), np.float32))
    moments.update(np.array([3.0, 0.0], np.float32))
    moments.update(np.array([0.0, -6.0], np.float32))
    assert moments.crest == pytest.approx(6 / math.sqrt(45 / 4))
    assert (moments.low, moments.high) == (-6, 3)
