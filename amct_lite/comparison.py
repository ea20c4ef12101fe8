"""`compare`: which layer of a quantized network loses what, and what to do about it."""

from collections.abc import Callable, Iterable
from os import PathLike
from typing import Any

from amct_lite.diagnosis.compare import compare_layers
from amct_lite.diagnosis.layer_table import LayerLoss, LayerTable
from amct_lite.errors import ParameterError
from amct_lite.export.fake_quant import fake_quant_model
from amct_lite.graph.model import load_model
from amct_lite.graph.opening import open_model
from amct_lite.quantize.apply_record import quantized_layers
from amct_lite.quantize.planned_graph import PlannedGraph

__all__ = ["LayerLoss", "LayerTable", "compare"]

StrPath = str | PathLike[str]


def compare(
    model: PlannedGraph | StrPath,
    batches: Iterable[Any],
    quantized: StrPath | None = None,
    *,
    weights_file: StrPath | None = None,
    progress: Callable[[int], None] | None = None,
    sess_options: Any = None,
) -> LayerTable:
    """Compare a quantized network with its float one, layer by layer.

    Each layer is measured twice: in the quantized network, with all that went wrong before it, and by itself, reading
    float tensors; there its noise is split into what its weights and what its input make.

    Args:
        model: A calibrated graph from `init`, or the float network's file (ONNX, or a prototxt).
        batches: Arrays, or dicts from input name to array, preprocessed as the model expects. All are read; memory
            depends on the size of one.
        quantized: An ONNX file that was made of the float network and that onnxruntime runs, by amct_lite or another
            tool. None compares with what the graph's record says.
        weights_file: The caffemodel of a prototxt.
        progress: Called with the number of batches done.
        sess_options: onnxruntime.SessionOptions, for example with a custom-operator library.

    Returns:
        A table of layers, the one that loses most by itself first; print it, or take `to_dict()` or `to_pandas()`.

    Raises:
        AmctError: The files do not belong together, there is no record, or a batch does not fit.

    Example:
        >>> from amct_lite.samples.digits.data import MODEL_FILE, load_split
        >>> images = load_split().calibration.images[:32]
        >>> import amct_lite, tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> amct_lite.create_quant_config(folder / "config.json", MODEL_FILE)
        >>> graph = amct_lite.init(folder / "config.json", MODEL_FILE, None, folder / "record.txt")
        >>> amct_lite.calibrate(graph, [images])
        >>> min(compare(graph, [images])["own_cosine"]) > 0.99
        True
    """
    planned = model if isinstance(model, PlannedGraph) else None
    network = model.model if isinstance(model, PlannedGraph) else open_model(model, weights_file)
    if quantized is not None:
        twin = load_model(quantized, fold_batch_norm=False).ir
    elif planned is not None:
        twin = fake_quant_model(network, quantized_layers(network, planned.read_records()))
    else:
        raise ParameterError(
            "The 'quantized' parameter of compare must be given where 'model' is a file.",
            remedy="Give the quantized file, or a calibrated graph from init as the model.",
        )
    plans = () if planned is None else planned.plans
    return compare_layers(network, twin, batches, plans, progress=progress, sess_options=sess_options)
