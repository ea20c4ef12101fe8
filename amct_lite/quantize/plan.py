"""The plan: what will be done to each layer of a model, and why not where nothing will be done."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from amct_lite.codebook.codebook import LevelType
from amct_lite.codebook.specification import CodebookSpec, Refine
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
from amct_lite.quantize.weight_rows import weight_layout
from amct_lite.types import Layer, LayerKind, Technique

__all__ = ["CODEBOOK_OVERHEAD_BYTES", "LayerPlan", "default_config", "make_plan"]

# Names, shapes and operators that unpack one weight, as the ONNX file stores them.
CODEBOOK_OVERHEAD_BYTES = 1200


@dataclass(frozen=True)
class LayerPlan:
    """What is done to one layer.

    Attributes:
        layer: The layer.
        config: How it is quantized; None for a layer that stays float.
        reason: Why it stays float, as a sentence; None for a layer that is quantized.
        channel_wise: Whether its weight has a scale per output channel.
        with_offset: Whether its activation grid has an offset.
        codebook: The codebook that its weight becomes; None where it does not become one.
    """

    layer: Layer
    config: LayerConfig | None = None
    reason: str | None = None
    channel_wise: bool = False
    with_offset: bool = False
    codebook: CodebookSpec | None = None

    @property
    def weight_params(self) -> ArqParams | NuqParams | CodebookParams | FloatWeightParams | None:
        """How the weight is quantized; None for a layer that stays float or has no weights."""
        return self.config.weight_quant_params if self.config is not None else None

    @property
    def quantizes_input(self) -> bool:
        """Whether the layer's input is quantized."""
        return self.config is not None and not isinstance(self.config.activation_quant_params, FloatActivationParams)

    @property
    def balances_input(self) -> bool:
        """Whether its input is divided channel by channel, and its weight multiplied."""
        return self.config is not None and self.config.dmq_balancer_param is not None

    @property
    def refines_codebook(self) -> bool:
        """Whether the codebook is chosen on samples."""
        return self.codebook is not None and self.codebook.refine is not Refine.NONE

    @property
    def refits_weight(self) -> bool:
        """Whether the float weight is fitted to the quantized input."""
        return isinstance(self.weight_params, FloatWeightParams) and self.weight_params.refit

    @property
    def has_output_aware_levels(self) -> bool:
        """Whether the input's levels are chosen by the error at the output."""
        nuq = None if self.config is None else self.config.activation_quant_params.nuq
        return nuq is not None and nuq.output_aware and self.layer.weight is not None

    @property
    def fits_bias(self) -> bool:
        """Whether the bias takes back what quantization does to the mean output, where the operator has one."""
        repaired = isinstance(self.weight_params, ArqParams) and self.weight_params.sample_use is not None
        return self.refits_weight or self.refines_codebook or repaired

    @property
    def keeps_zero(self) -> bool:
        """Whether level 0 stays among the input's levels when they are chosen anew."""
        nuq = None if self.config is None else self.config.activation_quant_params.nuq
        return nuq is not None and nuq.reserve_zero is not False

    @property
    def uses_samples(self) -> bool:
        """Whether something of the layer is chosen on samples, in the closed loop."""
        return self.sample_use is not None

    @property
    def sample_use(self) -> str | None:
        """The key of the config that asks for samples; None where none does."""
        if self.codebook is not None and self.refines_codebook:
            return f'"refine": "{self.codebook.refine}"'
        if self.refits_weight:
            return '"refit": true'
        if isinstance(self.weight_params, ArqParams) and self.weight_params.sample_use is not None:
            return self.weight_params.sample_use
        return '"output_aware": true' if self.has_output_aware_levels else None


def default_config(
    layers: Sequence[Layer],
    target: Target,
    *,
    skip_layers: Sequence[str] = (),
    batch_num: int = 1,
    activation_offset: bool = True,
    target_name: str,
) -> QuantConfig:
    """The config that `create_quant_config` writes: every layer that the target can quantize, uniformly.

    Args:
        layers: All layers of the model.
        target: Which of them may be quantized.
        skip_layers: Names of layers to leave float.
        batch_num: Batches that calibration reads.
        activation_offset: Whether activation grids have an offset.
        target_name: How the config refers to the target.

    Raises:
        ConfigError: A skipped layer does not exist, or nothing is left to quantize.
    """
    by_name = {layer.name: layer for layer in layers}
    for name in skip_layers:
        if name not in by_name:
            raise ConfigError(_no_such_layer(name, by_name), remedy="Correct skip_layers.")
    refused = {layer.name for layer in layers if target.refusal(layer, Technique.UNIFORM) is not None}
    # Tied weights are quantized together or not at all, so refusing or skipping one of the layers does so to all.
    refused |= _tied_with(refused, by_name)
    candidates = [layer for layer in layers if layer.name not in refused]
    if not candidates:
        raise ConfigError(
            "No layer support quantization in the graph.",
            remedy=f"`amct-lite inspect` shows why for each layer under the target {target.name!r}.",
        )
    skipped = set(skip_layers) | _tied_with(skip_layers, by_name)
    chosen = [layer for layer in candidates if layer.name not in skipped]
    if not chosen:
        raise ConfigError("Except skip_layers, no layer needs to quantize.", remedy="Skip fewer layers.")
    globals_ = set(QuantConfig.model_fields)
    for layer in chosen:
        if layer.name in globals_:
            raise ConfigError(
                f"{layer.name} is a global parameter, can not be a layer name.",
                layer=layer.name,
                remedy="Rename the layer in the model, or add it to skip_layers.",
            )
    blocks = {layer.name: _default_layer_config(layer, target, by_name) for layer in chosen}
    return QuantConfig.model_validate(
        {"batch_num": batch_num, "activation_offset": activation_offset, "target": target_name, **blocks}
    )


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
                _no_such_layer(name, by_name),
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


def _tied_with(names: Iterable[str], by_name: Mapping[str, Layer]) -> set[str]:
    return {other for name in names for other in by_name[name].tied_with}


def _default_layer_config(layer: Layer, target: Target, by_name: Mapping[str, Layer]) -> LayerConfig:
    if layer.weight is None:
        return LayerConfig()
    sharing = (layer, *(by_name[name] for name in layer.tied_with))
    return LayerConfig(weight_quant_params=ArqParams(channel_wise=all(map(target.allows_channel_wise, sharing))))


def _plan_layer(layer: Layer, config: QuantConfig, target: Target) -> LayerPlan:
    wanted = config.layers.get(layer.name)
    refusal = target.refusal(layer, Technique.UNIFORM)
    if wanted is None or not wanted.quant_enable:
        why = "it is not in the config" if wanted is None else "quant_enable is false"
        return LayerPlan(layer, reason=refusal or why)
    if refusal is not None:
        raise ConfigError(
            f"This layer does not support quant: {_as_clause(refusal)}.",
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
    spec = params.specification(quantized_input=quantized_input)
    if spec.level_type is LevelType.INT8 and spec.channel_scales and not target.allows_channel_wise(layer):
        if params.channel_wise:
            raise ConfigError(
                f"The channel_wise must be False for layer type {layer.op_type} with levels of type int8 here.",
                layer=layer.name,
                remedy='Set channel_wise to false, or level_type to "float32".',
            )
        spec = replace(spec, channel_scales=False)
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


def _as_clause(sentence: str) -> str:
    return sentence.removesuffix(".")


def _no_such_layer(name: str, by_name: dict[str, Layer]) -> str:
    near = difflib.get_close_matches(name, list(by_name), n=1, cutoff=0.5)
    nearest = f" Did you mean {near[0]!r}?" if near else ""
    return f"Layer {name} does not exist in the graph.{nearest}"
