"""The plan: what will be done to each layer of a model, and why not where nothing will be done."""

from collections.abc import Sequence
from dataclasses import replace

from amct_lite.codebook.level_type import LevelType
from amct_lite.codebook.specification import CodebookSpec
from amct_lite.errors import ConfigError
from amct_lite.files.config import (
    ArqParams,
    CodebookParams,
    FloatActivationParams,
    FloatWeightParams,
    LayerConfig,
    NuqParams,
    QuantConfig,
)
from amct_lite.files.target import Target, targets_that_allow
from amct_lite.quantize.layer_names import no_such_layer
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.weight_rows import weight_layout
from amct_lite.types import Layer, LayerKind, Technique

__all__ = ["CODEBOOK_OVERHEAD_BYTES", "codebook_spec", "make_plan"]

# Names, shapes and operators that unpack one weight, as the ONNX file stores them.
CODEBOOK_OVERHEAD_BYTES = 1200


def make_plan(layers: Sequence[Layer], config: QuantConfig, target: Target) -> tuple[LayerPlan, ...]:
    """Hold a config against a model and a target.

    Args:
        layers: All layers of the model, in graph order.
        config: A valid config.
        target: The target that it names.

    Returns:
        One plan for each layer, in the same order.

    Raises:
        ConfigError: The config names a layer that does not exist, or asks for what the layer or the target does not
            allow, or nothing is enabled.
    """
    by_name = {layer.name: layer for layer in layers}
    for name in config.layers:
        if name not in by_name:
            raise ConfigError(
                no_such_layer(name, by_name),
                remedy="Correct the name in the config, or create the config again.",
            )
    plans = tuple(_plan_layer(layer, config, target) for layer in layers)
    _check_tied(plans)
    if all(plan.config is None for plan in plans):
        reasons = "; ".join(f"{plan.layer.name}: {_as_clause(plan.reason or '')}" for plan in plans[:3])
        raise ConfigError(
            f"No quant enable layer in quant config file ({reasons}).", remedy="Enable at least one layer."
        )
    return plans


def _plan_layer(layer: Layer, config: QuantConfig, target: Target) -> LayerPlan:
    wanted = config.layers.get(layer.name)
    refusal = target.refusal(layer, Technique.UNIFORM)
    if wanted is None or not wanted.quant_enable:
        why = "it is not in the config" if wanted is None else "quant_enable is false"
        return LayerPlan(layer, reason=refusal or why)
    if refusal is not None:
        raise ConfigError(
            f"layer {layer.name} does not support quant. {_as_sentence(refusal)}",
            layer=layer.name,
            remedy=_remedy(layer, Technique.UNIFORM, "delete its block from the config"),
        )
    _check_nuq(layer, wanted, target)
    _check_float_input(layer, wanted, target)
    _check_width(layer, wanted, target)
    _check_balancing(layer, wanted)
    params = wanted.weight_quant_params
    if layer.weight is None:
        if params is not None:
            raise ConfigError(
                f"{layer.op_type} has no weights, but the config has weight_quant_params.",
                layer=layer.name,
                remedy="Delete them.",
            )
        if isinstance(wanted.activation_quant_params, FloatActivationParams):
            return LayerPlan(layer, reason="its input stays float and it has no weights")
        return LayerPlan(layer, wanted, with_offset=_with_offset(layer, wanted, config, target))
    if isinstance(params, FloatWeightParams):
        _check_float_weights(layer, target)
        if isinstance(wanted.activation_quant_params, FloatActivationParams):
            return LayerPlan(layer, reason="its input and its weights stay float")
        return LayerPlan(layer, wanted, with_offset=_with_offset(layer, wanted, config, target))
    params = params or ArqParams()
    if isinstance(params, CodebookParams):
        return _plan_codebook(layer, wanted, params, config, target)
    channel_wise = _channel_wise(layer, params, target)
    larger = _would_be_larger(layer, channel_wise)
    if larger is not None:
        return LayerPlan(layer, reason=larger)
    return LayerPlan(
        layer,
        wanted.model_copy(update={"weight_quant_params": params}),
        channel_wise=channel_wise,
        with_offset=_with_offset(layer, wanted, config, target),
    )


def codebook_spec(layer: Layer, params: CodebookParams, target: Target, *, quantized_input: bool) -> CodebookSpec:
    """The codebook that parameters ask of a layer, as far as the target lets its weight have scales of channels.

    Args:
        layer: The layer.
        params: What is asked for.
        target: The target.
        quantized_input: Whether the layer's input is quantized.

    Raises:
        ConfigError: Scales of channels are asked for where the target has none beside int8 levels.
    """
    spec = params.specification(quantized_input=quantized_input)
    if spec.level_type is not LevelType.INT8 or not spec.channel_scales or target.allows_channel_wise(layer):
        return spec
    if not quantized_input and params.level_type is None:
        # Nobody asked for whole numbers; scales are worth more.
        return replace(spec, level_type=LevelType.FLOAT16)
    if params.channel_wise:
        raise ConfigError(
            f"The channel_wise must be False for layer type {layer.op_type} with levels of type int8 here.",
            layer=layer.name,
            remedy='Set channel_wise to false, or level_type to "float32".',
        )
    return replace(spec, channel_scales=False)


def _plan_codebook(
    layer: Layer, wanted: LayerConfig, params: CodebookParams, config: QuantConfig, target: Target
) -> LayerPlan:
    refusal = target.refusal(layer, Technique.CODEBOOK)
    if refusal is not None:
        raise ConfigError(
            f"The target {target.name!r} does not allow a codebook for this layer's weights: {_as_clause(refusal)}.",
            layer=layer.name,
            remedy=_remedy(layer, Technique.CODEBOOK, "use another wts_algo"),
        )
    quantized_input = not isinstance(wanted.activation_quant_params, FloatActivationParams)
    spec = codebook_spec(layer, params, target, quantized_input=quantized_input)
    layout = weight_layout(layer)
    stored = spec.stored_bytes(layout.rows, layout.columns) + CODEBOOK_OVERHEAD_BYTES
    if stored >= 4 * layer.num_weights:
        why = f"its codebook with all that decodes it takes {stored} bytes, the float weight {4 * layer.num_weights}"
        return LayerPlan(layer, reason=why)
    return LayerPlan(
        layer,
        wanted,
        channel_wise=spec.channel_scales,
        with_offset=quantized_input and _with_offset(layer, wanted, config, target),
        codebook=spec,
    )


def _check_float_input(layer: Layer, wanted: LayerConfig, target: Target) -> None:
    if isinstance(wanted.activation_quant_params, FloatActivationParams) and target.deploy_form == "ascend":
        raise ConfigError(
            f'act_algo "none" leaves the input float, and the target {target.name!r} only runs integers.',
            layer=layer.name,
            remedy='Use another act_algo, or set "target" to "onnxruntime".',
        )


def _check_width(layer: Layer, wanted: LayerConfig, target: Target) -> None:
    params = wanted.activation_quant_params
    if isinstance(params, FloatActivationParams) or params.num_bits == 8 or target.deploy_form == "qdq":
        return
    raise ConfigError(
        f"num_bits {params.num_bits} is too wide for the inputs of layers under the target {target.name!r}: its deploy"
        " form holds int8.",
        layer=layer.name,
        remedy="Set the num_bits of its activation_quant_params to 8, or \"target\" to 'onnxruntime'.",
    )


def _check_balancing(layer: Layer, wanted: LayerConfig) -> None:
    if wanted.dmq_balancer_param is None:
        return
    if layer.weight is None:
        why = f"{layer.op_type} has no weights that could take up the factors"
    elif layer.tied_with:
        why = f"it shares its weight with layer {layer.tied_with[0]!r}, whose input needs other factors"
    elif isinstance(wanted.activation_quant_params, FloatActivationParams):
        why = "its input stays float"
    else:
        return
    raise ConfigError(
        f"dmq_balancer_param cannot be used here: {why}.", layer=layer.name, remedy="Delete dmq_balancer_param."
    )


def _check_float_weights(layer: Layer, target: Target) -> None:
    if target.deploy_form != "qdq":
        raise ConfigError(
            f"The wts_algo must not be 'none' under the target {target.name!r}: its layers compute on int8 weights.",
            layer=layer.name,
            remedy="Set \"target\" to 'onnxruntime', or quantize the weights too.",
        )


def _check_nuq(layer: Layer, wanted: LayerConfig, target: Target) -> None:
    of_weights = isinstance(wanted.weight_quant_params, NuqParams)
    of_activations = wanted.activation_quant_params.nuq is not None
    refusal = target.refusal(layer, Technique.NUQ) if of_weights or of_activations else None
    if refusal is None:
        return
    what = "weights" if of_weights else "activations"
    raise ConfigError(
        f"The target {target.name!r} does not allow NUQ of this layer's {what}: {_as_clause(refusal)}.",
        layer=layer.name,
        remedy=_remedy(layer, Technique.NUQ, "use arq_quantize and no 'nuq' block"),
    )


def _remedy(layer: Layer, technique: Technique, otherwise: str) -> str:
    allowing = targets_that_allow(layer, technique)
    if not allowing:
        return f"No built-in target allows it: {otherwise}."
    names = " or ".join(repr(name) for name in allowing)
    return f'Set "target" to {names}, which allow{"s" if len(allowing) == 1 else ""} it, or {otherwise}.'


def _with_offset(layer: Layer, wanted: LayerConfig, config: QuantConfig, target: Target) -> bool:
    if layer.kind is LayerKind.AVERAGE_POOL and target.deploy_form == "ascend":
        # AscendDequant only multiplies: without weights there is no bias that could take the offset back.
        return False
    params = wanted.activation_quant_params
    asymmetric = None if isinstance(params, FloatActivationParams) else params.asymmetric
    return config.activation_offset if asymmetric is None else asymmetric


def _channel_wise(layer: Layer, params: ArqParams | NuqParams, target: Target) -> bool:
    allowed = target.allows_channel_wise(layer)
    if params.channel_wise and not allowed:
        raise ConfigError(
            f"The channel_wise must be False for layer type {layer.op_type} under the target {target.name!r}.",
            layer=layer.name,
            remedy="Set channel_wise to false.",
        )
    return allowed if params.channel_wise is None else params.channel_wise


def _would_be_larger(layer: Layer, channel_wise: bool) -> str | None:
    num_scales = layer.weight_shape[layer.output_channel_axis] if channel_wise else 1
    float_bytes, int8_bytes = 4 * layer.num_weights, layer.num_weights + 4 * num_scales
    if int8_bytes < float_bytes:
        return None
    return f"its int8 form with scales takes {int8_bytes} bytes, the float one {float_bytes}"


def _check_tied(plans: Sequence[LayerPlan]) -> None:
    by_name = {plan.layer.name: plan for plan in plans}
    for plan in plans:
        for other in (by_name[name] for name in plan.layer.tied_with):
            same_config = (plan.weight_params, plan.channel_wise, plan.codebook) == (
                other.weight_params,
                other.channel_wise,
                other.codebook,
            )
            if not same_config:
                raise ConfigError(
                    f"It shares its weight with layer {other.layer.name!r}, whose weight is configured differently.",
                    layer=plan.layer.name,
                    remedy="Give both the same weight_quant_params, or disable both.",
                )


def _as_sentence(clause: str) -> str:
    return f"{clause[0].upper()}{clause[1:].removesuffix('.')}."


def _as_clause(sentence: str) -> str:
    return sentence.removesuffix(".")
