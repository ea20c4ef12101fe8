"""What workers save: the time of one search with one worker and with four, on an evaluator that sleeps.

The network is the embedded digits one, the search auto_nuq with its defaults; each evaluation sleeps, as one that waits
for a device does, beside the fraction of a second that it really computes. Four threads must end with the same config
and the same trials as one. Command, from the checkout's root, about three minutes on 2 cores:

    python -m benchmarks.search_workers
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

import amct_lite as amct
from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.samples.digits.data import MODEL_FILE, load_split
from benchmarks.table import print_table

WORKERS = 4


class SleepingEvaluator(AutoNuqEvaluatorBase):
    """Top-1 on the validation digits, after a sleep."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.data = load_split().validation

    def eval_model(self, model_file: str, weights_file: str | None, batch_num: int) -> float:
        """The share of right answers."""
        del batch_num
        time.sleep(self.seconds)
        logits = amct.InferenceSession(model_file, weights_file).run(None, {"image": self.data.images})[0]
        return float((logits.argmax(1) == self.data.labels).mean())

    def is_satisfied(self, original_metric: float, new_metric: float) -> bool:
        """At most one point lost."""
        return original_metric - new_metric <= 0.01


def main(
    seconds: Annotated[float, typer.Option(help="How long an evaluation sleeps.")] = 2.0,
    repeats: Annotated[int, typer.Option(help="Runs of each, taking turns; medians.")] = 3,
) -> None:
    """Print the times and their ratio."""
    times: dict[int, list[float]] = {1: [], WORKERS: []}
    results: dict[int, amct.SearchResult] = {}
    for _ in range(repeats):
        for workers in times:
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                results[workers] = search(Path(folder), seconds, workers)
                times[workers].append(time.perf_counter() - start)
    one, four = results[1], results[WORKERS]
    assert one.config == four.config and one.trials == four.trials
    medians = {workers: statistics.median(found) for workers, found in times.items()}
    rows = [
        [
            str(workers),
            str(len(results[workers].trials)),
            f"{medians[workers]:.1f}",
            f"{medians[1] / medians[workers]:.2f}",
        ]
        for workers in times
    ]
    print_table(["workers", "evaluations that count", "s", "times faster"], rows)


def search(folder: Path, seconds: float, workers: int) -> amct.SearchResult:
    """One search."""
    amct.create_quant_config(folder / "config.json", MODEL_FILE)
    return amct.auto_nuq(
        MODEL_FILE,
        None,
        SleepingEvaluator(seconds),
        folder / "config.json",
        folder / "record.txt",
        folder / "out",
        calibration_data=[load_split().calibration.images],
        n_jobs=workers,
        backend="threading",
    )


if __name__ == "__main__":
    typer.run(main)
