"""The int16 stage of older devices in the fake-quant form: what shifting the accumulator loses, in stock operators."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amct_lite.errors import ExportError
from amct_lite.export.editor import GraphEditor
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.types import LayerKind

__all__ = ["refuse_shifts", "shift_factors", "simulate_shift"]


def refuse_shifts(layers: Sequence[QuantizedLayer]) -> None:
    """Refuse shifts, for the forms that have no int16 stage.

    Raises:
        ExportError: A layer has some.
    """
    for layer in layers:
        if layer.shift_bit:
            raise ExportError(
                "The record has shift_bit for this layer, and this form's accumulators are not shifted.",
                layer=layer.layer.name,
                remedy="shift_bit is not support, please delete it from the record, or use an Ascend target.",
            )


def shift_factors(layer: QuantizedLayer) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(deq_scale, 2^N), each of the shape of scale_w: exact in float32."""
    return layer.bias_scale(), np.ldexp(np.float32(1), np.array(layer.shift_bit)).astype(np.float32)


def simulate_shift(editor: GraphEditor, layer: QuantizedLayer) -> None:
    """Put `clip_int16(floor(round(y / deq_scale) / 2^N)) * 2^N * deq_scale` behind a layer that has shifts.

    Args:
        editor: A fake-quant graph.
        layer: The layer; its output is float.
    """
    if not layer.shift_bit:
        return
    node, name = editor.node_of(layer.layer), f"{layer.layer.name}.shift"
    scale, steps = (_along_channels(values, layer) for values in shift_factors(layer))
    last = editor.insert_after_output(node, "Mul", [editor.constant(f"{name}.scale", scale * steps)], name, {})
    decode = last.producer()
    assert decode is not None
    value = decode.inputs[0]
    stages: list[tuple[str, tuple[npt.NDArray[np.float32], ...]]] = [
        ("Div", (scale,)),
        ("Round", ()),
        ("Div", (steps,)),
        ("Floor", ()),
        ("Clip", (np.array(-(2**15), np.float32), np.array(2**15 - 1, np.float32))),
    ]
    for place, (operator, constants) in enumerate(stages):
        step = f"{name}.{place}"
        others = [editor.constant(f"{step}.constant", array) for array in constants]
        value = editor.insert(decode, operator, [value, *others], step)
    decode.replace_input_with(0, value)


def _along_channels(values: npt.NDArray[np.float32], layer: QuantizedLayer) -> npt.NDArray[np.float32]:
    if values.size == 1:
        return values.reshape(())
    if layer.layer.kind is LayerKind.INNER_PRODUCT:
        return values if layer.layer.weight_index == 1 else values[:, None]
    return values.reshape(-1, *(1 for _ in layer.layer.kernel_shape))
