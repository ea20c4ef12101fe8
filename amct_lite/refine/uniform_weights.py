"""Uniform weights chosen with data: scales and levels that serve the layer's output, not each weight by itself."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.coordinate_descent import descend
from amct_lite.codebook.gptq import gptq_codes
from amct_lite.codebook.least_squares import fit_scales, output_error
from amct_lite.codebook.tables import RowTables
from amct_lite.files.config import ArqParams
from amct_lite.types import FloatArray
from amct_lite.uniform.adaround import adaround_levels
from amct_lite.uniform.arq import quantize_weight, weight_scales
from amct_lite.uniform.bias import raise_scales_for_bias
from amct_lite.uniform.mse_scales import mse_scales

__all__ = ["UniformRows", "fit_uniform_rows"]

Float64Array = npt.NDArray[np.float64]

# Scales and levels in turns; later rounds gain less than a percent.
MAX_ROUNDS = 3
MAX_SWEEPS = 4


@dataclass(frozen=True)
class UniformRows:
    """Rows on a uniform grid.

    Attributes:
        levels: int8 array, shape (rows, K).
        scales: float32 array, shape (rows,), or (1,) for one scale for all.
    """

    levels: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]

    def decode(self) -> npt.NDArray[np.float32]:
        """The rows that the levels stand for, float32, shape (rows, K)."""
        return self.levels.astype(np.float32) * self.scales[:, None]

    @classmethod
    def nearest(cls, rows: FloatArray, scales: npt.NDArray[np.float32], num_bits: int) -> "UniformRows":
        """Each weight on its nearest level."""
        return cls(quantize_weight(rows, scales, axis=_axis(scales.size > 1), num_bits=num_bits), scales)

    def with_room_for(self, bias: FloatArray, scale_d: float, num_bits: int) -> "UniformRows":
        """The same, on larger scales where a bias would not fit int32 otherwise.

        Args:
            bias: Shape (rows,).
            scale_d: Scale of the layer's input.
            num_bits: Width of a level.
        """
        scales, raised = raise_scales_for_bias(bias, self.scales, scale_d)
        return UniformRows.nearest(self.decode(), scales, num_bits) if raised.any() else self


def fit_uniform_rows(
    target: Float64Array, quadratic: Float64Array, params: ArqParams, *, channel_wise: bool
) -> UniformRows:
    """Choose scales and levels.

    Args:
        target: float64 array, shape (groups, rows, K): the float rows that the layer should have.
        quadratic: float64 array, shape (groups, K, K), positive definite: second moments of its inputs.
        params: Width, how scales are found, how weights are rounded: by "gptq" or "adaround".
        channel_wise: Whether each row has a scale of its own.
    """
    rows = target.reshape(-1, target.shape[2])
    scales = _first_scales(rows, quadratic, params, channel_wise).astype(np.float64)
    per_row = np.broadcast_to(scales, len(rows)).reshape(target.shape[:2]).copy()
    levels, per_row = _alternate(target, quadratic, per_row, params, channel_wise)
    stored = per_row.reshape(-1).astype(np.float32)
    return UniformRows(levels.reshape(rows.shape).astype(np.int8), stored if channel_wise else stored[:1])


def _axis(channel_wise: bool) -> int | None:
    return 0 if channel_wise else None


def _first_scales(
    rows: Float64Array, quadratic: Float64Array, params: ArqParams, channel_wise: bool
) -> npt.NDArray[np.float32]:
    if params.scale_algo == "max":
        return weight_scales(rows, axis=_axis(channel_wise), num_bits=params.num_bits)
    # How much a weight's own error counts at the output: the mean square of its input.
    importance = np.repeat(np.diagonal(quadratic, axis1=1, axis2=2), len(rows) // len(quadratic), axis=0)
    return mse_scales(rows, axis=_axis(channel_wise), num_bits=params.num_bits, importance=importance)


def _alternate(
    target: Float64Array, quadratic: Float64Array, scales: Float64Array, params: ArqParams, channel_wise: bool
) -> tuple[Float64Array, Float64Array]:
    """Levels for the scales, then scales for the levels, until a round gains nothing."""
    low = -(2 ** (params.num_bits - 1))
    table = RowTables(np.arange(low, -low, dtype=np.float64)[None], np.zeros(scales.size, np.intp))
    levels = _rounded(target, quadratic, scales, table, params)
    error = output_error(target, quadratic, levels * scales[:, :, None])
    for _ in range(MAX_ROUNDS if channel_wise else 0):
        new_scales = fit_scales(target, quadratic, scales, levels).astype(np.float32).astype(np.float64)
        codes = (levels - low).astype(np.intp)
        new_levels = table.decode(descend(target, quadratic, new_scales, table, codes, max_sweeps=MAX_SWEEPS))
        new_error = output_error(target, quadratic, new_levels * new_scales[:, :, None])
        if not new_error < error:
            break
        levels, scales, error = new_levels, new_scales, new_error
    return levels, scales


def _rounded(
    target: Float64Array, quadratic: Float64Array, scales: Float64Array, table: RowTables, params: ArqParams
) -> Float64Array:
    if params.rounding == "adaround":
        return adaround_levels(target, quadratic, scales, num_bits=params.num_bits).astype(np.float64)
    return table.decode(gptq_codes(target, quadratic, scales, table))
