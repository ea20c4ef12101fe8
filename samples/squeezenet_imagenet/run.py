"""The main job on a real network, SqueezeNet 1.1: int8, then automatic NUQ, then an honest comparison with float.

    python -m amct_lite.samples.squeezenet_imagenet.run

Nothing is reported on photos that were calibrated or searched on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

import amct_lite as amct
from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.errors import AmctError
from amct_lite.evaluators import Batches, ClassificationEvaluator, DivergenceEvaluator, ImageData
from amct_lite.export.summary import Summary
from amct_lite.samples.squeezenet_imagenet.data import SHARED_DATA, foolbox_images, shared_images
from amct_lite.samples.squeezenet_imagenet.model import provide_model

__all__ = ["main", "run"]

NUM_CALIBRATION_PHOTOS = 64
BATCH_SIZE = 16
MAX_DROP = 0.01  # a point of top-1
MAX_DIVERGENCE = 0.05  # nats; on the larger sets a point of top-1 goes with about 0.1
MAX_EVALUATIONS = 25


@dataclass(frozen=True)
class Photos:
    """Photos by what they are for.

    Attributes:
        calibration: For the ranges of activations.
        search: For the search to judge candidates on.
        report: For the figures in the end; in neither of the others.
        note: Where they come from and what that means, in a sentence or two.
        many: Whether there are enough of them to judge by labels.
    """

    calibration: ImageData
    search: ImageData
    report: ImageData
    note: str
    many: bool


def main(
    out: Annotated[Path, typer.Option(help="Folder for everything that it writes.")] = Path("squeezenet_out"),
    max_evaluations: Annotated[int, typer.Option(min=2, help="Models the search may evaluate.")] = MAX_EVALUATIONS,
) -> None:
    """Quantize SqueezeNet 1.1 to int8, search the smallest NUQ config, and compare both with float."""
    try:
        run(out, max_evaluations)
    except AmctError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(code=1) from error


def run(out: Path, max_evaluations: int = MAX_EVALUATIONS) -> None:
    """Run the sample.

    Args:
        out: Folder for everything that it writes.
        max_evaluations: Models the search may evaluate, the float one included.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True, highlight=False)
    out.mkdir(parents=True, exist_ok=True)
    model_file, photos = provide_model(out), find_photos()
    console.print(photos.note)

    config_file, batches = out / "config.json", Batches(photos.calibration, batch_size=BATCH_SIZE)
    amct.create_quant_config(config_file, model_file, batch_num=len(batches), target="onnxruntime")
    graph = amct.init(config_file, model_file, None, out / "int8_record.txt")
    amct.calibrate(graph, batches)
    int8 = amct.save_model(graph, "Both", out / "int8")

    result = amct.auto_nuq(
        model_file,
        None,
        make_evaluator(photos, model_file),
        config_file,
        out / "auto_nuq_record.txt",
        out / "auto_nuq",
        calibration_data=batches,
        max_evaluations=max_evaluations,
    )
    console.print(result.message)

    table = Table(title=f"On {len(photos.report)} photos that nothing was calibrated or searched on")
    for heading in ("network", "top-1", "KL to float", "file bytes", "weights, entropy-coded bytes"):
        table.add_column(heading, justify="left" if heading == "network" else "right")
    judge = Judge(photos.report, model_file)
    weights = int8.summary.totals["bytes_before"]
    table.add_row("float", *judge.figures(model_file), f"{model_file.stat().st_size:,}", f"{weights:,} (not coded)")
    table.add_row("int8", *judge.figures(int8.files["deploy_model"]), *sizes(int8.summary))
    table.add_row("auto-NUQ", *judge.figures(result.files["deploy_model"]), *sizes(result.summary))
    console.print(table)
    for name, files in (("int8", int8.files), ("auto-NUQ", result.files)):
        console.print(f"{name}: {files['deploy_model']}", markup=False)


def find_photos() -> Photos:
    """Take the folders of `../shared` where they lie, else the twenty photos of foolbox."""
    if SHARED_DATA.is_dir():
        stamps, photos = shared_images("tuxpaint141"), shared_images("imagenet500")
        # The files are sorted by class, so both sets are taken in even steps.
        step = len(stamps) / NUM_CALIBRATION_PHOTOS
        return Photos(
            calibration=stamps.select([int(i * step) for i in range(NUM_CALIBRATION_PHOTOS)]),
            search=photos.select(slice(0, None, 2)),
            report=photos.select(slice(1, None, 2)),
            note="Calibrates on 64 photos of tuxpaint141, searches on one half of imagenet500 with a limit of"
            f" {MAX_DROP:.0%} of top-1, reports on the other half.",
            many=True,
        )
    photos = foolbox_images()
    return Photos(
        calibration=photos.select(slice(0, None, 2)),
        search=photos.select(slice(0, None, 2)),
        report=photos.select(slice(1, None, 2)),
        note="Only foolbox's 20 photos are there: too few to tell top-1 within a point (one photo of ten is 10 points)."
        f" So the search compares with the float network instead, KL at most {MAX_DIVERGENCE} nats, on the 10 photos"
        " that calibrate too, and reports on the other 10.",
        many=False,
    )


def make_evaluator(photos: Photos, model_file: Path) -> AutoNuqEvaluatorBase:
    """The accuracy test: by labels where there are enough photos, else by divergence from the float network."""
    evaluator: AutoNuqEvaluatorBase
    if photos.many:
        evaluator = ClassificationEvaluator(photos.search, max_drop=MAX_DROP)
    else:
        evaluator = DivergenceEvaluator(photos.search, float_model_file=model_file, max_divergence=MAX_DIVERGENCE)
    return evaluator


class Judge:
    """Measures a network on the photos of the report."""

    def __init__(self, photos: ImageData, float_model_file: Path) -> None:
        # Their limits are not used here: only the metrics are.
        self._top1 = ClassificationEvaluator(photos, max_drop=1.0)
        self._divergence = DivergenceEvaluator(photos, float_model_file=float_model_file, max_divergence=0.0)

    def figures(self, model_file: Path) -> tuple[str, str]:
        """Top-1 and divergence from the float network, as they are printed."""
        top1, divergence = (
            judge.eval_model(str(model_file), None, judge.evaluate_batch_num)
            for judge in (self._top1, self._divergence)
        )
        return f"{top1:.1%}", f"{divergence:.4f}"


def sizes(summary: Summary) -> tuple[str, str]:
    """Bytes of the deploy model, and of the weights as a lossless compressor sees them, as they are printed."""
    return f"{summary.files['deploy_model']:,}", f"{summary.totals['entropy_bytes']:,}"


if __name__ == "__main__":
    typer.run(main)
