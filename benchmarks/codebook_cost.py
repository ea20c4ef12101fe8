"""What making codebooks costs: wall time, CPU time and peak memory of `compress` at 4 bits, by how it is refined.

Each figure is the median over processes of their own; time from the model file to the codebooks, without imports and
the photos' reading; memory is the process's peak, photos included. 128 photos of tuxpaint141. Command, from the
checkout's root, about 10 minutes on 2 cores:

    python -m benchmarks.codebook_cost
"""

import resource
import statistics
import subprocess
import sys
import time
from typing import Annotated

import typer

from benchmarks.table import print_table

# Nothing heavy is imported above: Linux counts what the parent holds when it starts a child into the child's peak.

NUM_PHOTOS, BATCH_SIZE = 128, 16
REFINES = ("none", "bias", "gptq", "lnq")
NETWORKS = ("SQUEEZENET", "EFFICIENTNET_LITE0")


def main(
    repeats: Annotated[int, typer.Option(min=1, help="Processes for each figure; the median is taken.")] = 3,
    child: Annotated[str, typer.Option(help="For the benchmark's own processes.")] = "",
    refine: Annotated[str, typer.Option(help="For the benchmark's own processes.")] = "",
) -> None:
    """Print a row for each network and refinement."""
    if child:
        compress_once(child, refine)
        return
    rows = []
    for network in NETWORKS:
        for kind in REFINES:
            runs = [measure(network, kind) for _ in range(repeats)]
            wall, cpu, megabytes = (statistics.median(figures) for figures in zip(*runs, strict=True))
            rows.append([network, kind, f"{wall:.1f}", f"{cpu:.1f}", f"{megabytes:.0f}"])
    print_table(["network", "refine", "wall s", "CPU s", "peak MB"], rows)


def measure(network: str, refine: str) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak megabytes of a process."""
    command = [sys.executable, "-m", "benchmarks.codebook_cost", "--child", network, "--refine", refine]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall, cpu, kilobytes = map(float, done.stdout.split()[-3:])
    return wall, cpu, kilobytes * 1024 / 1e6


def compress_once(network_name: str, refine: str) -> None:
    """Compress in this process and print what it took."""
    import onnxruntime  # noqa: F401  (what is imported on first use belongs to starting Python, which is not counted)

    import amct_lite as amct
    from benchmarks import imagenet

    network = getattr(imagenet, network_name)
    batches = None
    if refine != "none":
        photos = imagenet.all_calibration_photos(network)
        batches = [photos.read(i, i + BATCH_SIZE) for i in range(0, NUM_PHOTOS, BATCH_SIZE)]
    compress = amct.compress
    wall, cpu = time.perf_counter(), time.process_time()
    compress(network.model_file, bits=4, batches=batches, refine=refine)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    typer.run(main)
