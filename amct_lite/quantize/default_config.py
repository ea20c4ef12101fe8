"""The config that `create_quant_config` writes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from amct_lite.errors import ConfigError
from amct_lite.files.config import (
    ArqParams,
    LayerConfig,
    MseParams,
    QuantConfig,
)
from amct_lite.files.target import Target
from amct_lite.quantize.layer_names import no_such_layer
from amct_lite.types import Layer, Technique

__all__ = ["default_config"]


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
            raise ConfigError(no_such_layer(name, by_name), remedy="Correct skip_layers.")
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
    make = _default_layer_config if target.deploy_form == "qdq" else _amct_layer_config
    blocks = {layer.name: make(layer, target, by_name) for layer in chosen}
    return QuantConfig.model_validate(
        {"batch_num": batch_num, "activation_offset": activation_offset, "target": target_name, **blocks}
    )


def _tied_with(names: Iterable[str], by_name: Mapping[str, Layer]) -> set[str]:
    return {other for name in names for other in by_name[name].tied_with}


def _default_layer_config(layer: Layer, target: Target, by_name: Mapping[str, Layer]) -> LayerConfig:
    """What serves ONNX Runtime best: docs/benchmarks.md, "Int8 against other tools"."""
    config = _amct_layer_config(layer, target, by_name)
    changes: dict[str, Any] = {"activation_quant_params": MseParams(act_algo="mse")}
    if config.weight_quant_params is not None:
        changes["weight_quant_params"] = config.weight_quant_params.model_copy(update={"rounding": "auto"})
    return config.model_copy(update=changes)


def _amct_layer_config(layer: Layer, target: Target, by_name: Mapping[str, Layer]) -> LayerConfig:
    if layer.weight is None:
        return LayerConfig()
    sharing = (layer, *(by_name[name] for name in layer.tied_with))
    return LayerConfig(weight_quant_params=ArqParams(channel_wise=all(map(target.allows_channel_wise, sharing))))
