"""Times and judges the choice of real levels: `python -m benchmarks.float_levels`.

The first table is about 2.4 million numbers from Student's t distribution, beside scikit-learn, kmeans1d and the
fast mode of coremltools' palettizer (round, count equal values, cluster these exactly). Time is CPU
time, in units of one `numpy.histogram` of 65536 bins over the same data. The second is about every weight of real
nets, as they are and a million times smaller and larger: error in units of the optimum. That is an exact dynamic
programme over all distinct values where these are no more than 16384; of more, one over 16384 cells whose bounds
are then refined down to single values. Peers that are not installed are named as such.
"""

import importlib
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir

from amct_lite.codebook.exact_floats import best_float_levels
from amct_lite.codebook.nearest_codes import nearest_codes
from amct_lite.codebook.segment_costs import Points, merge_runs
from amct_lite.codebook.segmentation import best_segments
from amct_lite.codebook.segmentation_refinement import refine_bounds
from amct_lite.codebook.value_cells import cell_starts, union_of_bounds
from benchmarks.table import print_table

MODELS = Path(__file__).resolve().parents[2] / "shared" / "models"
NETS = ("squeezenet1.1/squeezenet1.1.onnx", "efficientnet_lite0.onnx", "ccexam_mnist.onnx", "cifar10_model.onnx")
NUM_VALUES = 2_400_000
NUM_LEVELS = (4, 8, 16, 64, 256)
SCALES = (1.0, 1e-6, 1e6)
REPEATS = 5
EXACT_UP_TO = 16384

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]


def main() -> None:
    """Prints both tables."""
    _student_t()
    _real_nets()


def _student_t() -> None:
    values = (np.random.default_rng(0).standard_t(5, NUM_VALUES) * 0.02).astype(np.float32)
    unit, _ = _cpu_seconds(lambda: np.histogram(values, 65536))
    print(f"One numpy.histogram of {NUM_VALUES} values into 65536 bins: {unit * 1e3:.1f} ms of CPU time.\n")
    rows = []
    for num_levels in NUM_LEVELS:
        seconds, found = _cpu_seconds(lambda count=num_levels: best_float_levels(values, count))  # type: ignore[misc]
        best = _optimum(values, num_levels)
        rows.append([f"best_float_levels, {num_levels}", f"{seconds / unit:.2f}", f"{found.error / best:.6f}"])
        coding, _ = _cpu_seconds(lambda levels=found.levels: nearest_codes(values, levels))  # type: ignore[misc]
        rows.append([f"nearest_codes, {num_levels}", f"{coding / unit:.2f}", ""])
    best = _optimum(values, 16)
    peers: tuple[tuple[str, str, Callable[[Any, Float32Array], Float64Array]], ...] = (
        ("scikit-learn KMeans (n_init=1), 16", "sklearn.cluster", _levels_of_sklearn),
        ("kmeans1d, 16", "kmeans1d", _levels_of_kmeans1d),
        ("ckwrap on distinct float16 values, 16", "ckwrap", _levels_of_ckwrap),
        ("coremltools on distinct float16 values, 16", "coremltools._deps", _levels_of_coremltools),
        ("coremltools, rounded to 4 decimals first (its fast mode), 16", "coremltools._deps", _levels_of_fast_mode),
    )
    for name, module_name, peer in peers:
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            rows.append([name, "not installed", ""])
            continue
        seconds, levels = _cpu_seconds(lambda run=peer, module=module: run(module, values), repeats=1)  # type: ignore[misc]
        rows.append([name, f"{seconds / unit:.2f}", f"{_error(values, levels) / best:.6f}"])
    print_table(["method, levels", "CPU time / histogram", "error / optimum"], rows)


def _real_nets() -> None:
    ratios: dict[int, list[float]] = {num_levels: [] for num_levels in NUM_LEVELS}
    num_weights = 0
    for weight in _weights():
        num_weights += 1
        for num_levels in NUM_LEVELS:
            best = _optimum(weight, num_levels)
            for scale in SCALES:
                error = best_float_levels(weight * np.float32(scale), num_levels).error / scale**2
                ratios[num_levels].append(error / best if best > 0.0 else 1.0 + error)
    print(f"{num_weights} weights of {', '.join(NETS)}, each times {', '.join(map(str, SCALES))}.\n")
    print_table(
        ["levels", "median error / optimum", "worst"],
        [[count, f"{statistics.median(found):.6f}", f"{max(found):.6f}"] for count, found in ratios.items()],
    )


def _weights() -> Iterator[Float32Array]:
    for net in NETS:
        if not (MODELS / net).exists():
            raise SystemExit(f"This benchmark needs ../shared/models/{net}, which is not there.")
        for initializer in onnx_ir.load(MODELS / net).graph.initializers.values():
            if initializer.const_value is not None and initializer.const_value.dtype == onnx_ir.DataType.FLOAT:
                weight = initializer.const_value.numpy()
                if weight.ndim > 1:
                    yield weight


def _optimum(values: Float32Array, num_levels: int) -> float:
    distinct, counts = np.unique(values.astype(np.float64), return_counts=True)
    points = Points(counts.astype(np.float64), distinct)
    every_bound = np.arange(distinct.size + 1)
    cells = every_bound
    if distinct.size > EXACT_UP_TO:
        cells = np.append(cell_starts(distinct, points.mass, EXACT_UP_TO), distinct.size)
    bounds = cells[best_segments(merge_runs(points, cells), num_levels).bounds]
    if distinct.size > EXACT_UP_TO:
        for stride in (64, 16, 4, 1):
            bounds = refine_bounds(points, bounds, union_of_bounds(bounds, every_bound[::stride]), None)
    return _error(values, merge_runs(points, union_of_bounds(bounds)).mean)


def _error(values: Float32Array, levels: Float64Array) -> float:
    return float(np.sum(np.square(values - np.sort(levels)[nearest_codes(values, np.sort(levels))])))


def _cpu_seconds(call: Callable[[], Any], repeats: int = REPEATS) -> tuple[float, Any]:
    """The least CPU time of a few calls, and the result."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        result = call()
        best = min(best, time.process_time() - start)
    return best, result


def _levels_of_sklearn(module: Any, values: Float32Array) -> Float64Array:
    found = module.KMeans(16, n_init=1, random_state=0).fit(values.reshape(-1, 1))
    return np.asarray(found.cluster_centers_, dtype=np.float64).reshape(-1)


def _levels_of_kmeans1d(module: Any, values: Float32Array) -> Float64Array:
    return np.asarray(module.cluster(values, 16).centroids)


def _levels_of_ckwrap(module: Any, values: Float32Array) -> Float64Array:
    distinct, counts = np.unique(values.astype(np.float16), return_counts=True)
    found = module.ckmeans(distinct.astype(np.float64), 16, weights=counts.astype(np.float64))
    return np.asarray(found.centers)


def _levels_of_coremltools(module: Any, values: Float32Array) -> Float64Array:
    distinct, counts = np.unique(values.astype(np.float16), return_counts=True)
    return np.asarray(module._kmeans1d.cluster(distinct.astype(np.float64), 16, weights=counts).centroids)


def _levels_of_fast_mode(module: Any, values: Float32Array) -> Float64Array:
    # As SequentialKMeans does with enable_fast_kmeans_mode and the default rounding_precision.
    rounded = np.round(values.astype(np.float16).astype(np.float32) * 1e4) / 1e4
    distinct, counts = np.unique(rounded, return_counts=True)
    return np.asarray(module._kmeans1d.cluster(distinct, 16, weights=counts).centroids)


if __name__ == "__main__":
    main()
