"""Bytes, load time, run time and memory of packed codebooks in stock ONNX operators, against float.

Shows that the file shrinks to the bits of the codes while ONNX Runtime, which folds the decoding at load time, runs the
same float network as before. Every Conv, Gemm and MatMul has codes of 2 to 6 bits a weight in the form that `compress`
gives them, single weights or vectors. Accuracy is not the question here: the levels are clustered without data, and the
batch is random.

One thread. Loads and runs of the models take turns; medians. Resident memory is what a process of its own gains by
loading: the folded weights are as large as float ones, and what folding took in between is not given back at once.
Command, from the checkout's root, about three minutes on 2 cores:

    python -m benchmarks.packed_form
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from amct_lite.codebook.cluster_rows import cluster_rows
from amct_lite.codebook.specification import CodeForm, Refine
from amct_lite.export.editor import GraphEditor
from amct_lite.export.packed_weight import packed_weight
from amct_lite.files.config import CodebookParams
from amct_lite.graph.model import Model, load_model
from amct_lite.graph.saving import save_ir
from amct_lite.quantize.weight_rows import weight_layout
from benchmarks.imagenet import EFFICIENTNET_LITE0, SQUEEZENET, open_session
from benchmarks.table import print_table

NUM_BITS = (2, 3, 4, 5, 6)
BATCH_SIZES = (1, 8)
NUM_WARM_UP = 3
INPUT_SIDE = {SQUEEZENET.name: 227, EFFICIENTNET_LITE0.name: 224}

MEMORY_SCRIPT = """
import sys
from pathlib import Path
from benchmarks.imagenet import open_session
from benchmarks.packed_form import resident_bytes
open_session(Path(sys.argv[1]), num_threads=1)  # onnxruntime's own first load
before = resident_bytes()
session = open_session(Path(sys.argv[2]), num_threads=1)
print(resident_bytes() - before)
"""


def main(
    loads: Annotated[int, typer.Option(min=1, help="Loads of each model.")] = 15,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each model at each batch size.")] = 31,
) -> None:
    """Print a table for each network."""
    for network in (SQUEEZENET, EFFICIENTNET_LITE0):
        model = load_model(network.model_file)
        with tempfile.TemporaryDirectory() as folder:
            files = {"float": Path(folder) / "float.onnx"}
            model.save(files["float"])
            for num_bits in NUM_BITS:
                files[f"{num_bits} bits"] = Path(folder) / f"{num_bits}.onnx"
                write_packed(model, num_bits, files[f"{num_bits} bits"])
            rows = table(files, loads, runs, INPUT_SIDE[network.name])
        headings = [
            "bytes",
            "of float",
            "load ms",
            *(f"run ms, batch of {size}" for size in BATCH_SIZES),
            "resident MB",
        ]
        print_table([network.name, *headings], rows)


def table(files: Mapping[str, Path], loads: int, runs: int, side: int) -> list[list[str]]:
    """The rows of a network's table; the first of its files is the float one."""
    load = load_times(files, loads)
    rng = np.random.default_rng(0)
    run = {
        size: run_times(files, rng.normal(size=(size, 3, side, side)).astype(np.float32), runs) for size in BATCH_SIZES
    }
    float_bytes = files["float"].stat().st_size
    return [
        [
            name,
            f"{path.stat().st_size:,}",
            f"{100 * path.stat().st_size / float_bytes:.1f} %",
            f"{load[name]:.0f} ({load[name] / load['float']:.2f}x)",
            *(f"{run[size][name]:.1f} ({run[size][name] / run[size]['float']:.2f}x)" for size in BATCH_SIZES),
            f"{loaded_bytes(path) / 1e6:.1f}",
        ]
        for name, path in files.items()
    ]


def write_packed(model: Model, num_bits: int, path: Path) -> None:
    """Save a model with a codebook of so many bits in each layer that has a weight."""
    editor = GraphEditor(model)
    for layer in model.layers:
        if layer.weight is None or layer.weight_index is None or layer.blocked is not None:
            continue
        node, layout = editor.node_of(layer), weight_layout(layer)
        form = CodeForm.for_weight(num_bits, layer.num_weights)
        params = CodebookParams(
            wts_algo="codebook_quantize", num_bits=form.code_bits, vector_size=form.vector_size, refine=Refine.NONE
        )
        spec = params.specification(quantized_input=False)
        book = cluster_rows(layout.to_rows(model.weight(layer.weight)), spec)
        value = packed_weight(editor, node, book, layout, editor.prefix("w"))
        node.replace_input_with(layer.weight_index, value)
    editor.finish()
    save_ir(editor.ir, path)


def load_times(files: Mapping[str, Path], loads: int) -> dict[str, float]:
    """Median time to make a session of each file, in milliseconds."""
    found: dict[str, list[float]] = {name: [] for name in files}
    for turn in range(1 + loads):
        for name, path in files.items():
            start = time.perf_counter()
            open_session(path, num_threads=1)
            if turn >= 1:
                found[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(times) for name, times in found.items()}


def run_times(files: Mapping[str, Path], batch: Any, runs: int) -> dict[str, float]:
    """Median time of a batch in each model, in milliseconds, on one thread."""
    sessions = {name: open_session(path, num_threads=1) for name, path in files.items()}
    found: dict[str, list[float]] = {name: [] for name in files}
    for turn in range(NUM_WARM_UP + runs):
        for name, session in sessions.items():
            feeds = {session.get_inputs()[0].name: batch}
            start = time.perf_counter()
            session.run(None, feeds)
            if turn >= NUM_WARM_UP:
                found[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(times) for name, times in found.items()}


def loaded_bytes(path: Path) -> int:
    """Resident memory that loading a model costs a process that has loaded one before."""
    tiny = Path(__file__).resolve().parents[2] / "shared" / "models" / "ccexam_mnist.onnx"
    command = [sys.executable, "-c", MEMORY_SCRIPT, str(tiny), str(path)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def resident_bytes() -> int:
    """Resident memory of this process, from /proc."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


if __name__ == "__main__":
    typer.run(main)
