"""Searches on real networks: the smallest model within one point of top-1, by our search and by others'.

All strategies choose from the same options, worked out once: every layer's weights float, int8, or a codebook of 6, 5,
4, 3 or 2 bits; inputs stay float. Bytes are those of weights in the deploy model. They search on the even photos of
imagenet500 (250) and are judged on the odd ones, which no search saw; calibration is on the 141 photos of tuxpaint141.
"frontier" is ours, with 25 evaluations; "BinarySearch" AMCT's; "tpe" Optuna's, with 100 trials; "ddpg" the agent of
PocketFlow's kind, with 200 roll-outs. A model that two of them try is evaluated once: evaluations are counted, not
timed.

NNCF's accuracy control runs as its users run it (`quantize_with_accuracy_control` on the ONNX model, int8 and float
layers) in a Python of its own:

    python -m venv /tmp/nncf && /tmp/nncf/bin/pip install nncf onnx onnxruntime pillow

neural-compressor's tuning (`quantization.fit` with an accuracy criterion, at most ten minutes) likewise; its version 3
has given up ONNX:

    python -m venv /tmp/inc
    /tmp/inc/bin/pip install 'neural-compressor<3' 'onnx<1.17' 'onnxruntime<1.20' 'numpy<2' six pandas

Commands, from the checkout's root, about 20 minutes for SqueezeNet and 40 for EfficientNet-Lite0 on 2 cores:

    python -m benchmarks.search_peers --only squeezenet --nncf-python /tmp/nncf/bin/python
    python -m benchmarks.search_peers --only efficientnet --nncf-python /tmp/nncf/bin/python
"""

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx_ir as ir
import typer

from amct_lite.evaluators import ClassificationEvaluator
from amct_lite.files.journal import Journal
from amct_lite.progress import SearchProgress
from amct_lite.quantize.planned_graph import open_graph
from amct_lite.search.accuracy_test import NuqTest
from amct_lite.search.auto_nuq import calibrate_auto_nuq, problem_of
from amct_lite.search.nuq_problem import NuqProblem
from amct_lite.search.objective import Objective
from amct_lite.search.search_files import auto_nuq_files
from amct_lite.search.strategies.registry import StrategyTask, make_strategy
from amct_lite.search.trials import TrialRunner
from benchmarks.imagenet import (
    EFFICIENTNET_LITE0,
    SQUEEZENET,
    Network,
    calibration_batches,
    compare,
    photos_of,
    reporting_photos,
    run_model,
    write_config,
)
from benchmarks.table import print_table

MAX_DROP = 0.01
SPACE = ["float", "int8", *(f"codebook{bits}" for bits in (6, 5, 4, 3, 2))]
MAX_EVALUATIONS = {"frontier": 25, "BinarySearch": 25, "tpe": 101, "ddpg": 201}
PEER_SECONDS = 600
HEADER = ["network", "search", "evaluations", "weights, bytes", "of float", "drop on even", "drop on odd", "KL on odd"]


def main(
    only: Annotated[str, typer.Option(help="A part of a network's name; empty for all.")] = "",
    strategies: Annotated[str, typer.Option(help="Names of strategies, with commas.")] = ",".join(MAX_EVALUATIONS),
    nncf_python: Annotated[Path | None, typer.Option(help="A Python that has nncf.")] = None,
    inc_python: Annotated[Path | None, typer.Option(help="A Python that has neural-compressor 2.")] = None,
) -> None:
    """Print a row for each network and search."""
    rows = []
    for network in (SQUEEZENET, EFFICIENTNET_LITE0):
        if only.lower() not in network.name.lower():
            continue
        photos = reporting_photos(network)
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(network, photos, Path(folder))
            for name in filter(None, strategies.split(",")):
                rows.append(bench.row(name))
                print(" | ".join(rows[-1]), flush=True)
            if nncf_python is not None:
                rows.append(bench.peer_row("nncf", nncf_python, "nncf_accuracy_control.py"))
            if inc_python is not None:
                rows.append(bench.peer_row("neural-compressor", inc_python, "neural_compressor_tuning.py"))
    print_table(HEADER, rows)


class Bench:
    """One network, its options, and both halves of the photos."""

    def __init__(self, network: Network, photos: Any, folder: Path) -> None:
        self._network, self._folder = network, folder
        self._even, self._odd = photos.select(slice(0, None, 2)), photos.select(slice(1, None, 2))
        self._test = NuqTest(ClassificationEvaluator(self._even, max_drop=MAX_DROP, batch_size=25))
        start = time.perf_counter()
        self._problem = self._open()
        self._float_bytes = sum(4 * unit.num_weights for unit in self._problem.units)
        print(f"{network.name}: {len(self._problem.units)} layers, options in {time.perf_counter() - start:.0f} s")
        self._journal = Journal(folder / "journal.jsonl", {})

    def row(self, name: str) -> list[str]:
        """Search by one strategy, and judge what it found."""
        problem = self._problem
        task = StrategyTask(
            problem.units, problem.frontier(), Objective(), MAX_EVALUATIONS[name] - 1, problem.quantizes
        )
        strategy = make_strategy(name, task)
        with SearchProgress(total=MAX_EVALUATIONS[name]) as progress:
            runner = TrialRunner(problem, self._test, self._journal, jobs=None, deadline=None, progress=progress)
            runner.run(strategy)
        tried = {choice: runner.trials[choice] for choice in strategy.trials}
        best = Objective().best(list(tried.values()))
        if best is None:
            return [self._network.name, name, str(len(tried) + 1), "none satisfies", "", "", "", ""]
        choice = next(choice for choice, trial in tried.items() if trial is best)
        assert runner.original is not None
        with tempfile.TemporaryDirectory() as scratch:
            model = problem.write(choice, Path(scratch)).model
            return self._judged(name, len(tried) + 1, best.size_bytes, runner.original.metric - best.metric, model)

    def peer_row(self, name: str, python: Path, file: str) -> list[str]:
        """Another tool's own search, and what it found."""
        options = {"max_drop": MAX_DROP, "model": str(self._network.model_file), "seconds": PEER_SECONDS}
        np.savez(
            self._folder / "data.npz",
            calibration=np.concatenate(list(calibration_batches(photos_of(self._network, "tuxpaint141")))),
            images=np.concatenate(list(calibration_batches(self._even))),
            accepted=self._even.accepted,
        )
        script, quantized = Path(__file__).with_name(file), self._folder / f"{name}.onnx"
        arguments = [str(script), str(self._folder / "data.npz"), str(quantized), json.dumps(options)]
        answer = subprocess.run(
            [str(python), *arguments], check=False, capture_output=True, text=True, cwd=self._folder
        )
        if answer.returncode != 0:
            return [self._network.name, name, answer.stderr.strip().splitlines()[-1], "", "", "", "", ""]
        found = json.loads(answer.stdout.strip().splitlines()[-1])
        return self._judged(name, found["evaluations"], weight_bytes(quantized), found["drop"], quantized)

    def _judged(self, name: str, evaluations: int, size: int, drop: float, model: Path) -> list[str]:
        found = compare(run_model(self._network.model_file, self._odd), run_model(model, self._odd), self._odd.accepted)
        return [
            self._network.name,
            name,
            str(evaluations),
            f"{size:,}",
            f"{size / self._float_bytes:.1%}",
            f"{100 * drop:+.1f}",
            f"{found.drop:+.1f}",
            f"{found.divergence:.4f}",
        ]

    def _open(self) -> NuqProblem:
        config_file = self._folder / "config.json"
        photos = photos_of(self._network, "tuxpaint141")
        batches = calibration_batches(photos)
        write_config(self._network, config_file, _with_float_inputs, batch_num=len(photos) // 16)
        config = json.loads(config_file.read_text())
        config.update(search_space=SPACE, integer_operators=[])
        config_file.write_text(json.dumps(config))
        planned = open_graph(config_file, self._network.model_file, None, self._folder / "record.txt")
        files = auto_nuq_files(self._folder, self._network.model_file.stem)
        return problem_of(calibrate_auto_nuq(planned, self._test, batches, files))


def weight_bytes(file: Path) -> int:
    """Bytes of a model's weights, whatever tool wrote it: a byte for each that is not float32."""
    weights = [value.const_value for value in ir.load(file).graph.initializers.values()]
    return sum(
        tensor.size * (4 if tensor.dtype == ir.DataType.FLOAT else 1)
        for tensor in weights
        if tensor is not None and len(tensor.shape) > 1
    )


def _with_float_inputs(block: dict[str, Any]) -> None:
    block["activation_quant_params"] = {"act_algo": "none"}


if __name__ == "__main__":
    typer.run(main)
