"""Time of calibration against plain inference on the same batches, and against onnxruntime's calibrators.

Shows what the histograms and moments of every quantized layer's input cost on top of running the network once. Each
figure starts with opening the model and ends with the ranges; processor time is that of all threads, and with several
of them onnxruntime's threads also burn it while they wait. onnxruntime's calibrators observe the inputs and outputs
of every Conv.

SqueezeNet 1.1 runs on the 64 photos of tuxpaint141 in batches of 4, the networks of `benchmarks.networks` on made-up
images in batches of 1. The runs take turns; medians. "statistics kept" is amct_lite with a statistics file that an
earlier calibration left, as after a switch of the range algorithm. Commands, from the checkout's root, a few minutes
each on 2 cores:

    python -m benchmarks.calibration_speed
    python -m benchmarks.calibration_speed --network ResNet-18-like --batches 32
    python -m benchmarks.calibration_speed --network ResNet-50-like --batches 96 --methods MinMax
    python -m benchmarks.calibration_speed --network MobileNetV2-like --batches 32 --methods MinMax

onnxruntime's Percentile and Entropy keep every activation, about 80 MB an image of the ResNet-50-like network.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import onnxruntime
import typer

import amct_lite as amct
from amct_lite.calibration.sweep import sweep
from amct_lite.graph import load_model
from benchmarks.imagenet import SQUEEZENET, calibration_photos, open_session
from benchmarks.networks import images, write_network
from benchmarks.peers import calibrate_with_onnxruntime
from benchmarks.plain_config import write_plain_config
from benchmarks.table import print_table

BATCH_SIZE = 4
METHODS = "MinMax,Percentile,Entropy"


def main(
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each kind.")] = 5,
    network: Annotated[str, typer.Option(help="SqueezeNet, or a network of benchmarks.networks.")] = "SqueezeNet",
    batches: Annotated[int, typer.Option(min=1, help="Batches of a network of benchmarks.networks.")] = 32,
    methods: Annotated[str, typer.Option(help="onnxruntime's calibrators to run, with commas.")] = METHODS,
    threads: Annotated[list[int] | None, typer.Option(help="onnxruntime's threads, 0 for its own choice.")] = None,
) -> None:
    """Print a table for each number of threads."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model_file, data = open_case(network, batches, folder)
        for num_threads in threads or [1]:
            kinds = make_kinds(model_file, data, num_threads, folder, methods.split(","))
            seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
            for _ in range(repeats):
                for kind, call in kinds.items():
                    seconds[kind].append(measured(call))
            medians = {
                kind: [statistics.median(column) for column in zip(*s, strict=True)] for kind, s in seconds.items()
            }
            plain = medians["inference"]
            print_table(
                [
                    f"{network}, {num_threads or 'default'} thread(s)",
                    "CPU s",
                    "of inference",
                    "wall s",
                    "of inference",
                ],
                [
                    [kind, f"{cpu:.2f}", f"{cpu / plain[0]:.2f}", f"{wall:.2f}", f"{wall / plain[1]:.2f}"]
                    for kind, (cpu, wall) in medians.items()
                ],
            )


def open_case(network: str, batch_num: int, folder: Path) -> tuple[Path, list[Any]]:
    """A model file and its batches."""
    if network == "SqueezeNet":
        photos = calibration_photos(SQUEEZENET)
        starts = range(0, len(photos), BATCH_SIZE)
        return SQUEEZENET.model_file, [photos.read(start, start + BATCH_SIZE) for start in starts]
    write_network(network, folder / "network.onnx")
    return folder / "network.onnx", images(batch_num)


def make_kinds(
    model_file: Path, batches: list[Any], num_threads: int, folder: Path, methods: list[str]
) -> dict[str, Callable[[], Any]]:
    """What is measured: name -> a call that does it once."""
    config_file, kept = folder / "config.json", folder / "kept.npz"
    write_plain_config(config_file, model_file, batch_num=len(batches))

    def options() -> Any:
        made = onnxruntime.SessionOptions()
        made.intra_op_num_threads = num_threads
        made.log_severity_level = 3
        return made

    def graph() -> Any:
        return amct.init(config_file, model_file, None, folder / "record.txt")

    def infer() -> None:
        session = open_session(model_file, num_threads=num_threads)
        for batch in batches:
            session.run(None, {"x": batch})

    def observe() -> None:
        opened = load_model(model_file)
        sweep(opened, opened.layers, batches, len(batches), moments=False, sess_options=options())

    def peer(method: str) -> Callable[[], Any]:
        return lambda: calibrate_with_onnxruntime(model_file, batches, method, folder, num_threads=num_threads)

    amct.calibrate(graph(), batches, sess_options=options(), statistics_file=kept)
    return {
        "inference": infer,
        "amct_lite, statistics only": observe,
        "amct_lite": lambda: amct.calibrate(graph(), batches, sess_options=options()),
        "amct_lite, statistics kept": lambda: amct.calibrate(graph(), statistics_file=kept),
        **{f"onnxruntime {method}": peer(method) for method in methods},
    }


def measured(call: Callable[[], Any]) -> tuple[float, float]:
    """Processor and wall time of a call, in seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    typer.run(main)
