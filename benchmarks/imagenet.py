"""What the benchmarks on ImageNet networks share: models, photos, quantizing, running, and comparing with float.

Models and photos lie in `../shared` beside the checkout; `samples/squeezenet_imagenet` shows where to get others.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

import amct_lite as amct
from amct_lite.evaluators import ArrayData, Batches, ImageData, ImagePreprocessing
from amct_lite.evaluators.classification import count_right
from amct_lite.evaluators.divergence import divergence
from amct_lite.export.save import Saved
from benchmarks.plain_config import write_plain_config

__all__ = [
    "EFFICIENTNET_LITE0",
    "SQUEEZENET",
    "Comparison",
    "EditLayer",
    "Network",
    "Scores",
    "all_calibration_photos",
    "calibration_batches",
    "calibration_photos",
    "compare",
    "comparison_cells",
    "open_session",
    "photos_of",
    "quantize",
    "reporting_photos",
    "run_model",
    "write_config",
]

SHARED = Path(__file__).resolve().parents[2] / "shared"

NUM_CALIBRATION_PHOTOS = 64
BATCH_SIZE = 16

Scores = npt.NDArray[np.float32]
EditLayer = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Network:
    """A network and how photos become its input.

    Attributes:
        name: For the tables.
        model_file: The float network, ONNX.
        preprocessing: From a photo to its input.
    """

    name: str
    model_file: Path
    preprocessing: Any


SQUEEZENET = Network(
    "SqueezeNet 1.1",
    SHARED / "models" / "squeezenet1.1" / "squeezenet1.1.onnx",
    ImagePreprocessing(crop=227, channels="BGR", mean=(104.0, 117.0, 123.0)),
)
EFFICIENTNET_LITE0 = Network(
    "EfficientNet-Lite0",
    SHARED / "models" / "efficientnet_lite0.onnx",
    ImagePreprocessing(crop=224, channels="RGB", mean=127.0, scale=1 / 128),
)


def calibration_photos(network: Network, *, phase: float = 0.0) -> Any:
    """64 photos of tuxpaint141, spread evenly over the set, whose files are sorted by what they show.

    Args:
        network: Whose input they become.
        phase: In [0, 1): shifts the choice by a part of the distance between two chosen photos.

    Returns:
        ArrayData, in memory.
    """
    photos = _photos(network, "tuxpaint141")
    step = len(photos) / NUM_CALIBRATION_PHOTOS
    return _in_memory(photos.select([int((i + phase) * step) for i in range(NUM_CALIBRATION_PHOTOS)]))


def all_calibration_photos(network: Network) -> Any:
    """All photos of tuxpaint141, as ArrayData in memory."""
    return _in_memory(_photos(network, "tuxpaint141"))


def reporting_photos(network: Network) -> Any:
    """The 500 photos of imagenet500, one for every second class, as ArrayData in memory (300 MB)."""
    return _in_memory(_photos(network, "imagenet500"))


def photos_of(network: Network, name: str, indices: Sequence[int] | None = None) -> Any:
    """Photos of a set under ../shared/data as ArrayData in memory; all of them where no indices are given."""
    photos = _photos(network, name)
    return _in_memory(photos if indices is None else photos.select(list(indices)))


def calibration_batches(photos: Any, *, batch_size: int = BATCH_SIZE) -> Any:
    """The calibration photos in batches."""
    return Batches(photos, batch_size=batch_size)


def write_config(network: Network, config_file: Path, edit: EditLayer | None = None, *, batch_num: int = 4) -> None:
    """Write a config of target `onnxruntime` with plain ranges and rounding.

    Args:
        network: The float network.
        config_file: Where to write.
        edit: Changes the block of each layer that has weights; None leaves the default, int8.
        batch_num: Batches that calibration reads.
    """
    write_plain_config(config_file, network.model_file, batch_num=batch_num)
    if edit is None:
        return
    config = json.loads(config_file.read_text())
    for block in config.values():
        if isinstance(block, dict) and "weight_quant_params" in block:
            edit(block)
    config_file.write_text(json.dumps(config, indent=4))


def quantize(network: Network, photos: Any, folder: Path, edit: EditLayer | None = None) -> Saved:
    """Configure, calibrate and save both forms, target `onnxruntime`.

    Args:
        network: The float network.
        photos: What to calibrate on.
        folder: Where everything is written.
        edit: Changes the block of each layer that has weights; None leaves the default, int8.
    """
    folder.mkdir(parents=True, exist_ok=True)
    batches = calibration_batches(photos)
    write_config(network, folder / "config.json", edit, batch_num=len(batches))
    graph = amct.init(folder / "config.json", network.model_file, None, folder / "record.txt")
    amct.calibrate(graph, batches)
    return amct.save_model(graph, "Both", folder / network.model_file.stem)


def open_session(model_file: Path, *, num_threads: int = 0) -> Any:
    """An onnxruntime session on the CPU; 0 threads leave their number to onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model_file), options, providers=["CPUExecutionProvider"])


def run_model(model_file: Path, photos: Any, *, num_threads: int = 0) -> Scores:
    """The scores of a model for every photo, float32, shape (photos, classes); 0 threads leave it to onnxruntime."""
    session = open_session(model_file, num_threads=num_threads)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: batch})[0] for batch in Batches(photos, batch_size=25)])


@dataclass(frozen=True)
class Comparison:
    """A compressed network against its float one, photo by photo.

    Attributes:
        top1: Its top-1, in percent.
        drop: The float network's top-1 less its own, in points.
        lost: Photos that only the float network gets right.
        won: Photos that only the compressed one gets right.
        p_value: Two-sided sign test on lost and won (McNemar's exact test): how likely a difference of at least this
            size is where neither network is better.
        divergence: Mean KL(float || compressed), nats.
    """

    top1: float
    drop: float
    lost: int
    won: int
    p_value: float
    divergence: float


def compare(float_scores: Scores, scores: Scores, accepted: npt.NDArray[np.int64]) -> Comparison:
    """Compare two networks on the same photos.

    Args:
        float_scores: Of the float network, shape (photos, classes).
        scores: Of the compressed one, the same shape.
        accepted: Right classes, shape (photos, most accepted), filled up with -1.
    """
    before, after = (_right(values, accepted) for values in (float_scores, scores))
    lost, won = int(np.count_nonzero(before & ~after)), int(np.count_nonzero(after & ~before))
    return Comparison(
        top1=100.0 * float(after.mean()),
        drop=100.0 * float(before.mean() - after.mean()),
        lost=lost,
        won=won,
        p_value=sign_test(lost, won),
        divergence=float(divergence(float_scores, scores, logits=True).mean()),
    )


def comparison_cells(float_scores: Scores, scores: Scores, accepted: npt.NDArray[np.int64]) -> list[str]:
    """Cells of a table: top-1 %, drop, lost/won, KL, and KL of each half of the photos."""
    half = len(scores) // 2
    parts = [slice(None), slice(0, half), slice(half, None)]
    whole, *halves = [compare(float_scores[part], scores[part], accepted[part]) for part in parts]
    return [
        f"{whole.top1:.1f}",
        f"{whole.drop:+.1f}",
        f"{whole.lost}/{whole.won}",
        f"{whole.divergence:.4f}",
        " / ".join(f"{part.divergence:.4f}" for part in halves),
    ]


def sign_test(lost: int, won: int) -> float:
    """Two-sided exact p-value of a fair coin falling `lost` against `won` times or more unevenly.

    Example:
        >>> sign_test(5, 0), sign_test(1, 1)
        (0.0625, 1.0)
    """
    total = lost + won
    tail = sum(math.comb(total, i) for i in range(min(lost, won) + 1))
    return min(1.0, tail / 2.0 ** (total - 1))


def _right(scores: Scores, accepted: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    rows = range(len(scores))
    return np.array([count_right(scores[i : i + 1], accepted[i : i + 1], 1) == 1 for i in rows], dtype=np.bool_)


def _photos(network: Network, name: str) -> Any:
    folder = SHARED / "data" / name
    if not folder.is_dir():
        raise SystemExit(f"This benchmark needs the photos of ../shared/data/{name}, which are not there.")
    return ImageData.from_folder(folder, preprocessing=network.preprocessing)


def _in_memory(photos: Any) -> Any:
    held = ArrayData(photos.read(0, len(photos)))
    held.accepted = photos.accepted
    return held
