"""codebook/compression.py: sizes of real coders."""

import sys

import numpy as np
import pytest

from amct_lite.codebook.compression import deflate_bytes, zstd_bytes
from amct_lite.codebook.entropy import entropy_bits


def test_a_coder_comes_close_to_the_entropy_of_independent_levels():
    levels = (4 * np.random.default_rng(0).integers(0, 16, 100_000)).astype(np.int8)
    ideal = levels.size * entropy_bits(levels) / 8
    assert ideal <= deflate_bytes(levels) <= 1.2 * ideal
    zstd = zstd_bytes(levels)
    assert zstd is None or ideal <= zstd <= 1.1 * ideal


def test_without_a_zstd_there_is_no_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert zstd_bytes(np.zeros(10, np.int8)) is None
