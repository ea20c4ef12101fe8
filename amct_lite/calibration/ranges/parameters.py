"""Parameters of range algorithms: taken from a config's mapping, refused by name with the value that was found."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from numbers import Real
from typing import Any, TypeVar

from amct_lite.errors import ParameterError

__all__ = ["NoParameters", "check_number", "check_one_of", "is_number", "read_parameters", "refusal"]

_Settings = TypeVar("_Settings")


@dataclass(frozen=True)
class NoParameters:
    """The parameters of an algorithm that has none."""


def read_parameters(kind: type[_Settings], algorithm: str, params: Mapping[str, Any] | None) -> _Settings:
    """Makes an algorithm's parameters of a mapping.

    Args:
        kind: A dataclass whose fields are the parameters, with their defaults.
        algorithm: What the algorithm is called.
        params: Parameter -> value; those left out have defaults.

    Raises:
        ParameterError: A parameter is unknown, or out of its range.
    """
    assert is_dataclass(kind)
    given = dict(params or {})
    known = {field.name for field in fields(kind)}
    if unknown := sorted(set(given) - known):
        has = f"has no parameter {', '.join(map(repr, unknown))}" if known else "has no parameters"
        got = "" if known else f" Got {', '.join(unknown)}."
        raise ParameterError(f"The range algorithm {algorithm} {has}.{got}")
    return kind(**given)


def check_number(algorithm: str, name: str, value: object, low: float, high: float) -> None:
    """Refuses what is no number in (low, high]."""
    if not (is_number(value) and low < value <= high):  # type: ignore[operator]
        raise refusal(algorithm, name, f"a float in the range ({low:g}, {high:g}]", value)


def check_one_of(algorithm: str, name: str, value: object, allowed: tuple[int, ...]) -> None:
    """Refuses what is none of some integers."""
    if isinstance(value, bool) or value not in allowed:
        raise refusal(algorithm, name, f"one of {allowed}", value)


def is_number(value: object) -> bool:
    """Whether a value is a finite real number, and no bool."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def refusal(algorithm: str, name: str, wanted: str, got: object) -> ParameterError:
    """The error that says what a parameter must be."""
    return ParameterError(f"The {name!r} parameter of {algorithm} must be {wanted}. Got {got!r} instead.")
