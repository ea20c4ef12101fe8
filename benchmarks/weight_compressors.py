"""Other tools' compression of weights alone, each called as its users call it, for rows to compare with.

Each function writes a model that onnxruntime runs and says how many bytes it takes; a tool that is not installed raises
ImportError. They are imported where they are used: no one has all of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import (
    HQQWeightOnlyQuantConfig,
    KQuantWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)
from onnxruntime.quantization.onnx_model import ONNXModel

from amct_lite.graph.constants import replace_array
from amct_lite.graph.layers import find_layers
from amct_lite.graph.reading import read_model_file
from amct_lite.graph.saving import save_ir
from amct_lite.types import Layer

__all__ = [
    "Compressed",
    "FloatArray",
    "Weight",
    "compress_with_coremltools",
    "compress_with_onnxsim",
    "compress_with_shrink_ray",
    "compress_with_uniform_grid",
    "quantize_dynamically",
    "quantize_matmuls",
    "read_weights",
]

FloatArray = npt.NDArray[np.float32]

# What DequantizeLinear with blocks and 4-bit tensors need.
_OPSET_OF_INT4 = 21
_CLIP_RATIOS = np.linspace(0.3, 1.0, 36)


@dataclass(frozen=True)
class Compressed:
    """A compressed network.

    Attributes:
        model_file: What onnxruntime runs.
        size_bytes: What it takes on disk; where the tool's form is not ONNX, the float graph and biases with the
            weights in that form.
        note: What a reader of the table should know.
    """

    model_file: Path
    size_bytes: int
    note: str = ""


@dataclass(frozen=True)
class Weight:
    """A layer's weight.

    Attributes:
        layer: The layer.
        array: Output channels first, whatever the layer's own order.
    """

    layer: Layer
    array: FloatArray


def read_weights(model: ir.Model) -> list[Weight]:
    """The weights of all layers, in graph order."""
    found = []
    for layer in find_layers(model):
        if layer.weight is not None:
            tensor = model.graph.initializers[layer.weight].const_value
            assert tensor is not None
            found.append(Weight(layer, np.moveaxis(tensor.numpy(), layer.output_channel_axis, 0)))
    return found


def compress_with_coremltools(model_file: Path, folder: Path, **options: Any) -> Compressed:
    """Palettize by k-means with `coremltools.optimize.coreml.palettize_weights`.

    coremltools reads no ONNX since version 6 (`source` must be "tensorflow", "pytorch" or "milinternal"), so each
    weight goes into a convolution or linear layer of an ML Program, float16 as its converter makes it by default. That
    program is palettized, saved and decompressed with public calls, and the decoded weights go back into the ONNX
    model. Tensors of 2048 weights and fewer stay float16, the default. The size is that of `weight.bin`, which holds
    codes and tables, with the ONNX file's graph and biases. coremltools 9.0's `enable_per_channel_scale` takes the
    largest weight over the output channels, so a scale per input channel and kernel position, and stores the table
    multiplied by each.

    Args:
        model_file: The float network.
        folder: For the package and the decoded model.
        options: For OpPalettizerConfig.
    """
    import coremltools
    from coremltools.optimize import coreml

    model = ir.load(model_file)
    weights = read_weights(model)
    config = coreml.OptimizationConfig(global_config=coreml.OpPalettizerConfig(mode="kmeans", **options))
    program = coremltools.convert(
        _holding_program(weights),
        convert_to="mlprogram",
        minimum_deployment_target=coremltools.target.iOS18,
        skip_model_load=True,
    )
    palettized = coreml.palettize_weights(program, config)
    palettized.save(str(folder / "palettized.mlpackage"))
    (blob,) = folder.rglob("weight.bin")
    constants = coreml.get_weights_metadata(coreml.decompress_weights(palettized), weight_threshold=1)
    # Names grow a suffix with each step: weight_3_to_fp16_palettized.
    decoded = {int(name.split("_")[1]): held.val for name, held in constants.items() if name.startswith("weight_")}
    float_bytes = sum(weight.array.nbytes for weight in weights)
    decoded_file = _write_decoded(model, weights, [decoded[i] for i in range(len(weights))], folder)
    size_bytes = model_file.stat().st_size - float_bytes + blob.stat().st_size
    return Compressed(decoded_file, size_bytes, "as weight.bin")


def _holding_program(weights: Sequence[Weight]) -> Any:
    """An ML Program with an input, a layer and an output for each weight."""
    import coremltools
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import Function, Program

    inputs = {}
    for i, weight in enumerate(weights):
        channels = weight.array.shape[1] * weight.layer.group
        inputs[f"x_{i}"] = Builder.placeholder(shape=(1, channels, *weight.array.shape[2:]))
    with Function(inputs, opset_version=coremltools.target.iOS18) as function:
        outputs = []
        for i, weight in enumerate(weights):
            constant, x = Builder.const(val=weight.array, name=f"weight_{i}"), function.inputs[f"x_{i}"]
            if weight.array.ndim == 2:
                outputs.append(Builder.linear(x=x, weight=constant))
            else:
                outputs.append(Builder.conv(x=x, weight=constant, groups=weight.layer.group, pad_type="valid"))
        function.set_outputs(outputs)
    program = Program()
    program.add_function("main", function)
    return program


def compress_with_onnxsim(model_file: Path, folder: Path, function: str, **options: Any) -> Compressed:
    """Call a weight-only function of onnxsim.

    Its functions look at the types of activations and, for 4 bits, at the opset, so shapes are inferred and the opset
    is raised to 21 first.

    Args:
        model_file: The float network.
        folder: Where the model is written.
        function: For example "quantize_weight_only_int4".
        options: Of that function.
    """
    import onnxsim

    proto = onnx.version_converter.convert_version(read_model_file(model_file).proto, _OPSET_OF_INT4)
    written = getattr(onnxsim, function)(proto, **options)
    # From the inference above, and of no use when the model runs.
    del written.graph.value_info[:]
    return _write_proto(written, folder)


def compress_with_shrink_ray(model_file: Path, folder: Path, **options: Any) -> Compressed:
    """Call onnx-shrink-ray's `quantize_weights`, which skips tensors of fewer than 16384 numbers.

    Args:
        model_file: The float network.
        folder: Where the model is written.
        options: Of that function.
    """
    from onnx_shrink_ray.shrink import quantize_weights

    return _write_proto(quantize_weights(read_model_file(model_file).proto, **options), folder)


def quantize_matmuls(model_file: Path, folder: Path, *, num_bits: int, method: str = "default") -> Compressed:
    """Call onnxruntime's MatMulNBitsQuantizer, blocks of 32; Gemm becomes MatMul and Add first.

    Args:
        model_file: The float network.
        folder: Where the model is written.
        num_bits: 2, 4 or 8.
        method: "default", "qdq" (its default in standard operators), "k_quant" or "hqq".
    """
    model = ONNXModel(read_model_file(model_file).proto)
    model.replace_gemm_with_matmul()
    configs = {
        "k_quant": KQuantWeightOnlyQuantConfig,
        "hqq": lambda: HQQWeightOnlyQuantConfig(block_size=32, bits=num_bits),
    }
    quantizer = MatMulNBitsQuantizer(
        model.model,
        bits=num_bits,
        block_size=32,
        quant_format=QuantFormat.QDQ if method == "qdq" else QuantFormat.QOperator,
        algo_config=configs[method]() if method in configs else None,
    )
    quantizer.process()
    return _write_proto(quantizer.model.model, folder)


def quantize_dynamically(model_file: Path, folder: Path) -> Compressed:
    """Call onnxruntime's quantize_dynamic: uint8 weights, and activations in 8 bits when it runs."""
    quantized = folder / "quantize_dynamic.onnx"
    quantize_dynamic(model_file, quantized, per_channel=True, weight_type=QuantType.QUInt8)
    return Compressed(quantized, quantized.stat().st_size, "activations too")


def compress_with_uniform_grid(model_file: Path, folder: Path, *, num_bits: int, clip: bool) -> Compressed:
    """Round every weight to 2^num_bits even steps per output channel, from its minimum to its maximum.

    Args:
        model_file: The float network.
        folder: Where the decoded model is written.
        num_bits: Bits of a code; a channel's scale takes 32 more, its zero point 8.
        clip: Shrink each channel's range by the ratio, of 36 from 0.3 to 1, that gives the least squared error.
    """
    model = ir.load(model_file)
    weights = read_weights(model)
    decoded = [_round_uniformly(weight.array, num_bits, _CLIP_RATIOS if clip else (1.0,)) for weight in weights]
    float_bytes = sum(weight.array.nbytes for weight in weights)
    packed_bytes = sum(-(-weight.array.size * num_bits // 8) + 5 * len(weight.array) for weight in weights)
    decoded_file = _write_decoded(model, weights, decoded, folder)
    return Compressed(decoded_file, model_file.stat().st_size - float_bytes + packed_bytes, "as packed")


def _round_uniformly(weight: FloatArray, num_bits: int, ratios: Iterable[float]) -> FloatArray:
    rows = weight.reshape(len(weight), -1)
    # Zero lies on the grid, as in ONNX.
    low, high = np.minimum(rows.min(1), 0.0)[:, None], np.maximum(rows.max(1), 0.0)[:, None]
    last_code = 2**num_bits - 1
    best, least = rows, np.full(len(rows), np.inf)
    for ratio in ratios:
        step = np.maximum((high - low) * ratio / last_code, np.finfo(np.float32).tiny)
        zero_point = np.round(-low * ratio / step)
        rounded = (np.clip(np.round(rows / step) + zero_point, 0, last_code) - zero_point) * step
        error = np.square(rounded - rows).sum(1)
        best = np.where((error < least)[:, None], rounded, best)
        least = np.minimum(error, least)
    return best.reshape(weight.shape).astype(np.float32)


def _write_decoded(model: ir.Model, weights: Sequence[Weight], decoded: Sequence[Any], folder: Path) -> Path:
    for weight, array in zip(weights, decoded, strict=True):
        stored = np.moveaxis(array.astype(np.float32), 0, weight.layer.output_channel_axis)
        replace_array(model.graph.initializers[str(weight.layer.weight)], stored)
    save_ir(model, folder / "decoded.onnx")
    return folder / "decoded.onnx"


def _write_proto(proto: onnx.ModelProto, folder: Path) -> Compressed:
    """Write without the constants that no node reads; the note says where the tool's own file is much larger.

    onnxsim and onnxruntime's k-quant leave the float weights they replace in the file.
    """
    written_bytes = proto.ByteSize()
    read = {name for node in proto.graph.node for name in node.input}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in read]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    path = folder / "compressed.onnx"
    path.write_bytes(proto.SerializeToString())
    size_bytes = path.stat().st_size
    return Compressed(path, size_bytes, f"{written_bytes:,} as written" if written_bytes > 1.05 * size_bytes else "")
