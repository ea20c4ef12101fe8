"""ONNX Runtime's own format, the one that its mobile builds read: the optimized graph in a flatbuffer."""

from pathlib import Path

from amct_lite.errors import ExportError
from amct_lite.files.atomic import replacing

__all__ = ["write_mobile_model"]


def write_mobile_model(model: Path, path: Path) -> Path:
    """Write a model in ORT format, as `python -m onnxruntime.tools.convert_onnx_models_to_ort` does.

    Its graph is optimized up to integer kernels, but not for the processor that this runs on: the last level of
    optimization lays tensors out for it, and a phone has another one.

    Args:
        model: An ONNX file.
        path: Where to write, "net.ort": by this ending `onnxruntime.InferenceSession` knows the format.

    Returns:
        The path.

    Raises:
        ExportError: ONNX Runtime refuses the model.
        FileError: The file cannot be written.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.save_model_format", "ORT")
    with replacing(path) as temporary:
        options.optimized_model_filepath = str(temporary)
        try:
            onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception class for each of its status codes
            raise ExportError(
                f"onnxruntime {onnxruntime.__version__} cannot write {model} in ORT format: {error}.",
                remedy="Check that the model runs in a plain session.",
            ) from error
    return path
