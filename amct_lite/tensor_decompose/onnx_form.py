"""The split convolutions of an ONNX network, as a graph."""

from collections.abc import Sequence

import onnx_ir as ir

from amct_lite.export.editor import GraphEditor
from amct_lite.graph.model import Model
from amct_lite.tensor_decompose.plan import SplitConvolution, Window

__all__ = ["decomposed_graph"]


def decomposed_graph(model: Model, splits: Sequence[SplitConvolution]) -> ir.Model:
    """A copy of the graph in which two convolutions stand for each one that is split.

    The second one keeps the output's name and the bias.

    Args:
        model: The network; it is not changed.
        splits: Its convolutions to split.
    """
    editor = GraphEditor(model)
    for split in splits:
        node = editor.node_of(split.layer)
        first, second = split.names
        vertical, horizontal = split.factors.vertical, split.factors.horizontal
        between = editor.insert(
            node,
            "Conv",
            [node.inputs[0], editor.constant(f"{first}.weight", vertical)],
            first,
            _attributes(split.window.vertical(), vertical.shape[2:]),
        )
        node.replace_input_with(0, between)
        node.replace_input_with(1, editor.constant(f"{second}.weight", horizontal))
        node.name = editor.unique_name(second)
        for name, value in _attributes(split.window.horizontal(), horizontal.shape[2:]).items():
            node.attributes[name] = ir.convenience.convert_attribute(name, value)
    editor.finish()
    return editor.ir


def _attributes(window: Window, kernel_shape: Sequence[int]) -> dict[str, list[int] | str]:
    attributes: dict[str, list[int] | str] = {
        "kernel_shape": list(kernel_shape),
        "strides": list(window.strides),
        "dilations": list(window.dilations),
    }
    # ONNX lets an operator have one of the two.
    return attributes | ({"pads": list(window.pads)} if window.auto_pad == "NOTSET" else {"auto_pad": window.auto_pad})
