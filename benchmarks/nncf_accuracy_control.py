"""NNCF's accuracy control as its users call it; run by the Python that has nncf.

`search_peers.py` starts this file as a script:

    PYTHON benchmarks/nncf_accuracy_control.py DATA QUANTIZED_MODEL OPTIONS

DATA is a `.npz` file: `calibration` and `images`, inputs of the network, and `accepted`, which classes are right for
each image (-1 fills up). The last line that it prints is JSON: evaluations of the whole validation set, and the drop.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime


class Validation:
    """Top-1 on images, counting how many whole and partial runs there were."""

    def __init__(self, images: Any, accepted: Any) -> None:
        self.images, self.accepted = images, accepted
        self.whole = self.partial = 0

    def __call__(self, model: onnx.ModelProto, items: Iterable[int]) -> tuple[float, list[list[Any]]]:
        """The accuracy on some images, and the outputs of each, as nncf wants them."""
        indices = [int(item) for item in items]
        if len(indices) == len(self.images):
            self.whole += 1
        else:
            self.partial += 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        outputs = []
        for start in range(0, len(indices), 25):
            batch = self.images[indices[start : start + 25]]
            outputs += list(session.run(None, {name: batch})[0].reshape(len(batch), -1))
        right = [int(np.argmax(o)) in self.accepted[i] for i, o in zip(indices, outputs, strict=True)]
        return float(np.mean(right)), [[output] for output in outputs]


def main(data_file: Path, quantized_file: Path, options: dict[str, Any]) -> None:
    """Quantize under accuracy control and print what it took."""
    import nncf

    data = np.load(data_file)
    model = onnx.load(options["model"])  # noqa: TID251 - as a user of nncf does
    name = model.graph.input[0].name
    validation = Validation(data["images"], data["accepted"])
    original, _ = validation(model, range(len(data["images"])))
    validation.whole = 0
    quantized = nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=nncf.Dataset(list(data["calibration"]), lambda image: {name: image[None]}),
        validation_dataset=nncf.Dataset(list(range(len(data["images"])))),
        validation_fn=lambda candidate, items: validation(candidate, items),
        max_drop=options["max_drop"],
        drop_type=nncf.DropType.ABSOLUTE,
    )
    whole, partial = validation.whole, validation.partial
    reached, _ = validation(quantized, range(len(data["images"])))
    onnx.save(quantized, quantized_file)
    print(json.dumps({"evaluations": whole, "partial": partial, "drop": original - reached}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
