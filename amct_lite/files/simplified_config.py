"""AMCT's simplified config: a few lines of protobuf text from which `create_quant_config` writes the JSON config.

The messages are in schemas/calibration_config.proto.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from amct_lite.errors import ConfigError
from amct_lite.files.calibration_block import (
    CalibrationBlock,
    activation_keys,
    calibration_block,
    given_fields,
    ignored_fields,
    nuq_keys,
)
from amct_lite.files.config import LayerConfig, QuantConfig
from amct_lite.files.config_file import describe_mistakes
from amct_lite.files.protos import message_class
from amct_lite.files.simplified_text import parse_config_text

__all__ = ["NuqRequest", "SimplifiedConfig", "read_simplified_config"]

_GLOBALS = ("version", "batch_num", "activation_offset", "joint_quant", "weight_offset", "do_fusion")
_NUM_BITS = {1: 8, 2: 16}
_PRECISION_MODES = ("DEFAULT", "FORCE_FP16_QUANT")
_REMEDY = "docs/simplified_config.md lists every field with its range."


@dataclass(frozen=True)
class NuqRequest:
    """Layers whose weights are to be clustered.

    Attributes:
        mapping_file: The compiler's file that flags them, an existing path; None for our own rule.
        weights: Keys of their `weight_quant_params`.
    """

    mapping_file: Path | None
    weights: Mapping[str, Any]


@dataclass(frozen=True)
class SimplifiedConfig:
    """A simplified config, checked as far as that goes without a model.

    Attributes:
        path: Where it was read from.
        global_keys: Global keys of the JSON config that it sets.
        skip_layers: Names of layers that stay float.
        skip_layer_types: Types of layers that stay float.
        common: For every layer; None without.
        by_type: Layer type -> what it says of layers of that type.
        by_layer: Layer name -> what it says of that layer.
        conv: The deprecated conv_calibration_config; None where it does not count.
        fc: The deprecated fc_calibration_config; None where it does not count.
        nuq: Which layers are clustered; None for none.
        auto_nuq: Whether layers whose weights are a bottleneck are clustered.
        notes: What was ignored, as sentences.
    """

    path: Path
    global_keys: Mapping[str, Any]
    skip_layers: tuple[str, ...] = ()
    skip_layer_types: tuple[str, ...] = ()
    common: CalibrationBlock | None = None
    by_type: Mapping[str, CalibrationBlock] = field(default_factory=dict)
    by_layer: Mapping[str, CalibrationBlock] = field(default_factory=dict)
    conv: CalibrationBlock | None = None
    fc: CalibrationBlock | None = None
    nuq: NuqRequest | None = None
    auto_nuq: bool = False
    notes: tuple[str, ...] = ()


def read_simplified_config(path: Path) -> SimplifiedConfig:
    """Read a simplified config.

    Args:
        path: A file of protobuf text, usually `*.cfg`.

    Raises:
        FileError: It cannot be read.
        ConfigError: It is not valid; the message says where.
    """
    message = message_class("calibration_config", "amct_lite.AMCTConfig")()
    parse_config_text(path, message)
    reader = _Reader(path)
    config = reader.read(message)
    if reader.mistakes:
        listed = "\n".join(f"  {mistake}" for mistake in reader.mistakes)
        raise ConfigError(f"The simplified config {path} is not valid:\n{listed}\n", remedy=_REMEDY)
    return config


class _Reader:
    """Turns messages into blocks, and gathers every mistake on the way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mistakes: list[str] = []
        self.notes: list[str] = []

    def read(self, message: Any) -> SimplifiedConfig:
        common = self._block(message, "common_config")
        by_type = self._overrides(message.override_layer_types, "override_layer_types", "layer_type")
        by_layer = self._overrides(message.override_layer_configs, "override_layer_configs", "layer_name")
        conv, fc = self._deprecated(message, superseded=common is not None or bool(by_type))
        for name in ("skip_layers", "skip_layer_types", "skip_fusion_layers"):
            self._refuse_repeated(getattr(message, name), name)
        return SimplifiedConfig(
            path=self.path,
            global_keys=self._global_keys(message),
            skip_layers=tuple(message.skip_layers),
            skip_layer_types=tuple(message.skip_layer_types),
            common=common,
            by_type=by_type,
            by_layer=by_layer,
            conv=conv,
            fc=fc,
            nuq=self._nuq(message),
            auto_nuq=message.enable_auto_nuq,
            notes=tuple(self.notes),
        )

    def _global_keys(self, message: Any) -> dict[str, Any]:
        keys = given_fields(message, *_GLOBALS)
        if message.skip_fusion_layers:
            keys["skip_fusion_layers"] = list(message.skip_fusion_layers)
        if message.HasField("fakequant_precision_mode"):
            keys["fakequant_precision_mode"] = _PRECISION_MODES[message.fakequant_precision_mode]
        tensors = [self._tensor(tensor) for tensor in message.tensor_quantize]
        if tensors:
            keys["tensor_quantize"] = tensors
        self._check(QuantConfig, keys, "$")
        return keys

    def _tensor(self, message: Any) -> dict[str, Any]:
        for name in ("layer_name", "input_index"):
            if not message.HasField(name):
                self.mistakes.append(f'tensor_quantize: To quantize tensor, must set "{name}" at first.')
        params = activation_keys(message) or {"act_algo": "ifmr"}
        return {**given_fields(message, "layer_name", "input_index"), "activation_quant_params": params}

    def _overrides(self, messages: Iterable[Any], name: str, key: str) -> dict[str, CalibrationBlock]:
        blocks: dict[str, CalibrationBlock] = {}
        for message in messages:
            if not getattr(message, key):
                self.mistakes.append(f"{name}: {key} is missing in an entry.")
                continue
            place = f"{name} {getattr(message, key)!r}"
            block = self._block(message, "calibration_config", place)
            if block is None:
                self.mistakes.append(f"{place}: calibration_config is missing.")
                continue
            blocks[getattr(message, key)] = block
        self._refuse_repeated((getattr(message, key) for message in messages), name)
        return blocks

    def _deprecated(self, message: Any, *, superseded: bool) -> tuple[CalibrationBlock | None, CalibrationBlock | None]:
        blocks = []
        for name in ("conv_calibration_config", "fc_calibration_config"):
            block = self._block(message, name)
            if block is not None and superseded:
                why = "would be ignored when common_config or override_layer_types exists"
                self.notes.append(f"{name} field {why}.")
            elif block is not None:
                use = "use common_config and override_layer_types instead"
                self.notes.append(f"{name} field has been deprecated, {use}.")
            blocks.append(None if superseded else block)
        return blocks[0], blocks[1]

    def _block(self, parent: Any, name: str, place: str | None = None) -> CalibrationBlock | None:
        if not parent.HasField(name):
            return None
        message, place = getattr(parent, name), place or name
        if message.arq_quantize.asymmetric:
            self.mistakes.append(f"{place}.arq_quantize.asymmetric: must be false: weights are symmetric here.")
        ignored = ignored_fields(message)
        if ignored:
            why = "the rounding here has its own schedule"
            self.notes.append(f"{place}: {', '.join(ignored)} of ada_quantize are not used: {why}.")
        block = calibration_block(message)
        self._check(LayerConfig, block.document(), place)
        return block

    def _nuq(self, message: Any) -> NuqRequest | None:
        if not message.HasField("nuq_config"):
            return None
        weights = nuq_keys(message.nuq_config.nuq_quantize)
        self._check(LayerConfig, {"weight_quant_params": weights}, "nuq_config")
        if not message.nuq_config.HasField("mapping_file"):
            return NuqRequest(None, weights)
        wanted = Path(message.nuq_config.mapping_file)
        # AMCT starts at the current folder; a config that moves together with its file is found as well.
        places = [wanted] if wanted.is_absolute() else [wanted, self.path.parent / wanted]
        for place in places:
            if place.is_file():
                return NuqRequest(place, weights)
        looked = " or ".join(dict.fromkeys(str(place.absolute()) for place in places))
        self.mistakes.append(f"nuq_config.mapping_file: there is no file {looked}.")
        return None

    def _refuse_repeated(self, names: Iterable[str], where: str) -> None:
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            self.mistakes.append(f"Please delete repeated items in {where}, repeated items are {repeated}.")

    def _check(self, model: type[LayerConfig] | type[QuantConfig], document: dict[str, Any], place: str) -> None:
        try:
            model.model_validate(document)
        except ValidationError as error:
            self.mistakes.extend(describe_mistakes(error, place))
