"""Accuracy of activation NUQ alone: every layer's input quantized, weights float.

Shows what keeping 64, 32, 16 or 8 of the 256 levels of every layer's input costs, beside even steps: the uniform grid
of as many levels whose clip range has the least squared error over the same calibration data.

Calibrates either on 128 photos of imagenet500 (its first at odd positions) and evaluates on its other 372, which
nothing was tuned on; or on the 141 photos of tuxpaint141 and evaluates on all 500, among them those 128, on which
methods were compared. KL is the mean divergence from the float network, nats. Command, from the checkout's root, about
20 minutes for each on 2 cores that do other work beside:

    python -m benchmarks.activation_nuq_accuracy --calibrate-on imagenet500
    python -m benchmarks.activation_nuq_accuracy --calibrate-on tuxpaint141
"""

import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

import amct_lite as amct
from amct_lite.calibration.ranges import RANGE_ALGORITHMS
from amct_lite.calibration.snapshot import HistogramSnapshot
from amct_lite.calibration.sweep import sweep
from amct_lite.codebook.lookup import nearest_level_table
from amct_lite.export.fake_quant import fake_quant_model
from amct_lite.files.record import LayerRecord
from amct_lite.graph.saving import save_ir
from amct_lite.quantize.apply_record import quantized_layers
from amct_lite.quantize.factors import make_records
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.types import Grid
from benchmarks.imagenet import (
    EFFICIENTNET_LITE0,
    SQUEEZENET,
    Comparison,
    Network,
    calibration_batches,
    compare,
    photos_of,
    run_model,
    write_config,
)
from benchmarks.table import print_table

NUM_LEVELS = (256, 64, 32, 16, 8)
NUM_CALIBRATION_PHOTOS = 128


class CalibrationSet(StrEnum):
    """What to calibrate on."""

    IMAGENET = "imagenet500"
    TUXPAINT = "tuxpaint141"


def main(
    calibrate_on: Annotated[CalibrationSet, typer.Option(help="The photos to calibrate on.")] = CalibrationSet.IMAGENET,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos in a calibration batch.")] = 16,
) -> None:
    """Print a table for each network."""
    for network in (SQUEEZENET, EFFICIENTNET_LITE0):
        calibration, photos = _split(network, calibrate_on)
        float_scores = run_model(network.model_file, photos)
        parts = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}
        rows = []
        with tempfile.TemporaryDirectory() as folder:
            batches = calibration_batches(calibration, batch_size=batch_size)
            for name, model_file in _models(network, batches, Path(folder)):
                scores = run_model(model_file, photos)
                found = {key: compare(float_scores[p], scores[p], photos.accepted[p]) for key, p in parts.items()}
                rows.append(_row(name, found))
                model_file.unlink()
        print_table(
            [
                f"{network.name}, {len(photos)} photos",
                "top-1 %",
                "drop",
                "lost/won",
                "KL",
                "KL even/odd",
                "drop even/odd",
            ],
            rows,
        )


def _split(network: Network, calibrate_on: CalibrationSet) -> tuple[Any, Any]:
    """The photos to calibrate on, and those to report on."""
    if calibrate_on is CalibrationSet.TUXPAINT:
        return photos_of(network, "tuxpaint141"), photos_of(network, "imagenet500")
    chosen = list(range(1, 2 * NUM_CALIBRATION_PHOTOS, 2))
    others = sorted(set(range(500)) - set(chosen))
    return photos_of(network, "imagenet500", chosen), photos_of(network, "imagenet500", others)


def _models(network: Network, batches: Any, folder: Path) -> Any:
    """Yields (name, fake-quant model) of each treatment."""
    write_config(network, folder / "config.json", _keep_weights, batch_num=len(batches))
    plain = amct.init(folder / "config.json", network.model_file)
    statistics = sweep(plain.model, plain.quantized_layers, batches, len(batches))
    for num_levels in NUM_LEVELS:
        write_config(network, folder / "config.json", _nuq(num_levels), batch_num=len(batches))
        graph = amct.init(folder / "config.json", network.model_file)
        records = make_records(graph.model, graph.plans, statistics)
        yield f"{num_levels}, NUQ" if num_levels < 256 else "256, int8", _write(graph, records, folder)
        if num_levels < 256:
            even = {}
            for plan in graph.plans:
                if plan.config is not None:
                    grid, levels = _even_steps(statistics.histogram(plan.layer).snapshot(), num_levels)
                    even[plan.layer.name] = LayerRecord(
                        scale_d=grid.scale, offset_d=grid.offset, activation_cluster=levels, float_weights=True
                    )
            yield f"{num_levels}, even steps", _write(graph, even, folder)


def _keep_weights(block: dict[str, Any]) -> None:
    block["weight_quant_params"] = {"wts_algo": "none"}


def _nuq(num_levels: int) -> Any:
    def edit(block: dict[str, Any]) -> None:
        _keep_weights(block)
        if num_levels < 256:
            block["activation_quant_params"]["nuq"] = {"target_compression_ratio": num_levels / 256}

    return edit


def _write(graph: PlannedGraph, records: dict[str, LayerRecord], folder: Path) -> Path:
    path = folder / "fake_quant.onnx"
    save_ir(fake_quant_model(graph.model, quantized_layers(graph.model, records)), path)
    return path


def _even_steps(snapshot: HistogramSnapshot, num_levels: int) -> tuple[Grid, tuple[int, ...]]:
    """The uniform grid of num_levels levels, zero among them, with the least squared error.

    Its range is that of the data, shrunk in 40 steps down to a fifth. It is held as the lowest levels of an int8 grid.
    """
    widest = RANGE_ALGORITHMS["minmax"](snapshot, num_bits=8, with_offset=True, params={})
    best: tuple[float, Grid, tuple[int, ...]] | None = None
    for share in np.linspace(1.0, 0.2, 41):
        low, high = widest.low * share, widest.high * share
        scale = float(np.float32((high - low) / (num_levels - 1)))
        below = int(np.rint(-low / scale))
        grid = Grid(scale, below - 128)
        levels = tuple(range(-128, -128 + num_levels))
        error = _clip_error(snapshot, grid, levels)
        if best is None or error < best[0]:
            best = (error, grid, levels)
    assert best is not None
    return best[1], best[2]


def _clip_error(snapshot: HistogramSnapshot, grid: Grid, levels: tuple[int, ...]) -> float:
    decoded = (nearest_level_table(np.array(levels)) - grid.offset) * grid.scale
    centres: npt.NDArray[np.float64] = snapshot.centres
    nearest = np.clip(np.rint(centres / grid.scale) + grid.offset, -128, 127).astype(np.int64) + 128
    return float(np.sum(snapshot.counts * np.square(centres - decoded[nearest])))


def _row(name: str, parts: dict[str, Comparison]) -> list[str]:
    whole, even, odd = parts["all"], parts["even"], parts["odd"]
    return [
        name,
        f"{whole.top1:.1f}",
        f"{whole.drop:+.1f}",
        f"{whole.lost}/{whole.won}",
        f"{whole.divergence:.4f}",
        f"{even.divergence:.4f} / {odd.divergence:.4f}",
        f"{even.drop:+.1f} / {odd.drop:+.1f}",
    ]


if __name__ == "__main__":
    typer.run(main)
