"""`amct_lite.pycaffe`: an evaluation script gives what it gives under pycaffe, with one import changed."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import amct_lite.pycaffe as caffe
from amct_lite import calibrate, create_quant_config, init, quantize_model
from amct_lite.errors import AmctError, FileError, ModelError, ParameterError

ROOT = Path(__file__).parents[2]
CAFFE_PYTHON = Path(os.environ.get("AMCT_LITE_CAFFE_PYTHON", ROOT / ".venv-caffe" / "bin" / "python"))

# In-place chains, a blob read twice, two outputs.
PROTOTXT = """
name: "branches"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 9 } } }
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.3 } }
}
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "drop1" type: "Dropout" bottom: "conv1" top: "conv1" }
layer {
  name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 }
}
layer {
  name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
  convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "gaussian" std: 0.3 } }
}
layer {
  name: "ip" type: "InnerProduct" bottom: "pool1" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "gaussian" std: 0.1 } }
}
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""

# What evaluation scripts do, old style and new. `sys.argv`: prototxt, caffemodel, image folder, result.
SCRIPT = """
import sys
import numpy as np
import caffe
from caffe.proto import caffe_pb2

model, weights, folder, result = sys.argv[1:]
out = {}
caffe.set_mode_cpu()
net = caffe.Net(model, weights, caffe.TEST)
other = caffe.Net(model, caffe.TEST, weights=weights)
assert list(net.inputs) == ["data"] and set(net.outputs) == {"conv2", "prob"}
# Caffe lists also the copies that it makes of blobs read twice.
names = [name for name in net.blobs if "_split_" not in name]
for name in names:
    blob = net.blobs[name]
    out["shape/" + name] = np.array([blob.num, blob.channels, blob.count, *tuple(blob.shape)])

mean = caffe_pb2.BlobProto()
with open(folder + "/mean.binaryproto", "rb") as file:
    mean.ParseFromString(file.read())
pixels = caffe.io.blobproto_to_array(mean)[0].mean(1).mean(1)
transformer = caffe.io.Transformer({"data": net.blobs["data"].data.shape})
transformer.set_transpose("data", (2, 0, 1))
transformer.set_mean("data", pixels)
transformer.set_raw_scale("data", 255)
transformer.set_channel_swap("data", (2, 1, 0))
transformer.set_input_scale("data", 0.017)

images = [caffe.io.load_image(folder + "/%d.png" % i) for i in range(5)]
items = np.asarray([transformer.preprocess("data", image) for image in images])
out["items"] = items
out["back"] = transformer.deprocess("data", items[1])
out["crops"] = caffe.io.oversample(images[:2], (8, 9))

net.blobs["data"].data[...] = items[:2]
answer = net.forward()
for name in names:
    out["first/" + name] = net.blobs[name].data.copy()
assert np.array_equal(answer["prob"], net.blobs["prob"].data)
out["given"] = net.forward(data=items[2:4], blobs=["pool1"])["pool1"].copy()
out["end"] = net.forward(end="pool1")["pool1"].copy()
out["half"] = net.forward(end="conv1")["conv1"].copy()
everything = net.forward_all(data=items, blobs=["ip"])
out["all/prob"], out["all/ip"] = np.array(everything["prob"]), np.array(everything["ip"])

net.blobs["data"].reshape(1, 3, 8, 9)
net.reshape()
out["reshaped"] = np.array(net.blobs["prob"].data.shape)
net.blobs["data"].data[...] = items[4]
out["one"] = net.forward()["prob"].copy()

weight = net.params["ip"][0].data
out["weight"], out["bias"] = weight.copy(), net.params["ip"][1].data.copy()
weight[...] *= 2
net.params["conv1"][1].data[0] = 3
out["changed"] = net.forward()["prob"].copy()
net.copy_from(weights)
out["restored"] = net.forward()["prob"].copy()
late = caffe.Net(model, caffe.TEST)
late.copy_from(weights)
out["late"] = late.forward(data=items[:2])["prob"].copy()
out["other"] = other.forward(data=items[:2])["prob"].copy()
assert net.layer_dict["conv1"].type == "Convolution" and "ip" in list(net._layer_names)
assert net.layer_dict["ip"].blobs[0].data.shape == weight.shape
np.savez(result, **out)
"""

# Real Caffe stands beside a newer scikit-image than it was written for: there as_grey has another name, and images are
# smoothed before they shrink, which the scikit-image of pycaffe's time did not do.
PREAMBLE = """
import functools
import caffe.io

caffe.io.resize = functools.partial(caffe.io.resize, anti_aliasing=False)
read = caffe.io.skimage.io.imread
caffe.io.skimage.io.imread = lambda name, as_grey=False: read(name, as_gray=as_grey)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Images, a mean file and a prototxt."""
    folder, random = tmp_path_factory.mktemp("pycaffe"), np.random.default_rng(0)
    for index in range(5):
        # Of the input's size: how pycaffe resizes depends on its scikit-image, and is compared below.
        Image.fromarray(random.integers(0, 256, (8, 9, 3), np.uint8)).save(folder / f"{index}.png")
    mean = caffe.proto.caffe_pb2.BlobProto(num=1, channels=3, height=2, width=2)
    mean.data.extend(random.uniform(90, 130, 12).tolist())
    (folder / "mean.binaryproto").write_bytes(mean.SerializeToString())
    (folder / "net.prototxt").write_text(PROTOTXT)
    return folder


@pytest.fixture(scope="module")
def caffemodel(folder: Path, real_caffe) -> Path:
    """Weights that real Caffe made."""
    real_caffe(folder / "net.prototxt", {}, save=folder / "net.caffemodel")
    return folder / "net.caffemodel"


def run_real(script: str, folder: Path, *arguments: str) -> dict[str, np.ndarray]:
    (folder / "script.py").write_text(PREAMBLE + script)
    command = [str(CAFFE_PYTHON), str(folder / "script.py"), *arguments, str(folder / "real.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"GLOG_minloglevel": "2"})
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(folder / "real.npz") as result:
        return dict(result)


def test_evaluation_script_gives_the_same_after_changing_the_import(folder, caffemodel, monkeypatch) -> None:
    expected = run_real(SCRIPT, folder, str(folder / "net.prototxt"), str(caffemodel), str(folder))
    ours = SCRIPT.replace("import caffe\n", "import amct_lite.pycaffe as caffe\n")
    ours = ours.replace("from caffe.proto", "from amct_lite.pycaffe.proto")
    arguments = [str(folder / "net.prototxt"), str(caffemodel), str(folder), str(folder / "ours.npz")]
    monkeypatch.setattr("sys.argv", ["script.py", *arguments])
    exec(compile(ours, "script.py", "exec"), {"__name__": "__main__"})
    with np.load(folder / "ours.npz") as result:
        assert set(result.files) == set(expected)
        for name in result.files:
            np.testing.assert_allclose(result[name], expected[name], rtol=1e-4, atol=1e-4, err_msg=name)


RESIZE = """
import sys
import numpy as np
import caffe.io

folder, result = sys.argv[1:]
out = {}
with np.load(folder + "/images.npz") as images:
    for key in images.files:
        height, width, order = [int(part) for part in key.split("_")[1:]]
        out[key] = caffe.io.resize_image(images[key], (height, width), order)
for mode in ("RGB", "RGBA", "L"):
    out["load_" + mode] = caffe.io.load_image(folder + "/" + mode + ".png")
np.savez(result, **out)
"""


def test_images_are_loaded_and_resized_as_by_pycaffe(folder, real_caffe) -> None:
    random = np.random.default_rng(1)
    cases = [((10, 12, 3), 7, 5), ((10, 12, 3), 23, 31), ((6, 8, 1), 8, 6), ((10, 12, 5), 7, 15), ((4, 4, 3), 4, 9)]
    images = {
        f"{index}_{height}_{width}_{order}": random.uniform(-1, 2, shape).astype(np.float32)
        for index, (shape, height, width) in enumerate(cases)
        for order in (0, 1)
    }
    np.savez(folder / "images.npz", **images)
    for mode, channels in (("RGB", (3,)), ("RGBA", (4,)), ("L", ())):
        Image.fromarray(random.integers(0, 256, (5, 6, *channels), np.uint8), mode).save(folder / f"{mode}.png")
    for key, expected in run_real(RESIZE, folder, str(folder)).items():
        if key.startswith("load_"):
            ours = caffe.io.load_image(folder / f"{key[5:]}.png")
        else:
            ours = caffe.io.resize_image(images[key], expected.shape[:2], int(key.split("_")[-1]))
        np.testing.assert_allclose(ours, expected, atol=1e-5, err_msg=key)


def test_image_without_colour_has_one_channel(folder) -> None:
    grey = np.arange(30, dtype=np.uint8).reshape(5, 6) * 8
    Image.fromarray(grey).save(folder / "grey.png")
    loaded = caffe.io.load_image(folder / "grey.png", color=False)
    np.testing.assert_allclose(loaded[..., 0] * 255, grey, atol=1e-4)
    with pytest.raises(FileError, match=r"missing\.png"):
        caffe.io.load_image(folder / "missing.png")


def test_mean_file_is_read_in_one_call(folder) -> None:
    assert caffe.io.read_mean(folder / "mean.binaryproto").shape == (3, 2, 2)
    (folder / "broken.binaryproto").write_bytes(b"\xff\xff\xff")
    with pytest.raises(FileError, match="no mean image"):
        caffe.io.read_mean(folder / "broken.binaryproto")


def test_arrays_survive_the_way_through_a_blobproto() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    blob = caffe.io.array_to_blobproto(array, diff=array + 1)
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob), array)
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob, return_diff=True), array + 1)


def test_session_is_kept_while_shapes_and_weights_stay(folder, caffemodel, monkeypatch) -> None:
    net = caffe.Net(folder / "net.prototxt", caffemodel, caffe.TEST)
    monkeypatch.setattr("amct_lite.pycaffe.net.compile_network", lambda *_: pytest.fail("compiled again"))
    net.forward()
    net.params["ip"][0].data.copy()
    kept = net.blobs["prob"].data
    net.forward(data=np.ones((2, 3, 8, 9)))
    assert kept is net.blobs["prob"].data


def test_forward_over_a_calibration_pair_gives_the_record_that_calibrate_gives(folder, caffemodel, tmp_path) -> None:
    config, source = tmp_path / "config.json", (folder / "net.prototxt", caffemodel)
    create_quant_config(config, *source, batch_num=2)
    batches = [{"data": batch} for batch in np.random.default_rng(4).normal(0, 1, (3, 2, 3, 8, 9)).astype(np.float32)]
    calibrate(init(config, *source, tmp_path / "expected.txt"), batches[:2])
    graph = init(config, *source, tmp_path / "record.txt")
    quantize_model(graph, tmp_path / "modified.prototxt", tmp_path / "modified.caffemodel")
    net = caffe.Net(tmp_path / "modified.prototxt", tmp_path / "modified.caffemodel", caffe.TEST)
    # A run that ends early sees some of the tensors only, so it is no batch.
    net.forward(end="conv1", **batches[2])
    net.forward(**batches[0])
    assert not (tmp_path / "record.txt").exists()
    for batch in batches[1:]:
        net.forward(**batch)
    assert (tmp_path / "record.txt").read_text() == (tmp_path / "expected.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "keywords", "word"),
    [
        ((caffe.TRAIN,), {}, "does not train"),
        ((caffe.TEST,), {"level": 1}, "levels"),
        ((caffe.TEST,), {"stages": ["deploy"]}, "stages"),
        (("weights", caffe.TEST, 0, None, "more"), {}, "more"),
        ((), {}, "phase"),
    ],
)
def test_net_refuses_what_it_would_not_do(folder, arguments, keywords, word) -> None:
    with pytest.raises(ParameterError, match=word):
        caffe.Net(folder / "net.prototxt", *arguments, **keywords)


def test_missing_files_are_named(folder) -> None:
    with pytest.raises((FileError, ModelError), match=r"none\.prototxt"):
        caffe.Net(folder / "none.prototxt", caffe.TEST)


def test_forward_refuses_what_does_not_fit(folder, caffemodel) -> None:
    net = caffe.Net(folder / "net.prototxt", caffemodel, caffe.TEST)
    for call, word in (
        (lambda: net.forward(start="conv2"), "start"),
        (lambda: net.forward(end="nowhere"), "nowhere"),
        (lambda: net.forward(image=np.zeros((2, 3, 8, 9))), "image"),
        (lambda: net.forward(data=np.zeros((3, 3, 8, 9))), "reshape"),
        (lambda: net.forward_all(data=np.zeros((0, 3, 8, 9))), "at least one"),
        (lambda: net.blobs["data"].reshape(-1, 3), "negative"),
    ):
        with pytest.raises(AmctError, match=word):
            call()
    with pytest.raises(ValueError, match="keeps its shape"):
        net.params["ip"][0].reshape(1)


def test_transformer_refuses_what_does_not_fit() -> None:
    transformer = caffe.io.Transformer({"data": (1, 3, 4, 4)})
    for call in (
        lambda: transformer.preprocess("image", np.zeros((4, 4, 3))),
        lambda: transformer.set_transpose("data", (0, 1)),
        lambda: transformer.set_channel_swap("data", (0, 1)),
        lambda: transformer.set_mean("data", np.zeros(2)),
        lambda: transformer.set_mean("data", np.zeros((3, 5, 5))),
    ):
        with pytest.raises(ParameterError):
            call()


def test_gpu_mode_says_that_nets_stay_on_the_cpu() -> None:
    with pytest.warns(UserWarning, match="providers"):
        caffe.set_mode_gpu()
    caffe.set_mode_cpu()
    caffe.set_device(0)
