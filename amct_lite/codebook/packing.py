"""Codes of a few bits as dense bytes, in an order that a few operations on whole arrays can unpack.

Codes come in groups of so few that they fill whole bytes: 8 codes of 3 bits are 3 bytes. A byte holds as many whole
codes as it can, from its low bits up (two of 3 bits), and the bits that are left over in the bytes of a group, one byte
after the other, hold the group's last codes. Neighbours in a group are far apart in the array: the first codes of all
groups come first, then the second ones, so that every step works on long rows.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ParameterError

__all__ = ["CodeLayout", "code_layout", "pack_codes", "unpack_codes"]


@dataclass(frozen=True)
class Piece:
    """Neighbouring bits of a code that lie in one byte.

    Attributes:
        byte: Which byte of the group.
        first_bit: Where they begin in the byte.
        code_bit: Where they begin in the code.
        num_bits: How many.
    """

    byte: int
    first_bit: int
    code_bit: int
    num_bits: int

    @property
    def end_bit(self) -> int:
        """Where the byte goes on with something else."""
        return self.first_bit + self.num_bits


@dataclass(frozen=True)
class CodeLayout:
    """Where the codes of a group are.

    Attributes:
        num_bits: Bits of a code.
        codes: For each code of a group the pieces that it consists of.
    """

    num_bits: int
    codes: tuple[tuple[Piece, ...], ...]

    @property
    def group_codes(self) -> int:
        """Codes of a group."""
        return len(self.codes)

    @property
    def group_bytes(self) -> int:
        """Bytes of a group."""
        return self.group_codes * self.num_bits // 8

    @cached_property
    def shifts(self) -> npt.NDArray[np.uint8]:
        """How far each byte is shifted right to get at its pieces, shape (shifts, group_bytes).

        With the bytes of a group as `sources`, code k is `np.sum(weights[k] * (sources >> shifts))`.
        """
        starts = [sorted({piece.first_bit for piece in self._pieces_of(byte)}) for byte in range(self.group_bytes)]
        most = max(map(len, starts))
        return np.array([one + [0] * (most - len(one)) for one in starts], np.uint8).T

    @cached_property
    def weights(self) -> npt.NDArray[np.int16]:
        """What of each shifted byte makes up each code, shape (group_codes, shifts, group_bytes), in [-128, 127].

        A byte shifted to where a piece begins still has what comes behind the piece: the same byte, shifted further,
        takes it off again.
        """
        weights = np.zeros((self.group_codes, *self.shifts.shape), np.int16)
        for code, pieces in enumerate(self.codes):
            for piece in pieces:
                shifts = self.shifts[:, piece.byte].tolist()
                weights[code, shifts.index(piece.first_bit), piece.byte] += 1 << piece.code_bit
                if piece.end_bit < 8:
                    behind = shifts.index(piece.end_bit)
                    weights[code, behind, piece.byte] -= 1 << (piece.code_bit + piece.num_bits)
        return weights

    def _pieces_of(self, byte: int) -> list[Piece]:
        return [piece for pieces in self.codes for piece in pieces if piece.byte == byte]


def code_layout(num_bits: int) -> CodeLayout:
    """The layout of codes of so many bits.

    Raises:
        ParameterError: `num_bits` is not in [1, 8].

    Example:
        >>> layout = code_layout(6)
        >>> layout.group_codes, layout.group_bytes, layout.shifts.tolist()
        (4, 3, [[0, 0, 0], [6, 6, 6]])
        >>> layout.weights[0].tolist(), layout.weights[3].tolist()
        ([[1, 0, 0], [-64, 0, 0]], [[0, 0, 0], [1, 4, 16]])
    """
    if not 1 <= num_bits <= 8:
        raise ParameterError(f"The 'num_bits' parameter of code_layout must be in the range [1, 8]. Got {num_bits}.")
    group_codes = 8 // math.gcd(num_bits, 8)
    codes_per_byte = 8 // num_bits
    group_bytes = group_codes * num_bits // 8
    whole = [
        (Piece(byte, place * num_bits, 0, num_bits),) for byte in range(group_bytes) for place in range(codes_per_byte)
    ]
    spare_start = codes_per_byte * num_bits
    spare = [(byte, bit) for byte in range(group_bytes) for bit in range(spare_start, 8)]
    last = [_pieces(spare[start : start + num_bits]) for start in range(0, len(spare), num_bits)]
    return CodeLayout(num_bits, (*whole, *last))


def _pieces(bits: list[tuple[int, int]]) -> tuple[Piece, ...]:
    """A code whose bits, from the lowest one, are (byte, bit of the byte)."""
    pieces: list[Piece] = []
    for code_bit, (byte, bit) in enumerate(bits):
        if pieces and pieces[-1].byte == byte:
            grown = pieces.pop()
            pieces.append(Piece(byte, grown.first_bit, grown.code_bit, grown.num_bits + 1))
        else:
            pieces.append(Piece(byte, bit, code_bit, 1))
    return tuple(pieces)


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
    for row, pieces in zip(padded, layout.codes, strict=True):
        for piece in pieces:
            bits = (row >> piece.code_bit) & ((1 << piece.num_bits) - 1)
            packed[piece.byte] |= bits << piece.first_bit
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
    codes = np.zeros((layout.group_codes, packed.shape[1]), np.uint8)
    for row, pieces in zip(codes, layout.codes, strict=True):
        for piece in pieces:
            row |= ((packed[piece.byte] >> piece.first_bit) & ((1 << piece.num_bits) - 1)) << piece.code_bit
    return codes.reshape(-1)[:count]
