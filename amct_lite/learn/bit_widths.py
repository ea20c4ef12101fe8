"""How many bits each layer gets: one number for all, or a mapping from names."""

from collections.abc import Mapping, Sequence

from amct_lite.errors import ParameterError
from amct_lite.types import Layer

__all__ = ["bits_by_layer"]


def bits_by_layer(
    bits: int | Mapping[str, int], layers: Sequence[Layer], allowed: range, default: int, what: str
) -> dict[str, int]:
    """Layer -> its bits.

    Args:
        bits: For all layers, or by name.
        layers: Those that are quantized.
        allowed: The numbers that there may be.
        default: Of layers that a mapping does not name.
        what: The parameter's name, for messages.

    Raises:
        ParameterError: A number is not allowed, or a name unknown.
    """
    names = [layer.name for layer in layers]
    given = bits if isinstance(bits, Mapping) else dict.fromkeys(names, bits)
    for name, width in given.items():
        if name not in names:
            raise ParameterError(
                f"The '{what}' parameter names the layer {name!r}, which is not quantized; those are"
                f" {', '.join(names)}.",
                remedy="Correct the name, or set quantize_all_layers to True.",
            )
        if isinstance(width, bool) or not isinstance(width, int) or width not in allowed:
            raise ParameterError(
                f"The '{what}' parameter must be an int in the range [{allowed[0]}, {allowed[-1]}]. Got {width!r}"
                " instead."
            )
    return {name: given.get(name, default) for name in names}
