"""Caffe pairs whose convolutions are split: the same function in our runtime, in OpenCV and in real Caffe."""

from pathlib import Path

import numpy as np
import pytest

import amct_lite
from amct_lite.errors import ParameterError
from amct_lite.export.caffe_blobs import float_blob
from amct_lite.files.protos import message_class
from amct_lite.tensor_decompose import auto_decomposition

RNG = np.random.default_rng(0)


def low_rank(out_channels: int, in_channels: int, height: int, width: int) -> np.ndarray:
    vertical, horizontal = RNG.normal(size=(2, in_channels, height)), RNG.normal(size=(out_channels, 2, width))
    return (np.einsum("kci,nkj->ncij", vertical, horizontal) / 4).astype(np.float32)


WEIGHTS = {
    "w1": low_rank(12, 8, 3, 5),
    "b1": RNG.normal(size=12).astype(np.float32),
    "w2": low_rank(12, 12, 3, 3),
    "w4": RNG.normal(size=(12, 12, 1, 1)).astype(np.float32),
}


def worst(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


PROTOTXT = """
name: "net"
input: "data" input_shape { dim: 1 dim: 8 dim: 31 dim: 29 }
layer {
  name: "first" type: "Convolution" bottom: "data" top: "first"
  param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 12 kernel_h: 3 kernel_w: 5 pad_h: 2 pad_w: 1 stride_h: 2 stride_w: 3 }
}
layer { name: "relu" type: "ReLU" bottom: "first" top: "first" }
layer {
  name: "second" type: "Convolution" bottom: "first" top: "second"
  convolution_param { num_output: 12 kernel_size: 3 pad: 2 dilation: 2 bias_term: false }
}
layer {
  name: "third" type: "Convolution" bottom: "second" top: "third"
  convolution_param { num_output: 12 kernel_size: 1 }
}
"""


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    net = message_class("caffe", "caffe.NetParameter")(name="net")
    blobs = {"first": ("w1", "b1"), "second": ("w2",), "third": ("w4", "b1")}
    for name, arrays in blobs.items():
        layer = net.layer.add(name=name, type="Convolution")
        layer.blobs.extend(float_blob(WEIGHTS[array]) for array in arrays)
    (tmp_path / "net.prototxt").write_text(PROTOTXT)
    (tmp_path / "net.caffemodel").write_bytes(net.SerializeToString())
    return tmp_path / "net.prototxt", tmp_path / "net.caffemodel"


def decompose_pair(pair: tuple[Path, Path], folder: Path, **options) -> tuple[Path, Path]:
    new = folder / "new.prototxt", folder / "new.caffemodel"
    splits = auto_decomposition(*pair, *new, **options)
    assert [split.names for split in splits][:2] == [("first_0", "first_1"), ("second_0", "second_1")]
    return new


def test_a_caffe_pair_is_the_same_function_in_our_own_runtime(tmp_path: Path, pair) -> None:
    new = decompose_pair(pair, tmp_path, kept_energy=1.0)
    x = RNG.normal(size=(1, 8, 31, 29)).astype(np.float32)
    (before,), (after,) = (amct_lite.InferenceSession(*files).run(["third"], {"data": x}) for files in (pair, new))
    assert worst(after, before) < 1e-4
    assert new[1].stat().st_size < pair[1].stat().st_size
    text = new[0].read_text()
    assert text.count("lr_mult: 2.0") == 1, "the first of the two has no bias"
    assert text.index('"first_0"') < text.index('"first_1"') < text.index('"relu"')


def test_a_caffe_pair_is_the_same_function_in_real_caffe(tmp_path: Path, pair, real_caffe) -> None:
    new = decompose_pair(pair, tmp_path, kept_energy=1.0)
    x = RNG.normal(size=(1, 8, 31, 29)).astype(np.float32)
    before, after = (real_caffe(files[0], {"data": x}, caffemodel=files[1]).blobs for files in (pair, new))
    assert worst(after["third"], before["third"]) < 1e-4


def test_a_caffe_pair_is_the_same_function_in_opencv(tmp_path: Path, pair) -> None:
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless<5 is not installed: pip install -e '.[test]'")
    new = decompose_pair(pair, tmp_path, kept_energy=1.0)
    x = RNG.normal(size=(1, 8, 31, 29)).astype(np.float32)
    outputs = []
    for prototxt, caffemodel in (pair, new):
        net = cv2.dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
        net.setInput(x, "data")
        outputs.append(net.forward("third"))
    assert worst(outputs[1], outputs[0]) < 1e-4


def test_a_real_caffe_pair_keeps_its_predictions(tmp_path: Path, find_model) -> None:
    real = find_model("lenet_fashion/deploy.prototxt"), find_model("lenet_fashion/lenet_fashion.caffemodel")
    new = tmp_path / "new.prototxt", tmp_path / "new.caffemodel"
    splits = auto_decomposition(*real, *new, kept_energy=0.9)
    assert splits
    x = np.random.default_rng(1).uniform(0, 1, (8, 1, 28, 28)).astype(np.float32)
    before, after = (amct_lite.InferenceSession(*files).run(None, {"data": x})[0] for files in (real, new))
    assert np.mean(before.argmax(1) == after.argmax(1)) >= 0.75


def test_amcts_keywords_are_known(tmp_path: Path, pair) -> None:
    auto_decomposition(
        model_file=pair[0],
        weights_file=pair[1],
        new_model_file=tmp_path / "a.prototxt",
        new_weights_file=tmp_path / "a.caffemodel",
    )
    assert {"a.prototxt", "a.caffemodel"} <= {path.name for path in tmp_path.iterdir()}


def test_a_pair_needs_two_files_to_go_to(tmp_path: Path, pair) -> None:
    for arguments in [(*pair, tmp_path / "a.prototxt"), pair]:
        with pytest.raises(ParameterError, match="auto_decomposition writes"):
            auto_decomposition(*arguments)
