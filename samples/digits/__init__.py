"""Handwritten digits: a small network of layers that the default target may cluster."""
