"""Vector codebooks: one code stands for two or four neighbouring weights of a row.

Levels by scikit-learn's KMeans (Lloyd 1982, k-means++ seeds); with second moments the codes by error feedback over
whole vectors (van Baalen et al. 2024, "GPTVQ: The Blessing of Dimensionality for LLM Quantization", arXiv
2402.15319, algorithm 1).
"""

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.gptq import inverse_factor
from amct_lite.codebook.level_type import LevelType, float_type
from amct_lite.codebook.scale_format import FULL_SCALES, LARGEST_SCALE, LEAST_SHARE, scale_format
from amct_lite.codebook.specification import CodebookSpec, Refine
from amct_lite.errors import ParameterError
from amct_lite.types import FloatArray

__all__ = ["cluster_vectors"]

Float64Array = npt.NDArray[np.float64]
IntpArray = npt.NDArray[np.intp]

# Vectors that the centres are learnt from; more cost time and hardly move them.
MAX_LEARNT_FROM = 65536
RANDOM_STATE = 0

# Distances worked on at a time (64 MiB).
CHUNK_SIZE = 2**23


def cluster_vectors(rows: FloatArray, spec: CodebookSpec, *, quadratic: Float64Array | None = None) -> Codebook:
    """Finds the vector codebook of a weight; see `amct_lite.codebook.cluster_rows.cluster_rows`.

    Args:
        rows: Float array, shape (rows, K): one row for each output channel; the last vector is filled up with 0.
        spec: What the codebook shall look like; its vector size is 2 or 4.
        quadratic: float64 array, shape (groups, K, K), positive definite; used for `gptq`.

    Raises:
        ParameterError: `lnq` is asked for: it moves single weights.
    """
    if spec.refine is Refine.LNQ:
        raise ParameterError(
            "The 'refine' parameter of a codebook with vectors must be 'none', 'bias' or 'gptq'. Got 'lnq' instead."
        )
    size, width = rows.shape[1], spec.vector_size
    padded = np.pad(rows.astype(np.float64), ((0, 0), (0, -size % width)))
    scales = np.ones(len(rows))
    if spec.channel_scales:
        scales = np.sqrt(np.mean(np.square(padded), axis=1))
        scales[~(scales > np.finfo(np.float32).tiny)] = 1.0
    scales = scales.astype(np.float32).astype(np.float64)
    per_table = spec.rows_per_table or len(rows)
    table_of_row = np.arange(len(rows)) // per_table
    vectors = (padded / scales[:, None]).reshape(len(rows), -1, width)
    tables = np.stack(
        [
            _learn(vectors[own].reshape(-1, width), np.repeat(np.square(scales[own]), vectors.shape[1]), spec)
            for own in (table_of_row == number for number in range(table_of_row[-1] + 1))
        ]
    )
    level_type = spec.level_type
    if level_type is LevelType.INT8:
        step = float(np.abs(tables).max()) / 127 or 1.0
        tables = np.clip(np.rint(tables / step), -127, 127)
    else:
        level_type = float_type(level_type, tables, scales)
        step = LARGEST_SCALE / scales.max() if spec.channel_scales and level_type is LevelType.FLOAT16 else 1.0
        tables = (tables / step).astype(level_type.value).astype(np.float64)
    if level_type is not LevelType.FLOAT32:
        scales = np.maximum(scales, LEAST_SHARE * scales.max())
    scales = scales * step
    stored_as = scale_format(level_type, spec.num_levels, scales) if spec.channel_scales else FULL_SCALES
    scales = stored_as.rounded(scales)
    stored_scales = scales.astype(np.float32)
    if spec.refine is Refine.GPTQ and quadratic is not None:
        codes = _feed_back(padded, quadratic, scales, tables, table_of_row)
    else:
        codes = np.stack(
            [
                _nearest(row.reshape(-1, width) / scale, tables[table], np.eye(width))
                for row, scale, table in zip(padded, scales, table_of_row, strict=True)
            ]
        )
    return Codebook(
        tables=tables.astype(np.float32),
        codes=codes.astype(np.uint8),
        scales=stored_scales if spec.channel_scales else stored_scales[:1],
        num_columns=size,
        rows_per_table=per_table,
        level_type=level_type,
    )


def _learn(vectors: Float64Array, weights: Float64Array, spec: CodebookSpec) -> Float64Array:
    """Centres of weighted vectors, shape (num_levels, width); fewer distinct vectors are repeated."""
    from sklearn.cluster import KMeans

    if len(vectors) > MAX_LEARNT_FROM:
        chosen = np.random.default_rng(RANDOM_STATE).choice(len(vectors), MAX_LEARNT_FROM, replace=False)
        vectors, weights = vectors[np.sort(chosen)], weights[np.sort(chosen)]
    zero = np.zeros((int(spec.reserve_zero), vectors.shape[1]))
    distinct = np.unique(np.vstack([zero, vectors]), axis=0)
    if len(distinct) <= spec.num_levels:
        return np.pad(distinct, ((0, spec.num_levels - len(distinct)), (0, 0)), mode="edge")
    learnt = spec.num_levels - spec.reserve_zero
    means = KMeans(learnt, n_init=1, random_state=RANDOM_STATE).fit(vectors, sample_weight=weights).cluster_centers_
    centres = np.vstack([zero, means])
    return np.asarray(centres[np.lexsort(centres.T[::-1])], dtype=np.float64)


def _feed_back(
    weight: Float64Array,
    quadratic: Float64Array,
    scales: Float64Array,
    tables: Float64Array,
    table_of_row: IntpArray,
) -> IntpArray:
    """GPTQ over vectors: a group of columns is rounded at once, its error fed to the columns behind it."""
    width, groups, size = tables.shape[2], len(quadratic), weight.shape[1]
    # The columns that fill up the last vector see no input; a 1 on the diagonal keeps the matrix definite.
    full = np.zeros((groups, size, size))
    full[:, : quadratic.shape[1], : quadratic.shape[1]] = quadratic
    filled = np.arange(quadratic.shape[1], size)
    full[:, filled, filled] = 1.0
    feedback = inverse_factor(full)
    left = weight.reshape(groups, -1, size).copy()
    grouped_scales, grouped_tables = scales.reshape(groups, -1), table_of_row.reshape(groups, -1)
    codes = np.empty((groups, left.shape[1], size // width), np.intp)
    for group in range(groups):
        factor = feedback[group]
        for number, start in enumerate(range(0, size, width)):
            stop = start + width
            # |(w - c) inv(U)|**2 is what the columns behind cannot make up for.
            metric = np.linalg.inv(factor[start:stop, start:stop])
            target = left[group, :, start:stop] / grouped_scales[group][:, None]
            for table in np.unique(grouped_tables[group]):
                own = grouped_tables[group] == table
                codes[group, own, number] = _nearest(target[own], tables[table], metric)
            values = tables[grouped_tables[group], codes[group, :, number]] * grouped_scales[group][:, None]
            error = (left[group, :, start:stop] - values) @ metric
            left[group, :, stop:] -= error @ factor[start:stop, stop:]
    return codes.reshape(len(weight), -1)


def _nearest(vectors: Float64Array, centres: Float64Array, metric: Float64Array) -> IntpArray:
    """Number of the nearest centre under |(v - c) metric|**2; the lowest among equals."""
    turned, turned_centres = vectors @ metric, centres @ metric
    own = np.sum(np.square(turned_centres), axis=1)
    codes = np.empty(len(vectors), np.intp)
    for start in range(0, len(vectors), max(1, CHUNK_SIZE // len(centres))):
        part = slice(start, start + max(1, CHUNK_SIZE // len(centres)))
        codes[part] = np.argmin(own - 2.0 * (turned[part] @ turned_centres.T), axis=1)
    return codes
