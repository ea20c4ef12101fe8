"""Which range algorithm for activations loses least: KL(float || W8A8) of whole networks.

One sweep over the calibration photos feeds all algorithms. Weights are int8 with a scale per channel; the fake-quant
form is measured. Calibrates on the first 128 photos of imagenet500 at odd positions, in batches of 16, and evaluates on
the other 372. Command, from the checkout's root, about 6 minutes on 2 cores; a network's name gives its table alone:

    python -m benchmarks.range_algorithms [squeezenet | efficientnet]
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from amct_lite.api import create_quant_config, init
from amct_lite.calibration.feeds import input_specs
from amct_lite.calibration.ranges import RANGE_ALGORITHMS
from amct_lite.calibration.sweep import sweep
from amct_lite.export.save import save_quantized
from amct_lite.files.config_file import read_config, write_config
from amct_lite.graph.runtime import create_session
from amct_lite.quantize.factors import make_records
from amct_lite.quantize.range_choice import range_groups
from amct_lite.refine.range_choice import choose_ranges
from amct_lite.refine.samples import SampleKeeper
from benchmarks.imagenet import (
    EFFICIENTNET_LITE0,
    SQUEEZENET,
    Comparison,
    Network,
    calibration_batches,
    compare,
    photos_of,
    run_model,
)
from benchmarks.table import print_table

CALIBRATION = range(1, 256, 2)
EVALUATION = [index for index in range(500) if index not in CALIBRATION]
HALVES = (slice(0, None, 2), slice(1, None, 2))
ALGORITHMS = (*RANGE_ALGORITHMS, "auto")


NETWORKS = {"squeezenet": SQUEEZENET, "efficientnet": EFFICIENTNET_LITE0}


def main(names: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Print a table for each network."""
    for network in (NETWORKS[name] for name in names or NETWORKS):
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(network, Path(folder))
        print_table([network.name, "KL", "KL, halves", "top-1 %", "drop", "ranges, s", "chosen by auto"], rows)


def measure(network: Network, folder: Path) -> list[list[str]]:
    """Quantize with each algorithm over one sweep, and compare with the float network."""
    photos, held_out = photos_of(network, "imagenet500", CALIBRATION), photos_of(network, "imagenet500", EVALUATION)
    float_scores = run_model(network.model_file, held_out)
    batches = calibration_batches(photos)
    create_quant_config(folder / "config.json", network.model_file, batch_num=len(batches), target="onnxruntime")
    plain = read_config(folder / "config.json")
    graph = init(folder / "config.json", network.model_file)
    keeper = SampleKeeper(input_specs(create_session(graph.model.ir)))
    statistics = sweep(graph.model, graph.quantized_layers, keeper.watch(batches, len(batches)), len(batches))
    rows = []
    for algorithm in ALGORITHMS:
        document = plain.to_document()
        for name in plain.layers:
            document[name]["activation_quant_params"] = {"act_algo": algorithm}
        write_config(type(plain).model_validate(document), folder / "config.json")
        graph = init(folder / "config.json", network.model_file)
        start = time.process_time()
        choices: dict[Any, Any] = {}
        if range_groups(graph.plans):
            choices = choose_ranges(graph.model, graph.plans, statistics, keeper.feeds)
        records = make_records(graph.model, graph.plans, statistics, choices)
        seconds = time.process_time() - start
        saved = save_quantized(graph, records, "Fakequant", folder, algorithm)
        scores = run_model(saved.files["fake_quant_model"], held_out)
        whole = compare(float_scores, scores, held_out.accepted)
        halves = [compare(float_scores[part], scores[part], held_out.accepted[part]) for part in HALVES]
        chosen = [choice.chosen.algorithms[0] for choice in choices.values()]
        rows.append(_row(algorithm, whole, halves, seconds, chosen))
        print(*rows[-1], file=sys.stderr)
    return rows


def _row(name: str, whole: Comparison, halves: list[Comparison], seconds: float, chosen: list[str]) -> list[str]:
    names, counts = np.unique(chosen, return_counts=True)
    return [
        name,
        f"{whole.divergence:.4f}",
        ", ".join(f"{half.divergence:.4f}" for half in halves),
        f"{whole.top1:.1f}",
        f"{whole.drop:+.1f}",
        f"{seconds:.2f}",
        ", ".join(f"{count} {each}" for each, count in zip(names, counts, strict=True)),
    ]


if __name__ == "__main__":
    typer.run(main)
