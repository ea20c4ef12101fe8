"""Tables of vectors: a code stands for the weights of several rows at the same column.

The rows of a vector lie as far apart as there are rows of codes: what codes stand for is one block of rows for each
component, so that decoding needs no transposition. The output error of a layer is a sum over its rows; so whatever
is done to a weight matrix column by column, error feedback or coordinate descent, needs no more of vectors than the
one that is nearest when each component's square counts with its own factor.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.specification import CodebookSpec
from amct_lite.codebook.tables import sums_by_code
from amct_lite.types import FloatArray

__all__ = ["VectorTables", "learn_vectors"]

Float64Array = npt.NDArray[np.float64]
IntpArray = npt.NDArray[np.intp]

# Vectors that the centres are learnt from; more cost time and hardly move them.
MAX_LEARNT_FROM = 32768
MAX_ROUNDS = 50
RANDOM_STATE = 0

# Distances worked on at a time (4 MiB: they stay in the cache).
CHUNK_SIZE = 2**19


@dataclass(frozen=True)
class VectorTables:
    """Levels of vectors.

    Attributes:
        levels: float64 array, shape (num_tables, num_levels, vector_size).
        table_of_row: int array, shape (rows of codes,).
        num_rows: Rows of the matrix; components behind the last one do not matter.
    """

    levels: Float64Array
    table_of_row: IntpArray
    num_rows: int

    @property
    def vector_size(self) -> int:
        """Rows that one code stands for."""
        return int(self.levels.shape[2])

    def nearest(self, values: FloatArray, importance: Float64Array | None = None) -> IntpArray:
        """See `LevelTables.nearest`; the lowest code among equals."""
        flat = values.reshape(self.num_rows, -1)
        vectors = _split_rows(flat, self.vector_size)
        # A row that fills up the last vector counts nothing.
        counted = np.ones(flat.shape) if importance is None else importance.reshape(flat.shape)
        weights = _split_rows(counted, self.vector_size)
        codes = np.empty(vectors.shape[1:], np.intp)
        for table, levels in enumerate(self.levels):
            own = slice(None) if len(self.levels) == 1 else self.table_of_row == table
            codes[own] = _nearest(vectors[:, own], weights[:, own], levels)
        return codes.reshape(len(self.table_of_row), *values.shape[1:])

    def decode(self, codes: IntpArray, levels: Float64Array | None = None) -> Float64Array:
        """See `LevelTables.decode`."""
        components = np.moveaxis(self.levels if levels is None else levels, 2, 0)
        if len(self.levels) == 1:
            blocks = [np.take(component[0], codes) for component in components]
        else:
            table = self.table_of_row if codes.ndim == 1 else self.table_of_row[:, None]
            blocks = [component[table, codes] for component in components]
        return np.concatenate(blocks)[: self.num_rows]

    def sums(self, codes: IntpArray, values: Float64Array) -> Float64Array:
        """See `LevelTables.sums`."""
        blocks = _split_rows(values, self.vector_size)
        shape = self.levels.shape[:2]
        return np.stack([sums_by_code(shape, self.table_of_row, codes, block) for block in blocks], axis=2)

    def with_levels(self, levels: Float64Array, codes: IntpArray) -> "tuple[VectorTables, IntpArray]":
        """See `LevelTables.with_levels`; codes stay."""
        return VectorTables(levels, self.table_of_row, self.num_rows), codes


def learn_vectors(
    values: FloatArray, importance: Float64Array, spec: CodebookSpec, table_of_row: IntpArray
) -> VectorTables:
    """Vectors that serve a matrix: k-means (Lloyd 1982, from k-means++ seeds), each table on its own.

    Args:
        values: Float array, shape (rows, K): weights divided by their row's scale.
        importance: float64 array, the same shape: what the square of each value's error counts.
        spec: What the codebook shall look like; where there are fewer different vectors the last is repeated.
        table_of_row: Shape (rows of codes,).
    """
    size = spec.vector_size
    vectors, weights = _split_rows(values, size), _split_rows(importance, size)
    levels = []
    for table in range(int(table_of_row[-1]) + 1):
        own = table_of_row == table
        points, counted = vectors[:, own].reshape(size, -1).T, weights[:, own].reshape(size, -1).mean(axis=0)
        levels.append(_learn(points, counted, spec.num_levels, spec.reserve_zero))
    return VectorTables(np.stack(levels), table_of_row, len(values))


def _split_rows(rows: npt.NDArray[np.floating], size: int) -> Float64Array:
    """Rows as blocks, shape (size, rows of codes, n), filled up with 0."""
    missing = -len(rows) % size
    filled = np.pad(rows, ((0, missing), (0, 0))) if missing else rows
    return filled.astype(np.float64, copy=False).reshape(size, -1, rows.shape[1])


def _learn(vectors: Float64Array, weights: Float64Array, num_levels: int, reserve_zero: bool) -> Float64Array:
    """Centres of weighted vectors, shape (num_levels, size)."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    if len(vectors) > MAX_LEARNT_FROM:
        chosen = np.random.default_rng(RANDOM_STATE).choice(len(vectors), MAX_LEARNT_FROM, replace=False)
        vectors, weights = vectors[np.sort(chosen)], weights[np.sort(chosen)]
    zero = np.zeros((int(reserve_zero), vectors.shape[1]))
    distinct = np.unique(np.vstack([zero, vectors]), axis=0)
    if len(distinct) <= num_levels:
        return np.pad(distinct, ((0, num_levels - len(distinct)), (0, 0)), mode="edge")
    if not weights.any():
        weights = np.ones_like(weights)
    means = KMeans(num_levels - reserve_zero, n_init=1, max_iter=MAX_ROUNDS, random_state=RANDOM_STATE)
    with threadpool_limits(1, "openmp"):  # several threads add up in any order
        means.fit(vectors, sample_weight=weights)
    centres = np.vstack([zero, means.cluster_centers_])
    return np.asarray(centres[np.lexsort(centres.T[::-1])], dtype=np.float64)


def _nearest(vectors: Float64Array, weights: Float64Array, levels: Float64Array) -> IntpArray:
    """Codes of vectors, shape (size, ...): the least sum of weight * (vector - level)**2."""
    size, shape = len(vectors), vectors.shape[1:]
    flat, counted = vectors.reshape(size, -1), weights.reshape(size, -1)
    # What of the squares depends on the level, as one product.
    terms = np.concatenate([counted * flat, counted]).T
    factors = np.concatenate([-2.0 * levels, np.square(levels)], axis=1).T
    codes = np.empty(flat.shape[1], np.intp)
    step = max(1, CHUNK_SIZE // len(levels))
    for start in range(0, codes.size, step):
        codes[start : start + step] = np.argmin(terms[start : start + step] @ factors, axis=1)
    return codes.reshape(shape)
