"""What an option's name means in a config: "float", "int8", "nuq32", and for activations a ratio."""

from amct_lite.files.config import ArqParams, LayerConfig, NuqParams
from amct_lite.quantize.layer_plan import LayerPlan

__all__ = ["layer_config", "weight_params"]

FLOAT, INT8, NUQ = "float", "int8", "nuq"


def weight_params(plan: LayerPlan, name: str) -> ArqParams | NuqParams:
    """The weight parameters that an option gives a layer; what the user set beside them stays."""
    asked = plan.weight_params
    if name.startswith(NUQ):
        own = asked if isinstance(asked, NuqParams) else NuqParams(wts_algo="nuq_quantize")
        steps = int(name.removeprefix(NUQ))
        return own.model_copy(update={"channel_wise": plan.channel_wise, "num_steps": steps})
    uniform = asked if isinstance(asked, ArqParams) else ArqParams()
    return uniform.model_copy(update={"channel_wise": plan.channel_wise})


def layer_config(block: LayerConfig, plan: LayerPlan, kind: str, name: str) -> LayerConfig:
    """A layer's block of the config under an option of one of its units."""
    if kind == "activation":
        return _with_ratio(block, None if name == INT8 else float(name))
    enabled = name != FLOAT
    return block.model_copy(update={"quant_enable": enabled, "weight_quant_params": weight_params(plan, name)})


def _with_ratio(block: LayerConfig, ratio: float | None) -> LayerConfig:
    asked = block.activation_quant_params.nuq
    assert asked is not None
    nuq = None if ratio is None else asked.model_copy(update={"target_compression_ratio": ratio})
    params = block.activation_quant_params.model_copy(update={"nuq": nuq})
    return block.model_copy(update={"activation_quant_params": params})
