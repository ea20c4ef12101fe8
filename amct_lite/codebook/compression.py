"""What real lossless coders make of a weight: deflate, and zstd where it is installed."""

import importlib
import zlib

from amct_lite.types import IntArray

__all__ = ["deflate_bytes", "zstd_bytes"]

# A weight has next to no repeated strings, so what counts is the Huffman stage: zstd's higher levels search for
# matches, come out up to 6 % larger on SqueezeNet at 16 levels, and take 10 to 50 times as long.
ZSTD_LEVEL = 1
DEFLATE_LEVEL = 9


def deflate_bytes(values: IntArray) -> int:
    """Size after zlib at level 9: about 0.1 s for a million weights on few levels.

    Example:
        >>> import numpy as np
        >>> deflate_bytes(np.zeros(1000, dtype=np.int8)) < 50
        True
    """
    return len(zlib.compress(values.tobytes(), DEFLATE_LEVEL))


def zstd_bytes(values: IntArray) -> int | None:
    """Size after zstd at level 1; None without Python 3.14 or the package `zstandard` (extra `compression`)."""
    data = values.tobytes()
    try:
        return len(importlib.import_module("compression.zstd").compress(data, ZSTD_LEVEL))
    except ImportError:
        pass
    try:
        return len(importlib.import_module("zstandard").ZstdCompressor(level=ZSTD_LEVEL).compress(data))
    except ImportError:
        return None
