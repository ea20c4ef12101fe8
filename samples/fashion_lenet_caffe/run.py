"""`python -m amct_lite.samples.fashion_lenet_caffe.run`: search the smallest LeNet that loses at most half a point."""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

import amct_lite as amct
import amct_lite.pycaffe as caffe
from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.errors import FileError
from amct_lite.samples.fashion_lenet_caffe.data import load_part
from amct_lite.search.result import SearchResult

__all__ = ["LeNetEvaluator", "run"]

MODEL_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "models" / "lenet_fashion"
# Half a point may be lost; the search gets half of that, since the images it sees are only a sample.
MAX_DROP = 0.0025
BATCH_SIZE = 100
CALIBRATION_BATCHES = 2


class LeNetEvaluator(AutoNuqEvaluatorBase):
    """Top-1 by a Caffe net, written as in AMCT's manual; only the import of Caffe differs."""

    def __init__(self, images: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> None:
        super().__init__(self)
        self.evaluate_batch_num = len(labels) // BATCH_SIZE
        self.images, self.labels = images, labels

    def eval_model(self, model_file: str, weights_file: str | None, batch_num: int) -> float:
        """Return top-1 over the first `batch_num` batches."""
        net = caffe.Net(model_file, weights_file, caffe.TEST)
        net.blobs["data"].reshape(BATCH_SIZE, 1, 28, 28)
        hits = 0
        for start in range(0, batch_num * BATCH_SIZE, BATCH_SIZE):
            net.blobs["data"].data[...] = self.images[start : start + BATCH_SIZE]
            scores = net.forward()["prob"]
            hits += int((scores.argmax(axis=1) == self.labels[start : start + BATCH_SIZE]).sum())
        return hits / (batch_num * BATCH_SIZE)

    def is_satisfied(self, original_metric: float, new_metric: float) -> bool:
        """Whether at most a quarter of a point is lost."""
        return original_metric - new_metric <= MAX_DROP


def run(out: Path, model_folder: Path = MODEL_FOLDER) -> SearchResult:
    """Configure, search and save; calibrated and searched on one half of the test images, reported on the other.

    Args:
        out: Folder for everything that is written.
        model_folder: Holds `deploy.prototxt` and `lenet_fashion.caffemodel`.
    """
    model, weights = model_folder / "deploy.prototxt", model_folder / "lenet_fashion.caffemodel"
    if not weights.exists():
        raise FileError(f"There is no LeNet in {model_folder}.", remedy="Give --model-folder.")
    config_file, record_file = out / "config.json", out / "record.txt"
    images, labels = load_part("t10k")
    searched, judge = (LeNetEvaluator(images[half], labels[half]) for half in (slice(0, 5000), slice(5000, None)))

    amct.create_quant_config(config_file, model, weights, batch_num=CALIBRATION_BATCHES)
    print(amct.init(config_file, model, weights, record_file))
    result = amct.auto_nuq(model, weights, searched, config_file, record_file, out)
    print(result.message)

    before = judge.eval_model(str(model), str(weights), judge.evaluate_batch_num)
    files = result.files
    after = judge.eval_model(str(files["fake_quant_model"]), str(files["fake_quant_weights"]), judge.evaluate_batch_num)
    print(f"Top-1 on the other {len(judge.labels)} test images: float {before:.2%}, quantized {after:.2%}.")
    for kind, path in files.items():
        print(f"{kind}: {path}")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("fashion_lenet_out"))
    parser.add_argument("--model-folder", type=Path, default=MODEL_FOLDER)
    arguments = parser.parse_args()
    run(arguments.out, arguments.model_folder)
