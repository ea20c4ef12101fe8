"""The networks of PyPI's rapidocr-onnxruntime (PaddleOCR v4), as their exporter wrote them.

Weights are Constant nodes, all four sizes are dynamic, and HardSwish, squeeze-and-excitation, transposed convolutions
and attention are spelled in primitive operators.
"""

from collections.abc import Callable

import numpy as np
import pytest

# Network -> size of its images, and the least cosine of the int8 form: the recogniser's outputs are probabilities of
# 6625 characters, the detector's a map of text, almost all of it 0 on photos without any.
NETS = {
    "ch_ppocr_mobile_v2.0_cls_infer": ((48, 192), 0.97),
    "ch_PP-OCRv4_rec_infer": ((48, 160), 0.9),
    "ch_PP-OCRv4_det_infer": ((160, 160), 0.9),
}


@pytest.fixture(scope="module")
def lines_of_text() -> Callable[[int, tuple[int, int]], np.ndarray]:
    """Images of words in [-1, 1], shape (count, 3, height, width), drawn as the networks were trained to see them."""
    from PIL import Image, ImageDraw, ImageFont

    words = ["Calibrate", "quantize 42", "HELLO world", "int8", "float 3.14", "network", "codebook", "ONNX Runtime"]

    def draw(count: int, size: tuple[int, int]) -> np.ndarray:
        height, width = size
        rng = np.random.default_rng(0)
        drawn = []
        for index in range(count):
            image = Image.new("RGB", (width, height), tuple(map(int, rng.integers(150, 256, 3))))
            font = ImageFont.load_default(size=min(height // 2, 32))
            ImageDraw.Draw(image).text((8, height // 4), words[index % len(words)], (20, 20, 40), font)
            drawn.append(np.asarray(image, np.float32) / 127.5 - 1)
        return np.stack(drawn).transpose(0, 3, 1, 2).copy()

    return draw


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnxruntime", "ascend"])
@pytest.mark.parametrize("net", NETS)
def test_ocr_nets(
    net: str, target: str, quantized: Callable, packaged_model: Callable, lines_of_text: Callable
) -> None:
    size, least = NETS[net]
    images = lines_of_text(12, size)
    path = packaged_model("rapidocr-onnxruntime", f"rapidocr_onnxruntime/models/{net}.onnx")
    bits = 4 if target == "onnxruntime" else None
    outcome = quantized(path, [{"x": images[:8]}, {"x": images[8:]}], target=target, bits=bits)
    assert set(outcome.reasons.values()) <= {None}
    for form, found in outcome.cosines.items():
        # Four bits chosen without data cost what they cost: here they only have to run.
        assert form == "compressed" or min(found) > least, form
