"""Caffe pairs written back: floats as they were, fake-quant as real Caffe and our graphs compute it, AMCT's deploy."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

import amct_lite.pycaffe as caffe
from amct_lite.caffe.model import CaffeModel, load_caffe_model
from amct_lite.caffe.network import CaffeLayer, CaffeNetwork
from amct_lite.caffe.reading import read_network
from amct_lite.caffe_layers import write_caffe_layers
from amct_lite.codebook.activation_nuq import cluster_activation
from amct_lite.codebook.weight_nuq import cluster_weight
from amct_lite.errors import ExportError
from amct_lite.export.caffe_editor import CaffeEditor
from amct_lite.export.caffe_pair import deploy_pair, fake_quant_pair, float_pair, write_pair
from amct_lite.export.fake_quant import fake_quant_model
from amct_lite.files.protos import message_class
from amct_lite.files.record import LayerRecord
from amct_lite.graph.runtime import create_session
from amct_lite.pycaffe.execution import compile_network
from amct_lite.quantize.apply_record import quantize_layer
from amct_lite.quantize.quantized_layer import QuantizedLayer
from amct_lite.types import ClipRange, LayerKind
from amct_lite.uniform.arq import weight_scales
from amct_lite.uniform.bias import raise_scales_for_bias
from amct_lite.uniform.grid import grid_from_range, quantize

ZOO = Path(__file__).resolve().parents[3] / "shared" / "models"

# Folding in place and not, a blob read by two layers, an average pooling, both orders of an inner product's weight,
# layers of the training phase, and one that shares its weights by name.
PROTOTXT = """
name: "mixed"
layer {
  name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 2 dim: 3 dim: 12 dim: 12 } shape { dim: 2 } }
}
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 8 kernel_size: 3 bias_term: false }
}
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "bn1" }
layer { name: "scale1" type: "Scale" bottom: "bn1" top: "scale1" scale_param { bias_term: true } }
layer { name: "relu1" type: "ReLU" bottom: "scale1" top: "scale1" }
layer {
  name: "conv2a" type: "Convolution" bottom: "scale1" top: "conv2a" param { name: "w2" }
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 group: 2 }
}
layer { name: "bn2a" type: "BatchNorm" bottom: "conv2a" top: "conv2a" }
layer { name: "scale2a" type: "Scale" bottom: "conv2a" top: "conv2a" scale_param { bias_term: true } }
layer {
  name: "conv2b" type: "Convolution" bottom: "scale1" top: "conv2b" param { name: "w2" }
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 group: 2 }
}
layer { name: "sum" type: "Eltwise" bottom: "conv2a" bottom: "conv2b" top: "sum" }
layer { name: "relu2" type: "ReLU" bottom: "sum" top: "sum" }
layer {
  name: "up" type: "Deconvolution" bottom: "sum" top: "up"
  convolution_param { num_output: 5 kernel_size: 2 stride: 2 }
}
layer {
  name: "pool" type: "Pooling" bottom: "up" top: "pool"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }
}
layer {
  name: "ip1" type: "InnerProduct" bottom: "pool" top: "ip1"
  inner_product_param { num_output: 16 transpose: true }
}
layer { name: "relu3" type: "ReLU" bottom: "ip1" top: "ip1" }
layer {
  name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 16 }
}
layer {
  name: "axis2" type: "InnerProduct" bottom: "pool" top: "axis2"
  inner_product_param { num_output: 4 axis: 3 bias_filler { value: 0.3 } }
}
layer { name: "dropout" type: "Dropout" bottom: "ip2" top: "ip2" include { phase: TRAIN } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
layer { name: "prob" type: "Softmax" bottom: "ip2" top: "prob" }
"""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, real_caffe) -> tuple[Path, Path]:
    """The network above with statistics that say something, saved by real Caffe."""
    folder, random = tmp_path_factory.mktemp("mixed"), np.random.default_rng(3)
    prototxt, caffemodel = folder / "net.prototxt", folder / "net.caffemodel"
    prototxt.write_text(PROTOTXT)
    # All weights are drawn here: Caffe's own fillers give others in each run.
    shapes = {"conv1": (8, 3, 3, 3), "conv2a": (8, 4, 3, 3), "up": (8, 5, 2, 2), "ip1": (605, 16), "ip2": (16, 16)}
    params = {(name, 0): random.normal(0, 0.2, shape) for name, shape in {**shapes, "axis2": (4, 11)}.items()}
    params |= {(name, 1): random.normal(0, 0.2, 8) for name in ("conv2a", "conv2b")}
    for name in ("bn1", "bn2a"):
        params[name, 0] = random.normal(0, 0.5, 8) * 2
        params[name, 1] = random.uniform(0.5, 2, 8) * 2
        params[name, 2] = np.array([2.0])
    for name in ("scale1", "scale2a"):
        params[name, 0], params[name, 1] = random.uniform(0.5, 1.5, 8), random.normal(0, 0.5, 8)
    real_caffe(prototxt, {}, params=params, save=caffemodel)
    return prototxt, caffemodel


def quantized(
    model: CaffeModel,
    feed: dict[str, np.ndarray],
    *,
    names: Sequence[str] | None = None,
    num_steps: int | None = None,
    activation_levels: int | None = None,
) -> list[QuantizedLayer]:
    """The model's layers, calibrated by minmax on one batch; with NUQ where levels are asked for."""
    layers = [layer for layer in model.layers if names is None or layer.name in names]
    tensors = list(dict.fromkeys(layer.activation for layer in layers))
    session = create_session(model.ir, extra_outputs=[name for name in tensors if name not in feed])
    outputs = [item.name for item in session.get_outputs()]
    seen = {**feed, **dict(zip(outputs, session.run(outputs, feed), strict=True))}
    found = []
    for layer in layers:
        values = seen[layer.activation]
        grid = grid_from_range(ClipRange(float(values.min()), float(values.max())), with_offset=True)
        kept: tuple[int, ...] = ()
        if activation_levels is not None:
            counts = np.bincount(quantize(values, grid).ravel().astype(np.int64) + 128, minlength=256)
            kept = tuple(map(int, cluster_activation(counts, activation_levels)))
        scale_w, cluster = np.empty(0, np.float32), ()
        if layer.weight is not None:
            grouped = layer.kind is LayerKind.DECONVOLUTION and layer.group > 1
            axis = None if grouped else layer.output_channel_axis
            weight = model.weight(layer.weight)
            scale_w = weight_scales(weight, axis=axis)
            if num_steps is not None:
                clustered = cluster_weight(weight, scale_w, axis=axis, num_steps=num_steps)
                scale_w, cluster = clustered.scales, clustered.levels
            if layer.bias is not None:
                scale_w, _ = raise_scales_for_bias(model.weight(layer.bias).reshape(-1), scale_w, grid.scale)
        record = LayerRecord(
            scale_d=grid.scale,
            offset_d=grid.offset,
            scale_w=tuple(map(float, scale_w)),
            cluster=cluster,
            activation_cluster=kept,
        )
        found.append(quantize_layer(model, layer, record))
    return found


def written(pair: tuple, folder: Path) -> tuple[Path, Path]:
    write_pair(*pair, folder / "pair.prototxt", folder / "pair.caffemodel")
    return folder / "pair.prototxt", folder / "pair.caffemodel"


def assert_close(ours: np.ndarray, expected: np.ndarray, name: str, tolerance: float = 1e-4) -> None:
    span = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * span, err_msg=name)


def layer_names(prototxt: Path) -> list[str]:
    message = text_format.Parse(prototxt.read_text(), message_class("caffe", "caffe.NetParameter")())
    return [layer.name for layer in message.layer]


def test_unquantized_pair_written_back_runs_in_real_caffe_with_identical_outputs(mixed, real_caffe, tmp_path) -> None:
    network = read_network(*mixed)
    prototxt, caffemodel = written(float_pair(network), tmp_path)
    data = np.random.default_rng(1).normal(0, 1, (2, 3, 12, 12)).astype(np.float32)
    before = real_caffe(mixed[0], {"data": data}, caffemodel=mixed[1])
    after = real_caffe(prototxt, {"data": data}, caffemodel=caffemodel)
    for name in network.blobs:
        np.testing.assert_array_equal(after.blobs[name], before.blobs[name], err_msg=name)
    for key, values in before.params.items():
        np.testing.assert_array_equal(after.params[key], values, err_msg=str(key))
    kept = [name for name in layer_names(mixed[0]) if name not in ("dropout", "loss")]
    assert layer_names(prototxt) == kept
    again = read_network(prototxt, caffemodel)
    assert again.inputs == {"data": (2, 3, 12, 12)} and set(again.outputs) == {"prob", "axis2"}


@pytest.mark.parametrize("nuq", [{}, {"num_steps": 16, "activation_levels": 24}])
def test_fake_quant_pair_gives_the_same_in_real_caffe_and_in_our_graphs(
    mixed, real_caffe, tmp_path, monkeypatch, nuq
) -> None:
    check_fake_quant(mixed, (2, 3, 12, 12), real_caffe, tmp_path, monkeypatch, ["prob", "axis2", "sum", "pool"], **nuq)


def check_fake_quant(
    source: tuple[Path, Path],
    shape: tuple[int, ...],
    real_caffe: Callable,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    blobs: Sequence[str],
    *,
    tolerance: float = 1e-4,
    **choices,
) -> None:
    monkeypatch.setenv("PYTHONPATH", write_caffe_layers(folder / "layers"))
    model = load_caffe_model(*source)
    data = np.random.default_rng(2).normal(0, 1, shape).astype(np.float32)
    layers = quantized(model, {"data": data}, **choices)
    prototxt, caffemodel = written(fake_quant_pair(model.network, layers, model.folded), folder)
    real = real_caffe(prototxt, {"data": data}, caffemodel=caffemodel).blobs
    assert_each_layer_agrees(read_network(prototxt, caffemodel), real)
    net = caffe.Net(prototxt, caffemodel, caffe.TEST)
    net.blobs["data"].reshape(*shape)
    net.forward(data=data)
    session = create_session(fake_quant_model(model, layers), extra_outputs=list(blobs))
    graph = dict(zip(blobs, session.run(list(blobs), {"data": data}), strict=True))
    for name in blobs:
        assert_close(net.blobs[name].data, real[name], f"{name}: our session of the pair", tolerance)
        assert_close(graph[name], real[name], f"{name}: the graph's fake-quant form", tolerance)


def assert_each_layer_agrees(network: CaffeNetwork, real: dict[str, np.ndarray]) -> None:
    """Each layer on real Caffe's own inputs: within 1e-4, and a quantizer bit for bit.

    So no difference can hide behind the network's own: an activation that lies halfway between two levels goes to
    either of them by the last bit of a sum, which is why whole networks cannot agree better than that.
    """
    groups: list[list[CaffeLayer]] = []
    for layer in network.layers:
        if list(layer.params.bottom) == list(layer.params.top):
            groups[-1].append(layer)
        else:
            groups.append([layer])
    for group in groups:
        first, last = group[0], group[-1]
        inputs = {blob: real[blob].shape for blob in first.params.bottom}
        assert tuple(inputs) == first.bottoms
        top = last.params.top[0]
        part = replace(network, inputs=inputs, layers=tuple(group), outputs=(top,), blobs={top: last.tops[0]})
        ours = compile_network(part, inputs, ["CPUExecutionProvider"]).run({blob: real[blob] for blob in inputs})
        if first.type == "Python":
            np.testing.assert_array_equal(ours[top], real[top], err_msg=first.name)
        else:
            assert_close(ours[top], real[top], first.name)


def test_folded_layers_leave_and_every_output_keeps_its_name(mixed, tmp_path) -> None:
    model = load_caffe_model(*mixed)
    layers = quantized(model, {"data": np.ones((2, 3, 12, 12), np.float32)}, names=["conv1", "conv2b", "ip2"])
    pair = fake_quant_pair(model.network, layers, model.folded)
    found = {layer.name: layer for layer in pair[0].layer}
    # conv2a stays float, and so its BatchNorm and Scale stay.
    assert "bn1" not in found and "scale1" not in found and {"bn2a", "scale2a"} <= set(found)
    assert list(found["conv1"].top) == ["scale1"] and found["conv1"].convolution_param.bias_term
    assert list(found["conv2b"].bottom) == ["conv2b_0_quant"] and list(found["conv2a"].bottom) == ["scale1"]
    # conv2a and conv2b had one weight between them, of which only one is quantized.
    assert [spec.name for spec in found["conv2b"].param] == [""]
    prototxt, caffemodel = written(pair, tmp_path)
    assert read_network(prototxt, caffemodel).outputs == model.network.outputs


def test_layers_that_quantize_a_blob_alike_share_one_quantizer(mixed) -> None:
    model = load_caffe_model(*mixed)
    layers = quantized(model, {"data": np.ones((2, 3, 12, 12), np.float32)}, names=["conv2a", "conv2b"])
    found = {layer.name: layer for layer in fake_quant_pair(model.network, layers, model.folded)[0].layer}
    assert "conv2a_0_quant_layer" in found and "conv2b_0_quant_layer" not in found
    assert found["conv2a"].bottom[0] == found["conv2b"].bottom[0] == "conv2a_0_quant"


def test_same_quantization_gives_the_same_bytes(mixed, tmp_path) -> None:
    files = []
    for run in ("first", "second"):
        model = load_caffe_model(*mixed)
        layers = quantized(model, {"data": np.ones((2, 3, 12, 12), np.float32)})
        pair = written(fake_quant_pair(model.network, layers, model.folded), tmp_path / run)
        files.append([path.read_bytes() for path in pair])
    assert files[0] == files[1]


def test_deploy_pair_has_amcts_layers_and_integers(mixed, tmp_path) -> None:
    model = load_caffe_model(*mixed)
    layers = quantized(model, {"data": np.random.default_rng(2).normal(0, 1, (2, 3, 12, 12)).astype(np.float32)})
    prototxt, caffemodel = written(deploy_pair(model.network, layers, model.folded), tmp_path)
    message = message_class("caffe", "caffe.NetParameter")
    weights = {layer.name: layer for layer in message.FromString(caffemodel.read_bytes()).layer}
    text = text_format.Parse(prototxt.read_text(), message())
    assert [layer.name for layer in text.layer] == list(weights)
    assert not any(layer.blobs for layer in text.layer)
    for layer in layers:
        name = layer.layer.name
        dequant = weights[f"{name}_dequant_layer"]
        assert dequant.type == "DeQuant" and list(dequant.bottom) == list(dequant.top) == list(weights[name].top)
        assert [len(blob.data) for blob in dequant.blobs] == [max(1, layer.scale_w.size)] * 3
        if layer.weight is None:
            np.testing.assert_allclose(dequant.blobs[0].data, [layer.grid.scale])
            continue
        np.testing.assert_array_equal(np.array(dequant.blobs[0].data, np.float32), layer.bias_scale())
        stored = np.frombuffer(weights[name].blobs[0].int8_data, np.int8)
        assert sorted(stored) == sorted(layer.weight.ravel()) and not weights[name].blobs[0].data
        if layer.bias is not None:
            np.testing.assert_array_equal(weights[name].blobs[1].int32_data, layer.bias)
    quant = weights["conv1_0_quant_layer"].quant_param
    first = next(layer for layer in layers if layer.layer.name == "conv1")
    assert quant.object_layer == "conv1" and quant.with_offset
    assert np.frombuffer(quant.offset, np.int8).tolist() == [first.grid.offset]
    assert quant.scale == pytest.approx(1 / first.grid.scale)
    # A bias that has no int32 form is added in float, behind DeQuant.
    order = list(weights)
    assert order.index("axis2_bias_layer") == order.index("axis2_dequant_layer") + 1
    assert weights["axis2_bias_layer"].bias_param.axis == 3


def test_deploy_pair_refuses_a_clustered_activation(mixed) -> None:
    model = load_caffe_model(*mixed)
    layers = quantized(model, {"data": np.ones((2, 3, 12, 12), np.float32)}, activation_levels=8)
    with pytest.raises(ExportError, match="clusters an activation"):
        deploy_pair(model.network, layers, model.folded)


def test_old_forms_are_written_in_todays_form_with_their_old_shapes(tmp_path, real_caffe) -> None:
    (tmp_path / "old.prototxt").write_text(
        'name: "old" input: "data" input_dim: 1 input_dim: 2 input_dim: 5 input_dim: 5\n'
        'layers { name: "ip" type: INNER_PRODUCT bottom: "data" top: "ip" inner_product_param { num_output: 3 } }\n'
    )
    old = message_class("caffe", "caffe.NetParameter")()
    layer = old.layers.add(name="ip")
    random = np.random.default_rng(0)
    for shape in ((1, 1, 3, 50), (1, 1, 1, 3)):
        blob = layer.blobs.add(num=shape[0], channels=shape[1], height=shape[2], width=shape[3])
        blob.data.extend(random.normal(0, 1, np.prod(shape)).tolist())
    (tmp_path / "old.caffemodel").write_bytes(old.SerializeToString())
    model = load_caffe_model(tmp_path / "old.prototxt", tmp_path / "old.caffemodel")
    data = random.normal(0, 1, (1, 2, 5, 5)).astype(np.float32)
    expected = real_caffe(tmp_path / "old.prototxt", {"data": data}, caffemodel=tmp_path / "old.caffemodel").blobs["ip"]
    prototxt, caffemodel = written(float_pair(model.network), tmp_path)
    np.testing.assert_array_equal(real_caffe(prototxt, {"data": data}, caffemodel=caffemodel).blobs["ip"], expected)
    layers = quantized(model, {"data": data})
    blobs = fake_quant_pair(model.network, layers, model.folded)[1].layer[-1].blobs
    assert [(blob.num, blob.channels, blob.height, blob.width) for blob in blobs] == [(1, 1, 3, 50), (1, 1, 1, 3)]


def test_label_in_an_old_header_goes_with_the_loss_that_reads_it(tmp_path) -> None:
    (tmp_path / "net.prototxt").write_text(
        'input: "data" input_dim: 1 input_dim: 2 input_dim: 5 input_dim: 5\n'
        'input: "label" input_dim: 1 input_dim: 1 input_dim: 1 input_dim: 1\n'
        'layer { name: "relu" type: "ReLU" bottom: "data" top: "relu" }\n'
        'layer { name: "loss" type: "EuclideanLoss" bottom: "relu" bottom: "label" top: "loss" }\n'
        'layer { name: "prob" type: "Softmax" bottom: "relu" top: "prob" }\n'
    )
    network = read_network(tmp_path / "net.prototxt")
    again = read_network(written(float_pair(network), tmp_path)[0])
    assert again.inputs == network.inputs == {"data": (1, 2, 5, 5)}
    assert again.outputs == network.outputs == ("prob",)


def test_layer_on_an_input_cannot_be_taken_out_of_the_network(mixed) -> None:
    editor = CaffeEditor(read_network(*mixed))
    with pytest.raises(ExportError, match="input of the network"):
        editor.take_out("conv1")
    with pytest.raises(ExportError, match="no such layer"):
        editor.take_out("nothing")


@pytest.mark.parametrize(
    ("folder", "weights", "shape", "blobs", "choices"),
    [
        ("lenet_fashion", "lenet_fashion", (4, 1, 28, 28), ["prob"], {}),
        ("lenet_fashion", "lenet_fashion", (4, 1, 28, 28), ["prob"], {"num_steps": 32, "activation_levels": 32}),
        ("squeezenet1.1", "squeezenet_v1.1", (1, 3, 227, 227), ["prob"], {}),
        ("squeezenet1.1", "squeezenet_v1.1", (1, 3, 227, 227), ["prob"], {"num_steps": 32, "activation_levels": 64}),
    ],
)
def test_fake_quant_pairs_of_known_networks_give_the_same_in_real_caffe(
    real_caffe, tmp_path, monkeypatch, folder, weights, shape, blobs, choices
) -> None:
    source = ZOO / folder / "deploy.prototxt", ZOO / folder / f"{weights}.caffemodel"
    if not source[0].exists():
        pytest.skip(f"{folder} is not in ../shared")
    # SqueezeNet's 26 layers have two million activations, some of which always lie halfway between two levels: ONNX
    # Runtime with and without its own optimisations differs as much.
    tolerance = 5e-3 if folder == "squeezenet1.1" else 1e-4
    check_fake_quant(source, shape, real_caffe, tmp_path, monkeypatch, blobs, tolerance=tolerance, **choices)
