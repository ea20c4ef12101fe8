"""The generalized straight-through estimator (G-STE) of N2UQ: gradients of uneven steps, and of where they lie.

Source: Liu, Cheng, Huang, Xing, Shen, "Nonuniform-to-Uniform Quantization: Towards Accurate Quantization via
Generalized Straight-Through Estimation" (CVPR 2022, arXiv 2111.14826), section "Generalized straight-through
estimator". Forward a value goes to the level whose thresholds it lies between. Backward it counts as if it had been
encoded at random, to one of the two levels around it, and the gradient is that of the expectation: inside interval i,
from e_i to e_i + a_i, the expectation rises in a straight line by one step d,

    E[y] = i d + d (u - e_i) / a_i,    e_i = start + a_0 + ... + a_(i-1),

and it is constant below the first interval and above the last one. With all a_i = d this is the plain straight-through
estimator of a clipped uniform quantizer.
"""

from typing import Any

import torch

__all__ = ["GeneralizedStraightThrough", "interval_edges"]


def interval_edges(start: Any, intervals: Any) -> Any:
    """Where the intervals begin, and where the last one ends: shape (n + 1,) for intervals of shape (n,)."""
    return torch.cat([start.reshape(1), start + torch.cumsum(intervals, 0)])


class GeneralizedStraightThrough(torch.autograd.Function):
    """`apply(values, levels, start, intervals, step)` gives `levels * step`, and the gradients of the expectation.

    `values` is what was quantized, in units of the intervals; `levels` holds 0 to n for each of them, however they were
    found; `start` is a scalar and `intervals` has shape (n,), positive. `step` is a number. Gradients go to values,
    start and intervals.
    """

    @staticmethod
    def forward(context: Any, values: Any, levels: Any, start: Any, intervals: Any, step: float) -> Any:
        """The quantized values."""
        context.save_for_backward(values, start, intervals)
        context.step = step
        return levels.to(values.dtype) * step

    @staticmethod
    def backward(context: Any, gradient: Any) -> tuple[Any, ...]:
        """The gradients of E[y] as in the module's equation.

        dE/du = d / a_i, dE/de_i = -d / a_i and dE/da_i = -d (u - e_i) / a_i**2 in interval i, and each e_i is moved by
        start and by every interval before it.
        """
        values, start, intervals = context.saved_tensors
        edges = interval_edges(start, intervals)
        number, num_intervals = torch.bucketize(values, edges) - 1, len(intervals)
        slopes = context.step / intervals
        # Nothing passes below the first interval (-1, which is the last entry here) and above the last one.
        at = torch.cat([slopes, slopes.new_zeros(2)])[number]
        where = torch.where((number < 0) | (number >= num_intervals), num_intervals, number).reshape(-1)
        inside = values - torch.cat([edges[:-1], edges.new_zeros(2)])[number]

        def sums(numbers: Any) -> Any:
            total = torch.bincount(where, numbers.reshape(-1), minlength=num_intervals + 1)[:num_intervals]
            return total.to(slopes.dtype)

        of_edges = -slopes * sums(gradient)
        of_intervals = -slopes / intervals * sums(gradient * inside)
        # Interval j moves every edge behind it.
        behind = of_edges.sum() - torch.cumsum(of_edges, 0)
        return gradient * at, None, of_edges.sum().reshape(start.shape), of_intervals + behind, None
