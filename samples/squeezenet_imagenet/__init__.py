"""SqueezeNet 1.1 on ImageNet photos: a real network, for the target `onnxruntime`."""
