"""Times the exact choice of levels on a full int8 histogram: `python benchmarks/exact_grid_levels.py`."""

import statistics
import time

import numpy as np

from amct_lite.codebook.exact_grid import best_levels

REPEATS = 31


def main() -> None:
    """Prints the median time for 16 and 32 levels out of 256."""
    points = np.arange(-128, 128)
    weights = np.exp(-np.square(points / 50.0)) * 1e5 + 1.0
    for num_levels in (16, 32):
        milliseconds = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            best_levels(points, weights, num_levels)
            milliseconds.append((time.perf_counter() - start) * 1e3)
        print(f"{num_levels} of 256 levels: median {statistics.median(milliseconds):.2f} ms")


if __name__ == "__main__":
    main()
