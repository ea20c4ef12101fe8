"""Quantized models on disk, one file per form; every form of one quantization decodes to the same numbers."""
