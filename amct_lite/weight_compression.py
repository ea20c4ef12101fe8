"""`candidates`: which layers a chip would run faster with compressed weights, without a compiler."""

from os import PathLike

from amct_lite.graph.opening import open_model
from amct_lite.quantize.compression_candidates import Candidate, Candidates, find_candidates

__all__ = ["Candidate", "Candidates", "candidates"]

StrPath = str | PathLike[str]


def candidates(model: StrPath, weights_file: StrPath | None = None, soc: str = "Ascend310") -> Candidates:
    """Find the layers whose weights are a bottleneck: those that NUQ is for.

    The rule is that of Ascend's compiler, which AMCT asks by way of a compiled network and its `mapping_file`:
    docs/candidates.md.

    Args:
        model: The float network: an ONNX file, or a prototxt. Sizes of images must be fixed; a batch size may be open.
        weights_file: The caffemodel of a prototxt; None for ONNX.
        soc: Ascend310, Ascend310P, Ascend310B, Ascend910, Ascend910A or Ascend910B, also with the digits that ATC's
            names end in.

    Returns:
        Every layer with weights: whether it profits, and why or why not; `print` it, or take `names` or `flags`.

    Raises:
        AmctError: The network cannot be loaded, or nothing is known of the chip.

    Example:
        >>> from amct_lite.samples.digits.data import MODEL_FILE
        >>> candidates(MODEL_FILE).names
        ()
    """
    return find_candidates(open_model(model, weights_file), soc)
