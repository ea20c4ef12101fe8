"""What a `calibration_config` of AMCT's simplified config says of a layer, in the words of the JSON config.

So one model checks the ranges of both files, and the one becomes the other by merging keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "CalibrationBlock",
    "activation_keys",
    "calibration_block",
    "given_fields",
    "ignored_fields",
    "nuq_keys",
]

_NUM_BITS = {1: 8, 2: 16}
"""CalibrationDataType -> width of a level."""


@dataclass(frozen=True)
class CalibrationBlock:
    """What one calibration_config says of a layer.

    Attributes:
        weights: Keys of `weight_quant_params`, `wts_algo` among them; None where it names no algorithm.
        activation: Keys of `activation_quant_params`, `act_algo` among them; None where it names none.
        migration_strength: Of dmq_balancer; None without.
        weights_only: Whether inputs stay float.
    """

    weights: Mapping[str, Any] | None = None
    activation: Mapping[str, Any] | None = None
    migration_strength: float | None = None
    weights_only: bool = False

    def document(self) -> dict[str, Any]:
        """The keys that it sets, in the form of a layer's block in the JSON config."""
        keys = {
            "weight_quant_params": self.weights,
            "activation_quant_params": {"act_algo": "none"} if self.weights_only else self.activation,
            "dmq_balancer_param": self.migration_strength,
        }
        return {key: value for key, value in keys.items() if value is not None}


def calibration_block(message: Any) -> CalibrationBlock:
    """The block that a CalibrationConfig message is."""
    balancer = message.dmq_balancer if message.HasField("dmq_balancer") else None
    return CalibrationBlock(
        weights=_weight_keys(message),
        activation=activation_keys(message),
        migration_strength=None if balancer is None else _shortest(balancer.migration_strength),
        weights_only=message.weight_compress_only,
    )


def ignored_fields(message: Any) -> list[str]:
    """What a CalibrationConfig message sets and nothing here uses: how AMCT's AdaRound is to learn."""
    return [field.name for field, _ in message.ada_quantize.ListFields() if field.name != "channel_wise"]


def nuq_keys(message: Any) -> dict[str, Any]:
    """Keys of `weight_quant_params` that an NUQuantize message is."""
    return {"wts_algo": "nuq_quantize", **given_fields(message, "num_steps", "num_of_iteration")}


def _weight_keys(message: Any) -> dict[str, Any] | None:
    algorithm = message.WhichOneof("weight_algorithm")
    if algorithm is None:
        return None
    if algorithm == "nuq_quantize":
        return nuq_keys(message.nuq_quantize)
    keys: dict[str, Any] = {"wts_algo": "arq_quantize"}
    if algorithm == "ada_quantize":
        return {**keys, "rounding": "adaround", **given_fields(message.ada_quantize, "channel_wise")}
    bits = {"num_bits": message.arq_quantize.quant_bits} if message.arq_quantize.HasField("quant_bits") else {}
    return {**keys, **bits, **given_fields(message.arq_quantize, "channel_wise")}


def activation_keys(message: Any) -> dict[str, Any] | None:
    """Keys of `activation_quant_params` that the algorithm of a message is; None where it names none."""
    algorithm = message.WhichOneof("activation_algorithm")
    if algorithm is None:
        return None
    params = getattr(message, algorithm)
    keys = {"act_algo": algorithm.removesuffix("_quantize"), **given_fields(params, "asymmetric")}
    if params.HasField("dst_type"):
        keys["num_bits"] = _NUM_BITS[params.dst_type]
    if algorithm == "hfmg_quantize":
        return {**keys, **given_fields(params, "num_of_bins")}
    if params.HasField("search_range_start") or params.HasField("search_range_end"):
        keys["search_range"] = [_shortest(params.search_range_start), _shortest(params.search_range_end)]
    return {**keys, **given_fields(params, "search_step", "max_percentile", "min_percentile")}


def given_fields(message: Any, *names: str) -> dict[str, Any]:
    """Those of some fields that the file sets."""
    values = {name: getattr(message, name) for name in names if message.HasField(name)}
    return {name: _shortest(value) if isinstance(value, float) else value for name, value in values.items()}


def _shortest(value: float) -> float:
    """The shortest decimal that is the same float32: the file's 0.7 is stored as 0.699999988.

    Example:
        >>> _shortest(float(np.float32(0.7)))
        0.7
    """
    return float(str(np.float32(value)))
