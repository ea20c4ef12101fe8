"""Numerics of quantization with even steps: arrays in, arrays and dataclasses out."""
