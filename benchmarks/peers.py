"""onnxruntime's own calibration and static quantization, called as its users call them, for rows to compare with."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.imagenet import open_session

__all__ = ["calibrate_with_onnxruntime", "quantize_with_onnxruntime"]


class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Batches as onnxruntime's calibrators take them."""

    def __init__(self, input_name: str, batches: Iterable[Any]) -> None:
        self._input_name = input_name
        self._batches: Iterator[Any] = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        """The next feed, None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {self._input_name: batch}


def calibrate_with_onnxruntime(
    model_file: Path, batches: Iterable[Any], method: str, folder: Path, *, num_threads: int = 0
) -> Any:
    """Run a calibrator over the inputs and outputs of every Conv.

    Args:
        model_file: The float network; its only input is named "x".
        batches: What to calibrate on.
        method: "MinMax", "Percentile" or "Entropy".
        folder: For the model with further outputs.
        num_threads: 0 leaves their number to onnxruntime.

    Returns:
        The ranges.
    """
    calibrator = create_calibrator(
        model_file, ["Conv"], str(folder / "augmented.onnx"), calibrate_method=CalibrationMethod[method]
    )
    if num_threads:
        # It offers no option for the number of threads.
        calibrator.infer_session = open_session(folder / "augmented.onnx", num_threads=num_threads)
    calibrator.collect_data(Reader("x", batches))
    return calibrator.compute_data()


def quantize_with_onnxruntime(model_file: Path, batches: Iterable[Any], folder: Path, *, input_name: str = "x") -> Path:
    """Quantize statically: QDQ, uint8 activations, int8 weights per channel, ranges by MinMax, preprocessed before.

    Args:
        model_file: The float network, of opset 13 or newer: below it, scales per channel make an invalid file.
        batches: What to calibrate on.
        folder: Where the model is written.
        input_name: Its only input.

    Returns:
        The quantized model's path.
    """
    prepared, quantized = folder / "prepared.onnx", folder / "quantize_static.onnx"
    quant_pre_process(model_file, prepared)
    quantize_static(
        prepared,
        quantized,
        Reader(input_name, batches),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return quantized
