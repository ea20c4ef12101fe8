"""What a search chooses from: units, the options of each, and a choice of one option for every unit."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Choice", "Option", "Unit", "choice_bytes", "choice_error", "efficient_options"]

Choice = tuple[int, ...]
"""The number of an option for each unit."""


@dataclass(frozen=True)
class Option:
    """One way to treat a unit.

    Attributes:
        name: "float", "int8", "nuq32", "codebook4", "uniform4"; a ratio for activations.
        size_bytes: What it takes.
        error: Noise it adds, relative to the signal.
    """

    name: str
    size_bytes: int
    error: float


@dataclass(frozen=True)
class Unit:
    """What is chosen as one: the weights of a layer (or of layers that share them), a tensor, or a whole layer.

    Attributes:
        name: For people and journals.
        kind: "weight", "activation", or "layer" for both.
        layers: Names of the layers it belongs to.
        options: The ways worth having, smallest first: bytes rise and errors fall strictly.
        uniform_bytes: What plain int8 takes, whether it is among them or not.
        num_weights: How many weights it has; 0 for an activation tensor.
    """

    name: str
    kind: str
    layers: tuple[str, ...]
    options: tuple[Option, ...]
    uniform_bytes: int = 0
    num_weights: int = 0


def efficient_options(options: Sequence[Option]) -> tuple[Option, ...]:
    """The options that no other one beats in bytes and in error, smallest first.

    Example:
        >>> points = [Option(str(b), b, e) for b, e in [(1, 9.0), (2, 8.0), (3, 1.0), (4, 2.0), (5, 0.0)]]
        >>> [option.name for option in efficient_options(points)]
        ['1', '2', '3', '5']
    """
    found: list[Option] = []
    for option in sorted(options, key=lambda o: (o.size_bytes, o.error)):
        if not found or option.error < found[-1].error:
            found.append(option)
    return tuple(found)


def choice_bytes(units: Sequence[Unit], choice: Choice) -> int:
    """Bytes of a choice over all units."""
    return sum(unit.options[index].size_bytes for unit, index in zip(units, choice, strict=True))


def choice_error(units: Sequence[Unit], choice: Choice) -> float:
    """Predicted noise of a choice over all units."""
    return sum(unit.options[index].error for unit, index in zip(units, choice, strict=True))
