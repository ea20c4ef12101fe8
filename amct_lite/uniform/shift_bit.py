"""How far an accumulator is shifted right on devices that dequantize in int16 (AMCT's SearchN).

They take floor(s / 2^N) of the int32 accumulator s, cut it to int16, and multiply by deq_scale * 2^N. A small N cuts
off large values, a large one loses the last bits; AMCT takes the N of 1 to 16 with the least squared error, the first
of several. Errors are summed over batches, so memory does not depend on the data.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["SHIFTS", "choose_shifts", "shift_accumulator", "shift_errors"]

SHIFTS = range(1, 17)
"""The shifts to choose from."""

_INT16 = np.iinfo(np.int16)
_INT32 = np.iinfo(np.int32)


def shift_accumulator(accumulator: npt.NDArray[np.floating], shift: int) -> npt.NDArray[np.float64]:
    """What is left of an accumulator after the int16 stage, in the accumulator's own units.

    Args:
        accumulator: Whole numbers of int32's range, array of any shape.
        shift: N, from 1 to 16.

    Example:
        >>> shift_accumulator(np.array([5.0, -5.0, 70000.0]), 1).tolist()
        [4.0, -6.0, 65534.0]
    """
    step = 2.0**shift
    halved = np.floor(accumulator.astype(np.float64) / step)
    kept: npt.NDArray[np.float64] = np.clip(halved, _INT16.min, _INT16.max) * step
    return kept


def shift_errors(outputs: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Squared errors of each shift on a batch, to be summed over batches.

    Args:
        outputs: A layer's outputs divided by deq_scale, array of shape (C, values of the channel).

    Returns:
        float64 array of shape (16, C); row n - 1 is for the shift n.
    """
    accumulator = np.clip(np.rint(outputs.astype(np.float64)), _INT32.min, _INT32.max)
    return np.stack([np.square(shift_accumulator(accumulator, n) - accumulator).sum(axis=1) for n in SHIFTS])


def choose_shifts(
    errors: npt.NDArray[np.float64], deq_scale: npt.NDArray[np.float32], *, is_global: bool = False
) -> tuple[int, ...]:
    """The shift of each channel: the first with the least error.

    Args:
        errors: Sums of `shift_errors`, array of shape (16, C).
        deq_scale: scale_w * scale_d, array of shape (C,).
        is_global: Whether the layer's output is 1 x 1: a channel has few values there, so all take the shift of the
            one with the largest deq_scale.

    Example:
        >>> errors = sum(shift_errors(np.array([values, values])) for values in ([1e5, -3.0], [4e5, 8.0]))
        >>> choose_shifts(errors, np.array([0.5, 0.25], np.float32))
        (4, 4)
    """
    best = np.argmin(errors, axis=0) + SHIFTS[0]
    if is_global:
        best = np.full_like(best, best[int(np.argmax(deq_scale))])
    return tuple(map(int, best))
