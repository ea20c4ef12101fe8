"""What the translation computes, names and refuses, told without real Caffe."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.caffe.network import CaffeLayer, CaffeNetwork
from amct_lite.caffe.translate import translate
from amct_lite.errors import ModelError, ParameterError
from amct_lite.files.protos import message_class
from amct_lite.graph.passes.batch_norm_folding import fold_batch_norms
from amct_lite.graph.runtime import create_session

LAYER = message_class("caffe", "caffe.LayerParameter")


def network(inputs, *layers, outputs=("y",)):
    """A network of (text, *blobs) layers; a text without bottom and top goes from x to y."""
    built = []
    for number, (text, *blobs) in enumerate(layers):
        params = text_format.Parse(text, LAYER())
        if not params.bottom:
            params.bottom.append("x")
            params.top.append("y")
        params.name = params.name or f"layer{number}"
        arrays = tuple(np.asarray(blob, np.float32) for blob in blobs)
        built.append(
            CaffeLayer(params.name, params.type, tuple(params.bottom), tuple(params.top), params, arrays, number + 1)
        )
    return CaffeNetwork("net", inputs, tuple(built), outputs, {}, Path(), None, None, None)


def run(model, **arrays):
    return create_session(model).run(None, {name: np.asarray(array, np.float32) for name, array in arrays.items()})


def apply(x, text, *blobs):
    x = np.asarray(x, np.float32)
    (y,) = run(translate(network({"x": x.shape}, (text, *blobs))), x=x)
    return y


def caffe_pooling(x, pool, kernel, stride, pad, floor):
    """Caffe's loops, window by window."""
    size = x.shape[2:]
    counts = []
    for n, k, s, p in zip(size, kernel, stride, pad, strict=True):
        count = int((np.floor if floor else np.ceil)((n + 2 * p - k) / s)) + 1
        if any(pad) and (count - 1) * s >= n + p:
            count -= 1
        counts.append(count)
    y = np.full((*x.shape[:2], *counts), np.finfo(np.float32).min if pool == "MAX" else 0, np.float32)
    for i, j in product(*map(range, counts)):
        start = [t * s - p for t, s, p in zip((i, j), stride, pad, strict=True)]
        end = [min(a + k, n + p) for a, k, n, p in zip(start, kernel, size, pad, strict=True)]
        divisor = (end[0] - start[0]) * (end[1] - start[1])
        window = x[:, :, max(start[0], 0) : min(end[0], size[0]), max(start[1], 0) : min(end[1], size[1])]
        if pool == "MAX":
            y[:, :, i, j] = window.max((2, 3), initial=np.finfo(np.float32).min)
        else:
            y[:, :, i, j] = window.sum((2, 3)) / np.float32(divisor) if divisor else np.nan
    return y


@st.composite
def poolings(draw):
    kernel = [draw(st.integers(1, 4)) for _ in range(2)]
    stride = [draw(st.integers(1, 4)) for _ in range(2)]
    pad = [draw(st.integers(0, k - 1)) for k in kernel]
    size = [draw(st.integers(max(k - 2 * p, 1), 9)) for k, p in zip(kernel, pad, strict=True)]
    return draw(st.sampled_from(["MAX", "AVE"])), size, kernel, stride, pad, draw(st.booleans())


@settings(deadline=None)
@given(poolings())
def test_pooling_is_caffes_loops(case):
    pool, size, kernel, stride, pad, floor = case
    x = np.random.default_rng(0).normal(size=(2, 2, *size)).astype(np.float32)
    names = (("kernel", kernel), ("stride", stride), ("pad", pad))
    text = " ".join(f"{name}_{side}: {n}" for name, pair in names for side, n in zip("hw", pair, strict=True))
    text += f" round_mode: {'FLOOR' if floor else 'CEIL'}"
    y = apply(x, f'type: "Pooling" pooling_param {{ pool: {pool} {text} }}')
    np.testing.assert_allclose(y, caffe_pooling(x, pool, kernel, stride, pad, floor), rtol=1e-5, atol=1e-6)


def test_stochastic_pooling_is_the_mean_weighted_by_the_values():
    y = apply([[[[1, 3, 0], [0, 0, 0]]]], 'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }')
    np.testing.assert_allclose(y, [[[[10 / 4, 0]]]], rtol=1e-6)


def test_average_pooling_at_the_corner_divides_by_the_window_cut_off_at_the_padding():
    y = apply(np.ones((1, 1, 4, 4)), 'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }')
    np.testing.assert_allclose(y[0, 0], [[4 / 9, 6 / 9, 2 / 6], [6 / 9, 1, 3 / 6], [2 / 6, 3 / 6, 1 / 4]], rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('type: "ReLU" relu_param { negative_slope: 0.5 }', [-1, 0, 3]),
        ('type: "AbsVal"', [2, 0, 3]),
        ('type: "Power" power_param { power: 2 scale: 3 shift: 1 }', [25, 1, 100]),
        ('type: "Power" power_param { power: 2 scale: 0 shift: 3 }', [9, 9, 9]),
        ('type: "Power" power_param { power: 0 }', [1, 1, 1]),
        ('type: "Exp" exp_param { base: 2 shift: 1 }', [0.5, 2, 16]),
        ('type: "Log" log_param { base: 2 shift: 5 }', [np.log2(3), np.log2(5), 3]),
        ('type: "ELU" elu_param { alpha: 2 }', [2 * np.exp(-2) - 2, 0, 3]),
        ('type: "Threshold" threshold_param { threshold: 0 }', [0, 0, 1]),
        ('type: "ReLU6"', [0, 0, 3]),
        ('type: "ReLU6" relu6_param { negative_slope: 0.5 }', [-1, 0, 3]),
        ('type: "Mish"', [-2 * np.tanh(np.log1p(np.exp(-2))), 0, 3 * np.tanh(np.log1p(np.exp(3)))]),
        ('type: "Clip" clip_param { min: -1 max: 2 }', [-1, 0, 2]),
        ('type: "Dropout"', [-2, 0, 3]),
        ('type: "Dropout" dropout_param { scale_train: false dropout_ratio: 0.25 }', [-1.5, 0, 2.25]),
    ],
)
def test_elementwise_formula(text, expected):
    np.testing.assert_allclose(apply([[-2, 0, 3]], text), [expected], rtol=1e-6)


def test_batch_norm_divides_mean_and_variance_by_the_factor_which_may_be_0():
    x = [[[4.0], [6.0]]]
    text = 'type: "BatchNorm" batch_norm_param { eps: 0.25 }'
    np.testing.assert_allclose(apply(x, text, [4, 8], [1.5, 4], [2]), [[[2], [2 / 1.5]]], rtol=1e-6)
    np.testing.assert_allclose(apply(x, text, [4, 8], [1.5, 4], [0]), [[[8], [12]]], rtol=1e-6)


def test_forks_fields_are_not_passed_over():
    x = np.arange(6).reshape(1, 1, 6, 1)
    pool = 'type: "Pooling" pooling_param { kernel_h: 2 kernel_w: 1 stride_h: 3 stride_w: 1 ceil_mode: %s }'
    np.testing.assert_array_equal(apply(x, pool % "false").ravel(), [1, 4])
    np.testing.assert_array_equal(apply(x[:, :, :5], pool % "true").ravel(), [1, 4])
    np.testing.assert_array_equal(apply(x[:, :, :4], pool % "false").ravel(), [1])
    hole = 'type: "Convolution" convolution_param { num_output: 1 kernel_h: 2 kernel_w: 1 %s bias_term: false }'
    np.testing.assert_array_equal(apply(x, hole % "hole_h: 3 hole_w: 1", [[[[1], [1]]]]).ravel(), [3, 5, 7])
    np.testing.assert_array_equal(apply(x, hole % "hole: 3", [[[[1], [1]]]]).ravel(), [3, 5, 7])
    norm = 'type: "BatchNorm" batch_norm_param { scale_bias: true eps: 0 }'
    np.testing.assert_allclose(apply([[5]], norm, [1], [4], [1], [3], [7]), [[13]])


def test_axpy_scales_channels_and_adds():
    text = 'type: "Axpy" bottom: "a" bottom: "x" bottom: "b" top: "y"'
    for tail in ((), (1, 1)):
        model = translate(network({"a": (1, 2, *tail), "x": (1, 2, 1, 1), "b": (1, 2, 1, 1)}, (text,)))
        (y,) = run(model, a=np.reshape([2, 3], (1, 2, *tail)), x=[[[[5]], [[7]]]], b=[[[[1]], [[1]]]])
        np.testing.assert_array_equal(y.ravel(), [11, 22])


def test_batch_norm_without_global_statistics_uses_those_of_the_batch():
    x = np.random.default_rng(0).normal(3, 2, size=(5, 2, 3)).astype(np.float32)
    y = apply(x, 'type: "BatchNorm" batch_norm_param { use_global_stats: false }')
    np.testing.assert_allclose(y.mean((0, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(y.std((0, 2)), 1, rtol=1e-5)


def test_channelwise_scale_is_exact_and_folds_into_the_convolution_with_batch_norm():
    rng = np.random.default_rng(0)
    conv = 'name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 2 kernel_size: 1 }'
    norm = 'name: "n" type: "BatchNorm" bottom: "c" top: "n"'
    scale = 'name: "s" type: "Scale" bottom: "n" top: "y" scale_param { bias_term: true }'
    model = translate(
        network(
            {"x": (1, 3, 4, 4)},
            (conv, rng.normal(size=(2, 3, 1, 1)), [1, 2]),
            (norm, [1, 2], [3, 4], [1]),
            (scale, [2, -3], [0.5, 0.25]),
        )
    )
    assert [node.op_type for node in model.graph] == ["Conv", "BatchNormalization", "BatchNormalization"]
    x = rng.normal(size=(2, 3, 4, 4))
    (before,) = run(model, x=x)
    assert fold_batch_norms(model) == ("c",)
    assert [node.name for node in model.graph] == ["c"]
    np.testing.assert_allclose(run(model, x=x)[0], before, rtol=1e-5, atol=1e-6)
    y = apply([[[1.1], [2.7]]], 'type: "Scale"', [0.3, 7])
    np.testing.assert_array_equal(y, np.float32([[[1.1], [2.7]]]) * np.float32([[[0.3], [7]]]))


def test_depthwise_layers_of_the_forks_have_a_group_a_channel():
    x = np.random.default_rng(0).normal(size=(1, 2, 3, 3)).astype(np.float32)
    text = "convolution_param { num_output: 2 kernel_size: 3 bias_term: false }"
    weight = np.random.default_rng(1).normal(size=(2, 1, 3, 3)).astype(np.float32)
    for layer_type in ("ConvolutionDepthwise", "DepthwiseConvolution"):
        y = apply(x, f'type: "{layer_type}" {text}', weight)
        np.testing.assert_allclose(y[0, :, 0, 0], (x[0] * weight[:, 0]).sum((1, 2)), rtol=1e-5)


def test_a_layer_keeps_its_name_and_says_what_it_is():
    inner = 'name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 }'
    drop = 'name: "ip/Flatten" type: "Power" bottom: "y" top: "z" power_param { scale: 2 }'
    model = translate(network({"x": (1, 3, 2, 2)}, (inner, np.ones((2, 12)), [1, 2]), (drop,), outputs=("z",)))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    nodes = {node.name: node for node in model.graph}
    assert len(nodes) == 3
    assert nodes["ip"].op_type == "Gemm"
    assert nodes["ip"].metadata_props == {
        "caffe_layer": "ip",
        "caffe_type": "InnerProduct",
        "caffe_axis": "1",
        "caffe_transpose": "false",
    }
    assert nodes["ip/Flatten"].metadata_props["caffe_type"] == "Power"
    assert model.graph.inputs[0].shape == ir.Shape(["N", 3, 2, 2])
    assert model.graph.outputs[0].shape == ir.Shape(["N", 2])


def test_old_blobs_of_four_axes_are_read_in_todays_shape():
    y = apply([[1, 2]], 'type: "InnerProduct" inner_product_param { num_output: 1 }', [[[[3, 4]]]], [[[[5]]]])
    np.testing.assert_array_equal(y, [[16]])


def test_weights_shared_by_name_are_one_constant():
    text = 'type: "InnerProduct" param {{ name: "w" }} bottom: "{}" top: "{}" inner_product_param {{ num_output: 1 }}'
    blobs = [[[3, 4]], [5]]
    layers = [(text.format("x", "y"), *blobs), (text.format("x2", "y2"), *blobs)]
    model = translate(network({"x": (1, 2), "x2": (1, 2)}, *layers, outputs=("y", "y2")))
    first, second = [node for node in model.graph if node.op_type == "Gemm"]
    assert first.inputs[1] is second.inputs[1]
    assert first.inputs[2] is not second.inputs[2]


def test_a_convolution_with_several_bottoms_uses_its_weights_for_each():
    text = 'type: "Convolution" bottom: "x" bottom: "x2" top: "y" top: "y2"'
    text += " convolution_param { num_output: 1 kernel_size: 1 }"
    shape = (1, 1, 1, 1)
    model = translate(network({"x": shape, "x2": shape}, (text, [[[[2]]]], [1]), outputs=("y", "y2")))
    y, y2 = run(model, x=[[[[3]]]], x2=[[[[5]]]])
    assert (y.item(), y2.item()) == (7, 11)


def test_the_batch_is_free_unless_a_layer_must_know_it():
    relu = ('type: "ReLU"',)
    assert translate(network({"x": (4, 2)}, relu)).graph.inputs[0].shape == ir.Shape(["N", 2])
    assert translate(network({"x": (4, 2)}, relu), free_batch=False).graph.inputs[0].shape == ir.Shape([4, 2])
    stacked = ('type: "Concat" bottom: "x" bottom: "x" top: "y" concat_param { axis: 0 }',)
    assert translate(network({"x": (4, 2)}, stacked)).graph.inputs[0].shape == ir.Shape([4, 2])
    two = network({"x": (4, 2), "rois": (9, 5)}, relu)
    assert translate(two).graph.inputs[1].shape == ir.Shape([9, 5])


def test_other_input_shapes_may_be_asked_for():
    relu = ('type: "ReLU"',)
    net = network({"x": (4, 2)}, relu)
    assert translate(net, input_shapes={"x": (1, 7)}).graph.outputs[0].shape == ir.Shape(["N", 7])
    for wrong in ({"z": (1, 7)}, {"x": (1, 7, 1)}, {"x": (1, 0)}):
        with pytest.raises(ParameterError, match="'input_shapes' parameter of translate"):
            translate(net, input_shapes=wrong)


def test_an_input_that_is_an_output_passes_through_under_another_name():
    model = translate(network({"x": (1, 2), "z": (1, 2)}, ('type: "ReLU"',), outputs=("z", "y")))
    assert [value.name for value in model.graph.outputs] == ["z#1", "y"]
    np.testing.assert_array_equal(run(model, x=[[1, 2]], z=[[3, 4]])[0], [[3, 4]])


def test_an_input_that_is_changed_in_place_keeps_its_name():
    relu = 'type: "ReLU" bottom: "x" top: "x#1"'
    net = replace(network({"x": (1, 2)}, (relu,), outputs=("x",)), blobs={"x": "x#1"})
    model = translate(net)
    assert [value.name for value in (*model.graph.inputs, *model.graph.outputs)] == ["x", "x#1"]
    np.testing.assert_array_equal(run(model, x=[[-1, 2]])[0], [[0, 2]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('type: "Convolutoin"', "Layer 'layer0': Convolutoin, line 1: .*Did you mean 'Convolution'.*or add"),
        ('type: "ReLU7000Xyz"', "line 1: .*not known.*Replace it"),
        ('type: "SoftmaxWithLoss"', "labels.*Replace the layer by Softmax"),
        ('type: "Data"', "Replace the layer by Input"),
        ('type: "Pooling" bottom: "x" top: "y" top: "mask" pooling_param { kernel_size: 2 }', "mask"),
        ('type: "Pooling" pooling_param { kernel_size: 2 pad: 2 }', "pad"),
        ('type: "Pooling" pooling_param { kernel_size: 4000000001 pad: 4000000000 }', "would have the sizes"),
        ('type: "Pooling" pooling_param { kernel_size: 5 }', "would have the sizes"),
        (
            'type: "Convolution" convolution_param { num_output: 2 kernel_size: 9 pad: 2000000000 }',
            "would have the shape",
        ),
        ('type: "Pooling" pooling_param { kernel_size: 2 kernel_h: 2 }', "kernel_size and kernel_h"),
        ('type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 pad: 1 }', "STOCHASTIC"),
        ('type: "Pooling" pooling_param { global_pooling: true pad: 1 }', "global_pooling"),
        ('type: "Convolution" convolution_param { num_output: 2 kernel_size: 9 }', "larger input"),
        ('type: "Convolution" convolution_param { num_output: 2 kernel_size: 1 group: 2 }', "2 groups"),
        ('type: "Convolution" convolution_param { num_output: 2 }', "kernel_size 0 times"),
        ('type: "Convolution" convolution_param { num_output: 2 kernel_size: 2 axis: 7 }', "[Aa]xis 7"),
        ('type: "InnerProduct" inner_product_param { num_output: 2 axis: 4 }', "[Aa]xis 4"),
        (
            'type: "Eltwise" bottom: "x" bottom: "x" top: "y" eltwise_param { operation: PROD coeff: 1 coeff: 2 }',
            "coeff",
        ),
        ('type: "Eltwise"', "two or more bottoms"),
        ('type: "Slice" bottom: "x" top: "y" top: "z"', "cannot be cut"),
        ('type: "Log" log_param { base: 0 }', "base is 0"),
        ('type: "Clip"', "lacks min or max"),
        ('type: "Axpy"', "factor for each channel"),
        ('type: "Dropout" dropout_param { sample_weights_test: true }', "at random"),
        ('type: "Scale" scale_param { axis: 2 num_axes: 3 }', "num_axes"),
    ],
)
def test_a_refusal_names_layer_type_and_line(text, message):
    with pytest.raises(ModelError, match=message) as caught:
        translate(network({"x": (1, 3, 4, 4)}, (text, np.ones((2, 3, 9, 9)), np.ones(2))))
    assert caught.value.layer == "layer0"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("blobs", "message"),
    [
        ((), "has no weights. Give the caffemodel"),
        ((np.ones((2, 3)),), "needs 2 weight blobs, and the caffemodel has 1"),
        ((np.ones((3, 2)), np.ones(2)), r"must have the shape \(2, 3\); the caffemodel's has \(3, 2\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(blobs, message):
    with pytest.raises(ModelError, match=message):
        translate(network({"x": (1, 3)}, ('type: "InnerProduct" inner_product_param { num_output: 2 }', *blobs)))
