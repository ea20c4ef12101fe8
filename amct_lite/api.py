"""The AMCT verbs, each a few lines over the rooms."""

import logging
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from amct_lite.calibration.modified_model import write_calibration_model
from amct_lite.errors import ParameterError
from amct_lite.export.save import Saved, save_quantized
from amct_lite.files.config_file import write_config
from amct_lite.files.range_file import RangeChoice
from amct_lite.files.record import range_choices, write_record
from amct_lite.files.save_path import folder_and_prefix
from amct_lite.files.simplified_config import read_simplified_config
from amct_lite.files.target import load_target
from amct_lite.graph.model import save_with_unique_names
from amct_lite.graph.opening import is_caffe, open_model
from amct_lite.quantize.calibration_task import calibration_task
from amct_lite.quantize.default_config import default_config
from amct_lite.quantize.defined_config import defined_config
from amct_lite.quantize.planned_graph import PlannedGraph, open_graph
from amct_lite.quantize.record_advice import advise_on_records
from amct_lite.refine.calibration import find_records

__all__ = ["calibrate", "create_quant_config", "explain_ranges", "init", "quantize_model", "save_model"]

_logger = logging.getLogger(__name__)

StrPath = str | PathLike[str]


def create_quant_config(
    config_file: StrPath,
    model_file: StrPath,
    weights_file: StrPath | None = None,
    skip_layers: Sequence[str] | None = None,
    batch_num: int = 1,
    activation_offset: bool = True,
    config_defination: StrPath | None = None,
    *,
    updated_model: StrPath | None = None,
    target: str = "ascend",
    soc: str = "Ascend310",
) -> None:
    """Write a JSON config in which every layer that the target can quantize is quantized uniformly.

    Or, with `config_defination`, as AMCT's simplified config says: docs/simplified_config.md.

    As in amct_onnx weights_file may be left out: create_quant_config(config_file, model_file, skip_layers, ...).

    For the `ascend` targets with AMCT's defaults; for ONNX Runtime with ranges of the least squared error and weights
    that `calibrate` rounds together on samples, `"rounding": "auto"`.

    Args:
        config_file: Where to write; an existing file is overwritten.
        model_file: The float network: an ONNX file, or a prototxt.
        weights_file: The caffemodel of a prototxt; None for ONNX, which holds its weights itself.
        skip_layers: Names of layers to leave float.
        batch_num: Batches that calibration will read, at least 1; 16 or 32 images in all are usual.
        activation_offset: Whether activation grids have an offset.
        config_defination: AMCT's simplified config, which says instead of `skip_layers`, `batch_num` and
            `activation_offset` what they would.
        updated_model: Where to save a copy of an ONNX network whose operators all have names of their own, those that
            the config uses; None for no copy.
        target: A built-in target, or the path of a target's JSON file.
        soc: The chip whose bottlenecks get NUQ where the simplified config asks for it without a mapping file: see
            `candidates`.

    Raises:
        AmctError: A parameter is wrong, the model cannot be loaded, or nothing can be quantized.
    """
    if isinstance(batch_num, bool) or not isinstance(batch_num, int) or batch_num < 1:
        raise ParameterError(
            f"The 'batch_num' parameter of create_quant_config must be an int > 0. Got {batch_num!r} instead."
        )
    if not isinstance(activation_offset, bool):
        raise ParameterError(
            "The 'activation_offset' parameter of create_quant_config must be a bool."
            f" Got {activation_offset!r} instead."
        )
    if isinstance(skip_layers, str):
        raise ParameterError(
            f"The 'skip_layers' parameter of create_quant_config must be a list of str. Got {skip_layers!r} instead."
        )
    if updated_model is not None and is_caffe(model_file, weights_file):
        raise ParameterError(
            "The 'updated_model' parameter of create_quant_config is for ONNX networks.",
            remedy="Leave it out: the layers of a Caffe network have names of their own.",
        )
    where = load_target(target, Path(config_file).parent)
    if config_defination is not None:
        if skip_layers:
            _logger.warning("skip_layers is ignored, as config_defination is given: name the layers there.")
        definition = read_simplified_config(Path(config_defination))
        config = defined_config(definition, model_file, weights_file, where, target_name=target, soc=soc)
    else:
        config = default_config(
            open_model(model_file, weights_file).layers,
            where,
            skip_layers=skip_layers or (),
            batch_num=batch_num,
            activation_offset=activation_offset,
            target_name=target,
        )
    if updated_model is not None:
        save_with_unique_names(model_file, updated_model)
    if Path(config_file).exists():
        _logger.info("The file already exists at %s, and it will be overwritten by AMCT.", config_file)
    write_config(config, Path(config_file))
    _logger.info("Generate config file:%s success!", config_file)


def init(
    config_file: StrPath,
    model_file: StrPath,
    weights_file: StrPath | None = None,
    scale_offset_record_file: StrPath | None = None,
) -> PlannedGraph:
    """Parse a model, hold the config against it, and plan every layer.

    Args:
        config_file: The config, as written or edited by hand.
        model_file: The float network: an ONNX file, or a prototxt.
        weights_file: The caffemodel of a prototxt; None for ONNX.
        scale_offset_record_file: Where calibration writes the record and `save_model` reads it.

    Returns:
        The planned graph; `print` it to see what can be done to each layer and why not.

    Raises:
        AmctError: A file cannot be read, or the config does not fit the model or the target.
    """
    return open_graph(config_file, model_file, weights_file, scale_offset_record_file)


def calibrate(
    graph: PlannedGraph,
    batches: Iterable[Any] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    sess_options: Any = None,
    n_jobs: int | None = None,
    backend: str | None = None,
    statistics_file: StrPath | None = None,
) -> None:
    """Run the config's `batch_num` batches through the float model and write the record.

    One streaming sweep: memory does not depend on the number of batches, nor the result on how they are cut or who
    works on them. Where the config asks for something to be chosen on samples (for ONNX Runtime the rounding of
    weights by default), the first 256 are kept and run through the network again, layer by layer.

    Args:
        graph: From `init`, with a record file.
        batches: Arrays, or dicts from input name to array, preprocessed as the model expects. None where the config
            needs no data: inputs stay float and codebooks are not refined; or where a statistics file has been
            written: weights with `"rounding": "auto"` are then rounded each by itself.
        progress: Called with (steps done, steps in all): a step is a batch, then a layer that is refined.
        sess_options: onnxruntime.SessionOptions, for example with a custom-operator library.
        n_jobs: Shards of batches observed at once, -1 for as many as there are processors or workers. None keeps to
            this process, which counts one batch while the next one runs, or is -1 where a backend is named.
        backend: Where shards run, through joblib: "loky" (processes), "threading", "dask" (with a distributed.Client)
            or "ray".
        statistics_file: An .npz file that keeps what the sweep saw. Where it exists it is used instead of a sweep, and
            `batches`, if given, are only compared with those it was made from: range algorithms and everything else
            that does not change what is observed can be tried without another sweep.

    Raises:
        CalibrationError: Too few batches, a batch that does not fit, NaN or infinite activations, a worker that failed,
            or a statistics file made for another model, data or config; the message names the difference.
        OptionalDependencyError: The backend's package is not installed.
    """
    record_file = graph.require_record_file()
    records = find_records(
        graph,
        batches,
        progress=progress,
        sess_options=sess_options,
        n_jobs=n_jobs,
        backend=backend,
        statistics_file=None if statistics_file is None else Path(statistics_file),
    )
    write_record(records, record_file)


def explain_ranges(graph: PlannedGraph) -> dict[str, RangeChoice]:
    """Why `act_algo: "auto"` took the ranges that it took: each candidate's range and error, the best first.

    Args:
        graph: From `init`, calibrated.

    Returns:
        Layer name -> choice, which prints as text; layers with another act_algo have none. Empty where the record was
        edited since.

    Raises:
        AmctError: There is no fitting record.
    """
    return range_choices(graph.read_records())


def quantize_model(
    graph: PlannedGraph, modified_model_file: StrPath, modified_weights_file: StrPath | None = None
) -> None:
    """Write a calibration model, for calibration in the user's own loop.

    Run it through `amct_lite.InferenceSession`, through `onnxruntime.InferenceSession(file, amct_lite.AMCT_SO)`, or a
    Caffe pair through `amct_lite.pycaffe.Net`: after `batch_num` runs the record is written.

    As in amct_onnx also: quantize_model(config_file, model_file, modified_onnx_file, record_file).

    Args:
        graph: From `init`, with a record file.
        modified_model_file: Where to write the calibration model.
        modified_weights_file: Where to write its weights, for a Caffe pair; None for ONNX.
    """
    _require_graph(graph, "quantize_model(graph, modified_model_file, modified_weights_file)")
    task = calibration_task(graph, record_file=graph.require_record_file())
    weights = None if modified_weights_file is None else Path(modified_weights_file)
    write_calibration_model(graph.model, task, Path(modified_model_file), weights)


def save_model(graph: PlannedGraph, save_type: str, save_path: StrPath, *, storage: str | None = None) -> Saved:
    """Write the quantized models and the summary.

    As in amct_onnx also: save_model(modified_onnx_file, record_file, save_path), which writes both models.

    Args:
        graph: From `init`, calibrated.
        save_type: "Fakequant" (runs anywhere, for accuracy tests), "Deploy" (for the target's device) or "Both".
        save_path: Folder and file prefix, "out/resnet"; without a prefix when it ends in "/".
        storage: How the deploy model for ONNX Runtime stores weights: "packed" (indices of a few bits), "int8" or
            "dense" (float32); None for codebooks packed and everything else as int8. All decode to the same numbers.

    Returns:
        The files written, and the summary.

    Raises:
        AmctError: There is no fitting record, or a file cannot be written.
    """
    _require_graph(graph, "save_model(graph, save_type, save_path)")
    folder, prefix = folder_and_prefix(save_path, "save_model")
    records = graph.read_records()
    advise_on_records(graph.model, records, graph.target)
    return save_quantized(graph, records, save_type, folder, prefix, storage=storage)


def _require_graph(graph: object, call: str) -> None:
    if not isinstance(graph, PlannedGraph):
        raise ParameterError(
            f"The graph must be the one that init returned. Got {graph!r} instead.", remedy=f"Call {call}."
        )
