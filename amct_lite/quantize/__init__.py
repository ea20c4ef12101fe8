"""From a model, its config and its statistics to factors, and from factors to quantized layers."""
