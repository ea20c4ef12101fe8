"""AMCT's verbs that quantize with factors found elsewhere, in a record or a QDQ model: no calibration, no config."""

from os import PathLike
from pathlib import Path

from amct_lite.errors import ParameterError
from amct_lite.export.save import Saved, fullest_save_type, save_quantized
from amct_lite.files.record import read_record, write_record
from amct_lite.files.save_path import folder_and_prefix
from amct_lite.files.target import load_target
from amct_lite.graph.opening import is_caffe
from amct_lite.quantize.qdq_records import open_qdq_model
from amct_lite.quantize.recorded_graph import open_recorded_model, recorded_graph

__all__ = ["convert_model", "convert_qat_model"]

StrPath = str | PathLike[str]

_CAFFE_FORM = ("weights_file", "scale_offset_record_file", "save_path")
_ONNX_FORM = ("record_file", "save_path")


def convert_model(
    model_file: StrPath,
    *files: StrPath,
    weights_file: StrPath | None = None,
    scale_offset_record_file: StrPath | None = None,
    record_file: StrPath | None = None,
    save_path: StrPath | None = None,
    target: str = "ascend",
) -> Saved:
    """Quantize a float model with the factors of a record, written by AMCT, by `calibrate` or by hand.

    It takes `(model_file, weights_file, scale_offset_record_file, save_path)` for a Caffe network and
    `(model_file, record_file, save_path)` for an ONNX model, in this order or by name.

    Args:
        model_file: The float network: a prototxt, or an ONNX file.
        *files: What follows in that order.
        weights_file: The caffemodel of a prototxt.
        scale_offset_record_file: The record, for a Caffe network.
        record_file: The record, for an ONNX model.
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
    named = {
        "weights_file": weights_file,
        "scale_offset_record_file": scale_offset_record_file,
        "record_file": record_file,
        "save_path": save_path,
    }
    caffe = is_caffe(model_file, files[0] if files else weights_file)
    given = _by_name(model_file, files, named, _CAFFE_FORM if caffe else _ONNX_FORM)
    folder, prefix = folder_and_prefix(given["save_path"], "convert_model")
    device = load_target(target)
    records = read_record(Path(given["scale_offset_record_file" if caffe else "record_file"]))
    weights = Path(given["weights_file"]) if caffe else None
    model = open_recorded_model(Path(model_file), weights, records)
    planned, quantized = recorded_graph(model, records, device)
    return save_quantized(planned, quantized, fullest_save_type(planned, quantized), folder, prefix)


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
    saved = save_quantized(planned, quantized, "Both", folder, prefix)
    if record_file is not None:
        write_record(records, Path(record_file))
    return saved


def _by_name(
    model_file: StrPath, files: tuple[StrPath, ...], named: dict[str, StrPath | None], form: tuple[str, ...]
) -> dict[str, StrPath]:
    """The arguments of one of the two forms.

    Raises:
        ParameterError: They are those of neither, or of the other one.
    """
    given = dict(zip(form, files, strict=False))
    by_keyword = {name: value for name, value in named.items() if value is not None}
    missing = [name for name in form if name not in given and name not in by_keyword]
    if len(files) > len(form):
        mistake = f"{len(files) + 1} files were given in a row"
    elif set(given) & set(by_keyword):
        mistake = f"{min(set(given) & set(by_keyword))} was given twice"
    elif set(by_keyword) - set(form):
        mistake = f"{min(set(by_keyword) - set(form))} does not belong to it"
    elif missing:
        mistake = f"{' and '.join(missing)} is missing"
    else:
        return {**given, **by_keyword}
    kind = "a Caffe network" if form is _CAFFE_FORM else "an ONNX model"
    raise ParameterError(
        f"{model_file} is {kind} by its name, for which convert_model takes (model_file, {', '.join(form)}):"
        f" {mistake}.",
        remedy=f"Caffe: (model_file, {', '.join(_CAFFE_FORM)}); ONNX: (model_file, {', '.join(_ONNX_FORM)}).",
    )
