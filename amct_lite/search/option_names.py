"""What an option's name means in a config: "float", "int8", "nuq32", "codebook4", "uniform4"; a ratio for inputs."""

import re

from amct_lite.codebook.specification import CodeForm, Refine
from amct_lite.files.config import ArqParams, CodebookParams, LayerConfig, NuqParams
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.types import Technique

__all__ = ["FLOAT", "INT8", "layer_config", "technique", "weight_params"]

FLOAT, INT8 = "float", "int8"
NUQ, CODEBOOK, UNIFORM = "nuq", "codebook", "uniform"


def technique(name: str) -> Technique | None:
    """What a target has to allow for an option; None for float."""
    kind, _ = _parsed(name)
    return {FLOAT: None, NUQ: Technique.NUQ, CODEBOOK: Technique.CODEBOOK}.get(kind, Technique.UNIFORM)


def weight_params(plan: LayerPlan, name: str) -> ArqParams | NuqParams | CodebookParams:
    """The weight parameters that an option gives a layer; what the user set beside them stays.

    Args:
        plan: The layer's plan under the user's config.
        name: Any name but "float".
    """
    asked, (kind, number) = plan.weight_params, _parsed(name)
    if kind == NUQ:
        own = asked if isinstance(asked, NuqParams) else NuqParams(wts_algo="nuq_quantize")
        return own.model_copy(update={"channel_wise": plan.channel_wise, "num_steps": number})
    if kind == CODEBOOK:
        return _codebook_params(asked, number, plan.layer.num_weights)
    uniform = asked if isinstance(asked, ArqParams) else ArqParams()
    if kind == UNIFORM:
        uniform = uniform.model_copy(update={"num_bits": number, "scale_algo": "mse", "rounding": "gptq"})
    if isinstance(asked, CodebookParams):
        return uniform
    return uniform.model_copy(update={"channel_wise": plan.channel_wise})


def layer_config(block: LayerConfig, plan: LayerPlan, kind: str, name: str) -> LayerConfig:
    """A layer's block of the config under an option of one of its units."""
    if kind == "activation":
        return _with_ratio(block, None if name == INT8 else float(name))
    if name == FLOAT:
        return block.model_copy(update={"quant_enable": False})
    return block.model_copy(update={"quant_enable": True, "weight_quant_params": weight_params(plan, name)})


def _codebook_params(asked: object, bits: int, num_weights: int) -> CodebookParams:
    """Codes of so many bits a weight in the form that `compress` gives them; of a code where the user set its size."""
    # "lnq" takes ten times as long as "gptq", for every width.
    own = CodebookParams(wts_algo="codebook_quantize", refine=Refine.GPTQ)
    own = asked if isinstance(asked, CodebookParams) else own
    form = CodeForm(bits, own.vector_size)
    if "vector_size" not in own.model_fields_set:
        form = CodeForm.to_refine(bits, num_weights, own.specification(quantized_input=False).refine)
    return own.model_copy(update={"num_bits": form.code_bits, "num_steps": None, "vector_size": form.vector_size})


def _with_ratio(block: LayerConfig, ratio: float | None) -> LayerConfig:
    asked = block.activation_quant_params.nuq
    assert asked is not None
    nuq = None if ratio is None else asked.model_copy(update={"target_compression_ratio": ratio})
    params = block.activation_quant_params.model_copy(update={"nuq": nuq})
    return block.model_copy(update={"activation_quant_params": params})


def _parsed(name: str) -> tuple[str, int]:
    """The kind and the number of an option; 0 for one without."""
    if name in (FLOAT, INT8):
        return name, 0
    found = re.fullmatch(r"([a-z]+)(\d+)", name)
    assert found is not None, name
    return found[1], int(found[2])
