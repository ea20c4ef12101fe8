"""From AMCT's simplified config to the JSON config: which of its parts counts for which layer.

A layer takes the first of these that there is, whole, and what that leaves out has its default:
override_layer_configs, override_layer_types, the deprecated fc_calibration_config (for layers that may not have a scale
per channel), common_config, the deprecated conv_calibration_config. `asymmetric` alone goes on to common_config where
that names the same algorithm, and then to activation_offset. Layers that NUQ is wanted for get it in place of their
weights' algorithm, unless override_layer_configs names one for them.

What is said of a layer or a type must be possible; what is said of all layers is done where it is possible, and a
warning names the others. These are AMCT's own rules (github hicann/amct, proto_config.py and config_base.py), but for
NUQ's place among them, which it does not publish: a list of layers is taken as more specific than a type.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from typing import Any

from amct_lite.errors import ConfigError, ParameterError
from amct_lite.files.calibration_block import CalibrationBlock
from amct_lite.files.config import LayerConfig, QuantConfig
from amct_lite.files.simplified_config import SimplifiedConfig
from amct_lite.files.target import Target, load_target, targets_that_allow
from amct_lite.graph.model import Model
from amct_lite.graph.opening import open_model
from amct_lite.quantize.clustered_layers import layers_to_cluster
from amct_lite.quantize.default_config import default_config
from amct_lite.quantize.layer_names import no_such_layer
from amct_lite.quantize.plan import make_plan
from amct_lite.quantize.requested_tensors import requested_tensors
from amct_lite.types import Layer, LayerKind, Technique

__all__ = ["defined_config"]

_logger = logging.getLogger(__name__)

StrPath = str | PathLike[str]

_CAFFE_TYPES = ("Convolution", "Deconvolution", "InnerProduct", "Pooling")
_ONNX_TYPES = ("Conv", "ConvTranspose", "Gemm", "MatMul", "AveragePool")


def defined_config(
    definition: SimplifiedConfig,
    model_file: StrPath,
    weights_file: StrPath | None,
    target: Target,
    *,
    target_name: str,
    soc: str,
) -> QuantConfig:
    """The config that `create_quant_config` writes for a simplified config.

    Args:
        definition: The simplified config.
        model_file: The float network.
        weights_file: The caffemodel of a prototxt; None for ONNX.
        target: What each technique may touch.
        target_name: How the config refers to the target.
        soc: The chip whose bottlenecks are clustered where no mapping file says which.

    Raises:
        AmctError: The network cannot be loaded, or the simplified config names what it does not have, or asks for what
            cannot be done.
    """
    for note in definition.notes:
        _logger.warning("%s: %s", definition.path, note)
    try:
        model = _open(definition, model_file, weights_file)
        config = _Definition(definition, model, target).config(target_name, soc)
        # What `init` would refuse is not written.
        make_plan(model.layers, config, target)
        requested_tensors(model, config, target)
    except ConfigError as error:
        raise ConfigError(
            f"The simplified config {definition.path} does not fit {model_file}: {error.cause}",
            layer=error.layer,
            remedy=error.remedy,
        ) from error
    return config


def _open(definition: SimplifiedConfig, model_file: StrPath, weights_file: StrPath | None) -> Model:
    """The network, folded as the definition asks for."""
    keep = definition.global_keys.get("skip_fusion_layers", ())
    fold = definition.global_keys.get("do_fusion", True)
    try:
        return open_model(model_file, weights_file, fold_batch_norm=fold, skip_fusion_layers=keep)
    except ParameterError as error:
        raise ConfigError(f"skip_fusion_layers: {error.cause}", remedy="Correct the names there.") from error


class _Definition:
    """A simplified config against a model and a target."""

    def __init__(self, definition: SimplifiedConfig, model: Model, target: Target) -> None:
        self.definition, self.model, self.target = definition, model, target
        self.layers = {layer.name: layer for layer in model.layers}
        self.is_caffe = model.weights_path is not None
        self.given_up: dict[str, list[str]] = {}

    def config(self, target_name: str, soc: str) -> QuantConfig:
        """The JSON config."""
        self._check_types((*self.definition.skip_layer_types, *self.definition.by_type))
        self._check_names((*self.definition.skip_layers, *self.definition.by_layer))
        of_skipped_type = [n for n, layer in self.layers.items() if layer.op_type in self.definition.skip_layer_types]
        default = default_config(
            self.model.layers,
            self.target,
            skip_layers=(*self.definition.skip_layers, *of_skipped_type),
            target_name=target_name,
        )
        blocks = {name: self._block(self.layers[name], block) for name, block in default.layers.items()}
        # A block for what cannot be quantized is the plan's to refuse, with the reason.
        named = set(self.definition.by_layer).difference(self.definition.skip_layers)
        blocks |= {name: {} for name in named if self._is_refused(self.layers[name])}
        for name, weights in self._clustered(blocks, soc).items():
            blocks[name]["weight_quant_params"] = weights
        for text, names in self.given_up.items():
            _logger.warning("%s: %s", self.definition.path, text.replace("{}", ", ".join(names), 1))
        return QuantConfig.model_validate({**self.definition.global_keys, "target": target_name, **blocks})

    def _block(self, layer: Layer, default: LayerConfig) -> dict[str, Any]:
        """A layer's block: its default, and over it what the definition says."""
        own = self.definition.by_layer.get(layer.name, self.definition.by_type.get(layer.op_type))
        if own is None and not self._may_have_channel_scales(layer):
            own = self.definition.fc
        strict = own is not None
        said = own or self.definition.common or self.definition.conv or CalibrationBlock()
        block: dict[str, Any] = dict(default)
        changes = said.document()
        usual = {"act_algo": default.activation_quant_params.act_algo}
        block["activation_quant_params"] = self._activation(
            layer, changes.get("activation_quant_params", usual), strict
        )
        if "weight_quant_params" in changes and layer.weight is not None:
            weights = self._weights(layer, changes["weight_quant_params"], strict)
            block["weight_quant_params"] = self._over_default(layer, weights, default)
        if said.migration_strength is not None and self._can_be_balanced(layer, strict):
            block["dmq_balancer_param"] = said.migration_strength
        return block

    def _activation(self, layer: Layer, keys: Mapping[str, Any], strict: bool) -> dict[str, Any]:
        common = (self.definition.common or CalibrationBlock()).activation or {}
        keys = dict(keys)
        if common.get("act_algo") == keys["act_algo"] and common.get("asymmetric") is not None:
            keys.setdefault("asymmetric", common["asymmetric"])
        if keys.get("num_bits") == 16 and self.target.deploy_form == "ascend" and not strict:
            self._give_up(layer, "Layer {} does not support int16_quantizable, set int8.")
            del keys["num_bits"]
        return keys

    def _weights(self, layer: Layer, keys: Mapping[str, Any], strict: bool) -> dict[str, Any]:
        keys = dict(keys)
        if strict:
            return keys
        if keys.get("channel_wise") and not self._may_have_channel_scales(layer):
            keys["channel_wise"] = False
        if keys["wts_algo"] == "nuq_quantize" and self.target.refusal(layer, Technique.NUQ) is not None:
            self._give_up(layer, self._no_nuq(layer))
            return {"wts_algo": "arq_quantize"}
        return keys

    def _over_default(self, layer: Layer, keys: Mapping[str, Any], default: LayerConfig) -> dict[str, Any]:
        """The weights' keys, and the default's where that is for the same algorithm."""
        usual = default.weight_quant_params
        same = usual is not None and getattr(usual, "wts_algo", None) == keys["wts_algo"]
        base = usual.model_dump(exclude_unset=True) if same and usual is not None else {}
        if keys["wts_algo"] == "nuq_quantize":
            base = {"channel_wise": self._may_have_channel_scales(layer)}
        return {**base, **keys}

    def _clustered(self, blocks: Collection[str], soc: str) -> dict[str, dict[str, Any]]:
        """Layers that NUQ is wanted for and possible -> their weights' keys."""
        chosen: dict[str, dict[str, Any]] = {}
        for name, weights in layers_to_cluster(self.definition, self.model, soc).items():
            sharing = [self.layers[name], *(self.layers[other] for other in self.layers[name].tied_with)]
            if not all(layer.name in blocks for layer in sharing):
                continue
            refused = [layer for layer in sharing if self.target.refusal(layer, Technique.NUQ) is not None]
            if refused:
                self._give_up(self.layers[name], self._no_nuq(refused[0]))
            else:
                channel_wise = self._may_have_channel_scales(sharing[0])
                chosen.update((layer.name, {"channel_wise": channel_wise, **weights}) for layer in sharing)
        return chosen

    def _no_nuq(self, layer: Layer) -> str:
        allowing = targets_that_allow(layer, Technique.NUQ)
        allowing = [name for name in allowing if load_target(name).deploy_form == self.target.deploy_form] or allowing
        remedy = f"; the target {' or '.join(map(repr, allowing))} allows it" if allowing else ""
        return f"Layer {{}} gets no NUQ, which the target {self.target.name!r} does not allow there{remedy}."

    def _may_have_channel_scales(self, layer: Layer) -> bool:
        sharing = (layer, *(self.layers[name] for name in layer.tied_with))
        return layer.weight is not None and all(map(self.target.allows_channel_wise, sharing))

    def _can_be_balanced(self, layer: Layer, strict: bool) -> bool:
        can = layer.weight is not None and not layer.tied_with and not self.is_caffe
        if can:
            return True
        if strict:
            raise ConfigError(
                f"dmq_balancer not support for {layer.name} layer: it balances layers of ONNX networks with weights of"
                " their own.",
                layer=layer.name,
                remedy="Delete dmq_balancer there.",
            )
        self._give_up(layer, "Layer {} does not support dmq_balancer, remove dmq_balancer in config file.")
        return False

    def _is_refused(self, layer: Layer) -> bool:
        return self.target.refusal(layer, Technique.UNIFORM) is not None

    def _give_up(self, layer: Layer, why: str) -> None:
        self.given_up.setdefault(why, []).append(layer.name)

    def _check_types(self, types: Sequence[str]) -> None:
        known = _CAFFE_TYPES if self.is_caffe else _ONNX_TYPES
        found = {layer.op_type for layer in self.model.layers if layer.kind is not LayerKind.OPERATOR_INPUT}
        for name in types:
            if name not in known and name not in found:
                raise ConfigError(
                    f"Layer type {name} does not support quantize. Unrecognized layer type:{name}, only support"
                    f" {', '.join(known)}.",
                    remedy="Use the type's name in the model's own format.",
                )

    def _check_names(self, names: Sequence[str]) -> None:
        nodes = {node.name for node in self.model.ir.graph}
        for name in names:
            if name not in self.layers and name in nodes:
                raise ConfigError(
                    f"Layer {name} does not support quantization.", remedy="Delete it: it stays float anyway."
                )
            if name not in self.layers:
                raise ConfigError(no_such_layer(name, self.layers), remedy="Correct the name in the simplified config.")
