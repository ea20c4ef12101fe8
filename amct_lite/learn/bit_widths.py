"""How many bits each layer gets: one number for all, or a mapping from names."""

from collections.abc import Mapping, Sequence

from amct_lite.errors import ParameterError
from amct_lite.types import Layer

__all__ = ["bits_by_layer"]


def bits_by_layer(bits: int | Mapping[str, int], layers: Sequence[Layer], allowed: range, what: str) -> dict[str, int]:
    """Layer -> its bits.

    Args:
        bits: For all layers, or by name.
        layers: Those that are quantized.
        allowed: The numbers that there may be.
        what: The parameter's name, for messages.

    Raises:
        ParameterError: A number is not allowed, or a name is missing or unknown.
    """
    names = [layer.name for layer in layers]
    found = dict(bits) if isinstance(bits, Mapping) else dict.fromkeys(names, bits)
    strange = [name for name in found if name not in names]
    missing = [name for name in names if name not in found]
    if strange or missing:
        said = f"it lacks {missing[0]!r}" if missing else f"{strange[0]!r} is none of them"
        raise ParameterError(
            f"The '{what}' parameter must name each layer that is quantized ({', '.join(names)}), and {said}."
        )
    for name, width in found.items():
        if isinstance(width, bool) or not isinstance(width, int) or width not in allowed:
            raise ParameterError(
                f"The '{what}' parameter must be an int in the range [{allowed[0]}, {allowed[-1]}]. Got {width!r}"
                f" instead{f' for layer {name!r}' if isinstance(bits, Mapping) else ''}."
            )
    return found
