"""Checks of constructor parameters, with one form of message."""

import math
from numbers import Integral, Real
from typing import Any

from amct_lite.errors import ParameterError

__all__ = ["checked_batch_num", "checked_count", "checked_number"]


def checked_count(owner: str, name: str, value: Any) -> int:
    """Return `value` as an int of at least 1.

    Args:
        owner: The class or function whose parameter it is.
        name: The parameter's name.
        value: What the user gave.

    Returns:
        The number.

    Raises:
        ParameterError: It is no whole number, or less than 1.

    Example:
        >>> checked_count("ClassificationEvaluator", "top_k", 5)
        5
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ParameterError(f"The {name!r} parameter of {owner} must be an int >= 1. Got {value!r} instead.")
    return int(value)


def checked_batch_num(owner: str, value: Any, num_samples: int) -> int:
    """Return the number of batches to evaluate.

    Args:
        owner: The evaluator's class.
        value: What the user gave; None means all of the data.
        num_samples: Number of samples in the data.

    Returns:
        The number. For None it is the number of samples: no number of batches is larger, whatever a model's
        batch size.

    Raises:
        ParameterError: It is no whole number, or less than 1.

    Example:
        >>> checked_batch_num("ClassificationEvaluator", None, num_samples=500)
        500
    """
    return num_samples if value is None else checked_count(owner, "evaluate_batch_num", value)


def checked_number(owner: str, name: str, value: Any, high: float = math.inf) -> float:
    """Return `value` as a finite float in [0, high].

    Args:
        owner: The class or function whose parameter it is.
        name: The parameter's name.
        value: What the user gave.
        high: The highest value allowed.

    Returns:
        The number.

    Raises:
        ParameterError: It is no number, not finite, or out of range.

    Example:
        >>> checked_number("ClassificationEvaluator", "max_drop", 0.01, high=1.0)
        0.01
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not 0 <= value <= high:
        span = ">= 0" if high == math.inf else f"in the range [0, {high:g}]"
        raise ParameterError(f"The {name!r} parameter of {owner} must be a number {span}. Got {value!r} instead.")
    return float(value)
