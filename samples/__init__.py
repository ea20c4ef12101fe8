"""Samples: one folder a sample, each runs with one command."""
