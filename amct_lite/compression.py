"""`compress`: from a float network to a small one in one step."""

from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from typing import Any

from amct_lite.graph.opening import open_model
from amct_lite.refine.compression import Compressed, compress_model

__all__ = ["Compressed", "compress"]

StrPath = str | PathLike[str]


def compress(
    model_file: StrPath,
    weights_file: StrPath | None = None,
    bits: float = 4,
    batches: Iterable[Any] | None = None,
    *,
    refine: str | None = None,
    activation_bits: int | None = None,
    skip_layers: Sequence[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
    sess_options: Any = None,
) -> Compressed:
    """Turn every layer's weights into a codebook, for ONNX Runtime and whatever else runs stock operators.

    Args:
        model_file: The float network: an ONNX file, or a prototxt.
        weights_file: The caffemodel of a prototxt; None for ONNX.
        bits: Bits of an index, 1 to 8. A fraction, such as 3.5, is an average over all weights, tables and scales
            included, that is spent where it does the most good; it needs `batches`.
        batches: Calibration data, arrays or dicts from input name to array, preprocessed as the model expects. The
            first 256 samples refine the codebooks. None: exact clustering of the weights alone, which at 4 bits and
            less costs much accuracy.
        refine: "none", "bias", "gptq" or "lnq"; by default the last, and "none" without data.
        activation_bits: 8 quantizes the inputs of all layers to uint8 as well, and levels to int8, so that integer
            kernels run; None leaves them float.
        skip_layers: Names of layers to leave float.
        progress: Called with (what is done, steps done, steps in all).
        sess_options: onnxruntime.SessionOptions, for example with a custom-operator library.

    Returns:
        The compressed network; its `save(out_dir)` writes it. The same call gives the same bytes.

    Raises:
        AmctError: A parameter is out of its range, the model cannot be read, or the data does not fit it.

    Example:
        >>> import tempfile
        >>> from amct_lite.samples.digits.data import MODEL_FILE
        >>> saved = compress(MODEL_FILE, bits=4).save(tempfile.mkdtemp())
        >>> saved.files["deploy_model"].stat().st_size < MODEL_FILE.stat().st_size / 4
        True
    """
    return compress_model(
        open_model(model_file, weights_file),
        bits,
        batches,
        refine=refine,
        activation_bits=activation_bits,
        skip_layers=skip_layers,
        progress=progress,
        sess_options=sess_options,
    )
