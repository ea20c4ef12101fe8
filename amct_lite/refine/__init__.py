"""Refinement with calibration data: codebooks chosen by what the layers compute, in the quantized network."""
