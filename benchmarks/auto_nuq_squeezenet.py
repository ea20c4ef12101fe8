"""auto_nuq on real networks: how small the weights become within one point of top-1, and whether that holds elsewhere.

Shows that, with a limit of 1 point and at most 25 evaluations, the entropy of the weights that auto_nuq finds for
SqueezeNet 1.1 is at most 70 % of uniform int8's. Entropy is what a device's lossless weight compressor can reach; a
layer that stays float counts with 32 bits per weight. The search picks the smallest of many candidates that pass on
its photos, so its own figure there is optimistic; the second row of each network searches on one half of the photos
and reports on the other.

Calibrates on 64 of the 141 photos of tuxpaint141; searches on all 500 of imagenet500 and reports on the same, then
searches on the even 250 and reports on the odd 250. Command, from the checkout's root, about 7 minutes on 2 cores (2
with `--only squeezenet`):

    python -m benchmarks.auto_nuq_squeezenet
"""

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

import amct_lite as amct
from amct_lite.evaluators import ClassificationEvaluator
from benchmarks.imagenet import (
    EFFICIENTNET_LITE0,
    SQUEEZENET,
    Network,
    calibration_batches,
    calibration_photos,
    compare,
    quantize,
    reporting_photos,
    run_model,
    write_config,
)
from benchmarks.table import print_table

MAX_DROP = 0.01
MAX_EVALUATIONS = 25

PARTS = {"all 500": slice(None), "even 250": slice(0, None, 2), "odd 250": slice(1, None, 2)}


def main(only: Annotated[str, typer.Option(help="A part of a network's name; empty for all.")] = "") -> None:
    """Print a row for each network and each way to divide the photos between search and report."""
    rows = []
    for network in (SQUEEZENET, EFFICIENTNET_LITE0):
        if only.lower() not in network.name.lower():
            continue
        photos = reporting_photos(network)
        float_scores = run_model(network.model_file, photos)
        calibration = calibration_photos(network)
        with tempfile.TemporaryDirectory() as folder:
            uniform = quantize(network, calibration, Path(folder) / "int8")
            found = compare(float_scores, run_model(uniform.files["fake_quant_model"], photos), photos.accepted)
            totals = uniform.summary.totals
            rows.append(
                [
                    f"{network.name}, int8",
                    "",
                    "all 500",
                    "",
                    "",
                    f"{totals['entropy_bytes']:,}",
                    "100 %",
                    *_figures(found),
                ]
            )
            for search_on, report_on in (("all 500", "all 500"), ("even 250", "odd 250")):
                started = time.perf_counter()
                result = search(network, photos.select(PARTS[search_on]), calibration, Path(folder) / search_on)
                seconds = time.perf_counter() - started
                part = PARTS[report_on]
                scores = run_model(result.files["fake_quant_model"], photos.select(part))
                found = compare(float_scores[part], scores, photos.accepted[part])
                coded = result.summary.totals["entropy_bytes"]
                share = f"{coded / totals['entropy_bytes']:.1%}"
                rows.append(
                    [
                        f"{network.name}, auto_nuq",
                        search_on,
                        report_on,
                        str(len(result.trials)),
                        f"{seconds:.0f}",
                        f"{coded:,}",
                        share,
                        *_figures(found),
                    ]
                )
                _print_layers(network, search_on, result)
    print_table(
        [
            "network",
            "search on",
            "report on",
            "evaluations",
            "s",
            "weights, bytes",
            "of int8's",
            "drop",
            "lost/won",
            "KL",
        ],
        rows,
    )


def search(network: Network, photos: Any, calibration: Any, folder: Path) -> amct.SearchResult:
    """Search with a plain config and a limit of 1 point on the given photos."""
    folder.mkdir()
    write_config(network, folder / "config.json")
    return amct.auto_nuq(
        network.model_file,
        None,
        ClassificationEvaluator(photos, max_drop=MAX_DROP, batch_size=25),
        folder / "config.json",
        folder / "record.txt",
        folder / "result",
        calibration_data=calibration_batches(calibration),
        max_evaluations=MAX_EVALUATIONS,
    )


def _figures(found: Any) -> list[str]:
    return [f"{found.drop:+.1f}", f"{found.lost}/{found.won}", f"{found.divergence:.4f}"]


def _print_layers(network: Network, search_on: str, result: amct.SearchResult) -> None:
    levels = ["float" if layer.levels is None else str(layer.levels) for layer in result.summary.layers]
    print(f"{network.name}, searched on {search_on}: {'satisfied' if result.satisfied else 'NOT satisfied'},", end=" ")
    print(f"levels by layer {' '.join(levels)}")


if __name__ == "__main__":
    typer.run(main)
