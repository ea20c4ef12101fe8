"""Other tools' static quantization to W8A8, each called as its users call it; run by the Python that has the tool.

`int8_peers.py` starts this file as a script, as the tools' packages exclude each other and amct_lite need not be there:

    PYTHON benchmarks/peer_quantizers.py TOOL FLOAT_MODEL PHOTOS QUANTIZED_MODEL OPTIONS

PHOTOS is a `.npy` file of the network's input, one photo after the other; OPTIONS is JSON for the tool's function here.
Every function writes a QDQ model of uint8 activations and int8 weights, whose parameters are the tool's own defaults
but for what OPTIONS says.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

__all__ = ["QUANTIZERS"]

BATCH_SIZE = 16
# onnxruntime keeps all intermediate results of as many batches in memory.
STRIDE_BATCHES = 2


class PhotoReader:
    """Photos in batches, as the calibrators of onnxruntime and Quark take them."""

    def __init__(self, name: str, photos: Any, batch_size: int = BATCH_SIZE) -> None:
        self._batches = [{name: photos[start : start + batch_size]} for start in range(0, len(photos), batch_size)]
        self.set_range(0, len(self._batches))

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """What `get_next` reads from now on."""
        self._left: Iterator[dict[str, Any]] = iter(self._batches[start_index:end_index])

    def rewind(self) -> None:
        """Start again."""
        self.set_range(0, len(self._batches))

    def get_next(self) -> dict[str, Any] | None:
        """The next feed, None after the last."""
        return next(self._left, None)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._batches)


def quantize_with_onnxruntime(
    model_file: Path, photos: Any, quantized_file: Path, *, method: str, per_channel: bool
) -> None:
    """`quantize_static` behind `quant_pre_process`, as its documentation advises.

    Args:
        model_file: The float network.
        photos: What to calibrate on.
        quantized_file: What is written.
        method: "MinMax", "Entropy" or "Percentile".
        per_channel: Whether weights have a scale per output channel.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = quantized_file.with_name("prepared.onnx")
    quant_pre_process(model_file, prepared)
    quantize_static(
        prepared,
        quantized_file,
        PhotoReader(input_name(model_file), photos),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[method],
        # It counts for every method, whatever its name says.
        extra_options={"CalibStridedMinMax": STRIDE_BATCHES},
    )


def quantize_with_nncf(
    model_file: Path,
    photos: Any,
    quantized_file: Path,
    *,
    preset: str | None = None,
    fast_bias_correction: bool = True,
    smooth_quant: float | None = None,
    range_estimator: str | None = None,
    overflow_fix: bool = True,
    per_channel: bool = True,
) -> None:
    """`nncf.quantize`; bias correction is part of its defaults.

    Args:
        model_file: The float network.
        photos: What to calibrate on.
        quantized_file: What is written.
        preset: "performance" (the default: symmetric activations) or "mixed" (activations with an offset).
        fast_bias_correction: False takes the slow one, that its documentation calls more accurate.
        smooth_quant: SmoothQuant's alpha for convolutions. It does this only to what it is told is a transformer.
        range_estimator: A member of its RangeEstimatorParametersSet for activations.
        overflow_fix: Whether the first layer's weights keep to 7 bits, for CPUs without VNNI; its default.
        per_channel: Whether weights have a scale per output channel.
    """
    import nncf
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
        OverflowFix,
        QuantizationParameters,
    )
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    advanced = AdvancedQuantizationParameters()
    if smooth_quant is not None:
        advanced.smooth_quant_alphas = AdvancedSmoothQuantParameters(convolution=smooth_quant)
    if range_estimator is not None:
        advanced.activations_range_estimator_params = getattr(RangeEstimatorParametersSet, range_estimator)
    if not overflow_fix:
        advanced.overflow_fix = OverflowFix.DISABLE
    if not per_channel:
        advanced.weights_quantization_params = QuantizationParameters(per_channel=False)
    name = input_name(model_file)
    quantized = nncf.quantize(
        read_proto(model_file),
        nncf.Dataset([{name: photos[i : i + 1]} for i in range(len(photos))]),
        preset=None if preset is None else nncf.QuantizationPreset(preset),
        subset_size=len(photos),
        fast_bias_correction=fast_bias_correction,
        model_type=None if smooth_quant is None else nncf.ModelType.TRANSFORMER,
        advanced_parameters=advanced,
    )
    onnx.save(quantized, quantized_file)


def quantize_with_aimet(
    model_file: Path,
    photos: Any,
    quantized_file: Path,
    *,
    scheme: str = "min_max",
    equalize: bool = False,
    sequential_mse: bool = False,
    adaround_iterations: int = 0,
    per_channel: bool = True,
) -> None:
    """`QuantizationSimModel` of AIMET and its QDQ export.

    Args:
        model_file: The float network.
        photos: What to calibrate on.
        quantized_file: What is written.
        scheme: "min_max" (the default) or "tf_enhanced".
        equalize: Whether cross-layer equalization comes first.
        sequential_mse: Whether weights' ranges come from SeqMSE.
        adaround_iterations: Steps of AdaRound a layer; its default would be 10,000.
        per_channel: Whether weights have a scale per output channel; otherwise its configuration "default" is taken.
    """
    import aimet_onnx
    from aimet_onnx.common.quantsim_config.config_utils import get_path_for_target_config
    from aimet_onnx.cross_layer_equalization import equalize_model

    model = read_proto(model_file)
    if equalize:
        equalize_model(model)
    sim = aimet_onnx.QuantizationSimModel(
        model,
        param_type="int8",
        activation_type="int8",
        quant_scheme=scheme,
        config_file=get_path_for_target_config("default_config_per_channel" if per_channel else "default_config"),
    )
    batches = list(PhotoReader(input_name(model_file), photos))
    if sequential_mse:
        aimet_onnx.apply_seq_mse(sim, batches)
    if adaround_iterations:
        aimet_onnx.apply_adaround(sim, batches, num_iterations=adaround_iterations)
    sim.compute_encodings(batches)
    onnx.save(sim.to_onnx_qdq(export_int32_bias=True, prequantize_constants=True), quantized_file)


def quantize_with_quark(
    model_file: Path,
    photos: Any,
    quantized_file: Path,
    *,
    method: str = "Percentile",
    algorithms: Sequence[str] = (),
    per_channel: bool,
) -> None:
    """`ModelQuantizer` of AMD Quark with uint8 activations and int8 weights in float scales.

    Args:
        model_file: The float network.
        photos: What to calibrate on.
        quantized_file: What is written.
        method: "Percentile" (its default), "MinMax", "Entropy" or "LayerwisePercentile".
        algorithms: Of "BiasCorrection", "CLE", "AdaRound" and "AdaQuant", with their own defaults.
        per_channel: Whether weights have a scale per output channel.
    """
    from quark.onnx import ModelQuantizer, QConfig, QLayerConfig
    from quark.onnx.quantization.config import algorithm
    from quark.onnx.quantization.config.spec import CalibMethod, Int8Spec, QuantGranularity, UInt8Spec

    granularity = QuantGranularity.Channel if per_channel else QuantGranularity.Tensor
    config = QConfig(
        global_config=QLayerConfig(
            activation=UInt8Spec(calibration_method=CalibMethod[method]),
            weight=Int8Spec(quant_granularity=granularity),
        ),
        algo_config=[getattr(algorithm, f"{name}Config")() for name in algorithms],
    )
    reader = PhotoReader(input_name(model_file), photos)
    ModelQuantizer(config).quantize_model(str(model_file), str(quantized_file), reader)


QUANTIZERS: Mapping[str, Callable[..., None]] = {
    "onnxruntime": quantize_with_onnxruntime,
    "nncf": quantize_with_nncf,
    "aimet": quantize_with_aimet,
    "quark": quantize_with_quark,
}


def read_proto(model_file: Path) -> onnx.ModelProto:
    """A network in one file, as the tools take it."""
    proto = onnx.ModelProto()
    proto.ParseFromString(model_file.read_bytes())
    return proto


def input_name(model_file: Path) -> str:
    """The name of a network's only input."""
    graph = read_proto(model_file).graph
    (name,) = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    return str(name)


if __name__ == "__main__":
    # The tools must not look for a GPU.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    tool, model, calibration, output, options = sys.argv[1:]
    QUANTIZERS[tool](Path(model), np.load(calibration), Path(output), **json.loads(options))
