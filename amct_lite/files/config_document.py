"""Models of the config as the plain values of its JSON file: keys in AMCT's order, without those that it leaves out."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

__all__ = ["plain", "plain_fields"]


def plain(value: Any) -> Any:
    """A value of a config as JSON has it; the keys of models whose keys AMCT has in AMCT's order."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, BaseModel):
        return value
    names = list(type(value).model_fields)
    return plain_fields(value, sorted(names, key=_AMCT_ORDER.index) if set(names) <= set(_AMCT_ORDER) else names)


def plain_fields(model: BaseModel, names: Iterable[str]) -> dict[str, Any]:
    """Some of a model's fields, in this order, without those at the value at which they are left out."""
    values = {name: getattr(model, name) for name in names}
    return {name: plain(value) for name, value in values.items() if value != _LEFT_OUT_AT.get(name)}


# None leaves any key out. AMCT leaves the first four out at their defaults; the others are ours and off, so that
# AMCT's blocks keep AMCT's keys.
_LEFT_OUT_AT: dict[str, Any] = {
    "joint_quant": False,
    "weight_offset": False,
    "fakequant_precision_mode": "DEFAULT",
    "tensor_quantize": [],
    "cross_layer_equalization": False,
    "entropy_weight": 0.0,
    "output_aware": False,
    "refit": False,
    "scale_algo": "max",
    "rounding": "nearest",
    "bias_correction": False,
    "batch_norm_reestimation": False,
}

_AMCT_ORDER = (
    "layer_name",
    "input_index",
    "quant_enable",
    "dmq_balancer_param",
    "activation_quant_params",
    "weight_quant_params",
    "search_space",
    "num_bits",
    "max_percentile",
    "min_percentile",
    "search_range",
    "search_step",
    "num_of_bins",
    "averaging_constant",
    "act_algo",
    "wts_algo",
    "channel_wise",
    "num_steps",
    "num_of_iteration",
    "entropy_weight",
    "channels_per_table",
    "vector_size",
    "reserve_zero",
    "level_type",
    "refine",
    "refit",
    "scale_algo",
    "rounding",
    "bias_correction",
    "batch_norm_reestimation",
    "asymmetric",
    "nuq",
    "target_compression_ratio",
    "output_aware",
    "reserve_zero",
)
