"""`auto_decomposition`: split the convolutions of a network where two cheaper ones do nearly the same."""

import logging
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from amct_lite.caffe.model import CaffeModel
from amct_lite.errors import ParameterError
from amct_lite.export.caffe_pair import write_pair
from amct_lite.graph.model import Model
from amct_lite.graph.opening import is_caffe, open_model
from amct_lite.graph.saving import save_ir
from amct_lite.tensor_decompose.caffe_form import decomposed_pair
from amct_lite.tensor_decompose.onnx_form import decomposed_graph
from amct_lite.tensor_decompose.plan import SplitConvolution, plan_decomposition

__all__ = ["Decomposed", "auto_decomposition"]

_logger = logging.getLogger(__name__)

StrPath = str | PathLike[str]


@dataclass(frozen=True)
class Decomposed:
    """What became of one convolution.

    Attributes:
        layer: Its name.
        names: The names of the two in its place.
        rank: Channels between them.
        full_rank: The rank at which they would be exact.
        kept_energy: Share of the filter's energy that is kept.
        weights: Its weights.
        weights_now: Weights of the two.
        products_share: Multiply-adds of the two / of the one.
    """

    layer: str
    names: tuple[str, str]
    rank: int
    full_rank: int
    kept_energy: float
    weights: int
    weights_now: int
    products_share: float


def auto_decomposition(
    model_file: StrPath,
    weights_file: StrPath | None = None,
    new_model_file: StrPath | None = None,
    new_weights_file: StrPath | None = None,
    *,
    kept_energy: float = 0.97,
) -> tuple[Decomposed, ...]:
    """Write a network in which a k x k convolution is a k x 1 and a 1 x k convolution, where that saves work.

    A convolution takes part that is 2-D, of one group, of more than one row and column, and whose weight no other layer
    uses. Its rank is the least one that keeps `kept_energy` of its filter's energy; where so many channels would not
    save multiply-adds, it stays. Accuracy falls as energy is given up; AMCT trains such a network further.

    Args:
        model_file: The float network: an ONNX file, or a prototxt.
        weights_file: The caffemodel of a prototxt. As AMCT has it, an ONNX network's call is
            `auto_decomposition(model_file, new_model_file)`.
        new_model_file: Where to write the network.
        new_weights_file: Where to write the weights of a Caffe network.
        kept_energy: Share of the sum of a filter's squared singular values, in (0, 1].

    Returns:
        What became of each convolution that was split, in the network's order.

    Raises:
        AmctError: A parameter is wrong, or a file cannot be read or written.

    Example:
        >>> import pathlib, tempfile
        >>> from amct_lite.samples.digits.data import MODEL_FILE
        >>> new = pathlib.Path(tempfile.mkdtemp()) / "digits.onnx"
        >>> [split.names for split in auto_decomposition(MODEL_FILE, new, kept_energy=0.9)]
        [('conv2_0', 'conv2_1'), ('conv3_0', 'conv3_1')]
    """
    if isinstance(kept_energy, bool) or not isinstance(kept_energy, int | float) or not 0 < kept_energy <= 1:
        raise ParameterError(
            "The 'kept_energy' parameter of auto_decomposition must be a number in the range (0, 1]."
            f" Got {kept_energy!r} instead."
        )
    if not is_caffe(model_file, weights_file) and new_model_file is None:
        weights_file, new_model_file = None, weights_file
    model = open_model(model_file, weights_file, fold_batch_norm=False)
    if new_model_file is None or isinstance(model, CaffeModel) != (new_weights_file is not None):
        raise ParameterError(
            "auto_decomposition writes an ONNX network to new_model_file, and a Caffe network to new_model_file and"
            f" new_weights_file. Got {new_model_file!r} and {new_weights_file!r} instead."
        )
    splits = tuple(_logged(model, kept_energy))
    if isinstance(model, CaffeModel):
        assert new_weights_file is not None
        write_pair(*decomposed_pair(model.network, splits), new_model_file, new_weights_file)
    else:
        save_ir(decomposed_graph(model, splits), Path(new_model_file))
    _logger.info("auto_decomposition complete.")
    return tuple(map(_told, splits))


def _logged(model: Model, kept_energy: float) -> "list[SplitConvolution]":
    splits = []
    for split in plan_decomposition(model, kept_energy):
        _logger.info("Decomposition %s ->%s", split.layer.name, list(split.names))
        splits.append(split)
    return splits


def _told(split: SplitConvolution) -> Decomposed:
    return Decomposed(
        layer=split.layer.name,
        names=split.names,
        rank=split.factors.rank,
        full_rank=split.factors.full_rank,
        kept_energy=split.factors.kept_energy,
        weights=split.layer.num_weights,
        weights_now=split.num_weights,
        products_share=split.products_share,
    )
