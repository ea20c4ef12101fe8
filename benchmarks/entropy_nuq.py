"""SqueezeNet 1.1: what `entropy_weight` buys, against plain NUQ with fewer levels.

Shows, for plain NUQ and for NUQ with several entropy weights, entropy and real compressed sizes of the int8 weights
beside KL and top-1; then, at the entropy of each entropy-aware row, the KL that plain NUQ has there, interpolated
between its level counts (log KL over entropy).

Calibrates on 64 of the 141 photos of tuxpaint141, evaluates fake-quant models on the 500 of imagenet500, which nothing
was tuned on. The column zstd needs the package `zstandard`. Command, from the checkout's root, 4 minutes of CPU time:

    python -m benchmarks.entropy_nuq
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import typer

from benchmarks.imagenet import (
    SQUEEZENET,
    EditLayer,
    calibration_photos,
    compare,
    quantize,
    reporting_photos,
    run_model,
)
from benchmarks.table import print_table

PLAIN_STEPS = (128, 64, 32, 24, 16, 12)
AWARE = ((128, 3.0), (64, 3.0), (64, 8.0), (64, 16.0), (32, 2.0), (32, 4.0), (32, 8.0), (16, 3.0))


def nuq(num_steps: int, entropy_weight: float) -> EditLayer:
    """The edit that asks for NUQ of every weight."""

    def edit(block: dict[str, Any]) -> None:
        block["weight_quant_params"].update(
            wts_algo="nuq_quantize", num_steps=num_steps, num_of_iteration=1, entropy_weight=entropy_weight
        )

    return edit


def main() -> None:
    """Print the trade-off of plain NUQ and of entropy-aware NUQ."""
    photos = reporting_photos(SQUEEZENET)
    float_scores = run_model(SQUEEZENET.model_file, photos)
    calibration = calibration_photos(SQUEEZENET)
    settings = [None, *((steps, 0.0) for steps in PLAIN_STEPS), *AWARE]
    rows: list[list[str]] = []
    curve: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for setting in settings:
            saved = quantize(SQUEEZENET, calibration, Path(folder), None if setting is None else nuq(*setting))
            found = compare(float_scores, run_model(saved.files["fake_quant_model"], photos), photos.accepted)
            entropy, coded = saved.summary.totals["entropy_bits"], saved.summary.coded_bytes
            steps, entropy_weight = setting or (256, 0.0)
            plain_kl = ""
            if entropy_weight == 0.0:
                curve.append((entropy, found.divergence))
            else:
                plain_kl = f"{_at_entropy(curve, entropy):.4f}"
            rows.append(
                [
                    "int8" if setting is None else f"NUQ {steps}",
                    f"{entropy_weight:g}",
                    f"{entropy:.3f}",
                    f"{coded['deflate_bytes']:,}",
                    "" if coded["zstd_bytes"] is None else f"{coded['zstd_bytes']:,}",
                    f"{found.divergence:.4f}",
                    plain_kl,
                    f"{found.top1:.1f}",
                    f"{found.drop:+.1f}",
                    f"{found.lost}/{found.won}",
                ]
            )
    headings = ["weights", "entropy_weight", "bits/weight", "deflate", "zstd", "KL", "plain NUQ's KL at these bits"]
    print_table([*headings, "top-1 %", "drop", "lost/won"], rows)


def _at_entropy(curve: list[tuple[float, float]], entropy: float) -> float:
    """Plain NUQ's KL at an entropy; nan outside its curve."""
    bits, divergences = map(np.array, zip(*sorted(curve), strict=True))
    return float(np.exp(np.interp(entropy, bits, np.log(divergences), left=np.nan, right=np.nan)))


if __name__ == "__main__":
    typer.run(main)
