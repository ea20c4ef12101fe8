"""Packing codes: dense, and the same codes come back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amct_lite.codebook.packing import code_layout, pack_codes, unpack_codes
from amct_lite.errors import ParameterError


@given(data=st.data(), num_bits=st.integers(1, 8), count=st.integers(0, 70))
def test_the_same_codes_come_back(data, num_bits, count):
    codes = np.array(data.draw(st.lists(st.integers(0, (1 << num_bits) - 1), min_size=count, max_size=count)), np.uint8)
    packed = pack_codes(codes, num_bits)
    assert np.array_equal(unpack_codes(packed, num_bits, count), codes)


@pytest.mark.parametrize("num_bits", range(1, 9))
@pytest.mark.parametrize("count", [0, 1, 7, 8, 27, 1000, 1001])
def test_only_the_last_group_is_filled_up(num_bits, count):
    packed = pack_codes(np.zeros(count, np.uint8), num_bits)
    exact = -(-count * num_bits // 8)
    assert exact <= packed.size < exact + code_layout(num_bits).group_bytes


@pytest.mark.parametrize("num_bits", range(1, 9))
def test_every_bit_of_a_full_group_counts(num_bits):
    layout = code_layout(num_bits)
    codes = np.full(layout.group_codes, (1 << num_bits) - 1, np.uint8)
    assert np.array_equal(pack_codes(codes, num_bits), np.full((layout.group_bytes, 1), 255))


@pytest.mark.parametrize("num_bits", range(1, 9))
def test_shifted_bytes_times_weights_are_the_codes(num_bits):
    layout = code_layout(num_bits)
    packed = np.random.default_rng(num_bits).integers(0, 256, (layout.group_bytes, 500)).astype(np.uint8)
    shifted = packed >> layout.shifts[:, :, None]
    codes = np.einsum("ksb,sbn->kn", layout.weights.astype(int), shifted.astype(int))
    assert np.array_equal(codes.reshape(-1), unpack_codes(packed, num_bits, codes.size))
    assert -128 <= layout.weights.min() <= layout.weights.max() <= 127, "the graph stores them as bytes"


@pytest.mark.parametrize("num_bits", [0, 9])
def test_widths_are_1_to_8_bits(num_bits):
    with pytest.raises(ParameterError, match=r"\[1, 8\]"):
        pack_codes(np.zeros(3, np.uint8), num_bits)


def test_a_code_that_needs_more_bits_is_refused():
    with pytest.raises(ParameterError, match="below 8"):
        pack_codes(np.array([8], np.uint8), 3)


def test_bytes_of_another_count_are_refused():
    with pytest.raises(ParameterError, match="9 codes"):
        unpack_codes(pack_codes(np.zeros(8, np.uint8), 3), 3, 9)
