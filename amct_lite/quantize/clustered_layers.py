"""Which layers a simplified config wants NUQ for."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from amct_lite.files.mapping_file import FlaggedOperator, read_mapping_file
from amct_lite.files.simplified_config import SimplifiedConfig
from amct_lite.graph.model import Model
from amct_lite.quantize.compression_candidates import find_candidates

__all__ = ["layers_to_cluster"]

_logger = logging.getLogger(__name__)

_AUTO_NUQ = {"wts_algo": "nuq_quantize"}


def layers_to_cluster(definition: SimplifiedConfig, model: Model, soc: str) -> dict[str, Mapping[str, Any]]:
    """The layers that `nuq_config` or `enable_auto_nuq` ask NUQ for, with the keys of their `weight_quant_params`.

    Args:
        definition: The simplified config.
        model: The float network.
        soc: The chip whose bottlenecks they are where no mapping file says which.

    Raises:
        AmctError: The mapping file cannot be read, or nothing is known of the chip.
    """
    wanted: dict[str, Mapping[str, Any]] = {}
    if definition.auto_nuq:
        # What override_layer_configs says of a layer is left alone, as in AMCT.
        names = find_candidates(model, soc).names
        wanted.update((name, _AUTO_NUQ) for name in names if name not in definition.by_layer)
    request = definition.nuq
    if request is not None:
        if request.mapping_file is None:
            flagged: Sequence[str] = find_candidates(model, soc).names
        else:
            flagged = _layers_of(read_mapping_file(request.mapping_file), model)
        own = {name for name, block in definition.by_layer.items() if block.weights is not None}
        wanted.update((name, request.weights) for name in flagged if name not in own)
    return wanted


def _layers_of(operators: Sequence[FlaggedOperator], model: Model) -> list[str]:
    """The layers that flagged operators were made of; an operator of another network is told of."""
    layers = {layer.name for layer in model.layers if layer.weight is not None}
    nodes = {node.name for node in model.ir.graph}
    found: list[str] = []
    for operator in operators:
        of_this = [name for name in operator.layers if name in layers]
        found += of_this
        if not of_this and nodes.isdisjoint(operator.layers):
            _logger.warning(
                "Op '%s' in the given mapping_file does not exist in the original graph: none of %s is in %s.",
                operator.name,
                ", ".join(operator.layers),
                model.path,
            )
    return found
