"""AMCT's verbs that quantize with factors found elsewhere, in a record or a QDQ model: no calibration, no config."""

import logging
from os import PathLike
from pathlib import Path

from amct_lite.call_forms import with_onnx_form
from amct_lite.errors import ParameterError
from amct_lite.export.save import Saved, fullest_save_type, save_quantized
from amct_lite.files.record import read_record, write_record
from amct_lite.files.save_path import folder_and_prefix
from amct_lite.files.target import load_target
from amct_lite.graph.opening import is_caffe
from amct_lite.quantize.qdq_records import open_qdq_model
from amct_lite.quantize.record_advice import advise_on_records
from amct_lite.quantize.recorded_graph import open_recorded_model, recorded_graph

__all__ = ["convert_model", "convert_qat_model"]

StrPath = str | PathLike[str]

_logger = logging.getLogger(__name__)

_BOTH_FORMS = (
    "For a Caffe network call convert_model(model_file, weights_file, scale_offset_record_file, save_path), for an ONNX"
    " model convert_model(model_file, record_file, save_path)."
)


def _convert_onnx_model(
    model_file: StrPath, record_file: StrPath, save_path: StrPath, *, target: str = "ascend"
) -> Saved:
    if is_caffe(model_file):
        raise ParameterError(
            f"convert_model was called as for ONNX, but {model_file} is a Caffe network.", remedy=_BOTH_FORMS
        )
    return _convert(model_file, None, record_file, save_path, target)


@with_onnx_form(_convert_onnx_model, lambda _caffe, _onnx: False)
def convert_model(
    model_file: StrPath,
    weights_file: StrPath,
    scale_offset_record_file: StrPath,
    save_path: StrPath,
    *,
    target: str = "ascend",
) -> Saved:
    """Quantize a float model with the factors of a record, written by AMCT, by `calibrate` or by hand.

    In amct_onnx's form without `weights_file`: `convert_model(model_file, record_file, save_path)`.

    Args:
        model_file: The float network: a prototxt, or an ONNX file.
        weights_file: The caffemodel of a prototxt.
        scale_offset_record_file: The record; amct_onnx calls it record_file.
        save_path: Folder and file prefix, "out/resnet"; without a prefix when it ends in "/".
        target: A built-in target, or the path of a target's JSON file.

    Returns:
        The files written (fake-quant and deploy model, quant.json and the summary), and the summary.

    Raises:
        AmctError: A file cannot be read, the model is quantized already, or the record does not fit it.

    Example:
        >>> convert_model("net.onnx", "record.txt", "out/net")  # doctest: +SKIP
        >>> convert_model("net.prototxt", "net.caffemodel", "record.txt", "out/net")  # doctest: +SKIP
    """
    if not is_caffe(model_file, weights_file):
        raise ParameterError(
            f"convert_model was called as for Caffe, but {model_file} is no prototxt.", remedy=_BOTH_FORMS
        )
    return _convert(model_file, weights_file, scale_offset_record_file, save_path, target)


def convert_qat_model(
    model_file: StrPath, save_path: StrPath, record_file: StrPath | None = None, *, target: str = "ascend"
) -> Saved:
    """Quantize with the factors that a QDQ model has: from quantization-aware training, or another tool.

    QuantizeLinear and DequantizeLinear in front of Conv, ConvTranspose, Gemm and MatMul give the factors: inputs with
    one scale, in int8 or uint8; weights symmetric, with one or one per output channel, as int8 or as float behind both
    operators. All such pairs are taken out, and a layer without them stays float.

    Args:
        model_file: An ONNX file.
        save_path: Folder and file prefix, "out/resnet"; without a prefix when it ends in "/".
        record_file: Where to write the factors as a record; None for nowhere.
        target: A built-in target, or the path of a target's JSON file.

    Returns:
        The files written (fake-quant and deploy model, quant.json and the summary), and the summary.

    Raises:
        AmctError: The file cannot be read, a pair has no partner or other factors than it, or a grid is of a kind that
            a record cannot express.

    Example:
        >>> convert_qat_model("qat.onnx", "out/net", "record.txt")  # doctest: +SKIP
    """
    folder, prefix = folder_and_prefix(save_path, "convert_qat_model")
    if is_caffe(model_file):
        raise ParameterError(
            f"The 'model_file' parameter of convert_qat_model must be an ONNX file. Got {str(model_file)!r} instead.",
            remedy="A Caffe network and its record go to convert_model.",
        )
    device = load_target(target)
    model, records = open_qdq_model(Path(model_file), device)
    planned, quantized = recorded_graph(model, records, device)
    advise_on_records(model, quantized, device)
    saved = save_quantized(planned, quantized, "Both", folder, prefix)
    if record_file is not None:
        write_record(records, Path(record_file))
    return saved


def _convert(
    model_file: StrPath, weights_file: StrPath | None, record_file: StrPath, save_path: StrPath, target: str
) -> Saved:
    folder, prefix = folder_and_prefix(save_path, "convert_model")
    device = load_target(target)
    records = read_record(Path(record_file))
    model = open_recorded_model(Path(model_file), None if weights_file is None else Path(weights_file), records)
    planned, quantized = recorded_graph(model, records, device)
    advise_on_records(model, quantized, device)
    save_type = fullest_save_type(planned, quantized)
    if save_type != "Both":
        _logger.warning("No deploy model is written: AMCT's deploy pair has no layer that clusters an activation.")
    return save_quantized(planned, quantized, save_type, folder, prefix)
