"""Optional: what learns with PyTorch. Nothing imports it but the registry of strategies, when a name asks for it."""
