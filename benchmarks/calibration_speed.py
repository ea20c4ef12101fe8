"""Time of calibration against plain inference on the same batches, and against onnxruntime's calibrators.

Shows what the histograms and moments of every quantized layer's input cost on top of running the network once. Each
figure starts with opening the model and ends with the ranges; processor time is that of all threads, and with several
of them onnxruntime's threads also burn it while they wait. onnxruntime's calibrators observe the inputs and outputs
of every Conv.

SqueezeNet 1.1 and the 64 photos of tuxpaint141 in batches of 4. The runs take turns; medians. Command, from the
checkout's root, about a minute on 2 cores:

    python -m benchmarks.calibration_speed
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
from benchmarks.imagenet import SQUEEZENET, calibration_photos, open_session, write_config
from benchmarks.peers import calibrate_with_onnxruntime
from benchmarks.table import print_table

BATCH_SIZE = 4
METHODS = ("MinMax", "Percentile", "Entropy")


def main(repeats: Annotated[int, typer.Option(min=1, help="Runs of each kind.")] = 5) -> None:
    """Print a table for one thread and one for onnxruntime's own choice."""
    photos = calibration_photos(SQUEEZENET)
    batches = [photos.read(start, start + BATCH_SIZE) for start in range(0, len(photos), BATCH_SIZE)]
    with tempfile.TemporaryDirectory() as folder:
        for num_threads in (1, 0):
            kinds = make_kinds(batches, num_threads, Path(folder))
            seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
            for _ in range(repeats):
                for name, kind in kinds.items():
                    seconds[name].append(measured(kind))
            medians = {
                name: [statistics.median(column) for column in zip(*s, strict=True)] for name, s in seconds.items()
            }
            plain = medians["inference"]
            print_table(
                [
                    "one thread" if num_threads == 1 else "default threads",
                    "CPU s",
                    "of inference",
                    "wall s",
                    "of inference",
                ],
                [
                    [name, f"{cpu:.2f}", f"{cpu / plain[0]:.2f}", f"{wall:.2f}", f"{wall / plain[1]:.2f}"]
                    for name, (cpu, wall) in medians.items()
                ],
            )


def make_kinds(batches: list[Any], num_threads: int, folder: Path) -> dict[str, Callable[[], Any]]:
    """What is measured: name -> a call that does it once."""
    model_file = SQUEEZENET.model_file
    write_config(SQUEEZENET, folder / "config.json", batch_num=len(batches))

    def infer() -> None:
        session = open_session(model_file, num_threads=num_threads)
        for batch in batches:
            session.run(None, {"x": batch})

    def calibrate() -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        graph = amct.init(folder / "config.json", model_file, None, folder / "record.txt")
        amct.calibrate(graph, batches, sess_options=options)

    def peer(method: str) -> Callable[[], Any]:
        return lambda: calibrate_with_onnxruntime(model_file, batches, method, folder, num_threads=num_threads)

    return {
        "inference": infer,
        "amct_lite": calibrate,
        **{f"onnxruntime {method}": peer(method) for method in METHODS},
    }


def measured(call: Callable[[], Any]) -> tuple[float, float]:
    """Processor and wall time of a call, in seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    typer.run(main)
