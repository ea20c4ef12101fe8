"""The main job, end to end, on the embedded digits network: configure, calibrate, search with NUQ, save, compare."""

import json
from pathlib import Path

import amct_lite as amct
from amct_lite.evaluators import ArrayData, Batches, ClassificationEvaluator
from amct_lite.samples.digits.data import MODEL_FILE, DigitsPart, load_split

__all__ = ["run"]

MAX_DROP = 0.005
BATCH_SIZE = 25


def run(out: Path) -> None:
    """Run the demo.

    Args:
        out: Folder for everything that it writes.
    """
    from rich.console import Console

    console = Console()
    config_file, record_file = out / "config.json", out / "record.txt"
    digits = load_split()

    amct.create_quant_config(config_file, MODEL_FILE, batch_num=len(digits.calibration.labels) // BATCH_SIZE)
    ask_for_nuq(config_file)
    graph = amct.init(config_file, MODEL_FILE, None, record_file)
    console.print(str(graph), markup=False, highlight=False, soft_wrap=True)

    result = amct.auto_nuq(
        MODEL_FILE,
        None,
        ClassificationEvaluator(_data(digits.validation), max_drop=MAX_DROP, batch_size=BATCH_SIZE),
        config_file,
        record_file,
        out,
        calibration_data=Batches(_data(digits.calibration), batch_size=BATCH_SIZE),
    )
    console.print(result.summary.table())
    for line in (*result.summary.notes(), result.message):
        console.print(line, markup=False, highlight=False)

    judge = ClassificationEvaluator(_data(digits.held_out), max_drop=MAX_DROP)
    before = judge.eval_model(str(MODEL_FILE), None, judge.evaluate_batch_num)
    after = judge.eval_model(str(result.files["fake_quant_model"]), None, judge.evaluate_batch_num)
    images = len(digits.held_out.labels)
    console.print(f"Top-1 on {images} held-out images: float {before:.2%}, quantized {after:.2%}.", highlight=False)
    for kind, path in result.files.items():
        console.print(f"{kind}: {path}", markup=False, highlight=False, soft_wrap=True)


def ask_for_nuq(config_file: Path) -> None:
    """Edit the config as a person would: NUQ of weights and of activations on every layer that has weights."""
    config = json.loads(config_file.read_text())
    for block in config.values():
        if isinstance(block, dict) and "weight_quant_params" in block:
            block["weight_quant_params"].update(wts_algo="nuq_quantize", num_steps=32, num_of_iteration=1)
            block["activation_quant_params"]["nuq"] = {"target_compression_ratio": 0.125}
    config_file.write_text(json.dumps(config, indent=4))


def _data(part: DigitsPart) -> ArrayData:
    return ArrayData(part.images, part.labels)
