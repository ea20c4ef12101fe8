"""What a candidate of a search costs, against a loop that quantizes each one anew.

Shows that 50 candidates of the ResNet-50-like network, as the default strategy asks for them and each run on 16 images
for target `onnxruntime`, take at most a twentieth of the CPU time of a loop that calls
`onnxruntime.quantization.quantize_static` for each (calibrated on the same images, preprocessed once before,
`nodes_to_exclude` for layers that stay float) and runs its result. The loop is run for 5 of the 50, evenly spread, and
its median taken: it has nothing to remember from one to the next. Both sides in one process, in turns; CPU time of all
threads. The calibration and the options, which a search works out once, are not in it; the first line that is printed
says what they take.

Candidates are the choices of `auto_nuq`: int8, NUQ with several level counts, or float for each of 54 layers.

* as searched: what the default strategy asks for, with a made-up accuracy whose loss is the predicted error times a
  factor for each layer that it does not know; once through with each of several limits until there are 50.
* one layer: from the middle of the frontier each candidate changes one random layer of the one before, by one or two
  steps up or down in its options.
* few layers: the same with one to three layers, in a fifth of the cases ten.
* whole choices: every layer anew for each candidate, an option drawn from all of its options; no two have anything in
  common but by chance. Four of the 54 layers are float then, which takes several times as long.

"without reuse" writes the same files and opens each as a session of its own. "largest difference" is between the
outputs with and without.

Command, from the checkout's root, about eight minutes of CPU time (and 10 GB, which quantize_static keeps):

    python -m benchmarks.search_candidates
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import typer
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import amct_lite as amct
from amct_lite.quantize.planned_graph import open_graph
from amct_lite.search.accuracy_test import NuqTest
from amct_lite.search.auto_nuq import calibrate_auto_nuq, problem_of
from amct_lite.search.candidates import CandidateWriter
from amct_lite.search.choices import Choice, Unit
from amct_lite.search.frontier import build_frontier
from amct_lite.search.nuq_problem import NuqProblem
from amct_lite.search.option_names import FLOAT
from amct_lite.search.search_files import auto_nuq_files
from amct_lite.search.strategies.protocol import Outcome
from amct_lite.search.strategies.smallest import smallest_that_satisfies
from benchmarks.networks import BUILDERS, images, write_network
from benchmarks.peers import Reader
from benchmarks.table import print_table

NUM_IMAGES = 16
LIMITS = (0.01, 0.03, 0.1, 0.3)


def main(
    network: Annotated[str, typer.Option(help=f"One of {', '.join(BUILDERS)}.")] = "ResNet-50-like",
    candidates: Annotated[int, typer.Option(min=2, help="How many.")] = 50,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a batch.")] = NUM_IMAGES,
    quantized: Annotated[int, typer.Option(min=1, help="For how many of them quantize_static is called.")] = 5,
) -> None:
    """Print the table."""
    batches = images(NUM_IMAGES // batch_size, batch_size)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "net.onnx"
        write_network(network, model)
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(model, prepared)
        start = time.process_time()
        problem = open_problem(model, batches, Path(folder))
        once = time.process_time() - start
        sequences: dict[str, Sequence[Choice]] = {
            "as searched": as_searched(problem.units, candidates),
            "one layer": few_layers(problem.units, candidates, lambda _rng: 1),
            "few layers": few_layers(problem.units, candidates, mostly_few),
            "whole choices": whole_choices(problem.units, candidates),
        }
        rows = []
        for name, choices in sequences.items():
            spread = [choices[number * candidates // quantized] for number in range(quantized)]
            each = [timed(partial(quantize, problem, prepared, choice, batches, Path(folder)))[0] for choice in spread]
            against = statistics.median(each) * candidates
            with_reuse, found = timed(partial(run_each, problem, choices, batches, reuse=True))
            without, expected = timed(partial(run_each, problem, choices, batches, reuse=False))
            far = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
            for title, seconds in (("quantize_static", against), ("without reuse", without), ("ours", with_reuse)):
                row = [name if title == "quantize_static" else "", title, f"{seconds:.1f}"]
                row += [f"{seconds / candidates * 1e3:.0f}", f"1/{against / seconds:.1f}"]
                rows.append([*row, f"{far:g}" if title == "ours" else ""])
        print(f"Calibration and options, once: {once:.1f} s of CPU time.")
    print_table(["candidates", "", "CPU s", "ms each", "against", "largest difference"], rows)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of all threads, and the result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def open_problem(model: Path, batches: Sequence[Any], folder: Path) -> NuqProblem:
    """The problem that `auto_nuq` searches over, for target onnxruntime."""
    config = folder / "config.json"
    amct.create_quant_config(config, model, batch_num=len(batches), target="onnxruntime")
    planned = open_graph(config, model, None, folder / "record.txt")
    test = NuqTest(amct.AutoNuqEvaluatorBase())  # there is data, so nothing runs through it
    return problem_of(calibrate_auto_nuq(planned, test, batches, auto_nuq_files(folder, model.stem)))


def run_each(problem: NuqProblem, choices: Sequence[Choice], batches: Sequence[Any], *, reuse: bool) -> list[Any]:
    """Write and run each candidate as a search and an evaluator do; all outputs."""
    problem.writer = CandidateWriter(problem.planned, reuse=reuse)
    outputs = []
    with problem.writer:
        for choice in choices:
            with tempfile.TemporaryDirectory() as folder:
                session = amct.InferenceSession(problem.write(choice, Path(folder)).model)
                outputs += [session.run(None, {"x": batch})[0] for batch in batches]
    return outputs


def quantize(problem: NuqProblem, model: Path, choice: Choice, batches: Sequence[Any], folder: Path) -> None:
    """Quantize a candidate with onnxruntime's quantizer, and run it."""
    quantized = folder / "quantized.onnx"
    pairs = zip(problem.units, choice, strict=True)
    floats = [layer for unit, index in pairs if unit.options[index].name == FLOAT for layer in unit.layers]
    quantize_static(
        model,
        quantized,
        Reader("x", batches),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=floats,
    )
    session = onnxruntime.InferenceSession(str(quantized), providers=["CPUExecutionProvider"])
    for batch in batches:
        session.run(None, {"x": batch})


def mostly_few(rng: np.random.Generator) -> int:
    """How many layers change."""
    return 10 if rng.random() < 0.2 else int(rng.integers(1, 4))


def few_layers(units: Sequence[Unit], count: int, how_many: Callable[[np.random.Generator], int]) -> list[Choice]:
    """Choices that differ in few units from the one before, by one or two steps."""
    rng = np.random.default_rng(0)
    frontier = build_frontier(units)
    found = [frontier.choice(len(frontier) // 2)]
    while len(found) < count:
        choice = list(found[-1])
        for number in rng.choice(len(units), min(how_many(rng), len(units)), replace=False):
            others = [n for n in range(len(units[number].options)) if 0 < abs(n - choice[number]) <= 2]
            choice[number] = int(rng.choice(others)) if others else choice[number]
        found.append(tuple(choice))
    return found


def as_searched(units: Sequence[Unit], count: int) -> list[Choice]:
    """The choices that the default strategy asks for, one after the other."""
    rng = np.random.default_rng(0)
    factors = np.exp(rng.normal(0, 1, len(units)))
    found: dict[Choice, None] = {}
    for limit in LIMITS:
        strategy = smallest_that_satisfies(units, build_frontier(units), count)
        while len(found) < count and (wanted := strategy.ask(1)):
            chosen = [unit.options[index].error for unit, index in zip(units, wanted[0], strict=True)]
            loss = float(np.dot(factors, chosen))
            strategy.tell(wanted[0], Outcome(-loss, loss <= limit * float(factors.sum()), -loss))
            found[wanted[0]] = None
    return list(found)


def whole_choices(units: Sequence[Unit], count: int) -> list[Choice]:
    """Choices that have nothing to do with each other."""
    rng = np.random.default_rng(1)
    return [tuple(int(rng.integers(len(unit.options))) for unit in units) for _ in range(count)]


if __name__ == "__main__":
    typer.run(main)
