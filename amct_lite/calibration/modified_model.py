"""The calibration model: the float network with nodes that observe, which do nothing in a session that knows none.

What its session must do with them stands in the model's metadata, so that calibration can go on in another process.
"""

import codecs
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter

from amct_lite.calibration.observer_nodes import add_observer_nodes
from amct_lite.errors import ModelError, ParameterError
from amct_lite.files.atomic import write_bytes_atomically
from amct_lite.files.reading import mapped_bytes, read_bytes
from amct_lite.graph.model import Model
from amct_lite.graph.saving import save_ir
from amct_lite.graph.wire_format import metadata_of

__all__ = ["CalibrationTask", "read_caffe_task", "read_task", "write_calibration_model"]

_METADATA_KEY = "amct_lite.calibration"
_COMMENT = f"# {_METADATA_KEY}: "


@dataclass(frozen=True)
class CalibrationTask:
    """What the session of a calibration model has to do.

    Attributes:
        tensors: Observed tensor -> axis of its channels.
        outputs: Outputs of the float model; the others are for the observers.
        batch_num: Batches to observe.
        model_digest: Digest of the float model.
        model_file: The float model.
        weights_file: Its weights; None for ONNX.
        config_file: The config.
        record_file: Where the record is written in the end; None where only statistics are wanted.
        statistics_file: Where the statistics are written in the end; None where only the record is wanted.
        samples_file: Where the first batches are kept, too; None where they are not wanted.
        by_channel: The tensors that are observed channel by channel too.
        inputs: Inputs of an ONNX network that operators in Python can take, so that they see whole batches.
    """

    tensors: dict[str, int]
    outputs: list[str]
    batch_num: int
    model_digest: str
    model_file: Path
    config_file: Path
    weights_file: Path | None = None
    record_file: Path | None = None
    statistics_file: Path | None = None
    samples_file: Path | None = None
    by_channel: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)


_PATHS = ("model_file", "weights_file", "config_file", "record_file", "statistics_file", "samples_file")


def write_calibration_model(model: Model, task: CalibrationTask, path: Path, weights_path: Path | None = None) -> None:
    """Write the calibration model; paths in its metadata are relative to its folder.

    An ONNX network gets nodes that observe its tensors; a Caffe pair is copied, with the task as a comment.

    Args:
        model: The float model.
        task: What the session has to do; its paths are resolved ones.
        path: Where to write.
        weights_path: Where to write the weights of a Caffe pair; None for ONNX.
    """
    _refuse_overwriting(model, path, weights_path)
    text = _task_text(task, path)
    if model.weights_path is not None:
        if weights_path is None:
            raise ParameterError(
                "The 'modified_weights_file' parameter of quantize_model must be given for a Caffe network."
            )
        write_bytes_atomically(weights_path, read_bytes(model.weights_path, "a caffemodel"))
        # As bytes: the network's own comments may be in any encoding.
        network = read_bytes(model.path, "a prototxt").removeprefix(codecs.BOM_UTF8)
        write_bytes_atomically(path, f"{_COMMENT}{text}\n".encode() + network)
        return
    clone = model.clone()
    add_observer_nodes(clone, task.tensors, task.inputs, str(path.resolve()))
    clone.metadata_props[_METADATA_KEY] = text
    save_ir(clone, path)


def _refuse_overwriting(model: Model, path: Path, weights_path: Path | None) -> None:
    targets = [target.resolve() for target in (path, weights_path) if target is not None]
    sources = [source.resolve() for source in (model.path, model.weights_path) if source is not None]
    if len(set(targets)) < len(targets) or set(targets) & set(sources):
        raise ParameterError(
            f"The calibration model cannot be written to {path}: that would overwrite the float model,"
            " or one of its own files.",
            remedy="Give modified files of their own.",
        )
    if path.suffix != model.path.suffix:
        raise ParameterError(
            f"The calibration model must end in {model.path.suffix!r} like the float model. Got {str(path)!r} instead."
        )


def _task_text(task: CalibrationTask, path: Path) -> str:
    document = asdict(task)
    # The real folder: through a link "..", as the system takes it, leads elsewhere.
    folder = path.resolve().parent
    for key in _PATHS:
        if document[key] is not None:
            document[key] = os.path.relpath(document[key], folder)
    return json.dumps(document, sort_keys=True)


def read_task(path: Path) -> CalibrationTask | None:
    """The task in an ONNX file's metadata, or None for a model that is no calibration model.

    Raises:
        ModelError: The metadata is damaged.
        FileError: The file cannot be read.
    """
    with mapped_bytes(path, "a model") as content:
        text = metadata_of(content).get(_METADATA_KEY)
    return None if text is None else _parse_task(text, path)


def read_caffe_task(path: Path) -> CalibrationTask | None:
    """The task in a prototxt's first line, or None for a network that is no calibration model.

    Raises:
        ModelError: The comment is damaged.
    """
    first = read_bytes(path, "a prototxt").partition(b"\n")[0]
    comment = _COMMENT.encode()
    return _parse_task(first.removeprefix(comment), path) if first.startswith(comment) else None


def _parse_task(text: str | bytes, path: Path) -> CalibrationTask:
    try:
        # Pydantic's ValidationError is a ValueError.
        task = TypeAdapter(CalibrationTask).validate_json(text)
    except ValueError as error:
        raise ModelError(
            f"The calibration model {path} has damaged metadata.",
            remedy="Write it again with quantize_model.",
        ) from error
    folder = path.resolve().parent
    found = {key: getattr(task, key) for key in _PATHS}
    return replace(task, **{key: (folder / value).resolve() for key, value in found.items() if value is not None})
