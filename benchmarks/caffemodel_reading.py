"""Time of reading a caffemodel of 100 MB, against protobuf's own parse of the same bytes.

Shows that it takes at most twice as long. "parse" reads the file and has protobuf parse it; "read_network" does that
and everything else: the prototxt, matching, checks, and the weights as arrays. Each figure is the median of five in
one process, after one run that does not count. Command, from the checkout's root, some seconds:

    python -m benchmarks.caffemodel_reading
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import google.protobuf
import numpy as np
import typer

from amct_lite.caffe.reading import read_network
from amct_lite.files.protos import message_class
from benchmarks.table import print_table

_WIDTH = 1024


def main(
    megabytes: Annotated[int, typer.Option(min=4, help="Size of the caffemodel.")] = 100,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each; the median is taken.")] = 5,
) -> None:
    """Print both times and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        prototxt, caffemodel = write_pair(Path(folder), megabytes)
        network = message_class("caffe", "caffe.NetParameter")
        parse = median_ms(lambda: network.FromString(caffemodel.read_bytes()), repeats)
        read = median_ms(lambda: read_network(prototxt, caffemodel), repeats)
        size = caffemodel.stat().st_size / 1e6
    print(f"protobuf {google.protobuf.__version__}, {size:.0f} MB, median of {repeats}")
    rows = [["parse", f"{parse:.1f}", "1.00"], ["read_network", f"{read:.1f}", f"{read / parse:.2f}"]]
    print_table(["what", "ms", "ratio"], rows)


def write_pair(folder: Path, megabytes: int) -> tuple[Path, Path]:
    """A chain of inner products of 1024 x 1024 (4 MB each), with random weights."""
    random = np.random.default_rng(0)
    definition = message_class("caffe", "caffe.NetParameter")(name="large")
    definition.layer.add(name="data", type="Input", top=["x0"]).input_param.shape.add(dim=[1, _WIDTH])
    weights = message_class("caffe", "caffe.NetParameter")(name="large")
    for index in range(max(1, round(megabytes * 1e6 / (4 * _WIDTH * _WIDTH)))):
        layer = definition.layer.add(
            name=f"ip{index}", type="InnerProduct", bottom=[f"x{index}"], top=[f"x{index + 1}"]
        )
        layer.inner_product_param.num_output = _WIDTH
        layer.inner_product_param.bias_term = False
        blob = weights.layer.add(name=f"ip{index}", type="InnerProduct").blobs.add()
        blob.shape.dim.extend([_WIDTH, _WIDTH])
        blob.data.extend(random.standard_normal(_WIDTH * _WIDTH).astype(np.float32))
    prototxt, caffemodel = folder / "large.prototxt", folder / "large.caffemodel"
    prototxt.write_text(str(definition))
    caffemodel.write_bytes(weights.SerializeToString())
    return prototxt, caffemodel


def median_ms(function: Callable[[], object], repeats: int) -> float:
    """Median time of a call, in milliseconds."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        result = function()
        times.append((time.perf_counter() - start) * 1000)
        del result  # freeing a network is not part of reading it
    return statistics.median(times[1:])


if __name__ == "__main__":
    typer.run(main)
