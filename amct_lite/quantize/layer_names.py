"""The message for a name that no layer has, with the nearest one that a layer has."""

import difflib
from collections.abc import Iterable

__all__ = ["no_such_layer"]


def no_such_layer(name: str, names: Iterable[str]) -> str:
    """Says that there is no such layer.

    Example:
        >>> no_such_layer("cov1", ["conv1", "fc"])
        "Layer cov1 does not exist in the graph. Did you mean 'conv1'?"
    """
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    nearest = f" Did you mean {near[0]!r}?" if near else ""
    return f"Layer {name} does not exist in the graph.{nearest}"
