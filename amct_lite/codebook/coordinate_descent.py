"""Coordinate descent over codes: each weight in turn takes the level that is best given all the others.

The assignment half of LNQ (Kim et al. 2025, "GuidedQuant: Large Language Model Quantization via Exploiting End Loss
Guidance", arXiv 2505.07004, section 4): no move can raise the layer's output error.
"""

import numpy as np
import numpy.typing as npt

from amct_lite.codebook.tables import LevelTables

__all__ = ["descend"]

Float64Array = npt.NDArray[np.float64]
IntpArray = npt.NDArray[np.intp]

BLOCK = 64

# Sweeps end when fewer than this share of the codes change.
FEW_CHANGES = 1e-3


def descend(
    weight: Float64Array,
    quadratic: Float64Array,
    scales: Float64Array,
    tables: LevelTables,
    codes: IntpArray,
    *,
    max_sweeps: int,
) -> IntpArray:
    """Improves codes by sweeps over the columns.

    Args:
        weight: float64 array, shape (groups, rows, K).
        quadratic: float64 array, shape (groups, K, K), positive definite.
        scales: float64 array, shape (groups, rows).
        tables: The levels of all groups * rows rows.
        codes: Where to start, as from `gptq_codes`.
        max_sweeps: Sweeps at most.

    Returns:
        Codes of the same shape; their error is not greater than that of the start.
    """
    groups, rows, size = weight.shape
    # Columns are what is worked on: they come second, so that the numbers of one are neighbours.
    chosen = np.ascontiguousarray(codes.transpose(2, 0, 1))
    quantized = tables.decode(codes.reshape(-1, size)).reshape(weight.shape) * scales[:, :, None]
    gradient = quadratic @ (weight - quantized).transpose(0, 2, 1)
    quantized = np.ascontiguousarray(quantized.transpose(0, 2, 1))
    diagonal = np.diagonal(quadratic, axis1=1, axis2=2)[:, :, None]
    squares = None if tables.vector_size == 1 else np.square(scales)
    for _ in range(max_sweeps):
        changed = 0
        for start in range(0, size, BLOCK):
            stop = min(start + BLOCK, size)
            near = quadratic[:, start:stop, start:stop]
            moves = np.zeros((groups, stop - start, rows))
            for column in range(start, stop):
                best = quantized[:, column] + gradient[:, column] / diagonal[:, column]
                importance = None if squares is None else (squares * diagonal[:, column]).reshape(-1)
                found = tables.nearest((best / scales).reshape(-1), importance).reshape(codes.shape[:2])
                others = int(np.count_nonzero(found != chosen[column]))
                if not others:
                    continue
                changed += others
                values = tables.decode(found.reshape(-1)).reshape(groups, rows) * scales
                move = quantized[:, column] - values
                chosen[column], quantized[:, column], moves[:, column - start] = found, values, move
                gradient[:, column + 1 : stop] += near[:, column - start, column - start + 1 :, None] * move[:, None]
            if moves.any():
                gradient[:, start:stop] += np.triu(near) @ moves
                gradient[:, :start] += quadratic[:, :start, start:stop] @ moves
                gradient[:, stop:] += quadratic[:, stop:, start:stop] @ moves
        if changed < FEW_CHANGES * codes.size:
            break
    return np.ascontiguousarray(chosen.transpose(1, 2, 0))
