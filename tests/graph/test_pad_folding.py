from collections.abc import Callable

import numpy as np
import pytest

from amct_lite.graph import load_model


def padded(pads: str, rest: str = "", operator: str = "Conv<strides = [2,2]>(p, w)") -> str:
    return f'g (float[N,3,9,10] x) => (y) {{ p = Pad<mode = "constant">(x, {pads}) y = {operator} {rest} }}'


def weights(**others) -> dict[str, np.ndarray]:
    w = np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)
    return {"w": w, "k": np.array([0, 0, 0, 1, 0, 0, 2, 3], np.int64), **others}


@pytest.mark.parametrize(
    ("text", "more", "pads"),
    [
        (padded("k"), {}, [0, 1, 2, 3]),
        (padded("k", operator="Conv<pads = [1,1,1,1]>(p, w)"), {}, [1, 2, 3, 4]),
        (padded("k", operator='Conv<auto_pad = "VALID">(p, w)'), {}, [0, 1, 2, 3]),
        (padded("k, zero"), {"zero": np.float32(0)}, [0, 1, 2, 3]),
    ],
)
def test_zeros_become_the_convolutions_padding(text, more, pads, make_file: Callable, assert_same: Callable) -> None:
    path = make_file(text, weights(**more))
    model = load_model(path)
    (conv,) = model.ir.graph
    assert list(conv.attributes.get_ints("pads")) == pads
    assert model.layers[0].activation == "x"
    model.save(path.with_name("out.onnx"))
    x = np.random.default_rng(1).normal(size=(2, 3, 9, 10)).astype(np.float32)
    assert_same(path, path.with_name("out.onnx"), {"x": x})


def test_chosen_axes_count(make_file: Callable, assert_same: Callable) -> None:
    more = {"axes": np.array([-1], np.int64), "one": np.array([1, 2], np.int64), "zero": np.float32(0)}
    arrays = weights(**more)
    del arrays["k"]
    path = make_file(padded("one, zero, axes"), arrays, opset=18)
    model = load_model(path)
    (conv,) = model.ir.graph
    assert list(conv.attributes.get_ints("pads")) == [0, 1, 0, 2]
    model.save(path.with_name("out.onnx"))
    assert_same(path, path.with_name("out.onnx"), {"x": np.ones((1, 3, 9, 10), np.float32)})


@pytest.mark.parametrize(
    ("text", "more"),
    [
        (padded("k, one"), {"one": np.float32(1)}),
        (padded("k"), {"k": np.array([0, 0, 0, -1, 0, 0, 2, 3], np.int64)}),
        (padded("k"), {"k": np.array([1, 0, 0, 1, 0, 0, 2, 3], np.int64)}),
        (padded("k", operator='Conv<auto_pad = "SAME_UPPER">(p, w)'), {}),
        (padded("k", operator="MaxPool<kernel_shape = [2,2]>(p)", rest="z = Conv(x, w)").replace("(y)", "(y, z)"), {}),
        (padded("k").replace("constant", "reflect"), {}),
    ],
)
def test_other_pads_stay(text, more, make_file: Callable) -> None:
    model = load_model(make_file(text, weights(**more)))
    assert "Pad" in [node.op_type for node in model.ir.graph]
