"""The parameter of AscendDequant: scale, shift and weight offset of each channel in one uint64."""

import numpy as np
import numpy.typing as npt

__all__ = ["pack_dequant_param"]


def pack_dequant_param(
    deq_scale: npt.NDArray[np.float32], shift_bit: npt.ArrayLike = 0, offset_w: npt.ArrayLike = 0
) -> npt.NDArray[np.uint64]:
    """Pack AscendDequant's parameter (AMCT's deploy format).

    Bits 31 to 0 are the float32 scale, 39 to 32 the shift N, 47 to 40 the weight's offset as int8.

    Args:
        deq_scale: float32 array, shape (C,) or (1,).
        shift_bit: Shifts from 0 to 16, one for each scale, or one for all.
        offset_w: Weight offsets from -128 to 127, one for each scale, or one for all; AMCT's are always 0.

    Returns:
        uint64 array of deq_scale's shape.

    Example:
        >>> [hex(v) for v in pack_dequant_param(np.array([1.0], np.float32), shift_bit=3, offset_w=-1)]
        ['0xff033f800000']
    """
    bits = np.ascontiguousarray(deq_scale, np.float32).view(np.uint32).astype(np.uint64)
    shifts = np.asarray(shift_bit, np.uint64) << np.uint64(32)
    offsets = (np.asarray(offset_w, np.int64) & 0xFF).astype(np.uint64) << np.uint64(40)
    packed: npt.NDArray[np.uint64] = bits | shifts | offsets
    return packed
