"""What an Ascend tool chain may not take of a record that amct_lite takes: as warnings, since its limits may move."""

import logging
from collections.abc import Iterator, Mapping

from amct_lite.files.record import LayerRecord
from amct_lite.files.target import Target
from amct_lite.graph.model import Model
from amct_lite.types import Layer, LayerKind

__all__ = ["advise_on_records"]

_logger = logging.getLogger(__name__)

_CLUSTER_LENGTHS = (16, 32)


def advise_on_records(model: Model, records: Mapping[str, LayerRecord], target: Target) -> None:
    """Warn of what AMCT itself would refuse, where the target is one of Ascend's.

    Args:
        model: The float model.
        records: Layer name -> factors.
        target: The device.
    """
    if target.deploy_form != "ascend":
        return
    for layer in model.layers:
        if layer.name in records:
            for advice in _advice(layer, records[layer.name], target):
                _logger.warning("Layer %r: %s", layer.name, advice)


def _advice(layer: Layer, record: LayerRecord, target: Target) -> Iterator[str]:
    if record.cluster and len(record.cluster) not in _CLUSTER_LENGTHS:
        yield (
            f"The length of cluster center is 16 or 32, but is {len(record.cluster)}: AMCT would not read this record,"
            " while the deploy model is int8 as any other. Set num_steps to 16 or 32 if the record is for AMCT."
        )
    if len(record.scale_w) > 1 and not target.allows_channel_wise(layer):
        yield (
            f"The channel_wise must be False for layer type {layer.op_type}: the record has {len(record.scale_w)}"
            " scale_w, and AMCT takes one."
        )
    if layer.kind is LayerKind.AVERAGE_POOL and record.offset_d != 0:
        yield (
            f"The offset {record.offset_d} of its input is left to the device's compiler: without weights there is no"
            " bias that could take it back. Quantize it symmetrically to be sure."
        )
