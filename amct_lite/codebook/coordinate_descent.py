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
    codes = codes.copy()
    quantized = tables.decode(codes.reshape(-1, size)).reshape(weight.shape) * scales[:, :, None]
    gradient = (weight - quantized) @ quadratic
    diagonal = np.diagonal(quadratic, axis1=1, axis2=2)
    squares = None if tables.vector_size == 1 else np.square(scales)
    for _ in range(max_sweeps):
        changed = 0
        for start in range(0, size, BLOCK):
            stop = min(start + BLOCK, size)
            near = quadratic[:, start:stop, start:stop]
            moves = np.empty((groups, rows, stop - start))
            for column in range(start, stop):
                inner = column - start
                best = quantized[:, :, column] + gradient[:, :, column] / diagonal[:, None, column]
                importance = None if squares is None else (squares * diagonal[:, column, None]).reshape(-1)
                chosen = tables.nearest((best / scales).reshape(-1), importance)
                values = tables.decode(chosen).reshape(groups, rows) * scales
                chosen = chosen.reshape(codes.shape[:2])
                changed += int(np.count_nonzero(chosen != codes[:, :, column]))
                move = quantized[:, :, column] - values
                codes[:, :, column], quantized[:, :, column], moves[:, :, inner] = chosen, values, move
                gradient[:, :, start:stop] += move[:, :, None] * near[:, None, inner]
            gradient[:, :, :start] += moves @ quadratic[:, start:stop, :start]
            gradient[:, :, stop:] += moves @ quadratic[:, start:stop, stop:]
        if changed < FEW_CHANGES * codes.size:
            break
    return codes
