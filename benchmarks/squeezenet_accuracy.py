"""SqueezeNet 1.1 on ImageNet photos: what int8 and NUQ cost in accuracy.

Shows that int8 weights and activations (plain rounding) lose at most 1.0 point of top-1 against float, and NUQ
with 32 steps on all weights at most 1.5; and how much depends on which photos calibrate. "fake-quant" and "deploy"
are the two files that `save_model` writes; the others are fake-quant.

Calibrates on 64 of the 141 photos of tuxpaint141 (three choices), evaluates on the 500 of imagenet500, which nothing
was tuned on. Command, from the checkout's root, about 2 minutes on 2 cores:

    python -m benchmarks.squeezenet_accuracy
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import typer

from benchmarks.imagenet import (
    SQUEEZENET,
    Comparison,
    EditLayer,
    calibration_photos,
    compare,
    quantize,
    reporting_photos,
    run_model,
)
from benchmarks.table import print_table

PHASES = (0.0, 1 / 3, 2 / 3)


def nuq(num_steps: int, ratio: float | None = None) -> EditLayer:
    """The edit that asks for NUQ of every weight, and of every activation where a ratio is given."""

    def edit(block: dict[str, Any]) -> None:
        block["weight_quant_params"].update(wts_algo="nuq_quantize", num_steps=num_steps, num_of_iteration=1)
        if ratio is not None:
            block["activation_quant_params"]["nuq"] = {"target_compression_ratio": ratio}

    return edit


CONFIGS: dict[str, EditLayer | None] = {
    "int8": None,
    "NUQ 32": nuq(32),
    "NUQ 16": nuq(16),
    "NUQ 32, activations 1/8": nuq(32, 0.125),
}


def main() -> None:
    """Print accuracy for one choice of calibration photos, then the spread over three."""
    photos = reporting_photos(SQUEEZENET)
    float_scores = run_model(SQUEEZENET.model_file, photos)
    parts = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}

    def comparisons(scores: Any) -> dict[str, Comparison]:
        return {name: compare(float_scores[p], scores[p], photos.accepted[p]) for name, p in parts.items()}

    rows = [_row("float", comparisons(float_scores), 32.0)]
    spread: dict[str, list[Comparison]] = {name: [] for name in CONFIGS}
    with tempfile.TemporaryDirectory() as folder:
        for phase in PHASES:
            calibration = calibration_photos(SQUEEZENET, phase=phase)
            for name, edit in CONFIGS.items():
                saved = quantize(SQUEEZENET, calibration, Path(folder), edit)
                found = comparisons(run_model(saved.files["fake_quant_model"], photos))
                spread[name].append(found["all"])
                if phase != PHASES[0]:
                    continue
                entropy = saved.summary.totals["entropy_bits"]
                rows.append(_row(name, found, entropy))
                if name == "int8":
                    rows.append(
                        _row("int8, deploy", comparisons(run_model(saved.files["deploy_model"], photos)), entropy)
                    )

    print_table(
        ["500 photos", "top-1 %", "drop", "lost/won", "p", "KL", "drop, even 250", "drop, odd 250", "bits/weight"], rows
    )
    print_table(
        [f"{len(PHASES)} choices of calibration photos", "drop, each", "drop, mean", "KL, each"],
        [
            [
                name,
                ", ".join(f"{c.drop:+.1f}" for c in found),
                f"{np.mean([c.drop for c in found]):+.2f}",
                ", ".join(f"{c.divergence:.4f}" for c in found),
            ]
            for name, found in spread.items()
        ],
    )


def _row(name: str, parts: dict[str, Comparison], entropy: float) -> list[str]:
    whole = parts["all"]
    return [
        name,
        f"{whole.top1:.1f}",
        f"{whole.drop:+.1f}",
        f"{whole.lost}/{whole.won}",
        f"{whole.p_value:.2g}",
        f"{whole.divergence:.4f}",
        f"{parts['even'].drop:+.1f}",
        f"{parts['odd'].drop:+.1f}",
        f"{entropy:.2f}",
    ]


if __name__ == "__main__":
    typer.run(main)
