"""One sentence for a layer that loses: what its figures say, and what to do about it."""

import math
from dataclasses import dataclass

from amct_lite.calibration.ranges import RANGE_ALGORITHMS
from amct_lite.files.config import FloatActivationParams
from amct_lite.quantize.layer_plan import LayerPlan

__all__ = ["LOSS_DB", "Treatment", "advise", "treatment_of"]

# Below it a layer's own noise is more than 1/316 of its signal's power: its cosine is below 0.9984.
LOSS_DB = 25.0
# A layer that is sound itself is still told where its loss comes from once a tenth of its output is noise.
_INHERITED_DB = 10.0
# 8 even bits over +-20 times the root mean square leave 52.9 - 20 log10(20) = 27 dB: about where loss begins.
_OUTLIER_CREST = 20.0
_OTHER_RANGES = ("mse", "percentile", "entropy", "ifmr", "minmax")


@dataclass(frozen=True)
class Treatment:
    """How a layer is quantized.

    Attributes:
        weight_bits: Bits of a weight's level, log2 of their number; None without quantized weights.
        channel_wise: Whether each output channel has a scale.
        act_algo: The range algorithm of its input; None where that stays float.
        with_offset: Whether the input's grid has an offset.
        nuq_input: Whether NUQ keeps only some of the input's levels.
    """

    weight_bits: float | None
    channel_wise: bool
    act_algo: str | None
    with_offset: bool
    nuq_input: bool


def treatment_of(plan: LayerPlan) -> Treatment | None:
    """How a plan treats its layer; None for one that stays float."""
    if plan.config is None:
        return None
    params, weights = plan.config.activation_quant_params, plan.weight_params
    levels = plan.codebook.num_levels if plan.codebook is not None else getattr(weights, "num_steps", None)
    bits = math.log2(levels) if levels is not None else getattr(weights, "num_bits", None)
    return Treatment(
        weight_bits=bits if plan.layer.weight is not None else None,
        channel_wise=plan.channel_wise,
        act_algo=None if isinstance(params, FloatActivationParams) else params.act_algo,
        with_offset=plan.with_offset,
        nuq_input=params.nuq is not None,
    )


def advise(
    *,
    own_db: float | None,
    whole_db: float,
    weight_share: float | None,
    crest: float,
    lowest_input: float,
    treatment: Treatment | None,
    culprit: str | None,
) -> str:
    """What to do about a layer, "" where it needs nothing.

    Args:
        own_db: SQNR of its output where it alone is quantized; None where that is not known.
        whole_db: SQNR of its output in the quantized network.
        weight_share: Part of its own noise that its weights make, in [0, 1]; None where not known.
        crest: Largest magnitude of its float input over the root of its mean square.
        lowest_input: Least value of its float input.
        treatment: How it is quantized; None where not known, or where it stays float.
        culprit: The layer before it that loses most itself; None where there is none.
    """
    if own_db is None or own_db >= LOSS_DB:
        if whole_db >= _INHERITED_DB or culprit is None:
            return ""
        own = "" if own_db is None or math.isinf(own_db) else f" ({own_db:.0f} dB)"
        return f"It loses little by itself{own}: its input is already off, so look at {culprit} first."
    if weight_share is not None and weight_share > 0.5:
        return f"{weight_share:.0%} of its noise comes from its weights: {_for_weights(treatment)}."
    share = "Its noise comes" if weight_share is None else f"{1 - weight_share:.0%} of its noise comes"
    return f"{share} from its input: {_for_input(treatment, crest, lowest_input)}."


def _for_weights(treatment: Treatment | None) -> str:
    if treatment is None or treatment.weight_bits is None:
        return "give them more levels, or keep the layer float"
    if treatment.weight_bits < 8:
        return f"{treatment.weight_bits:.3g} bits are too few here, give them 8 or keep them float"
    if not treatment.channel_wise:
        return "one scale for all channels is too coarse, set channel_wise where the target allows it"
    return "8 bits are too few here, keep the layer float"


def _for_input(treatment: Treatment | None, crest: float, lowest_input: float) -> str:
    if treatment is not None and treatment.nuq_input:
        return "NUQ keeps too few of its levels, raise target_compression_ratio or leave 'nuq' out"
    if crest >= _OUTLIER_CREST:
        named = f"it has outliers, the largest {crest:.0f} times its root mean square"
        used = treatment.act_algo if treatment is not None else None
        others = [name for name in _OTHER_RANGES if name in RANGE_ALGORITHMS and name != used][:2]
        return f"{named}, try act_algo {' or '.join(others)}, or keep the layer float"
    if treatment is not None and not treatment.with_offset and lowest_input >= 0:
        return "it is never negative, but its grid has no offset and so half of its levels are unused, set asymmetric"
    return "its grid is too coarse for it, keep the layer float"
