"""Which layer loses what, and what to do about it: a quantized network beside its float one, layer by layer."""
