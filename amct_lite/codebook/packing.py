"""Codes of a few bits as dense bytes, in an order that a few operations on whole arrays can unpack.

Codes come in groups of so few that they fill whole bytes: 8 codes of 3 bits are 3 bytes. A byte holds as many whole
codes as it can, from its low bits up (two of 3 bits), and the bits that are left over in the bytes of a group, one byte
after the other, hold the group's last codes. Neighbours in a group are far apart in the array: the first codes of all
groups come first, then the second ones, so that every step works on long rows.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ParameterError

__all__ = ["CodeLayout", "code_layout", "pack_codes", "unpack_codes"]


@dataclass(frozen=True)
class CodeLayout:
    """Where the codes of a group are.

    With `sources` the bytes of a group, below them (where a byte has bits left over) the same bytes shifted right by
    `whole_bits`, code k of the group is `((weights[k] @ sources) >> shifts[k]) % 2**num_bits`.

    Attributes:
        num_bits: Bits of a code.
        whole_bits: Bits of a byte that hold whole codes.
        weights: uint8 array, shape (codes of a group, sources).
        shifts: uint8 array, shape (codes of a group,).
        num_sums: `weights @ sources` is below this power of two.
    """

    num_bits: int
    whole_bits: int
    weights: npt.NDArray[np.uint8]
    shifts: npt.NDArray[np.uint8]
    num_sums: int

    @property
    def group_codes(self) -> int:
        """Codes of a group."""
        return int(self.shifts.size)

    @property
    def group_bytes(self) -> int:
        """Bytes of a group."""
        return self.group_codes * self.num_bits // 8


def code_layout(num_bits: int) -> CodeLayout:
    """The layout of codes of so many bits.

    Raises:
        ParameterError: `num_bits` is not in [1, 8].

    Example:
        >>> layout = code_layout(6)
        >>> layout.group_codes, layout.group_bytes, layout.weights.tolist()[3]
        (4, 3, [0, 0, 0, 1, 4, 16])
    """
    if not 1 <= num_bits <= 8:
        raise ParameterError(f"The 'num_bits' parameter of code_layout must be in the range [1, 8]. Got {num_bits}.")
    group_codes = 8 // math.gcd(num_bits, 8)
    group_bytes = group_codes * num_bits // 8
    codes_per_byte = 8 // num_bits
    whole_bits = codes_per_byte * num_bits
    spare_bits = 8 - whole_bits
    weights = np.zeros((group_codes, group_bytes * (2 if spare_bits else 1)), np.uint8)
    shifts = np.zeros(group_codes, np.uint8)
    num_whole = group_bytes * codes_per_byte
    num_sums = 256
    for code in range(num_whole):
        weights[code, code // codes_per_byte] = 1
        shifts[code] = code % codes_per_byte * num_bits
    for code in range(num_whole, group_codes):
        first_bit = (code - num_whole) * num_bits
        first, last = first_bit // spare_bits, (first_bit + num_bits - 1) // spare_bits
        shifts[code] = first_bit % spare_bits
        weights[code, group_bytes + first : group_bytes + last + 1] = 1 << (spare_bits * np.arange(last - first + 1))
        num_sums = max(num_sums, 1 << (spare_bits * (last - first + 1)))
    return CodeLayout(num_bits, whole_bits, weights, shifts, num_sums)


def pack_codes(codes: npt.NDArray[np.uint8], num_bits: int) -> npt.NDArray[np.uint8]:
    """Pack codes.

    Args:
        codes: uint8 array of any shape, taken in C order; each < 2**num_bits.
        num_bits: Bits of a code, 1 to 8.

    Returns:
        uint8 array, shape (group_bytes, groups); what fills up the last groups is 0.

    Raises:
        ParameterError: `num_bits` is not in [1, 8], or a code needs more bits.

    Example:
        >>> pack_codes(np.array([1, 2, 3, 15], np.uint8), 4).tolist()
        [[49, 242]]
        >>> pack_codes(np.arange(1000, dtype=np.uint8) % 8, 3).size
        375
    """
    layout = code_layout(num_bits)
    if codes.size and int(codes.max()) >> num_bits:
        raise ParameterError(
            f"A code of {num_bits} bits must be below {1 << num_bits}. Got {int(codes.max())} instead."
        )
    groups = -(-codes.size // layout.group_codes)
    padded = np.zeros((layout.group_codes, groups), np.uint8)
    padded.reshape(-1)[: codes.size] = codes.reshape(-1)
    packed = np.zeros((layout.group_bytes, groups), np.uint8)
    num_whole = layout.group_bytes * layout.whole_bits // num_bits
    for code in range(num_whole):
        packed[code * num_bits // layout.whole_bits] |= padded[code] << layout.shifts[code]
    spare_bits = 8 - layout.whole_bits
    for bit in range((layout.group_codes - num_whole) * num_bits):
        value = (padded[num_whole + bit // num_bits] >> (bit % num_bits)) & 1
        packed[bit // spare_bits] |= value << (layout.whole_bits + bit % spare_bits)
    return packed


def unpack_codes(packed: npt.NDArray[np.uint8], num_bits: int, count: int) -> npt.NDArray[np.uint8]:
    """The codes that bytes hold.

    Args:
        packed: As `pack_codes` makes it.
        num_bits: Bits of a code.
        count: How many codes there are.

    Returns:
        uint8 array, shape (count,).

    Raises:
        ParameterError: The bytes are not as many as such codes take.

    Example:
        >>> unpack_codes(pack_codes(np.array([5, 0, 6], np.uint8), 3), 3, 3)
        array([5, 0, 6], dtype=uint8)
    """
    layout = code_layout(num_bits)
    if packed.shape != (layout.group_bytes, -(-count // layout.group_codes)):
        raise ParameterError(f"{count} codes of {num_bits} bits do not come as bytes of shape {packed.shape}.")
    sources = packed if layout.whole_bits == 8 else np.concatenate([packed, packed >> layout.whole_bits])
    sums = layout.weights.astype(np.uint16) @ sources.astype(np.uint16)
    codes = (sums >> layout.shifts[:, None]) & ((1 << num_bits) - 1)
    return codes.reshape(-1)[:count].astype(np.uint8)
