"""Peak memory of calibration: 512 batches against 32.

Shows that it does not grow with the number of batches (within 5 %). Each figure is the peak resident set of a process
of its own, which holds the photos, the session and everything else; "inference" is the same process without
observers. onnxruntime's Percentile keeps every activation, so its rows end early.

SqueezeNet 1.1, batches of 4, the 64 photos of tuxpaint141 over and over; or a network of `benchmarks.networks`, batches
of 1, 32 made-up images over and over. Commands, from the checkout's root, about 2 minutes each on 2 cores:

    python -m benchmarks.calibration_memory
    python -m benchmarks.calibration_memory --network ResNet-18-like
"""

import itertools
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.table import print_table

# Nothing heavy is imported above: Linux counts what the parent holds when it starts a child into the child's peak.

BATCH_SIZE = 4

BATCH_NUMBERS = {
    "amct_lite": (32, 512),
    "inference": (32, 512),
    "onnxruntime MinMax": (32, 64),
    "onnxruntime Percentile": (8, 16, 32),
}


def main(
    repeats: Annotated[
        int, typer.Option(min=1, help="Processes for each figure of amct_lite; the median is taken.")
    ] = 3,
    network: Annotated[str, typer.Option(help="SqueezeNet, or a network of benchmarks.networks.")] = "SqueezeNet",
    child: Annotated[str, typer.Option(help="For the benchmark's own processes.")] = "",
    batch_num: Annotated[int, typer.Option(help="For the benchmark's own processes.")] = 0,
) -> None:
    """Print the peaks and how they grow."""
    if child:
        calibrate_once(network, child, batch_num)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    rows = []
    for kind, numbers in BATCH_NUMBERS.items():
        first = 0.0
        for number in numbers:
            times = repeats if kind == "amct_lite" else 1
            megabytes = statistics.median(peak_megabytes(network, kind, number) for _ in range(times))
            first = first or megabytes
            rows.append([kind, number, f"{megabytes:.0f}", f"{megabytes / first - 1:+.1%}"])
    print_table(["calibration", "batches", "peak MB", "against the first"], rows)


def peak_megabytes(network: str, kind: str, batch_num: int) -> float:
    """Peak resident set of a process that calibrates once, in MB."""
    options = ["--network", network, "--child", kind, "--batch-num", str(batch_num)]
    command = [sys.executable, "-m", "benchmarks.calibration_memory", *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) * 1024 / 1e6


def calibrate_once(network: str, kind: str, batch_num: int) -> None:
    """Calibrate, in this process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model_file, batches = open_case(network, batch_num, folder)
        if kind == "amct_lite":
            calibrate_with_amct(model_file, batches, batch_num, folder)
        elif kind == "inference":
            from benchmarks.imagenet import open_session

            session = open_session(model_file)
            for batch in batches:
                session.run(None, {"x": batch})
        else:
            from benchmarks.peers import calibrate_with_onnxruntime

            calibrate_with_onnxruntime(model_file, batches, kind.split()[-1], folder)


def open_case(network: str, batch_num: int, folder: Path) -> tuple[Path, Iterator[Any]]:
    """A model file and so many batches."""
    if network == "SqueezeNet":
        from benchmarks.imagenet import SQUEEZENET, calibration_photos

        return SQUEEZENET.model_file, repeated(calibration_photos(SQUEEZENET), batch_num)
    from benchmarks.networks import images, write_network

    write_network(network, folder / "network.onnx")
    return folder / "network.onnx", itertools.islice(itertools.cycle(images(32)), batch_num)


def calibrate_with_amct(model_file: Path, batches: Iterator[Any], batch_num: int, folder: Path) -> None:
    """Configure and calibrate."""
    import amct_lite as amct
    from benchmarks.plain_config import write_plain_config

    write_plain_config(folder / "config.json", model_file, batch_num=batch_num)
    graph = amct.init(folder / "config.json", model_file, None, folder / "record.txt")
    amct.calibrate(graph, batches)


def repeated(photos: Any, batch_num: int) -> Iterator[Any]:
    """Batches of the photos, from the start again where they end."""
    starts = itertools.cycle(range(0, len(photos), BATCH_SIZE))
    return (photos.read(start, start + BATCH_SIZE) for start in itertools.islice(starts, batch_num))


if __name__ == "__main__":
    typer.run(main)
