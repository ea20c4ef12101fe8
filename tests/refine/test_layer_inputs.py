"""The input vectors of a layer, against ONNX Runtime: weights times vectors are the layer's outputs."""

import numpy as np
import pytest

from amct_lite.graph.model import load_model
from amct_lite.graph.runtime import create_session
from amct_lite.quantize.weight_rows import to_rows
from amct_lite.refine.layer_inputs import LayerInputs
from amct_lite.types import LayerKind

# operator with attributes; input shape; weight shape
CONVOLUTIONS = {
    "conv_2d": ("Conv", (2, 3, 7, 6), (4, 3, 3, 2)),
    "conv_1d": ("Conv <strides = [2], pads = [1, 2]>", (2, 3, 9), (4, 3, 3)),
    "conv_3d": ("Conv <strides = [1, 2, 1], pads = [0, 1, 1, 1, 0, 2]>", (2, 2, 4, 5, 6), (3, 2, 2, 3, 2)),
    "conv_stride": ("Conv <strides = [2, 3]>", (2, 3, 9, 8), (4, 3, 3, 2)),
    "conv_dilation": ("Conv <dilations = [2, 3], pads = [1, 0, 2, 1]>", (2, 3, 9, 8), (4, 3, 3, 2)),
    "conv_pads": ("Conv <pads = [2, 0, 1, 3], strides = [2, 1]>", (2, 3, 7, 6), (4, 3, 3, 3)),
    "conv_groups": ("Conv <group = 2, pads = [1, 1, 1, 1]>", (2, 4, 5, 5), (6, 2, 3, 3)),
    "conv_depthwise": ("Conv <group = 4, strides = [2, 2]>", (2, 4, 7, 7), (8, 1, 3, 3)),
    "conv_same_upper": ('Conv <auto_pad = "SAME_UPPER", strides = [2, 3]>', (2, 3, 8, 7), (4, 3, 3, 2)),
    "conv_same_lower": ('Conv <auto_pad = "SAME_LOWER", strides = [2, 3]>', (2, 3, 8, 7), (4, 3, 3, 2)),
    "conv_same_wide_stride": ('Conv <auto_pad = "SAME_UPPER", strides = [5, 4]>', (2, 3, 8, 9), (4, 3, 2, 2)),
    "conv_valid": ('Conv <auto_pad = "VALID", dilations = [2, 1]>', (2, 3, 8, 7), (4, 3, 3, 2)),
    "transposed": ("ConvTranspose", (2, 3, 4, 5), (3, 4, 3, 2)),
    "transposed_1d": ("ConvTranspose <strides = [3], pads = [1, 2]>", (2, 3, 5), (3, 4, 4)),
    "transposed_stride": ("ConvTranspose <strides = [2, 3], pads = [1, 0, 2, 1]>", (2, 3, 4, 5), (3, 4, 3, 4)),
    "transposed_output_padding": (
        "ConvTranspose <strides = [2, 3], output_padding = [1, 2], pads = [1, 1, 1, 1]>",
        (2, 3, 4, 5),
        (3, 4, 3, 4),
    ),
    "transposed_output_shape": ("ConvTranspose <strides = [2, 2], output_shape = [8, 9]>", (2, 3, 4, 5), (3, 4, 3, 3)),
    "transposed_output_shape_upper": (
        'ConvTranspose <strides = [2, 2], output_shape = [8, 10], auto_pad = "SAME_UPPER">',
        (2, 3, 4, 5),
        (3, 4, 3, 3),
    ),
    "transposed_groups": ("ConvTranspose <group = 2, strides = [2, 2]>", (2, 4, 3, 3), (4, 3, 3, 3)),
    "transposed_depthwise": ("ConvTranspose <group = 4, pads = [1, 0, 0, 1]>", (2, 4, 4, 4), (4, 1, 3, 2)),
    "transposed_dilation": ("ConvTranspose <dilations = [2, 1], strides = [3, 2]>", (2, 3, 4, 5), (3, 4, 3, 2)),
    "transposed_same_upper": ('ConvTranspose <auto_pad = "SAME_UPPER", strides = [2, 2]>', (2, 3, 4, 5), (3, 4, 3, 3)),
    "transposed_same_lower": ('ConvTranspose <auto_pad = "SAME_LOWER", strides = [2, 2]>', (2, 3, 4, 5), (3, 4, 3, 3)),
    "transposed_same_wide_stride": (
        'ConvTranspose <auto_pad = "SAME_UPPER", strides = [3, 3]>',
        (2, 3, 4, 5),
        (3, 4, 2, 2),
    ),
    "transposed_output_shape_large": (
        "ConvTranspose <strides = [2, 2], output_shape = [10, 12]>",
        (2, 3, 4, 5),
        (3, 4, 3, 3),
    ),
    "transposed_valid": ('ConvTranspose <auto_pad = "VALID", strides = [2, 1]>', (2, 3, 4, 5), (3, 4, 3, 3)),
}

# expression; input shape; weight shape; axis of the output's channels
PRODUCTS = {
    "gemm": ("Gemm (x, w, b)", (6, 5), (5, 4), 1),
    "gemm_trans_b": ("Gemm <transB = 1> (x, w, b)", (6, 5), (4, 5), 1),
    "gemm_trans_a": ("Gemm <transA = 1> (x, w, b)", (5, 6), (5, 4), 1),
    "gemm_both": ("Gemm <transA = 1, transB = 1> (x, w, b)", (5, 6), (4, 5), 1),
    "gemm_weight_first": ("Gemm (w, x)", (5, 6), (4, 5), 0),
    "gemm_weight_first_both": ("Gemm <transA = 1, transB = 1> (w, x)", (6, 5), (5, 4), 0),
    "matmul": ("MatMul (x, w)", (6, 5), (5, 4), -1),
    "matmul_3d": ("MatMul (x, w)", (2, 3, 5), (5, 4), -1),
    "matmul_4d": ("MatMul (x, w)", (2, 2, 3, 5), (5, 4), -1),
    "matmul_vector": ("MatMul (x, w)", (5,), (5, 4), -1),
    "matmul_weight_first": ("MatMul (w, x)", (5, 6), (4, 5), -2),
    "matmul_weight_first_3d": ("MatMul (w, x)", (2, 5, 3), (4, 5), -2),
}


def first_layer(write_network, expression, x_shape, w_shape, bias):
    rng = np.random.default_rng(0)
    arrays = {"w": rng.normal(size=w_shape).astype(np.float32)}
    if "b)" in expression:
        arrays["b"] = rng.normal(size=bias).astype(np.float32)
    shape = ", ".join(map(str, x_shape))
    path = write_network(f"g (float[{shape}] x) => (float y) {{ y = {expression} }}", arrays)
    model = load_model(path)
    x = rng.normal(size=x_shape).astype(np.float32)
    (y,) = create_session(model.ir).run(None, {"x": x})
    return model, x, y


def products(model, x, positions_of):
    """Weights times vectors plus bias, shape (channels, vectors), and the positions."""
    layer = model.layers[0]
    inputs = LayerInputs.of_node(layer, next(iter(model.ir.graph)))
    positions = positions_of(inputs)
    vectors = inputs.vectors(x, positions)
    rows = to_rows(model.weight(layer.weight), layer)
    found = rows.reshape(layer.group, -1, rows.shape[1]) @ vectors.transpose(0, 2, 1)
    bias = 0.0 if layer.bias is None else model.weight(layer.bias).reshape(-1, 1)
    return found.reshape(len(rows), -1) + bias, positions


@pytest.mark.parametrize("max_positions", [1000, 5], ids=["all", "some"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_weights_times_vectors_are_the_outputs_of_a_convolution(name, max_positions, write_network):
    operator, x_shape, w_shape = CONVOLUTIONS[name]
    groups = int(operator.partition("group = ")[2][:1] or 1)
    outputs = w_shape[1] * groups if operator.startswith("ConvTranspose") else w_shape[0]
    model, x, y = first_layer(write_network, f"{operator} (x, w, b)", x_shape, w_shape, outputs)
    rng = np.random.default_rng(1)
    found, positions = products(model, x, lambda inputs: inputs.positions(x.shape, max_positions, rng))
    flat = y.reshape(*y.shape[:2], -1)
    assert positions.shape == (len(x), min(max_positions, flat.shape[2]))
    expected = np.stack([flat[sample, :, chosen] for sample, chosen in enumerate(positions)])
    assert np.allclose(found, expected.reshape(-1, y.shape[1]).T, atol=1e-5)


@pytest.mark.parametrize("max_positions", [1000, 1], ids=["all", "some"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_weights_times_vectors_are_the_outputs_of_an_inner_product(name, max_positions, write_network):
    expression, x_shape, w_shape, axis = PRODUCTS[name]
    model, x, y = first_layer(write_network, expression, x_shape, w_shape, (1, 4) if name == "gemm_trans_b" else 4)
    assert model.layers[0].kind is LayerKind.INNER_PRODUCT
    rng = np.random.default_rng(1)
    found, positions = products(model, x, lambda inputs: inputs.positions(x.shape, max_positions, rng))
    expected = np.moveaxis(y, axis, 0).reshape(y.shape[axis], -1)
    assert positions.shape[1] == expected.shape[1] or max_positions == 1
    assert np.allclose(found, expected[:, positions[0]], atol=1e-5)


def test_chosen_positions_are_distinct_ascending_and_by_chance(write_network):
    model, x, _ = first_layer(write_network, "Conv (x, w)", (3, 2, 12, 12), (4, 2, 3, 3), None)
    inputs = LayerInputs.of_node(model.layers[0], next(iter(model.ir.graph)))
    first, again, other = (inputs.positions(x.shape, 20, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (np.diff(first, axis=1) > 0).all()
    assert not np.array_equal(first[0], first[1])
