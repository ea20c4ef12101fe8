"""Scales as they are stored: near to what they were, and the same for whoever reads or stores them again."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.level_type import LevelType
from amct_lite.codebook.scale_format import LARGEST_SCALE, ScaleFormat, scale_format, scale_table

SCALES = st.tuples(
    st.lists(st.floats(2.0**-19, 1.0), min_size=2, max_size=6).map(lambda scales: np.array([*scales, 1.0])),
    st.floats(2.0**-70, 2.0**90),
).map(lambda parts: parts[0] * parts[1])


@given(SCALES)
def test_scales_of_bytes_stay_near_the_more_so_the_larger(scales):
    found = scale_format(LevelType.FLOAT16, 4, scales)
    assert found.dtype == np.uint8
    share = scales / scales.max()
    error = np.abs(found.rounded(scales) / scales - 1.0)
    assert (error < np.select([share > 1 / 30, share > 1e-3, share > 1e-5], [0.025, 0.06, 0.2], 0.3)).all()


@given(SCALES)
@example(np.full(3, 65505.0))  # just above float16's limit
@example(np.array([1.0, 65520.0]))  # rounded to a power of two
@example(np.array([2.0**-20 * (1 - 2.0**-13), 2.0**-19]))  # rounded to the least share
def test_what_was_rounded_is_stored_in_the_same_way_again(scales):
    for bits in (2.5, 8):
        found = scale_format(LevelType.INT8, bits, scales)
        rounded = found.rounded(scales)
        assert np.array_equal(found.rounded(rounded), rounded)
        assert scale_format(LevelType.INT8, bits, rounded) == found


@given(SCALES)
def test_a_codebook_knows_the_fewest_bytes_that_hold_its_scales(scales):
    rows = scales.size

    def bytes_of(values):
        tables, codes = np.ones((1, 4, 1), np.float32), np.zeros((rows, 3), np.uint8)
        book = Codebook(tables, codes, values.astype(np.float32), rows, rows, LevelType.INT8)
        assert np.array_equal(book.scale_format.rounded(book.scales), book.scales)
        return book.scale_format.dtype.itemsize

    assert bytes_of(scale_format(LevelType.INT8, 2, scales).rounded(scales)) == 1
    assert bytes_of(np.append(np.float16(np.linspace(1.0, 1.9, rows - 1)), 1.001953125)) == 2
    assert bytes_of(np.append(np.ones(rows - 1), 1.0 + 2.0**-20)) == 4


def test_the_largest_scale_is_kept_exactly_where_levels_take_the_rest():
    scales = np.array([0.3, 1.0]) * LARGEST_SCALE
    found = scale_format(LevelType.FLOAT16, 4, scales)
    assert found == ScaleFormat(np.dtype(np.uint8))
    assert found.rounded(scales)[1] == LARGEST_SCALE


def test_bytes_are_fourth_powers():
    assert np.allclose(scale_table(), (np.arange(256) / 256) ** 4, rtol=1e-7)
    assert ScaleFormat(np.dtype(np.uint8), 3).loaded(np.array([128], np.uint8)).tolist() == [0.5]


def test_scales_that_no_common_power_of_two_suits_stay_floats():
    for largest in (1e-30, 1e33):
        assert scale_format(LevelType.INT8, 4, np.array([largest, largest])).dtype == np.float32
