"""Python layers with which stock Caffe, built with Python layers, runs a fake-quant pair.

Caffe imports this module by the name `amct_lite.caffe_layers` that stands in the prototxt. Where its Python is too old
for amct_lite, lay out this one file for it: `python -m amct_lite.caffe_layers FOLDER` (or `write_caffe_layers`), then
run Caffe with `PYTHONPATH=FOLDER`. So this module keeps to numpy and to what Python 3.6 understands, and imports
nothing of amct_lite.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

try:
    import caffe  # type: ignore[import-not-found, unused-ignore]

    _Layer = caffe.Layer  # type: Any
except ImportError:
    # Without Caffe the arithmetic can still be used, and the file be laid out for another Python.
    _Layer = object

__all__ = ["FakeQuantLayer", "ShiftLayer", "fake_quantize", "fake_shift", "write_caffe_layers"]


class FakeQuantLayer(_Layer):  # type: ignore[misc, unused-ignore]
    """Puts its bottom on a uniform grid and gives the values that the levels stand for.

    `python_param.param_str` is JSON: {"scale": step, "offset": level of 0, "num_bits": 8, "levels": the levels that
    NUQ keeps, ascending, or null, "costs": what each of them costs beside its squared distance, or null, "float16":
    whether it rounds as a device that quantizes in float16, "decode_scale": what a level stands for where that is not
    "scale"}.
    """

    def setup(self, bottom: Any, top: Any) -> None:
        """Read the parameters."""
        if len(bottom) != 1 or len(top) != 1:
            raise ValueError("FakeQuantLayer takes one bottom and one top.")
        parameters = json.loads(self.param_str)
        self.scale = float(parameters["scale"])
        self.offset = int(parameters.get("offset", 0))
        self.num_bits = int(parameters.get("num_bits", 8))
        self.levels = parameters.get("levels")
        self.costs = parameters.get("costs")
        self.float16 = bool(parameters.get("float16"))
        self.decode_scale = parameters.get("decode_scale")
        if not self.scale > 0:
            raise ValueError("FakeQuantLayer's scale must be positive. Got {!r}.".format(parameters["scale"]))

    def reshape(self, bottom: Any, top: Any) -> None:
        """Give the top the bottom's shape."""
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom: Any, top: Any) -> None:
        """Quantize and decode."""
        top[0].data[...] = fake_quantize(
            bottom[0].data,
            self.scale,
            self.offset,
            self.num_bits,
            self.levels,
            self.costs,
            float16=self.float16,
            decode_scale=self.decode_scale,
        )

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:  # noqa: ARG002 - Caffe's signature
        """Refuse: rounding has no gradient."""
        if any(propagate_down):
            raise NotImplementedError("FakeQuantLayer is for inference: it has no gradient.")


class ShiftLayer(_Layer):  # type: ignore[misc, unused-ignore]
    """Loses what devices lose that shift their accumulator and go on in int16.

    `python_param.param_str` is JSON: {"deq_scale": one number, or one for each channel, "steps": as many powers of two,
    "axis": the axis of the channels}.
    """

    def setup(self, bottom: Any, top: Any) -> None:
        """Read the parameters."""
        if len(bottom) != 1 or len(top) != 1:
            raise ValueError("ShiftLayer takes one bottom and one top.")
        parameters = json.loads(self.param_str)
        self.deq_scale = parameters["deq_scale"]
        self.steps = parameters["steps"]
        self.axis = int(parameters["axis"])

    def reshape(self, bottom: Any, top: Any) -> None:
        """Give the top the bottom's shape."""
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom: Any, top: Any) -> None:
        """Shift and decode."""
        top[0].data[...] = fake_shift(bottom[0].data, self.deq_scale, self.steps, self.axis)

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:  # noqa: ARG002 - Caffe's signature
        """Refuse: rounding has no gradient."""
        if any(propagate_down):
            raise NotImplementedError("ShiftLayer is for inference: it has no gradient.")


def fake_shift(x: Any, deq_scale: Any, steps: Any, axis: int = 1) -> Any:
    """The int16 stage of older devices in float32: clip(floor(round(x / deq_scale) / step)) * step * deq_scale.

    Args:
        x: float32 array of any shape: a layer's output.
        deq_scale: What one unit of the accumulator stands for: one number, or one for each channel.
        steps: 2^N for each of them.
        axis: The axis of the channels.

    Returns:
        float32 array of the same shape.

    Example:
        >>> fake_shift(np.array([[2.5, -2.5, 40000.0]], np.float32), [0.5], [2.0]).tolist()
        [[2.0, -3.0, 32767.0]]
    """
    x = np.asarray(x, np.float32)
    shape = [1] * x.ndim
    if len(deq_scale) > 1:
        shape[axis] = -1
    scale, step = (np.asarray(values, np.float32).reshape(shape) for values in (deq_scale, steps))
    kept = np.clip(np.floor(np.rint(x / scale) / step), -(1 << 15), (1 << 15) - 1)
    return kept * (scale * step)


def fake_quantize(
    x: Any,
    scale: float,
    offset: int = 0,
    num_bits: int = 8,
    levels: Any = None,
    costs: Any = None,
    *,
    float16: bool = False,
    decode_scale: Any = None,
) -> Any:
    """Quantize in float32 and decode: q = clip(rint(x / scale) + offset), x' = (q - offset) * scale.

    Args:
        x: float32 array of any shape.
        scale: Step between levels.
        offset: The level that stands for 0.
        num_bits: Width of a level; levels are signed.
        levels: The levels that NUQ keeps, ascending: q goes to the nearest one, the lower of two as near. None keeps
            all.
        costs: One for each level: q goes to the level whose squared distance plus cost is least. None: to the nearest.
        float16: Whether x, 1 / scale and their product are rounded to float16, as Ascend devices do.
        decode_scale: What takes the place of `scale` on decoding; None for itself.

    Returns:
        float32 array of the same shape.

    Example:
        >>> fake_quantize(np.array([0.6, 1.5, 300.0], np.float32), 1.0, offset=3).tolist()
        [1.0, 2.0, 124.0]
        >>> fake_quantize(np.array([0.6, 1.5, 300.0], np.float32), 1.0, offset=3, levels=[3, 100]).tolist()
        [0.0, 0.0, 97.0]
    """
    q_min, q_max = -(1 << (num_bits - 1)), (1 << (num_bits - 1)) - 1
    with np.errstate(over="ignore"):
        if float16:
            factor = np.float16(np.float32(1) / np.float32(scale))
            ratio = (np.asarray(x, np.float32).astype(np.float16) * factor).astype(np.float32)
        else:
            ratio = np.divide(np.asarray(x, np.float32), np.float32(scale))
    # The offset drops out again on decoding, so only the ends of the clip need it; every step is exact in float32.
    steps = np.clip(np.rint(ratio), q_min - offset, q_max - offset)
    if levels:
        kept = np.asarray(levels, np.int64)
        distances = np.square(np.arange(q_min, q_max + 1)[:, None] - kept) + np.asarray(costs or 0.0, np.float64)
        table = kept[np.argmin(distances, axis=1)]
        index = np.nan_to_num(steps).astype(np.int64) + (offset - q_min)
        steps = (table[index] - offset).astype(np.float32)
    return steps * np.float32(scale if decode_scale is None else decode_scale)


def write_caffe_layers(folder: Any) -> str:
    """Lay out this module for a Python that cannot import amct_lite itself: FOLDER/amct_lite/caffe_layers.py.

    Run Caffe with the folder on PYTHONPATH. Do not do so in a Python where amct_lite itself is installed: it would be
    hidden.

    Args:
        folder: Where to put it; made if missing.

    Returns:
        The folder, to be put on PYTHONPATH.
    """
    package = Path(str(folder)) / "amct_lite"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text('"""Holds caffe_layers alone, for a Python that runs Caffe."""\n')
    shutil.copyfile(str(Path(__file__).resolve()), str(package / "caffe_layers.py"))
    return str(folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m amct_lite.caffe_layers FOLDER")
    print("Run Caffe with PYTHONPATH=" + write_caffe_layers(sys.argv[1]))  # a command's answer
