"""A reference executor of Ascend deploy models: integer layers in numpy, as the device's compiler reads them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

INTEGER_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "AveragePool")


class AscendQuant(OpRun):
    op_domain = ""

    def _run(self, x: np.ndarray, scale: float, offset: float, dst_type: str) -> tuple[np.ndarray]:
        assert dst_type == "INT8"
        levels = np.rint(x * np.float32(scale)) + np.float32(offset)
        return (np.clip(levels, -128, 127).astype(np.int8),)


class AscendDequant(OpRun):
    op_domain = ""

    def _run(self, x: np.ndarray, param: np.ndarray, dtype: int) -> tuple[np.ndarray]:
        assert dtype == 0
        assert param.dtype == np.uint64
        assert param.ndim == 1
        assert not (param >> np.uint64(32)).any(), "shift and weight offset must be 0"
        scale = param.astype(np.uint32).view(np.float32)
        if scale.size > 1:
            scale = scale.reshape((-1,) + (1,) * (x.ndim - 2))
        return ((x * scale.astype(np.float64)).astype(np.float32),)


class GatherElements(OpRun):
    """The reference operator takes tables of at most 64 entries."""

    op_domain = ""

    def _run(self, table: np.ndarray, indices: np.ndarray, axis: int) -> tuple[np.ndarray]:
        return (np.take_along_axis(table, indices, axis),)


class ConvTranspose(OpRun):
    """The reference operator takes one group only."""

    op_domain = ""

    def _run(self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, *, group: int = 1, strides=None, **_):
        pieces = [
            transposed_convolution(part, kernel, strides or [1] * (x.ndim - 2))
            for part, kernel in zip(np.split(x, group, axis=1), np.split(w, group, axis=0), strict=True)
        ]
        y = np.concatenate(pieces, axis=1)
        return (y if b is None else y + b.reshape((-1,) + (1,) * (x.ndim - 2)),)


def transposed_convolution(x: np.ndarray, w: np.ndarray, strides: list[int]) -> np.ndarray:
    """Without padding: every input pixel adds its multiple of the kernel at its place."""
    spatial = [(n - 1) * s + k for n, s, k in zip(x.shape[2:], strides, w.shape[2:], strict=True)]
    y = np.zeros((x.shape[0], w.shape[1], *spatial), x.dtype)
    for place in np.ndindex(x.shape[2:]):
        window = tuple(slice(i * s, i * s + k) for i, s, k in zip(place, strides, w.shape[2:], strict=True))
        y[(slice(None), slice(None), *window)] += np.tensordot(x[(slice(None), slice(None), *place)], w, axes=1)
    return y


def as_the_compiler_reads_it(model: ir.Model) -> ir.Model:
    """Take activation offsets back in front of the integer layers, and widen the operands to the accumulator.

    float64 holds every sum of a layer exactly, and numpy's reference operators take it.
    """
    graph = model.graph
    for node in list(graph):
        if node.op_type not in INTEGER_LAYERS:
            continue
        quant = quantizer_of(node.inputs[data_index(node)])
        if quant is None:
            continue
        for index, value in enumerate(node.inputs):
            if value is None:
                continue
            wide = ir.node("Cast", [value], {"to": int(ir.DataType.DOUBLE)})
            nodes = [wide]
            if index == data_index(node):
                offset = ir.node("Constant", [], {"value": ir.tensor(np.float64(quant.attributes.get_float("offset")))})
                nodes += [offset, ir.node("Sub", [wide.outputs[0], offset.outputs[0]])]
            else:
                assert value.const_value.dtype == (ir.DataType.INT32 if index == 2 else ir.DataType.INT8)
            graph.insert_before(node, nodes)
            node.replace_input_with(index, nodes[-1].outputs[0])
    return model


def data_index(node: ir.Node) -> int:
    return 1 if node.inputs[0].is_initializer() else 0


def quantizer_of(value: ir.Value) -> ir.Node | None:
    """The AscendQuant in front of a layer, with nothing but a table between."""
    producer = value.producer()
    while producer is not None and producer.op_type in ("Reshape", "GatherElements", "Cast", "Add"):
        producer = producer.inputs[1 if producer.op_type == "GatherElements" else 0].producer()
    return producer if producer is not None and producer.op_type == "AscendQuant" else None


def run_deploy_model(path: Path, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    model = as_the_compiler_reads_it(ir.load(path))
    operators: list[type[OpRun]] = [AscendQuant, AscendDequant, GatherElements, ConvTranspose]
    evaluator = ReferenceEvaluator(ir.to_proto(model), new_ops=operators)
    return dict(zip(evaluator.output_names, evaluator.run(None, dict(feeds)), strict=True))


@pytest.fixture(scope="session")
def run_ascend() -> Callable[[Path, Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    return run_deploy_model
