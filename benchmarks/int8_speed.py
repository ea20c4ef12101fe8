"""Run time of the deploy model against float and against onnxruntime's own quantize_static.

Shows how fast ONNX Runtime runs the QDQ model that `save_model` writes for target `onnxruntime`, beside the QDQ model
of `onnxruntime.quantization.quantize_static` (uint8 activations, int8 weights per channel, MinMax, preprocessed) and
the float model; file sizes and the divergence from float go with it, as speed alone says little.

One thread. Both calibrate on the same 64 photos of tuxpaint141; time is that of a batch of 1 and of 8, the models
taking turns, medians; divergence is over the 500 photos of imagenet500. Command, from the checkout's root, about a
minute on 2 cores:

    python -m benchmarks.int8_speed
"""

import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.imagenet import (
    EFFICIENTNET_LITE0,
    SQUEEZENET,
    calibration_batches,
    calibration_photos,
    compare,
    open_session,
    quantize,
    reporting_photos,
    run_model,
)
from benchmarks.peers import quantize_with_onnxruntime
from benchmarks.table import print_table

BATCH_SIZES = (1, 8)
NUM_WARM_UP = 3


def main(repeats: Annotated[int, typer.Option(min=1, help="Runs of each model at each batch size.")] = 41) -> None:
    """Print a table for each network."""
    for network in (SQUEEZENET, EFFICIENTNET_LITE0):
        calibration, photos = calibration_photos(network), reporting_photos(network)
        with tempfile.TemporaryDirectory() as folder:
            models = {
                "float": network.model_file,
                "deploy": quantize(network, calibration, Path(folder)).files["deploy_model"],
                "quantize_static": quantize_with_onnxruntime(
                    network.model_file, calibration_batches(calibration), Path(folder)
                ),
            }
            milliseconds = {size: batch_times(models, photos.read(0, size), repeats) for size in BATCH_SIZES}
            float_scores = run_model(network.model_file, photos)
            rows = []
            for name, path in models.items():
                found = compare(float_scores, run_model(path, photos), photos.accepted)
                times = [milliseconds[size][name] for size in BATCH_SIZES]
                gains = [milliseconds[size]["float"] / milliseconds[size][name] for size in BATCH_SIZES]
                rows.append(
                    [
                        name,
                        *(f"{t:.1f} ({gain:.2f}x)" for t, gain in zip(times, gains, strict=True)),
                        f"{path.stat().st_size:,}",
                        f"{found.drop:+.1f}",
                        f"{found.divergence:.4f}",
                    ]
                )
        print_table([network.name, *(f"ms, batch of {size}" for size in BATCH_SIZES), "bytes", "drop", "KL"], rows)


def batch_times(models: Mapping[str, Path], batch: Any, repeats: int) -> dict[str, float]:
    """Median time of a batch in each model, in milliseconds, on one thread."""
    sessions = {name: open_session(path, num_threads=1) for name, path in models.items()}
    found: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(NUM_WARM_UP + repeats):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(None, {"x": batch})
            if turn >= NUM_WARM_UP:
                found[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(times) for name, times in found.items()}


if __name__ == "__main__":
    typer.run(main)
