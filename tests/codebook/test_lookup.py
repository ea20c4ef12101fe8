"""codebook/lookup.py and codebook/entropy.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amct_lite.codebook.entropy import entropy_bits
from amct_lite.codebook.lookup import levels_to_keep, nearest_level_table
from amct_lite.errors import ParameterError


@given(st.sets(st.integers(-128, 127), min_size=1, max_size=40))
def test_table_gives_the_nearest_level_and_the_lower_on_ties(kept):
    levels = np.array(sorted(kept))
    table = nearest_level_table(levels)
    assert table.shape == (256,)
    for q, level in zip(range(-128, 128), table, strict=True):
        assert level == min(levels, key=lambda candidate: (abs(candidate - q), candidate))


@pytest.mark.parametrize("levels", [[], [1, 1], [2, 1]])
def test_levels_must_ascend(levels):
    with pytest.raises(ParameterError):
        nearest_level_table(np.array(levels, dtype=int))


@pytest.mark.parametrize(("ratio", "expected"), [(1.0, 256), (0.125, 32), (0.0625, 16), (1e-6, 2), (0.1, 25)])
def test_levels_to_keep(ratio, expected):
    assert levels_to_keep(ratio) == expected


@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.01, np.nan])
def test_ratio_outside_its_range_is_refused(ratio):
    with pytest.raises(ParameterError, match="target_compression_ratio"):
        levels_to_keep(ratio)


def test_every_ratio_of_whole_levels_keeps_them():
    assert [levels_to_keep(k / 256) for k in range(2, 257)] == list(range(2, 257))


def test_entropy():
    assert entropy_bits(np.arange(-128, 128, dtype=np.int8)) == pytest.approx(8.0)
    assert entropy_bits(np.array([5, 5, 5])) == 0.0
    assert entropy_bits(np.zeros((0, 3), dtype=np.int8)) == 0.0
    assert entropy_bits(np.array([0, 10**12])) == pytest.approx(1.0)
    assert entropy_bits(np.array([[0, 1], [1, 1]])) == pytest.approx(0.8112781)
