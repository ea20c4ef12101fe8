"""Weights as rows: one for each output channel, and back."""

import numpy as np
import pytest

from amct_lite.quantize.weight_rows import from_rows, to_rows, weight_layout
from amct_lite.types import Layer, LayerKind

C, D, I = LayerKind.CONVOLUTION, LayerKind.DECONVOLUTION, LayerKind.INNER_PRODUCT  # noqa: E741


def layer_of(kind, shape, axis, group=1):
    return Layer("l", "op", kind, "x", 0, 1, "y", "w", 1, shape, axis, group=group)


CASES = {
    "conv": (layer_of(C, (6, 4, 3, 2), 0), (6, 24), 0),
    "conv_depthwise": (layer_of(C, (6, 1, 3, 3), 0, 6), (6, 9), 0),
    "conv_transpose": (layer_of(D, (4, 6, 3, 2), 1), (6, 24), 1),
    "conv_transpose_grouped": (layer_of(D, (4, 3, 3, 2), 1, 2), (6, 12), None),
    "conv_transpose_depthwise": (layer_of(D, (4, 1, 3, 2), 1, 4), (4, 6), 0),
    "gemm": (layer_of(I, (5, 7), 1), (7, 5), 1),
    "gemm_trans_b": (layer_of(I, (7, 5), 0), (7, 5), 0),
    "matmul_rank_3": (layer_of(I, (2, 5, 7), 2), (7, 10), 2),
    "matmul_first_rank_3": (layer_of(I, (2, 7, 5), 1), (7, 10), 1),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_come_back_as_the_weight(name):
    layer, rows_shape, scale_axis = CASES[name]
    weight = np.arange(np.prod(layer.weight_shape)).reshape(layer.weight_shape)
    rows = to_rows(weight, layer)
    assert rows.shape == rows_shape
    assert np.array_equal(from_rows(rows, layer), weight)
    layout = weight_layout(layer)
    assert (layout.rows, layout.columns, layout.scale_axis) == (*rows_shape, scale_axis)
    assert layout.keeps_order == np.array_equal(rows.reshape(-1), weight.reshape(-1))
    if scale_axis is not None:
        for row in range(rows_shape[0]):
            assert np.array_equal(np.sort(rows[row]), np.sort(weight.take(row, axis=scale_axis).reshape(-1)))


def test_rows_of_a_grouped_transposed_convolution_are_its_output_channels():
    layer, _, _ = CASES["conv_transpose_grouped"]
    weight = np.arange(np.prod(layer.weight_shape)).reshape(layer.weight_shape)
    rows = to_rows(weight, layer)
    for group in range(2):
        for channel in range(3):
            of_channel = weight[2 * group : 2 * group + 2, channel].reshape(-1)
            assert np.array_equal(rows[3 * group + channel], of_channel)
