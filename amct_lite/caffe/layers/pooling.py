"""Translators: Pooling."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from amct_lite.caffe.network import CaffeLayer
from amct_lite.caffe.translation import Translation, Translator, unsupported

__all__ = ["TRANSLATORS"]

_MAX, _AVE, _STOCHASTIC = 0, 1, 2  # PoolingParameter.PoolMethod
_FLOOR = 1  # PoolingParameter.RoundMode
_LOWEST = float(np.finfo(np.float32).min)  # what Caffe's maximum starts from

_MAX_WINDOWS = 2**24  # above a 4096 x 4096 image; a forged pad must not make us count to its end


@dataclass(frozen=True)
class _Axis:
    """The windows along one axis: Caffe rounds their number up, and drops the last if it starts behind the padding."""

    size: int
    kernel: int
    stride: int
    pad: int
    floor: bool

    @property
    def count(self) -> int:
        """How many windows there are."""
        rest = self.size + 2 * self.pad - self.kernel
        return (rest if self.floor else rest + self.stride - 1) // self.stride + 1

    def clipped(self, count: int) -> int:
        """The number of windows without a last one that starts behind the padded image."""
        return count - 1 if (count - 1) * self.stride >= self.size + self.pad else count

    def touching(self, count: int) -> int:
        """The number of windows without a last one that starts behind the image itself."""
        return count - 1 if (count - 1) * self.stride - self.pad >= self.size else count

    def end_pad(self, count: int) -> int:
        """How far the last window reaches over the end of the image."""
        return max((count - 1) * self.stride + self.kernel - self.size - self.pad, 0)

    def divisors(self, count: int) -> npt.NDArray[np.int64]:
        """Caffe's number of elements of each window: cut off at the end of the padding, not at that of the image.

        0 or less for windows that lie behind the image.
        """
        starts = np.arange(count) * self.stride - self.pad
        return np.minimum(starts + self.kernel, self.size + self.pad) - starts

    def insides(self, count: int) -> npt.NDArray[np.int64]:
        """The number of elements of each window that lie in the image."""
        starts = np.arange(count) * self.stride - self.pad
        return np.minimum(starts + self.kernel, self.size) - np.maximum(starts, 0)


def _pooling(translation: Translation, layer: CaffeLayer) -> None:
    """Pooling: `size' = ceil((size + 2 pad - kernel) / stride) + 1`, floor with round_mode FLOOR.

    Forks say `ceil_mode: false` for FLOOR. If there is any padding, the last window must start before the end of the
    image, the padding before it counted in; else it is dropped. AVE divides by the window's size cut off at the end of
    the padding. Windows that lie behind the image altogether (a stride larger than the kernel makes them) give what
    Caffe gives: the lowest number for MAX, 0 or NaN for AVE.
    """
    param = layer.params.pooling_param
    shape = translation.shape(layer.bottoms[0])
    if len(layer.tops) != 1:
        raise unsupported(layer, "Its second top, the mask of maxima, is not computed.", "Take the second top out.")
    if len(shape) != 4:
        raise unsupported(layer, f"Its input has {len(shape)} axes, not 4.", "Put a Reshape before it.")
    data = translation.value(layer.bottoms[0])
    if param.global_pooling:
        value, sizes = _global(translation, layer, data), (1, 1)
    else:
        axes = _axes(layer, int(shape[2] or 0), int(shape[3] or 0))
        counts = [axis.count for axis in axes]
        if any(axis.pad for axis in axes):
            counts = [axis.clipped(count) for axis, count in zip(axes, counts, strict=True)]
        if min(counts) < 1 or counts[0] * counts[1] > _MAX_WINDOWS:
            raise unsupported(
                layer, f"Its output would have the sizes {counts}.", "Check the input's size, kernel, stride and pad."
            )
        value, sizes = _windowed(translation, layer, data, axes, counts), (counts[0], counts[1])
    translation.bind(layer.tops[0], value, (*shape[:2], *sizes))


def _global(translation: Translation, layer: CaffeLayer, data: ir.Value) -> ir.Value:
    param = layer.params.pooling_param
    if any(_pair(layer, "pad")) or set(_pair(layer, "stride")) != {1}:
        raise unsupported(layer, "global_pooling goes with pad 0 and stride 1 alone.", "Take pad and stride out.")
    if param.pool == _STOCHASTIC:
        return _stochastic(translation, layer, data, "GlobalAveragePool", {})
    operator = "GlobalMaxPool" if param.pool == _MAX else "GlobalAveragePool"
    return translation.node(operator, [data], name=layer.name)


def _windowed(
    translation: Translation, layer: CaffeLayer, data: ir.Value, axes: list[_Axis], counts: list[int]
) -> ir.Value:
    pool = layer.params.pooling_param.pool
    touching = [axis.touching(count) for axis, count in zip(axes, counts, strict=True)]
    attributes: dict[str, object] = {
        "kernel_shape": [axis.kernel for axis in axes],
        "strides": [axis.stride for axis in axes],
        "pads": [
            *(axis.pad for axis in axes),
            *(axis.end_pad(count) for axis, count in zip(axes, touching, strict=True)),
        ],
    }
    beyond = [count - inner for count, inner in zip(counts, touching, strict=True)]
    if pool == _MAX:
        value = translation.node("MaxPool", [data], attributes, name=layer.name)
        return _extended(translation, layer, value, beyond, _LOWEST)
    if pool == _STOCHASTIC:
        value = _stochastic(translation, layer, data, "AveragePool", {**attributes, "count_include_pad": 1})
        return _extended(translation, layer, value, beyond, 0.0)
    rows, columns = (axis.divisors(count) for axis, count in zip(axes, counts, strict=True))
    inside_rows, inside_columns = (axis.insides(count) for axis, count in zip(axes, counts, strict=True))
    whole = (rows == axes[0].kernel).all() and (columns == axes[1].kernel).all()
    inside = not any(beyond) and np.array_equal(rows, inside_rows) and np.array_equal(columns, inside_columns)
    include = 0 if inside and not whole else 1
    value = translation.node("AveragePool", [data], {**attributes, "count_include_pad": include}, name=layer.name)
    if whole or inside:
        return value
    # Neither of ONNX's two ways to divide is Caffe's: a constant corrects it.
    with np.errstate(divide="ignore"):
        factors = np.float32(axes[0].kernel * axes[1].kernel) / np.outer(rows, columns).astype(np.float32)
    value = _extended(translation, layer, value, beyond, 0.0)
    return translation.node("Mul", [value, translation.constant(layer, "divisor", factors[None, None])])


def _extended(
    translation: Translation, layer: CaffeLayer, value: ir.Value, beyond: list[int], result: float
) -> ir.Value:
    """The pooled image with the results of the windows that lie behind the image.

    To enlarge the image itself would not do: onnxruntime fuses such a Pad into the pooling, which then refuses it.
    """
    if not any(beyond):
        return value
    widths = translation.constant(layer, "beyond", np.array([0, 0, 0, 0, 0, 0, *beyond], np.int64))
    return translation.node("Pad", [value, widths, translation.constant(layer, "empty", np.float32(result))])


def _stochastic(
    translation: Translation, layer: CaffeLayer, data: ir.Value, operator: str, attributes: dict[str, object]
) -> ir.Value:
    """STOCHASTIC at test time: the mean weighted by the values themselves, sum(x * x) / sum(x); 0 where the sum is."""
    sums = translation.node(operator, [data], attributes)
    squares = translation.node(operator, [translation.node("Mul", [data, data])], attributes)
    zero = translation.constant(layer, "zero", np.float32(0))
    positive = translation.node("Greater", [sums, zero])
    return translation.node("Where", [positive, translation.node("Div", [squares, sums]), zero], name=layer.name)


def _axes(layer: CaffeLayer, height: int, width: int) -> list[_Axis]:
    param = layer.params.pooling_param
    kernels, strides, pads = _pair(layer, "kernel"), _pair(layer, "stride"), _pair(layer, "pad")
    floor = param.round_mode == _FLOOR or not param.ceil_mode
    axes = [_Axis(*numbers, floor) for numbers in zip((height, width), kernels, strides, pads, strict=True)]
    if any(axis.kernel < 1 or axis.stride < 1 or axis.pad >= axis.kernel for axis in axes):
        raise unsupported(
            layer,
            f"Kernel {kernels} and stride {strides} must be positive, and pad {pads} below the kernel.",
            "Correct pooling_param.",
        )
    if param.pool == _STOCHASTIC and any(pads):
        raise unsupported(layer, "STOCHASTIC goes without padding.", "Take pad out.")
    return axes


def _pair(layer: CaffeLayer, name: str) -> tuple[int, int]:
    """A number for height and width: `{name}_h` and `{name}_w`, or one for both."""
    param = layer.params.pooling_param
    both = "kernel_size" if name == "kernel" else name
    given = [param.HasField(f"{name}_{side}") for side in "hw"]
    if any(given) and param.HasField(both):
        raise unsupported(layer, f"It gives {both} and {name}_h or {name}_w.", f"Give {both} or the other two.")
    if any(given) and not (all(given) or name == "pad"):
        raise unsupported(layer, f"It gives only one of {name}_h and {name}_w.", "Give both.")
    if any(given):
        return getattr(param, f"{name}_h"), getattr(param, f"{name}_w")
    return getattr(param, both), getattr(param, both)


TRANSLATORS: dict[str, Translator] = {"Pooling": _pooling}
