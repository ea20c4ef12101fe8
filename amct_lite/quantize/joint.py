"""AMCT's joint_quant: tensors that are added up share one grid, that of all their ranges together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from amct_lite.graph.constants import constant_tensor
from amct_lite.graph.model import Model
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.types import ClipRange, Grid
from amct_lite.uniform.grid import grid_from_range

__all__ = ["join_grids", "joined_plans"]

# What Caffe's Eltwise with SUM and ONNX's Add are in the graph.
_SUMS = ("Add", "Sum")


def joined_plans(model: Model, plans: Sequence[LayerPlan]) -> tuple[LayerPlan, ...]:
    """Say of each plan whose input is also added to another tensor which grids it shares.

    Args:
        model: The float model.
        plans: The plans of its layers and of what is between them.

    Returns:
        The plans, those that share a grid with the same `joint`; where no other quantizer is in the set, None.
    """
    roots: dict[str, str] = {}
    for node in model.ir.graph:
        names = _summands(node, is_caffe=model.weights_path is not None)
        for name in names[1:]:
            roots[_root(roots, name)] = _root(roots, names[0])
    known = {*roots, *roots.values()}
    labels = [
        _root(roots, plan.layer.activation) if plan.quantizes_input and plan.layer.activation in known else None
        for plan in plans
    ]
    return tuple(
        replace(plan, joint=label) if label is not None and labels.count(label) > 1 else plan
        for plan, label in zip(plans, labels, strict=True)
    )


def join_grids(plans: Sequence[LayerPlan], grids: Mapping[str, Grid]) -> dict[str, Grid]:
    """Give all plans with the same `joint` one grid.

    Args:
        plans: Plans that quantize their inputs.
        grids: The grid that each has by itself, by name.

    Returns:
        The grids by name; a shared one has an offset only where all may have one.
    """
    groups: dict[tuple[str, int], list[LayerPlan]] = {}
    for plan in plans:
        if plan.joint is not None:
            groups.setdefault((plan.joint, grids[plan.layer.name].num_bits), []).append(plan)
    joined = dict(grids)
    for (_, num_bits), group in groups.items():
        own = [grids[plan.layer.name] for plan in group]
        if len(set(own)) == 1:
            continue
        low = min((grid.q_min - grid.offset) * grid.scale for grid in own)
        high = max((grid.q_max - grid.offset) * grid.scale for grid in own)
        with_offset = all(plan.with_offset for plan in group)
        shared = grid_from_range(ClipRange(low, high), num_bits=num_bits, with_offset=with_offset)
        joined.update({plan.layer.name: shared for plan in group})
    return joined


def _summands(node: ir.Node, *, is_caffe: bool) -> list[str]:
    """The tensors that a node adds up; none where one is a constant or, in Caffe, scaled."""
    if node.domain != "" or node.op_type not in _SUMS:
        return []
    if is_caffe and node.metadata_props.get("caffe_type") != "Eltwise":
        return []
    if any(value is None or constant_tensor(value) is not None for value in node.inputs):
        return []
    return [str(value.name) for value in node.inputs if value is not None]


def _root(roots: Mapping[str, str], name: str) -> str:
    while name in roots and roots[name] != name:
        name = roots[name]
    return name
