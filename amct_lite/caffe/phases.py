"""Which layers of a prototxt run at inference: Caffe's include and exclude rules in phase TEST."""

from collections.abc import Iterable
from typing import Any

from amct_lite.errors import ModelError

__all__ = ["layers_at_test"]

_TEST = 1  # caffe.Phase


def layers_at_test(layers: Iterable[tuple[Any, int | None]], state: Any) -> list[tuple[Any, int | None]]:
    """The layers that Caffe would make for testing.

    Args:
        layers: LayerParameter messages, each with its line.
        state: The network's NetState: its level (0 where not given) and stages count; its phase is TEST in any case.

    Returns:
        Those of the layers whose rules the state meets, in order.

    Raises:
        ModelError: A layer has both include and exclude rules.
    """
    return [(layer, line) for layer, line in layers if _runs(layer, state, line)]


def _runs(layer: Any, state: Any, line: int | None) -> bool:
    if layer.include and layer.exclude:
        where = "" if line is None else f"line {line}: "
        raise ModelError(
            f"{where}the layer has both include and exclude rules.", layer=layer.name, remedy="Give one kind of rules."
        )
    if layer.include:
        return any(_meets(rule, state) for rule in layer.include)
    return not any(_meets(rule, state) for rule in layer.exclude)


def _meets(rule: Any, state: Any) -> bool:
    """Whether the state meets everything that a rule asks for."""
    if rule.HasField("phase") and rule.phase != _TEST:
        return False
    if rule.HasField("min_level") and state.level < rule.min_level:
        return False
    if rule.HasField("max_level") and state.level > rule.max_level:
        return False
    stages = set(state.stage)
    return stages.issuperset(rule.stage) and stages.isdisjoint(rule.not_stage)
