"""uniform/arq.py: symmetric min-max weight scales."""

import numpy as np
import pytest

from amct_lite.errors import ParameterError
from amct_lite.uniform.arq import dequantize_weight, quantize_weight, weight_scales


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("num_bits", [4, 8])
def test_no_weight_is_more_than_half_a_step_off(axis, num_bits):
    weight = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    scales = weight_scales(weight, axis=axis, num_bits=num_bits)
    assert scales.dtype == np.float32
    assert scales.shape == ((1,) if axis is None else (weight.shape[axis],))
    q = quantize_weight(weight, scales, axis=axis, num_bits=num_bits)
    assert q.dtype == np.int8
    assert q.min() >= -(2 ** (num_bits - 1))
    assert q.max() <= 2 ** (num_bits - 1) - 1
    error = np.abs(dequantize_weight(q, scales, axis=axis) - weight)
    if axis is None:
        assert error.max() <= 0.5001 * scales[0]
    else:
        assert (np.moveaxis(error, axis, -1) <= 0.5001 * scales).all()


def test_scale_is_that_of_the_dominating_side():
    weight = np.array([[-128.0, 100.0], [-100.0, 127.0]], dtype=np.float32)
    assert weight_scales(weight, axis=0).tolist() == [1.0, 1.0]


def test_channel_of_zeros_gets_scale_one():
    weight = np.array([[0.0, 0.0], [1e-9, 0.0], [127.0, 0.0]])
    assert weight_scales(weight, axis=0).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e20])
def test_unusable_weights_are_refused(bad):
    weight = np.array([[1.0, bad]], dtype=np.float32)
    with pytest.raises(ParameterError):
        weight_scales(weight, axis=0)
