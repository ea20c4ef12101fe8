"""A float weight becomes a codebook: exact clustering, and where data shows what matters, refinement by it."""

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.coordinate_descent import descend
from amct_lite.codebook.exact_floats import best_float_levels
from amct_lite.codebook.gptq import gptq_codes
from amct_lite.codebook.least_squares import fit_scales, fit_tables, output_error
from amct_lite.codebook.level_type import LevelType, float_type
from amct_lite.codebook.scale_format import FULL_SCALES, LARGEST_SCALE, LEAST_SHARE, ScaleFormat, scale_format
from amct_lite.codebook.specification import CodebookSpec, Refine
from amct_lite.codebook.tables import LevelTables, RowTables
from amct_lite.codebook.vector_tables import learn_vectors
from amct_lite.errors import ParameterError
from amct_lite.types import FloatArray

__all__ = ["cluster_rows"]

Float64Array = npt.NDArray[np.float64]
IntpArray = npt.NDArray[np.intp]

MAX_ROUNDS = 24
MAX_SWEEPS = 4

# Rounds of table, scales and descent end when they gain less than this share of the error.
SMALL_GAIN = 1e-3

# Beyond so many levels for each component they are so dense that fitting them gains nothing.
MAX_FITTED_LEVELS = 64

SETTLING_ROUNDS = 3

# The highest int8 level may be any of these: among so many steps one fits the others well.
LEAST_TOP, INT8_MAX = 64, 127


def cluster_rows(rows: FloatArray, spec: CodebookSpec, *, quadratic: Float64Array | None = None) -> Codebook:
    """Finds the codebook of a weight.

    Without `quadratic` the squared error of the weight itself is minimised: exact clustering of the weights divided
    by their channel's scale, each counting with that scale squared, and the scales fitted to it; vectors are found by
    k-means. With it, the squared error of the layer's output: the same clustering weighted by the diagonal as a start,
    error feedback onto the table (GPTQ), then, for `lnq`, table, scales and codes in turns.

    Args:
        rows: Float array, shape (rows, K * groups / groups): one row for each output channel.
        spec: What the codebook shall look like.
        quadratic: float64 array, shape (groups, K, K), positive definite: second moments of the inputs of each
            group of rows; used for `gptq` and `lnq`.

    Returns:
        The codebook; deterministic.

    Raises:
        ParameterError: A weight is not finite.

    Example:
        >>> weight = np.array([[0.0, 1.0, 1.1], [2.0, 0.0, 2.2]], np.float32)
        >>> book = cluster_rows(weight, CodebookSpec(num_levels=2))
        >>> book.codes.tolist()
        [[0, 1, 1], [1, 0, 1]]
    """
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise ParameterError("Weights to cluster must be a matrix of finite numbers, and not empty.")
    values = rows.astype(np.float64)
    moments = quadratic if spec.refine.uses_moments else None
    groups = 1 if moments is None else len(moments)
    weight = values.reshape(groups, -1, values.shape[1])
    scales = _first_scales(values, spec)
    importance = None if moments is None else np.diagonal(moments, axis1=1, axis2=2)[:, None, :]
    tables = _first_tables(weight, scales, spec, importance)
    scales = scales.reshape(weight.shape[:2])
    if moments is None:
        scales, codes = _alternate_without_data(weight, scales, tables, spec)
    else:
        codes = gptq_codes(weight, moments, scales, tables)
        if spec.refine is Refine.LNQ:
            tables, scales, codes = _alternate(weight, moments, scales, tables, codes, spec)
    return _stored(weight, moments, scales, tables, codes, spec)


def _first_scales(values: Float64Array, spec: CodebookSpec) -> Float64Array:
    """Root mean square of each row; the largest of them where a row is zero, 1 where all are."""
    if not spec.channel_scales:
        return np.ones(len(values))
    # By a power of two, so that no square of the larger weights overflows or vanishes.
    unit = 2.0 ** np.clip(np.frexp(max(values.max(), -values.min()))[1], -1000, 1000)
    shifted = values / unit
    root = unit * np.sqrt(np.einsum("rc,rc->r", shifted, shifted) / values.shape[1])
    usable = root > np.finfo(np.float32).tiny
    return np.asarray(np.where(usable, root, root.max() if usable.any() else 1.0))


def _first_tables(
    weight: Float64Array, scales: Float64Array, spec: CodebookSpec, importance: Float64Array | None
) -> LevelTables:
    rows = scales.size
    per_table = spec.rows_per_table or rows
    flat = weight.reshape(rows, -1)
    relative = counted = np.square(scales / scales.max())[:, None]
    if importance is not None:
        counted = (relative.reshape(weight.shape[0], -1, 1) * importance).reshape(flat.shape)
    normal = _normal(flat, scales)
    table_of_row = np.arange(spec.code_rows(rows)) // per_table
    if spec.vector_size > 1:
        counted = np.broadcast_to(counted, flat.shape)
        return learn_vectors(normal, counted, spec, table_of_row)
    levels = []
    for start in range(0, rows, per_table):
        own = slice(start, start + per_table)
        weights = counted[own] if counted[own].any() else None
        found = best_float_levels(normal[own], spec.num_levels, weights=weights, reserve_zero=spec.reserve_zero)
        # Unused levels repeat the highest one: no weight is ever nearer to them.
        levels.append(np.pad(found.levels, (0, spec.num_levels - found.levels.size), mode="edge"))
    return RowTables(np.array(levels), table_of_row)


def _normal(rows: Float64Array, scales: Float64Array) -> npt.NDArray[np.float32]:
    """Rows divided by their scales, as tables have them."""
    return np.divide(rows, scales.reshape(-1, 1)).astype(np.float32)


def _alternate_without_data(
    weight: Float64Array, scales: Float64Array, tables: LevelTables, spec: CodebookSpec
) -> tuple[Float64Array, IntpArray]:
    """Fits the channel scales to the clustered weights once, and puts every weight on its nearest level again."""
    flat = weight.reshape(scales.size, -1)
    codes = _nearest(flat, scales, tables)
    if spec.channel_scales:
        chosen = tables.decode(codes)
        wanted, own = np.sum(chosen * flat, axis=1), np.sum(np.square(chosen), axis=1)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            fitted = (wanted / own).reshape(scales.shape)
        scales = np.where(np.isfinite(fitted) & (fitted > np.finfo(np.float32).tiny), fitted, scales)
        integers = spec.level_type is LevelType.INT8
        # For float16 the nearest level is looked for once more anyway, among the rounded ones.
        if integers or float_type(spec.level_type, tables.levels, scales) is not LevelType.FLOAT16:
            codes = _nearest(flat, scales, tables)
    return scales, codes[None]


def _nearest(rows: Float64Array, scales: Float64Array, tables: LevelTables) -> IntpArray:
    squares = None if tables.vector_size == 1 else np.broadcast_to(np.square(scales).reshape(-1, 1), rows.shape)
    return tables.nearest(_normal(rows, scales), squares)


def _alternate(
    weight: Float64Array,
    moments: Float64Array,
    scales: Float64Array,
    tables: LevelTables,
    codes: IntpArray,
    spec: CodebookSpec,
) -> tuple[LevelTables, Float64Array, IntpArray]:
    """LNQ: scales and table in closed form, codes by coordinate descent, until a round gains almost nothing."""
    error = _error(weight, moments, scales, tables, codes)
    for _ in range(MAX_ROUNDS):
        new_scales, new_tables, new_codes = scales, tables, codes
        if spec.channel_scales:
            new_scales = fit_scales(weight, moments, scales, _decoded(tables, codes, weight))
        if spec.num_levels <= MAX_FITTED_LEVELS**spec.vector_size:
            new_tables, new_codes = fit_tables(weight, moments, new_scales, tables, codes, keep_zero=spec.reserve_zero)
        new_codes = descend(weight, moments, new_scales, new_tables, new_codes, max_sweeps=MAX_SWEEPS)
        new_error = _error(weight, moments, new_scales, new_tables, new_codes)
        if not new_error < error:
            break
        gain, error = 1.0 - new_error / error, new_error
        scales, tables, codes = new_scales, new_tables, new_codes
        if gain < SMALL_GAIN:
            break
    return tables, scales, codes


def _stored(
    weight: Float64Array,
    moments: Float64Array | None,
    scales: Float64Array,
    tables: LevelTables,
    codes: IntpArray,
    spec: CodebookSpec,
) -> Codebook:
    """Rounds levels and scales to what is stored; codes and scales settle once more where that moved the levels."""
    rows, level_type = scales.size, spec.level_type
    if level_type is LevelType.INT8:
        levels, step = _integer_levels(tables.levels, codes)
        scales = np.maximum(scales, LEAST_SHARE * scales.max()) * step
    else:
        levels = tables.levels
        level_type = float_type(spec.level_type, levels, scales)
        if spec.channel_scales and level_type is LevelType.FLOAT16:
            # The largest scale becomes about 1: float16 has its best part below, and bytes hold it as it is.
            unit = scales.max() / LARGEST_SCALE
            levels, scales = levels * unit, np.maximum(scales / unit, LEAST_SHARE)
        levels = levels.astype(level_type.value).astype(np.float64)
    tables, moved = tables.with_levels(levels, codes.reshape(-1, codes.shape[2]))
    codes = moved.reshape(codes.shape)
    stored_as = scale_format(level_type, spec.bits_per_weight, scales) if spec.channel_scales else FULL_SCALES
    scales = stored_as.rounded(scales)
    if level_type is LevelType.FLOAT32:
        pass  # nothing has moved
    elif moments is not None and spec.refine is Refine.LNQ:
        scales, codes = _settle(weight, moments, scales, tables, codes, spec, stored_as)
    elif moments is not None:
        codes = descend(weight, moments, scales, tables, codes, max_sweeps=1)
    else:
        codes = _nearest(weight.reshape(rows, -1), scales, tables)[None]
    one_scale = not spec.channel_scales
    return Codebook(
        tables=tables.levels.astype(np.float32).reshape(-1, spec.num_levels, spec.vector_size),
        codes=codes.reshape(-1, codes.shape[2]).astype(np.uint8),
        scales=scales.reshape(-1)[:1].astype(np.float32) if one_scale else scales.reshape(-1).astype(np.float32),
        num_rows=rows,
        rows_per_table=spec.rows_per_table or spec.code_rows(rows),
        level_type=level_type,
    )


def _integer_levels(levels: Float64Array, codes: IntpArray) -> tuple[Float64Array, float]:
    """Whole numbers in [-127, 127] and the step that makes them nearest to the levels, by how often each is used."""
    largest = float(np.abs(levels).max())
    if largest == 0.0:
        return np.zeros_like(levels), 1.0
    counts = np.bincount(codes.reshape(-1), minlength=levels.shape[1]).reshape(-1, *(1,) * (levels.ndim - 2))
    best: tuple[float, float] = (np.inf, 1.0)
    for top in range(LEAST_TOP, INT8_MAX + 1):
        step = largest / top
        error = float(np.sum(counts * np.square(levels - np.rint(levels / step) * step)))
        best = min(best, (error, step))
    return np.rint(levels / best[1]), best[1]


def _settle(
    weight: Float64Array,
    moments: Float64Array,
    scales: Float64Array,
    tables: LevelTables,
    codes: IntpArray,
    spec: CodebookSpec,
    stored_as: ScaleFormat,
) -> tuple[Float64Array, IntpArray]:
    """Scales and codes in turns for levels that are rounded: every weight on a level has moved with it."""
    for _ in range(SETTLING_ROUNDS):
        if spec.channel_scales:
            fitted = fit_scales(weight, moments, scales, _decoded(tables, codes, weight))
            rounded = stored_as.rounded(fitted)
            scales = np.where((rounded > 0.0) & np.isfinite(rounded), rounded, scales)
        codes = descend(weight, moments, scales, tables, codes, max_sweeps=MAX_SWEEPS)
    return scales, codes


def _error(
    weight: Float64Array, moments: Float64Array, scales: Float64Array, tables: LevelTables, codes: IntpArray
) -> float:
    return output_error(weight, moments, _decoded(tables, codes, weight) * scales[:, :, None])


def _decoded(tables: LevelTables, codes: IntpArray, weight: Float64Array) -> Float64Array:
    return tables.decode(codes.reshape(-1, codes.shape[2])).reshape(weight.shape)
