"""Targets: what a device allows each technique to touch, as data, and refusals that say what would be allowed."""

from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from amct_lite.errors import ConfigError
from amct_lite.files.json_document import json_path, read_json_object
from amct_lite.types import Layer, LayerKind, Technique

__all__ = ["BUILT_IN_TARGETS", "Rule", "Target", "load_target", "targets_that_allow"]

BUILT_IN_TARGETS = ("ascend", "ascend-rank4", "onnxruntime")


class Rule(BaseModel):
    """Conditions on a layer; one that is None does not count."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kernel_shape: tuple[int, ...] | None = None
    kernel_rank: tuple[int, ...] | None = None
    dilation: int | None = None
    group: int | None = None
    transpose: bool | None = None
    axis: int | None = None

    def broken_by(self, layer: Layer) -> str | None:
        """The first condition that a layer breaks, with the value found, or None.

        Example:
            >>> layer = Layer("c", "Conv", LayerKind.CONVOLUTION, "x", 0, 1, "y", kernel_shape=(3, 3))
            >>> Rule(kernel_shape=(4, 4)).broken_by(layer)
            'kernel_shape must be [4, 4], found [3, 3]'
        """
        checks: list[tuple[str, object, object, bool]] = [
            (
                "kernel_shape",
                list(self.kernel_shape or ()),
                list(layer.kernel_shape),
                self.kernel_shape in (None, layer.kernel_shape),
            ),
            (
                "the number of spatial axes of the kernel",
                " or ".join(map(str, self.kernel_rank or ())),
                len(layer.kernel_shape),
                self.kernel_rank is None or len(layer.kernel_shape) in self.kernel_rank,
            ),
            (
                "dilation",
                self.dilation,
                list(layer.dilations),
                self.dilation is None or set(layer.dilations) <= {self.dilation},
            ),
            ("group", self.group, layer.group, self.group in (None, layer.group)),
            ("transpose", self.transpose, layer.transpose, self.transpose in (None, layer.transpose)),
            (
                "axis",
                self.axis,
                "unknown" if layer.axis is None else layer.axis,
                self.axis in (None, layer.axis),
            ),
        ]
        for name, wanted, found, holds in checks:
            if not holds:
                return f"{name} must be {_plain(wanted)}, found {_plain(found)}"
        return None


class Target(BaseModel):
    """What a device allows and wants.

    Attributes:
        name: How configs name it.
        description: One sentence for people.
        deploy_form: How its deploy model is written: "ascend" (AscendQuant, AscendDequant) or "qdq".
        channel_wise: Layer kinds whose weights may have a scale per output channel.
        integer_operators: Types of ONNX operators, beside layers, that have integer kernels there: what stands between
            them and convolutions is quantized as well, so that whole chains run on integers.
        shift_bit: Whether its devices dequantize in int16, so that calibration has to find how far each accumulator is
            shifted (AMCT's SearchN).
        rules: Technique -> layer kind -> conditions; a kind that is missing is not allowed at all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str = ""
    deploy_form: Literal["ascend", "qdq"]
    channel_wise: tuple[LayerKind, ...] = ()
    integer_operators: tuple[str, ...] = ()
    shift_bit: bool = False
    rules: dict[Technique, dict[LayerKind, Rule]]

    def refusal(self, layer: Layer, technique: Technique) -> str | None:
        """Why a technique may not touch a layer here: the rule and the value found, or None where it may."""
        if layer.blocked is not None:
            return layer.blocked
        rule = self.rules.get(technique, {}).get(layer.kind)
        if rule is None:
            allowed = ", ".join(self.rules.get(technique, {})) or "no layer"
            return f"type must be one of {allowed}, found {layer.op_type} ({layer.kind})"
        return rule.broken_by(layer)

    def allows_channel_wise(self, layer: Layer) -> bool:
        """Whether a layer's weight may have a scale per output channel.

        A grouped transposed convolution stores its output channels on two axes, which no per-axis scale can follow.
        Of a product's operands only the second one may have several scales in the integer kernels of ONNX Runtime.
        """
        split_channels = layer.kind is LayerKind.DECONVOLUTION and layer.group > 1
        return layer.kind in self.channel_wise and not split_channels and layer.weight_index != 0


def load_target(name: str, folder: Path | None = None) -> Target:
    """Load a target by its name, or from a JSON file of the user's.

    Args:
        name: A built-in target's name, or the path of a JSON file.
        folder: Where a relative path starts; the current folder when None.

    Raises:
        ConfigError: There is no such target, or its file is not valid.
    """
    if name in BUILT_IN_TARGETS:
        text = resources.files("amct_lite.schemas.targets").joinpath(f"{name}.json").read_text(encoding="utf-8")
        return Target.model_validate_json(text)
    path = (folder or Path()) / name
    if not _is_file(path):
        raise ConfigError(
            f"There is no target {name!r}, neither built in nor as a file {path}.",
            remedy=f"Use one of {', '.join(BUILT_IN_TARGETS)}, or the path of a target's JSON file.",
        )
    try:
        return Target.model_validate(read_json_object(path, "target file"))
    except ValidationError as error:
        mistakes = "; ".join(f"{json_path(_as_in_file(item['loc']))}: {item['msg']}" for item in error.errors())
        raise ConfigError(
            f"The target file {path} is not valid: {mistakes}.", remedy="docs/targets.md shows the format."
        ) from error


def targets_that_allow(layer: Layer, technique: Technique) -> list[str]:
    """The built-in targets under which a technique may touch a layer."""
    return [name for name in BUILT_IN_TARGETS if load_target(name).refusal(layer, technique) is None]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, say
        return False


def _as_in_file(location: tuple[str | int, ...]) -> list[str | int]:
    # A mistake in a key stands at "[key]" below the key.
    return [part for part in location if part != "[key]"]


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
