"""One network in two formats: open_nsfw's ResNet-50-thin as a Caffe pair and as ONNX, quantized alike."""
