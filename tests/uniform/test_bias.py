"""uniform/bias.py: int32 bias that never overflows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amct_lite.errors import ParameterError
from amct_lite.uniform.bias import quantize_bias, raise_scales_for_bias

scale = st.floats(2.0**-23, 2.0**10, width=32)


@given(st.lists(st.tuples(st.floats(-1e8, 1e8, width=32), scale), min_size=1, max_size=5), scale, st.booleans())
def test_raised_scales_always_fit_and_others_stay(channels, scale_d, per_tensor):
    bias = np.array([b for b, _ in channels], dtype=np.float32)
    scale_w = np.array([s for _, s in channels], dtype=np.float32)
    if per_tensor:
        scale_w = scale_w[:1]
    new, raised = raise_scales_for_bias(bias, scale_w, scale_d)
    assert new.shape == raised.shape == scale_w.shape
    assert new.dtype == np.float32
    quantize_bias(bias, new, scale_d)
    np.testing.assert_array_equal(new[~raised], scale_w[~raised])
    if raised.any():
        # Just enough: the largest level still uses the top of int32.
        levels = np.abs(quantize_bias(bias, new, scale_d).astype(np.int64))
        assert (levels.max() if per_tensor else levels[raised].min()) > 2**31 - 4096


def test_overflow_is_refused_and_counted():
    with pytest.raises(ParameterError, match="1 of 2 channels"):
        quantize_bias(np.array([1.0, 1e9]), np.array([1e-3], dtype=np.float32), 1e-3)


def test_bias_is_rounded_at_the_float32_product_of_the_scales():
    scale_w, scale_d, bias = np.array([0.1, 0.3], dtype=np.float32), 0.07, np.array([12.5, -3.0])
    expected = np.rint(bias / (scale_w * np.float32(scale_d)).astype(np.float64))
    np.testing.assert_array_equal(quantize_bias(bias, scale_w, scale_d), expected)


@pytest.mark.parametrize(("bias", "scale_d"), [(np.nan, 1.0), (1.0, 0.0), (1.0, np.nan)])
def test_unusable_values_are_refused(bias, scale_d):
    with pytest.raises(ParameterError):
        quantize_bias(np.array([bias]), np.ones(1, dtype=np.float32), scale_d)
