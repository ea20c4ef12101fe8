"""AMCT's search of the shift: against its definition number by number, and over batches as over all at once."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from amct_lite.uniform.shift_bit import choose_shifts, shift_errors


def first_best_by_definition(values: list[float]) -> int:
    best, least = 0, math.inf
    for n in range(1, 17):
        error = 0
        for value in values:
            s32 = min(max(round(value), -(2**31)), 2**31 - 1)
            s16 = min(max(s32 // 2**n, -(2**15)), 2**15 - 1)
            error += (s16 * 2**n - s32) ** 2
        if error < least:
            best, least = n, error
    return best


# Sums of such errors are exact in float64.
accumulators = hnp.arrays(np.float64, (3, 7), elements=st.integers(-(2**24), 2**24).map(lambda v: v + 0.3))


@given(accumulators)
def test_each_channel_gets_the_first_shift_with_the_least_error(outputs: np.ndarray) -> None:
    found = choose_shifts(shift_errors(outputs), np.ones(3, np.float32))
    assert list(found) == [first_best_by_definition(row.tolist()) for row in outputs]


@given(accumulators, st.integers(1, 6))
def test_batches_give_the_shifts_of_the_whole(outputs: np.ndarray, cut: int) -> None:
    scale = np.ones(3, np.float32)
    parts = shift_errors(outputs[:, :cut]) + shift_errors(outputs[:, cut:])
    assert choose_shifts(parts, scale) == choose_shifts(shift_errors(outputs), scale)


def test_a_global_output_takes_the_shift_of_the_channel_with_the_largest_scale() -> None:
    outputs = np.array([[3.0, 5.0], [2.0**22, 1.0], [2.0**18, 1.0]])
    scale = np.float32([0.1, 0.2, 0.3])
    apart = choose_shifts(shift_errors(outputs), scale)
    assert len(set(apart)) == 3
    assert choose_shifts(shift_errors(outputs), scale, is_global=True) == (apart[2],) * 3


@pytest.mark.parametrize(("value", "shift"), [(0.0, 1), (4.0, 1), (2.0**31, 16), (-(2.0**31), 16), (2.0**40, 16)])
def test_ends_of_the_range(value: float, shift: int) -> None:
    assert choose_shifts(shift_errors(np.array([[value]])), np.ones(1, np.float32)) == (shift,)
