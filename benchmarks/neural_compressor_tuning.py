"""neural-compressor's accuracy-driven tuning as its users call it; run by the Python that has neural-compressor 2.

`search_peers.py` starts this file as a script, with the arguments and the answer of `nncf_accuracy_control.py`:

    PYTHON benchmarks/neural_compressor_tuning.py DATA QUANTIZED_MODEL OPTIONS
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime


class Calibration:
    """Batches as neural-compressor's data loaders give them."""

    def __init__(self, images: Any) -> None:
        self.images, self.batch_size = images, 1

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        """One image after the other, with a label that nobody reads."""
        return ((image[None], 0) for image in self.images)


def main(data_file: Path, quantized_file: Path, options: dict[str, Any]) -> None:
    """Tune and print what it took."""
    from neural_compressor import PostTrainingQuantConfig, quantization
    from neural_compressor.config import AccuracyCriterion, TuningCriterion

    data = np.load(data_file)
    images, accepted = data["images"], data["accepted"]
    metrics = []

    def top_1(model: onnx.ModelProto) -> float:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        right = []
        for start in range(0, len(images), 25):
            batch = images[start : start + 25]
            guesses = session.run(None, {name: batch})[0].reshape(len(batch), -1).argmax(1)
            right += [int(guess) in accepted[start + number] for number, guess in enumerate(guesses)]
        metrics.append(float(np.mean(right)))
        return metrics[-1]

    config = PostTrainingQuantConfig(
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=options["max_drop"]),
        tuning_criterion=TuningCriterion(max_trials=100, timeout=options["seconds"]),
    )
    model = quantization.fit(
        options["model"], config, calib_dataloader=Calibration(data["calibration"]), eval_func=top_1
    )
    if model is None:
        raise SystemExit(f"returns None after {len(metrics)} evaluations, {options['seconds']} s")
    model.save(str(quantized_file))
    quantized = onnx.load(quantized_file)  # noqa: TID251 - as a user does
    evaluations = len(metrics)
    print(json.dumps({"evaluations": evaluations, "drop": metrics[0] - top_1(quantized)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
