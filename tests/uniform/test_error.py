"""uniform/error.py: signal to quantization noise."""

import math

import numpy as np
import pytest

from amct_lite.errors import ParameterError
from amct_lite.uniform.error import sqnr_db


def test_sqnr_of_a_known_ratio():
    assert sqnr_db(np.full(10, 100.0), np.full(10, 101.0)) == pytest.approx(40.0)


def test_equal_tensors_have_no_noise_even_where_there_is_no_signal():
    assert sqnr_db([1.0, 2.0], [1.0, 2.0]) == math.inf
    assert sqnr_db([0.0], [0.0]) == math.inf
    assert sqnr_db([], []) == math.inf


def test_noise_on_silence_is_minus_infinity():
    assert sqnr_db([0.0], [0.1]) == -math.inf


def test_shapes_must_match():
    with pytest.raises(ParameterError, match="shape"):
        sqnr_db([1.0, 2.0], [1.0])
