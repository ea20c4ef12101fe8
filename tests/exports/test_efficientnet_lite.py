"""EfficientNet-Lite0 as exported from TensorFlow: depthwise convolutions, ReLU6, and pads computed in the graph."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def photos(request: pytest.FixtureRequest) -> np.ndarray:
    """Photos in (x - 127) / 128, shape (count, 3, 224, 224)."""
    folder = request.path.parents[3] / "shared" / "data" / "tuxpaint141"
    files = sorted(folder.rglob("*.png"))[::12]
    if not files:
        pytest.skip(f"{folder} is not there")
    images = [np.asarray(Image.open(file).convert("RGB").resize((224, 224)), np.float32) for file in files]
    return ((np.stack(images) - 127) / 128).transpose(0, 3, 1, 2).copy()


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnxruntime", "ascend"])
def test_efficientnet_lite(quantized: Callable, find_model: Callable, photos: np.ndarray, target: str) -> None:
    feeds = [{"x": photos[:8]}, {"x": photos[8:]}]
    outcome = quantized(find_model("efficientnet_lite0.onnx"), feeds, target=target, bits=None)
    for form, found in outcome.cosines.items():
        assert min(found) > 0.98, form
