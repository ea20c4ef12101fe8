"""Numerics of non-uniform quantization (NUQ): arrays in, arrays and dataclasses out."""
