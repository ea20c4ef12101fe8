"""`python -m amct_lite.samples.fine_tuning.run`: all layers at 2 bits, fine-tuned, saved, judged by ONNX Runtime."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from amct_lite.errors import FileError
from amct_lite.export.save import Saved
from amct_lite.learn import ArrayBatches, NonUniformLearner
from amct_lite.samples.fashion_lenet_caffe.data import DATA_FOLDER, load_part
from amct_lite.samples.fashion_lenet_caffe.run import MODEL_FOLDER
from amct_lite.samples.fine_tuning.cifar10 import load_cifar10

__all__ = ["fine_tune", "run_cifar10", "run_fashion"]

HELD_OUT = 5000
BATCH_SIZE = 128

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Part = tuple[Images, Labels]


def fine_tune(learner: NonUniformLearner, train: Part, test: Part, out: Path, epochs: int) -> Saved:
    """Train on all but the last training images, choose the best epoch on those, save and report on the test images.

    Args:
        learner: With the network and the options.
        train: Images and labels.
        test: Images and labels that nothing is chosen on.
        out: Folder for everything that is written; a run that was stopped goes on from the checkpoint in it.
        epochs: Passes over the training images.
    """
    images, labels = train
    held_out = max(1, min(HELD_OUT, len(labels) // 10))
    learner.fit(
        ArrayBatches(images[:-held_out], labels[:-held_out], BATCH_SIZE),
        epochs=epochs,
        validation=ArrayBatches(images[-held_out:], labels[-held_out:], BATCH_SIZE, shuffle=False),
        checkpoint=out / "checkpoint.pt",
    )
    before = _top1(learner.model.ir, test)
    saved = learner.save(out / "trained")
    deploy = saved.files["deploy_model"]
    print(f"Top-1 on {len(test[1])} test images: float {before:.2%}, {deploy.name} {_top1(deploy, test):.2%}.")
    for kind, path in saved.files.items():
        print(f"{kind}: {path}, {path.stat().st_size:,} bytes")
    return saved


def run_fashion(out: Path, model_folder: Path, epochs: int, **options: Any) -> Saved:
    """LeNet, a Caffe pair, on Fashion-MNIST."""
    model, weights = model_folder / "deploy.prototxt", model_folder / "lenet_fashion.caffemodel"
    if not weights.exists():
        raise FileError(f"There is no LeNet in {model_folder}.", remedy="Give --model-folder.")
    learner = NonUniformLearner(model, weights, **options)
    return fine_tune(learner, load_part("train", DATA_FOLDER), load_part("t10k", DATA_FOLDER), out, epochs)


def run_cifar10(out: Path, model_file: Path, data: Path, epochs: int, **options: Any) -> Saved:
    """An ONNX network that takes CIFAR-10's images as they are, 0 to 255."""
    learner = NonUniformLearner(model_file, **options)
    return fine_tune(learner, load_cifar10("train", data), load_cifar10("test", data), out, epochs)


def _top1(model: Any, part: Part) -> float:
    """Top-1 of a graph or a file in ONNX Runtime."""
    from amct_lite.graph.runtime import create_session

    session = onnxruntime.InferenceSession(str(model)) if isinstance(model, Path) else create_session(model)
    name = session.get_inputs()[0].name
    images, labels = part
    starts = range(0, len(labels), BATCH_SIZE)
    scores = np.concatenate([session.run(None, {name: images[at : at + BATCH_SIZE]})[0] for at in starts])
    return float((scores.argmax(1) == labels).mean())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("fine_tuning_out"))
    parser.add_argument("--model-folder", type=Path, default=MODEL_FOLDER, help="LeNet's")
    parser.add_argument("--cifar10", type=Path, help="folder of CIFAR-10's .bin files; trains on it in place of LeNet")
    parser.add_argument("--cifar10-model", type=Path, default=MODEL_FOLDER.parent / "cifar10_model.onnx")
    parser.add_argument("--weight-bits", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args()
    chosen = {"weight_bits": given.weight_bits, "quantize_all_layers": True}
    if given.cifar10 is None:
        run_fashion(given.out, given.model_folder, given.epochs, **chosen)
    else:
        run_cifar10(given.out, given.cifar10_model, given.cifar10, given.epochs, **chosen)
