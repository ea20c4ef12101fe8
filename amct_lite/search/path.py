"""The path: one ordered list of choices from the smallest to the most exact, by error saved per byte spent."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Choice", "Option", "Unit", "build_path", "choice_bytes", "choice_error", "lower_hull"]

Choice = tuple[int, ...]


@dataclass(frozen=True)
class Option:
    """One way to treat a unit.

    Attributes:
        value: Level count or ratio; None for plain int8.
        is_float: Whether the unit's layers stay float.
        size_bytes: What it takes, as a lossless compressor sees it.
        error: Noise it adds, relative to the signal.
    """

    value: float | None
    is_float: bool
    size_bytes: int
    error: float


@dataclass(frozen=True)
class Unit:
    """What is chosen as one: the weights of a layer (or of layers that share them), or an activation tensor.

    Attributes:
        name: For people and journals.
        kind: "weight" or "activation".
        layers: Names of the layers it belongs to.
        options: The ways on the lower convex hull, smallest first: bytes rise and errors fall strictly.
        uniform_bytes: What plain int8 takes, whether it is on the hull or not.
    """

    name: str
    kind: str
    layers: tuple[str, ...]
    options: tuple[Option, ...]
    uniform_bytes: int = 0


def lower_hull(options: Sequence[Option]) -> tuple[Option, ...]:
    """The options worth having: those on the lower convex hull of error over bytes, smallest first.

    Along the hull the error saved per byte falls, so a greedy walk over all units' hulls solves the linear relaxation
    of the multiple-choice knapsack problem (Sinha and Zoltners 1979, "The multiple-choice knapsack problem").

    Example:
        >>> points = [Option(None, False, b, e) for b, e in [(1, 9.0), (2, 8.0), (3, 1.0), (4, 2.0), (5, 0.0)]]
        >>> [(p.size_bytes, p.error) for p in lower_hull(points)]
        [(1, 9.0), (3, 1.0), (5, 0.0)]
    """
    hull: list[Option] = []
    for option in sorted(options, key=lambda o: (o.size_bytes, o.error)):
        if hull and option.error >= hull[-1].error:
            continue
        while len(hull) > 1 and _gain(hull[-2], hull[-1]) <= _gain(hull[-2], option):
            hull.pop()
        hull.append(option)
    return tuple(hull)


def build_path(units: Sequence[Unit]) -> list[Choice]:
    """Walk from every unit's smallest option to every unit's most exact one, best gain per byte first.

    Returns:
        Choices (an option's index for each unit); neighbours differ in one unit by one step.
    """
    steps = [
        (-_gain(unit.options[i], unit.options[i + 1]), number, i)
        for number, unit in enumerate(units)
        for i in range(len(unit.options) - 1)
    ]
    current = [0] * len(units)
    path = [tuple(current)]
    for _, number, index in sorted(steps):
        current[number] = index + 1
        path.append(tuple(current))
    return path


def choice_bytes(units: Sequence[Unit], choice: Choice) -> int:
    """Bytes of a choice over all units."""
    return sum(unit.options[index].size_bytes for unit, index in zip(units, choice, strict=True))


def choice_error(units: Sequence[Unit], choice: Choice) -> float:
    """Predicted noise of a choice over all units."""
    return sum(unit.options[index].error for unit, index in zip(units, choice, strict=True))


def _gain(smaller: Option, larger: Option) -> float:
    """Error saved per byte spent."""
    return (smaller.error - larger.error) / max(larger.size_bytes - smaller.size_bytes, 1)
