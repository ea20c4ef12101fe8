import numpy as np
import onnx_ir as ir
import onnxruntime

from amct_lite.evaluators import ArrayData, ClassificationEvaluator
from amct_lite.samples.digits.data import INPUT_NAME, MODEL_FILE, load_split


def parts():
    split = load_split()
    return {name: getattr(split, name) for name in ("train", "calibration", "validation", "held_out")}


def test_parts_share_no_image_and_are_the_whole_data_set():
    seen = [image.tobytes() for part in parts().values() for image in part.images]
    assert len(seen) == 1797
    # The data set itself has no duplicates, so equal bytes would be one image in two parts.
    assert len(set(seen)) == 1797


def test_split_is_the_one_that_the_network_was_trained_on():
    first = {name: part.labels[:8].tolist() for name, part in parts().items()}
    assert first == {
        "train": [9, 1, 2, 2, 5, 2, 5, 1],
        "calibration": [9, 3, 9, 4, 1, 2, 8, 4],
        "validation": [2, 5, 6, 6, 2, 4, 8, 0],
        "held_out": [9, 1, 7, 7, 2, 0, 5, 7],
    }


def test_every_class_is_in_every_part():
    for part in parts().values():
        assert set(part.labels.tolist()) == set(range(10))


def test_network_is_accurate_on_images_that_it_never_saw():
    part = load_split().held_out
    evaluator = ClassificationEvaluator(ArrayData(part.images, part.labels), max_drop=0.01)
    assert evaluator.eval_model(str(MODEL_FILE), None, evaluator.evaluate_batch_num) >= 0.98


def test_network_has_work_for_the_default_target():
    model = ir.load(MODEL_FILE)
    convolutions = [node for node in model.graph if node.op_type == "Conv"]
    products = [node for node in model.graph if node.op_type == "Gemm"]
    assert [node.inputs[1].shape.numpy()[2:] for node in convolutions] == [(4, 4)] * 3
    assert len(products) == 2
    assert 30_000 <= sum(node.inputs[1].const_value.size for node in convolutions + products) <= 90_000
    assert MODEL_FILE.stat().st_size < 400_000


def test_network_takes_any_batch():
    session = onnxruntime.InferenceSession(str(MODEL_FILE))
    for count in (1, 5):
        logits = session.run(["logits"], {INPUT_NAME: np.zeros((count, 1, 8, 8), np.float32)})[0]
        assert logits.shape == (count, 10)
