r"""Accuracy of W8A8 by other tools and by amct_lite, on the same photos, in the same runtime.

Everything calibrates on the first 128 photos of imagenet500 at odd positions, and writes a QDQ model (uint8
activations, int8 weights) that ONNX Runtime runs. *KL* is the mean of KL(float || quantized) of the class
probabilities over the other 372 photos, also by halves; *drop* is in points of top-1, over these and over all 500.
*of the best peer*: KL over the least KL of another tool with as many weight scales. *s*: CPU seconds it took, from the
start of the tool's process. Which functions and settings of the tools are called stands in `peer_quantizers.py`.

With `--peer-scores FOLDER` the scores of the other tools' models are kept there and not computed again: what is
left is amct_lite, in about a minute a row. Ours is a row in `PER_CHANNEL` or `PER_TENSOR`, which says what its config
has in place of the defaults.

A tool runs in a Python of its own, given by its option; without it, in this one. A tool that is not installed, or
fails, gets a row with the reason. Command, from the checkout's root:

    python -m venv /tmp/nncf && /tmp/nncf/bin/pip install nncf onnx onnxruntime
    python -m venv /tmp/aimet && /tmp/aimet/bin/pip install aimet-onnx
    python -m venv /tmp/quark && /tmp/quark/bin/pip install amd-quark torch
    python -m benchmarks.int8_peers --nncf-python /tmp/nncf/bin/python --aimet-python /tmp/aimet/bin/python \
        --quark-python /tmp/quark/bin/python
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

import amct_lite as amct
from amct_lite.errors import AmctError
from amct_lite.evaluators import ArrayData
from amct_lite.evaluators.divergence import divergence
from benchmarks.imagenet import (
    EFFICIENTNET_LITE0,
    SQUEEZENET,
    Network,
    Scores,
    calibration_batches,
    compare,
    photos_of,
    run_model,
)
from benchmarks.open_nsfw import write_open_nsfw
from benchmarks.table import print_table

CALIBRATION = range(1, 256, 2)
EVALUATION = [index for index in range(500) if index not in CALIBRATION]
HALVES = (EVALUATION[::2], EVALUATION[1::2])
TIMEOUT_SECONDS = 1800
NOTE_LENGTH = 150
HEADINGS = ["KL", "KL, halves", "of the best peer", "top-1 %", "drop", "drop, 500", "s", "note"]


@dataclass(frozen=True)
class Peer:
    """Another tool.

    Attributes:
        tool: Its name in `peer_quantizers.QUANTIZERS`.
        options: For its function there.
        per_channel: Whether weights have a scale per output channel.
    """

    tool: str
    options: Mapping[str, Any] = field(default_factory=dict)
    per_channel: bool = True


@dataclass(frozen=True)
class Ours:
    """amct_lite, target `onnxruntime`.

    Attributes:
        weights: Keys that join each layer's `weight_quant_params`.
        activations: What each layer's `activation_quant_params` are instead; None for the default.
        config: Keys that join the config itself.
        per_channel: Whether weights have a scale per output channel.
    """

    weights: Mapping[str, Any] = field(default_factory=dict)
    activations: Mapping[str, Any] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    per_channel: bool = True


PER_CHANNEL: Mapping[str, Peer | Ours] = {
    "onnxruntime MinMax": Peer("onnxruntime", {"method": "MinMax"}),
    "onnxruntime Entropy": Peer("onnxruntime", {"method": "Entropy"}),
    "onnxruntime Percentile": Peer("onnxruntime", {"method": "Percentile"}),
    "nncf": Peer("nncf"),
    "nncf mixed": Peer("nncf", {"preset": "mixed"}),
    "nncf mixed, slow bias correction": Peer("nncf", {"preset": "mixed", "fast_bias_correction": False}),
    "nncf mixed, SmoothQuant": Peer("nncf", {"preset": "mixed", "smooth_quant": 0.5}),
    "nncf mixed, HISTOGRAM": Peer("nncf", {"preset": "mixed", "range_estimator": "HISTOGRAM"}),
    "nncf mixed, 8 bits everywhere": Peer("nncf", {"preset": "mixed", "overflow_fix": False}),
    "nncf mixed, HISTOGRAM, 8 bits everywhere": Peer(
        "nncf", {"preset": "mixed", "range_estimator": "HISTOGRAM", "overflow_fix": False}
    ),
    "aimet min_max": Peer("aimet"),
    "aimet tf_enhanced": Peer("aimet", {"scheme": "tf_enhanced"}),
    "aimet CLE": Peer("aimet", {"equalize": True}),
    "aimet SeqMSE": Peer("aimet", {"sequential_mse": True}),
    "aimet AdaRound 500": Peer("aimet", {"adaround_iterations": 500}),
    "quark Percentile": Peer("quark"),
    "quark MinMax": Peer("quark", {"method": "MinMax"}),
    "quark bias correction": Peer("quark", {"algorithms": ["BiasCorrection"]}),
    "quark CLE": Peer("quark", {"algorithms": ["CLE"]}),
    "quark AdaRound": Peer("quark", {"algorithms": ["AdaRound"]}),
    "quark AdaQuant": Peer("quark", {"algorithms": ["AdaQuant"]}),
    "amct_lite": Ours(),
    "amct_lite, nearest": Ours({"rounding": "nearest"}),
    "amct_lite ifmr, nearest": Ours({"rounding": "nearest"}, {"act_algo": "ifmr"}),
    "amct_lite, layers' inputs": Ours(config={"integer_operators": []}),
    "amct_lite, nearest, layers' inputs": Ours({"rounding": "nearest"}, config={"integer_operators": []}),
    "amct_lite ifmr, nearest, layers' inputs": Ours(
        {"rounding": "nearest"}, {"act_algo": "ifmr"}, {"integer_operators": []}
    ),
}
PER_TENSOR: Mapping[str, Peer | Ours] = {
    "onnxruntime MinMax, per tensor": Peer("onnxruntime", {"method": "MinMax"}, per_channel=False),
    "nncf mixed, per tensor": Peer("nncf", {"preset": "mixed"}, per_channel=False),
    "aimet min_max, per tensor": Peer("aimet", per_channel=False),
    "aimet CLE, per tensor": Peer("aimet", {"equalize": True}, per_channel=False),
    "quark Percentile, per tensor": Peer("quark", per_channel=False),
    "quark CLE, per tensor": Peer("quark", {"algorithms": ["CLE"]}, per_channel=False),
    "amct_lite, per tensor": Ours(per_channel=False),
    "amct_lite, scale_algo mse, per tensor": Ours({"scale_algo": "mse"}, per_channel=False),
    "amct_lite, nearest, per tensor": Ours({"rounding": "nearest"}, per_channel=False),
    "amct_lite ifmr, nearest, per tensor": Ours({"rounding": "nearest"}, {"act_algo": "ifmr"}, per_channel=False),
}
ROWS = {**PER_CHANNEL, **PER_TENSOR}


@dataclass(frozen=True)
class Case:
    """A network to measure.

    Attributes:
        network: The float network.
        photos: float32 array of its input for all 500 photos.
        accepted: Right classes, shape (photos, most accepted); None for a network that does not tell ImageNet's
            classes, and returns probabilities.
    """

    network: Network
    photos: npt.NDArray[np.float32]
    accepted: npt.NDArray[np.int64] | None


@dataclass(frozen=True)
class Result:
    """What a tool made of a network.

    Attributes:
        scores: What its model returns for all 500 photos; None where there is no model.
        seconds: CPU time of making it.
        note: Why there is none.
    """

    scores: Scores | None
    seconds: float = 0.0
    note: str = ""


def main(
    networks: Annotated[list[str] | None, typer.Argument(help="efficientnet, squeezenet, open_nsfw; all.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Rows whose name contains it; repeatable.")] = None,
    nncf_python: Annotated[str, typer.Option(help="A Python with nncf.")] = sys.executable,
    aimet_python: Annotated[str, typer.Option(help="A Python with aimet-onnx.")] = sys.executable,
    quark_python: Annotated[str, typer.Option(help="A Python with amd-quark.")] = sys.executable,
    onnxruntime_python: Annotated[str, typer.Option(help="A Python with onnxruntime.")] = sys.executable,
    peer_scores: Annotated[Path | None, typer.Option(help="Where other tools' scores are kept.")] = None,
) -> None:
    """Print a table for each network."""
    pythons = {"onnxruntime": onnxruntime_python, "nncf": nncf_python, "aimet": aimet_python, "quark": quark_python}
    chosen = {name: row for name, row in ROWS.items() if not only or any(part in name for part in only)}
    for find in {name: CASES[name] for name in networks or CASES}.values():
        with tempfile.TemporaryDirectory() as folder:
            case = find(Path(folder))
            if case is not None:
                print_table([case.network.name, *HEADINGS], measure(case, chosen, pythons, Path(folder), peer_scores))


def imagenet_case(network: Network, _folder: Path) -> Case:
    """A network that tells ImageNet's classes."""
    photos = photos_of(network, "imagenet500")
    return Case(network, photos.read(0, len(photos)), photos.accepted)


def open_nsfw_case(folder: Path) -> Case | None:
    """open_nsfw, whose input has its channels last."""
    network = write_open_nsfw(folder)
    if network is None:
        return None
    photos = photos_of(network, "imagenet500")
    return Case(network, photos.read(0, len(photos)).transpose(0, 2, 3, 1).copy(), None)


CASES: Mapping[str, Callable[[Path], Case | None]] = {
    "efficientnet": partial(imagenet_case, EFFICIENTNET_LITE0),
    "squeezenet": partial(imagenet_case, SQUEEZENET),
    "open_nsfw": open_nsfw_case,
}


def measure(
    case: Case,
    rows: Mapping[str, Peer | Ours],
    pythons: Mapping[str, str],
    folder: Path,
    kept_folder: Path | None = None,
) -> list[list[str]]:
    """Quantize with each, and compare with the float network."""
    photos_file = folder / "calibration.npy"
    np.save(photos_file, case.photos[CALIBRATION])
    float_scores = run_model(case.network.model_file, ArrayData(case.photos), num_threads=1)
    results = {}
    for place, (name, row) in enumerate(rows.items()):
        own_folder = folder / str(place)
        own_folder.mkdir()
        if isinstance(row, Peer):
            kept_file = None if kept_folder is None else kept_folder / f"{case.network.name}, {name}.npz"
            results[name] = read_result(kept_file) or run_peer(
                row, case, photos_file, own_folder / "quantized.onnx", pythons[row.tool]
            )
            write_result(results[name], kept_file)
        else:
            results[name] = run_ours(row, case, own_folder)
        print(*table_row(case, name, results[name], float_scores, float("nan")), file=sys.stderr, flush=True)
    best = {True: float("inf"), False: float("inf")}
    for name, row in rows.items():
        if isinstance(row, Peer):
            found = mean_divergence(case, float_scores, results[name].scores, EVALUATION)
            best[row.per_channel] = min(best[row.per_channel], found)
    return [
        table_row(case, name, result, float_scores, best[rows[name].per_channel]) for name, result in results.items()
    ]


def run_peer(peer: Peer, case: Case, photos_file: Path, quantized_file: Path, python: str) -> Result:
    """Quantize in a process of its own, and run the model."""
    options = json.dumps({**peer.options, "per_channel": peer.per_channel})
    script = str(Path(__file__).with_name("peer_quantizers.py"))
    command = [python, script, peer.tool, str(case.network.model_file), str(photos_file), str(quantized_file), options]
    start = _children_seconds()
    try:
        # Quark writes a report into the current folder.
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, cwd=quantized_file.parent
        )
        scores = run_model(quantized_file, ArrayData(case.photos), num_threads=1)
    except subprocess.CalledProcessError as error:
        return Result(None, note=_last_line(error.stderr))
    except Exception as error:  # Whatever onnxruntime says of the model is its row.
        return Result(None, note=_last_line(f"{type(error).__name__}: {error}"))
    return Result(scores, _children_seconds() - start)


def read_result(file: Path | None) -> Result | None:
    """What was kept of an earlier run, if anything."""
    if file is None or not file.exists():
        return None
    with np.load(file) as kept:
        return Result(kept["scores"], float(kept["seconds"]))


def write_result(result: Result, file: Path | None) -> None:
    """Keep a result, unless it is a failure, which may be cured."""
    if file is not None and result.scores is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, scores=result.scores, seconds=result.seconds)


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:NOTE_LENGTH] if lines else "failed"


def run_ours(ours: Ours, case: Case, folder: Path) -> Result:
    """Configure, calibrate, save, and run the deploy model."""
    start = time.process_time()
    batches = calibration_batches(ArrayData(case.photos[CALIBRATION]))
    config_file = folder / "config.json"
    try:
        amct.create_quant_config(config_file, case.network.model_file, batch_num=len(batches), target="onnxruntime")
        config_file.write_text(json.dumps(edited(json.loads(config_file.read_text()), ours)))
        graph = amct.init(config_file, case.network.model_file, None, folder / "record.txt")
        amct.calibrate(graph, batches)
        deploy_model = amct.save_model(graph, "Deploy", folder / "net").files["deploy_model"]
    except AmctError as error:
        return Result(None, note=_last_line(str(error)))
    seconds = time.process_time() - start
    return Result(run_model(deploy_model, ArrayData(case.photos), num_threads=1), seconds)


def edited(config: dict[str, Any], ours: Ours) -> dict[str, Any]:
    """The config with a row's changes."""
    for block in config.values():
        if not isinstance(block, dict) or "activation_quant_params" not in block:
            continue
        if ours.activations is not None:
            block["activation_quant_params"] = dict(ours.activations)
        if "weight_quant_params" in block:
            block["weight_quant_params"].update(ours.weights)
            if not ours.per_channel:
                block["weight_quant_params"]["channel_wise"] = False
    return {**config, **ours.config}


def mean_divergence(case: Case, float_scores: Scores, scores: Scores | None, positions: Sequence[int]) -> float:
    """Mean KL(float || quantized) over some photos, in nats; infinite where there is no model."""
    if scores is None:
        return float("inf")
    logits = case.accepted is not None
    return float(divergence(float_scores[positions], scores[positions], logits=logits).mean())


def table_row(case: Case, name: str, result: Result, float_scores: Scores, best: float) -> list[str]:
    """A row of the table."""
    if result.scores is None:
        return [name, *[""] * (len(HEADINGS) - 1), result.note]
    found, *halves = (mean_divergence(case, float_scores, result.scores, part) for part in (EVALUATION, *HALVES))
    accuracy = ["", "", ""]
    if case.accepted is not None:
        held_out = compare(float_scores[EVALUATION], result.scores[EVALUATION], case.accepted[EVALUATION])
        whole = compare(float_scores, result.scores, case.accepted)
        accuracy = [f"{held_out.top1:.1f}", f"{held_out.drop:+.1f}", f"{whole.drop:+.1f}"]
    digits = 4 if case.accepted is not None else 6
    return [
        name,
        f"{found:.{digits}f}",
        ", ".join(f"{half:.{digits}f}" for half in halves),
        f"{found / best:.2f}",
        *accuracy,
        f"{result.seconds:.0f}",
        result.note,
    ]


if __name__ == "__main__":
    typer.run(main)
