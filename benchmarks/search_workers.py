"""What workers save: the time of one search with one worker and with four, on an evaluator that sleeps.

The network is the embedded digits one, the search auto_nuq with its defaults; each evaluation sleeps, as one that waits
for a device does, beside the fraction of a second that it really computes. Top-1 of the validation digits, which is a
step function, ends the search a little earlier than the mean log-likelihood of the right classes. Four threads must end
with the same config and the same trials as one. Command, from the checkout's root, about four minutes:

    python -m benchmarks.search_workers
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import amct_lite as amct
from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.samples.digits.data import MODEL_FILE, load_split
from benchmarks.table import print_table

WORKERS = 4


class SleepingEvaluator(AutoNuqEvaluatorBase):
    """A metric on the validation digits, after a sleep."""

    def __init__(self, metric: str, seconds: float) -> None:
        super().__init__()
        self.metric, self.seconds = metric, seconds
        self.data = load_split().validation

    def eval_model(self, model_file: str, weights_file: str | None, batch_num: int) -> float:
        """The share of right answers, or the mean logarithm of the right classes' probabilities."""
        del batch_num
        time.sleep(self.seconds)
        logits = amct.InferenceSession(model_file, weights_file).run(None, {"image": self.data.images})[0]
        if self.metric == "top-1":
            return float((logits.argmax(1) == self.data.labels).mean())
        shifted = logits - logits.max(axis=1, keepdims=True)
        right = np.take_along_axis(shifted, self.data.labels[:, None].astype(np.intp), axis=1)[:, 0]
        return float((right - np.log(np.exp(shifted).sum(axis=1))).mean())

    def is_satisfied(self, original_metric: float, new_metric: float) -> bool:
        """At most one point lost, or a hundredth of the logarithm."""
        return original_metric - new_metric <= 0.01


def main(
    seconds: Annotated[float, typer.Option(help="How long an evaluation sleeps.")] = 2.0,
    repeats: Annotated[int, typer.Option(help="Runs of each, taking turns; medians.")] = 3,
) -> None:
    """Print the times and their ratio."""
    rows = []
    for metric in ("top-1", "log-likelihood"):
        times: dict[int, list[float]] = {1: [], WORKERS: []}
        results: dict[int, amct.SearchResult] = {}
        for _ in range(repeats):
            for workers in times:
                with tempfile.TemporaryDirectory() as folder:
                    start = time.perf_counter()
                    results[workers] = search(Path(folder), SleepingEvaluator(metric, seconds), workers)
                    times[workers].append(time.perf_counter() - start)
        assert results[1].config == results[WORKERS].config and results[1].trials == results[WORKERS].trials
        one, four = (statistics.median(times[workers]) for workers in (1, WORKERS))
        rows.append([metric, str(len(results[1].trials)), f"{one:.1f}", f"{four:.1f}", f"{one / four:.2f}"])
    print_table(["metric", "evaluations that count", "1 worker, s", f"{WORKERS} workers, s", "times faster"], rows)


def search(folder: Path, evaluator: SleepingEvaluator, workers: int) -> amct.SearchResult:
    """One search."""
    amct.create_quant_config(folder / "config.json", MODEL_FILE)
    return amct.auto_nuq(
        MODEL_FILE,
        None,
        evaluator,
        folder / "config.json",
        folder / "record.txt",
        folder / "out",
        calibration_data=[load_split().calibration.images],
        n_jobs=workers,
        backend="threading",
    )


if __name__ == "__main__":
    typer.run(main)
