"""accuracy_based_auto_calibration on EfficientNet-Lite0: how much of the network each strategy leaves quantized.

Shows what the default strategy and AMCT's BinarySearch roll back for the same limit, and what they evaluate for it. The
limit is a share of the KL that int8 everywhere adds.

Calibrates on 64 of the 141 photos of tuxpaint141; searches by KL on the even 100 of the first 200 of imagenet500 and
reports on the odd 100. Command, from the checkout's root, about 14 minutes on 2 cores that others use, too:

    python -m benchmarks.auto_calibration
"""

import tempfile
import time
from pathlib import Path

import typer

import amct_lite as amct
from amct_lite.evaluators import DivergenceEvaluator
from benchmarks.imagenet import (
    EFFICIENTNET_LITE0,
    calibration_batches,
    calibration_photos,
    compare,
    quantize,
    reporting_photos,
    run_model,
    write_config,
)
from benchmarks.table import print_table

SHARES = (0.7, 0.4)
RUNS = ((None, None), (None, "CosineSimilarity"), ("BinarySearch", "CosineSimilarity"))


def main() -> None:
    """Print a row for each limit, strategy and sensitivity."""
    network = EFFICIENTNET_LITE0
    photos, calibration = reporting_photos(network), calibration_photos(network)
    searched, judged = photos.select(slice(0, 200, 2)), photos.select(slice(1, 200, 2))
    exact = {name: run_model(network.model_file, part) for name, part in (("search", searched), ("report", judged))}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        whole = quantize(network, calibration, folder / "int8").files["fake_quant_model"]
        divergence = compare(exact["search"], run_model(whole, searched), searched.accepted).divergence
        reported = compare(exact["report"], run_model(whole, judged), judged.accepted).divergence
        rows.append(["int8 everywhere", "", "", "", "", "", "", f"{reported:.4f}"])
        write_config(network, folder / "config.json")
        for share in SHARES:
            for strategy, sensitivity in RUNS:
                out = folder / f"{share} {strategy} {sensitivity}"
                started = time.perf_counter()
                result = amct.accuracy_based_auto_calibration(
                    network.model_file,
                    DivergenceEvaluator(
                        searched, float_model_file=network.model_file, max_divergence=share * divergence
                    ),
                    folder / "config.json",
                    out / "record.txt",
                    out,
                    strategy,
                    sensitivity,
                    calibration_data=calibration_batches(calibration),
                )
                seconds = time.perf_counter() - started
                scores = run_model(result.files["fake_quant_model"], judged)
                found = compare(exact["report"], scores, judged.accepted)
                floats = sum(layer.form == "float" and layer.num_weights > 0 for layer in result.summary.layers)
                rows.append(
                    [
                        f"{share:.0%} of its KL, {strategy or 'frontier'}",
                        sensitivity or "MSE",
                        str(len(result.trials)),
                        f"{seconds:.0f}",
                        f"{floats}/{len(result.summary.layers)}",
                        f"{result.size_bytes - result.uniform_bytes:,}",
                        f"{result.metric:.4f}",
                        f"{found.divergence:.4f}",
                    ]
                )
    headings = ["limit, strategy", "sensitivity", "evaluations", "s", "rolled back", "more bytes read", "KL, searched"]
    print_table([*headings, "KL, other photos"], rows)


if __name__ == "__main__":
    typer.run(main)
