"""Runs ONNX deploy models: what is quantized by `arithmetic`, everything else node by node on ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx.reference import ReferenceEvaluator

from tests.ascend_reference import arithmetic
from tests.ascend_reference.arithmetic import Window

Arrays = dict[str, np.ndarray]

# What may stand between AscendQuant and the layer that reads its levels: NUQ's table, and what only moves or selects.
_PASSING = {"Add": 0, "Cast": 0, "Flatten": 0, "GatherElements": 1, "MaxPool": 0, "Reshape": 0, "Transpose": 0}


def run_deploy_model(path: Path, feeds: Mapping[str, np.ndarray]) -> Arrays:
    """The model's outputs by name."""
    model = ir.load(path)
    values = run_every_value(model, feeds)
    return {str(output.name): values[str(output.name)] for output in model.graph.outputs}


def run_every_value(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> Arrays:
    """Every value of the main graph by name: feeds, constants, and what each node makes."""
    values = {str(name): value.const_value.numpy() for name, value in model.graph.initializers.items()}
    values.update(feeds)
    for node in model.graph:
        arrays = [None if value is None else values[str(value.name)] for value in node.inputs]
        results = _run_quantized(node, arrays)
        if results is None:
            assert not any(a is not None and a.dtype == np.int32 and a.ndim > 1 for a in arrays), node.name
            results = _run_stock(node, values, model)
        values.update(
            {
                str(value.name): result
                for value, result in zip(filter(lambda v: v.name, node.outputs), results, strict=True)
            }
        )
    return values


def _run_quantized(node: ir.Node, arrays: list[np.ndarray | None]) -> list[np.ndarray] | None:
    """The outputs of a quantized operator; None for any other."""
    assert node.domain == ""
    if node.op_type == "AscendQuant":
        assert node.attributes.get_string("dst_type") == "INT8"
        scale, offset = (node.attributes.get_float(name) for name in ("scale", "offset"))
        return [arithmetic.quantize(arrays[0], scale, offset)]
    if node.op_type == "AscendDequant":
        assert node.attributes.get_int("dtype") == 0
        axis = 1 if arrays[0].ndim > 2 and _layer_behind(node).op_type != "MatMul" else -1
        return [arithmetic.dequantize(arrays[0], arithmetic.unpack(arrays[1]), axis)]
    if node.op_type == "AscendAntiQuant":
        assert arrays[0].dtype == np.int8
        return [arrays[0].astype(np.float32) * np.float32(node.attributes.get_float("scale"))]
    if node.op_type == "Add" and any(a.dtype == np.int32 for a in arrays):
        assert all(a.dtype == np.int32 for a in arrays)
        return [arithmetic.accumulated(arrays[0].astype(np.float64) + arrays[1], None, -1)]
    if node.op_type == "MaxPool" and arrays[0].dtype == np.int8:
        kernel = node.attributes.get_ints("kernel_shape")
        return [arithmetic.max_pool(arrays[0], kernel, _window(node, arrays[0], kernel))]
    run = _LAYERS.get(node.op_type)
    data = 1 if node.inputs[0].is_initializer() else 0
    quant = None if run is None else _quantizer_of(node.inputs[data])
    if quant is None:
        return None
    wide = list(arrays)
    wide[data] = arithmetic.centred(arrays[data], quant.attributes.get_float("offset"))
    return [run(node, wide)]


def _layer_behind(node: ir.Node) -> ir.Node:
    producer = node.inputs[0].producer()
    return producer.inputs[0].producer() or producer.inputs[1].producer() if producer.op_type == "Add" else producer


def _quantizer_of(value: ir.Value) -> ir.Node | None:
    producer = value.producer()
    while producer is not None and producer.op_type in _PASSING:
        producer = producer.inputs[_PASSING[producer.op_type]].producer()
    return producer if producer is not None and producer.op_type == "AscendQuant" else None


def _conv(node: ir.Node, arrays: list[np.ndarray | None]) -> np.ndarray:
    x, weight, bias = (*arrays, None)[:3]
    sums = arithmetic.convolution(x, weight, _window(node, x, weight.shape[2:]), node.attributes.get_int("group", 1))
    return arithmetic.accumulated(sums, bias, 1)


def _conv_transpose(node: ir.Node, arrays: list[np.ndarray | None]) -> np.ndarray:
    x, weight, bias = (*arrays, None)[:3]
    assert "output_shape" not in node.attributes
    rank = x.ndim - 2
    padding = node.attributes.get_ints("output_padding", (0,) * rank)
    group = node.attributes.get_int("group", 1)
    sums = arithmetic.transposed_convolution(x, weight, _window(node, x, weight.shape[2:]), group, padding)
    return arithmetic.accumulated(sums, bias, 1)


def _gemm(node: ir.Node, arrays: list[np.ndarray | None]) -> np.ndarray:
    first, second, bias = (*arrays, None)[:3]
    assert node.attributes.get_float("alpha", 1.0) == 1.0
    assert bias is None or node.attributes.get_float("beta", 1.0) == 1.0
    first = first.T if node.attributes.get_int("transA", 0) else first
    second = second.T if node.attributes.get_int("transB", 0) else second
    return arithmetic.accumulated(np.matmul(first.astype(np.float64), second.astype(np.float64)), bias, -1)


def _matmul(node: ir.Node, arrays: list[np.ndarray | None]) -> np.ndarray:
    assert any(array.dtype == np.int8 for array in arrays)
    return arithmetic.accumulated(np.matmul(*(array.astype(np.float64) for array in arrays)), None, -1)


def _average_pool(node: ir.Node, arrays: list[np.ndarray | None]) -> np.ndarray:
    kernel = node.attributes.get_ints("kernel_shape")
    window = _window(node, arrays[0], kernel)
    include = node.attributes.get_int("count_include_pad", 0)
    assert not (include and node.attributes.get_int("ceil_mode", 0))
    divisors = np.array(float(np.prod(kernel))) if include else None
    return arithmetic.average_pool(arrays[0], kernel, window, divisors)


def _window(node: ir.Node, x: np.ndarray, kernel: tuple[int, ...]) -> Window:
    rank = len(kernel)
    strides = tuple(node.attributes.get_ints("strides", (1,) * rank))
    dilations = tuple(node.attributes.get_ints("dilations", (1,) * rank))
    pads = tuple(node.attributes.get_ints("pads", (0,) * (2 * rank)))
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if mode.startswith("SAME"):
        assert node.op_type != "ConvTranspose"
        whole = [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(x.shape[2:], strides, extents, strict=True)]
        small, large = [w // 2 for w in whole], [w - w // 2 for w in whole]
        pads = (*small, *large) if mode == "SAME_UPPER" else (*large, *small)
    begins, ends = list(pads[:rank]), list(pads[rank:])
    if node.attributes.get_int("ceil_mode", 0):
        for i, (n, s, e) in enumerate(zip(x.shape[2:], strides, extents, strict=True)):
            count = -(-(n + begins[i] + ends[i] - e) // s) + 1
            count -= (count - 1) * s >= n + begins[i]
            ends[i] = max((count - 1) * s + e - n - begins[i], ends[i])
    return Window(strides, tuple(begins), tuple(ends), dilations)


_LAYERS = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "AveragePool": _average_pool,
}


def _run_stock(node: ir.Node, values: Arrays, model: ir.Model) -> list[np.ndarray]:
    """One operator in a graph of its own, with whatever its bodies read."""
    proto = onnx.ModelProto(ir_version=8)
    proto.opset_import.add(domain="", version=model.opset_imports[""])
    graph = proto.graph
    graph.name = "one"
    graph.node.append(ir.to_proto(node))
    feeds = {name: values[name] for name in _names_read(graph.node[0]) if name in values}
    for name, array in feeds.items():
        kind = graph.input.add(name=name).type.tensor_type
        kind.elem_type = int(ir.DataType.from_numpy(array.dtype))
        kind.shape.SetInParent()
        for size in array.shape:
            kind.shape.dim.add(dim_value=size)
    for name in filter(None, graph.node[0].output):
        graph.output.add(name=name)
    if any(array.dtype == np.int16 for array in feeds.values()):
        # ONNX Runtime has no Add of the int16 levels in front of NUQ's table.
        return ReferenceEvaluator(proto).run(None, feeds)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def _names_read(node: onnx.NodeProto) -> dict[str, None]:
    names = dict.fromkeys(filter(None, node.input))
    for attribute in node.attribute:
        for inner in attribute.g.node:
            names |= _names_read(inner)
        names |= dict.fromkeys(output.name for output in attribute.g.output)
    return names
