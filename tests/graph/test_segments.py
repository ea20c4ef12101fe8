"""A model in segments gives what the whole gives, wherever it can be cut; and is left whole where it cannot."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.graph import load_model
from amct_lite.graph.cloning import clone_self_contained
from amct_lite.graph.passes.shapes import infer_shapes
from amct_lite.graph.segments import Segment, cut
from amct_lite.graph.serializing import message_parts, take_weights_out
from amct_lite.graph.tensor_digests import TensorDigests
from amct_lite.samples.digits.data import MODEL_FILE, load_split

HEADER = '<ir_version: 8, opset_import: ["": 17]>'


def segments_of(model: ir.Model, max_segments: int = 32, digests: TensorDigests | None = None) -> tuple[Segment, ...]:
    copy = clone_self_contained(model)
    return cut(*take_weights_out(copy), digests or TensorDigests(), max_segments=max_segments)


def run_bytes(content: bytes, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))


def assert_same(model: ir.Model, feed: Mapping[str, np.ndarray], segments: tuple[Segment, ...]) -> None:
    values = dict(feed)
    for segment in segments:
        assert set(segment.inputs) == set(values)
        values = run_bytes(segment.to_bytes(), values)
    whole = run_bytes(b"".join(message_parts(*take_weights_out(clone_self_contained(model)))), feed)
    assert list(values) == list(whole)
    for name, expected in whole.items():
        np.testing.assert_array_equal(values[name], expected)


def graph(text: str, weights: Mapping[str, np.ndarray]) -> ir.Model:
    model = ir.from_onnx_text(f"{HEADER} {text}")
    free = {value.name: value for node in model.graph.all_nodes() for value in node.inputs if value is not None}
    for name, array in weights.items():
        free[name].const_value = ir.Tensor(np.asarray(array), name=name)
        model.graph.register_initializer(free[name])
    return model


def convolution(seed: int, outputs: int = 16, inputs: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (outputs, inputs, 3, 3)).astype(np.float32)


CHAIN = """g (float[N, 16, 9, 9] x) => (float[N, 16, M, K] y) {
    a = Conv(x, wa)  b = Relu(a)  c = Conv(b, wb)  d = Relu(c)  y = Conv(d, wc)
}"""
CHAIN_WEIGHTS = {"wa": convolution(0), "wb": convolution(1), "wc": convolution(2)}


def typed(model: ir.Model) -> ir.Model:
    infer_shapes(model)
    return model


def test_a_chain_is_cut_in_front_of_each_convolution_but_the_first() -> None:
    model = typed(graph(CHAIN, CHAIN_WEIGHTS))
    segments = segments_of(model)
    assert [segment.outputs for segment in segments] == [("b",), ("d",), ("y",)]
    assert [sorted(segment.weights) for segment in segments] == [["wa"], ["wb"], ["wc"]]
    assert_same(model, {"x": np.random.default_rng(0).normal(size=(2, 16, 9, 9)).astype(np.float32)}, segments)


def test_another_weight_changes_the_digest_of_its_own_segment_alone() -> None:
    digests = TensorDigests()
    before = segments_of(typed(graph(CHAIN, CHAIN_WEIGHTS)), digests=digests)
    after = segments_of(typed(graph(CHAIN, {**CHAIN_WEIGHTS, "wb": convolution(7)})), digests=digests)
    assert [a.digest == b.digest for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_another_attribute_changes_the_digest_too() -> None:
    before = segments_of(typed(graph(CHAIN, CHAIN_WEIGHTS)))
    after = segments_of(
        typed(graph(CHAIN.replace("Conv(d, wc)", "Conv <pads: ints = [1,1,1,1]> (d, wc)"), CHAIN_WEIGHTS))
    )
    assert [a.digest == b.digest for a, b in zip(before, after, strict=True)] == [True, True, False]


def test_a_weight_read_in_several_segments_is_in_each_with_the_operators_that_decode_it() -> None:
    text = """g (float[N, 16, 9, 9] x) => (float[N, 16, M, K] y) {
        w = DequantizeLinear(q, s)  a = Conv(x, w)  b = Relu(a)  y = Conv(b, w)
    }"""
    weight = np.random.default_rng(0).integers(-127, 127, (16, 16, 3, 3)).astype(np.int8)
    model = typed(graph(text, {"q": weight, "s": np.float32(0.01)}))
    segments = segments_of(model)
    assert [sorted(segment.weights) for segment in segments] == [["q", "s"], ["q", "s"]]
    assert_same(model, {"x": np.ones((1, 16, 9, 9), np.float32)}, segments)


def test_no_cut_lies_where_two_values_cross_or_a_sum_begins_in_float() -> None:
    text = """g (float[N, 16, 9, 9] x) => (float[N, 16, 9, 9] y) {
        a = Conv <pads: ints = [1,1,1,1]> (x, wa)  b = Relu(a)  c = Conv <pads: ints = [1,1,1,1]> (b, wb)
        d = Relu(c)  e = Conv <pads: ints = [1,1,1,1]> (d, wc)  f = Relu(e)
        h = Conv <pads: ints = [1,1,1,1]> (f, wa)  y = Add(d, h)
    }"""
    segments = segments_of(typed(graph(text, CHAIN_WEIGHTS)))
    assert [segment.outputs for segment in segments] == [("b",), ("y",)]


def test_a_body_reads_what_it_reads_from_outside() -> None:
    text = """g (float[N, 16, 9, 9] x, bool flag) => (float[N, 16, M, K] y) {
        a = Conv(x, wa)  b = Relu(a)  c = Conv(b, wb)  d = Relu(c)
        y = If (flag) <
            then_branch = t () => (float[N, 16, M, K] p) { p = Conv(d, wc) },
            else_branch = e () => (float[N, 16, M, K] q) { q = Identity(d) }
        >
    }"""
    model = typed(graph(text, CHAIN_WEIGHTS))
    segments = segments_of(model)
    assert len(segments) == 1, "flag crosses everything"
    for flag in (True, False):
        assert_same(model, {"x": np.ones((1, 16, 9, 9), np.float32), "flag": np.array(flag)}, segments)


def test_sizes_of_an_input_may_cross_beside_the_one_value() -> None:
    text = """g (float[N, 16, 9, 9] x) => (float[N, M] y) {
        shape = Shape(x)  count = Gather(shape, zero)  counts = Unsqueeze(count, axes)
        a = Conv(x, wa)  b = Relu(a)  c = Conv(b, wb)  d = Relu(c)
        sizes = Concat <axis: int = 0> (counts, rest)  y = Reshape(d, sizes)
    }"""
    sizes = {"zero": np.int64(0), "axes": np.array([0]), "rest": np.array([-1])}
    weights = {name: CHAIN_WEIGHTS[name] for name in ("wa", "wb")}
    model = typed(graph(text, {**weights, **sizes}))
    segments = segments_of(model)
    assert [set(segment.outputs) for segment in segments] == [{"b", "counts"}, {"y"}]
    assert_same(model, {"x": np.ones((3, 16, 9, 9), np.float32)}, segments)


def test_what_differs_from_run_to_run_is_not_offered_at_all() -> None:
    text = CHAIN.replace("d = Relu(c)", "n = RandomNormalLike(c)  m = Add(c, n)  d = Relu(m)")
    assert segments_of(typed(graph(text, CHAIN_WEIGHTS))) == ()


def test_operators_of_unknown_domains_are_left_alone() -> None:
    model = typed(graph(CHAIN, CHAIN_WEIGHTS))
    model.graph.node(1).domain = "of.somebody"
    assert segments_of(model) == ()


REAL = ["efficientnet_lite0.onnx", "ccexam_mnist.onnx", "cifar10_model.onnx"]


@pytest.mark.parametrize("name", REAL)
def test_float_models_give_the_same_bits(name: str, find_model: Callable[[str], Path]) -> None:
    model = load_model(find_model(name))
    value = model.ir.graph.inputs[0]
    assert value.shape is not None
    shape = [size if isinstance(size, int) else 2 for size in value.shape]
    feed = {str(value.name): np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    segments = segments_of(model.ir)
    assert len(segments) > 1
    assert_same(model.ir, feed, segments)


@pytest.mark.parametrize("nuq_activations", [False, True])
@pytest.mark.parametrize("operators", [[], None])
def test_deploy_models_give_the_same_bits(
    quantize: Callable[..., object], nuq: Callable[..., object], operators: list[str] | None, nuq_activations: bool
) -> None:
    images = load_split().calibration.images
    edit = nuq(activations=nuq_activations)

    def change(document: dict[str, object]) -> None:
        edit(document)
        if operators is not None:
            document["integer_operators"] = operators

    flow = quantize(MODEL_FILE, [images[:50], images[50:100]], edit=change, batch_num=2)
    for form in ("deploy_model", "fake_quant_model"):
        model = flow.model(form)
        segments = segments_of(model)
        assert len(segments) > 1
        assert_same(model, {"image": images[:20]}, segments)


@st.composite
def networks(draw: st.DrawFn) -> ir.Model:
    """Chains of blocks: plain, residual, pooled, quantized between; weights shared here and there."""
    lines, value, count, channels = [], "x", draw(st.integers(1, 6)), draw(st.sampled_from([4, 16, 24, 32]))
    for number in range(count):
        weight = f"w{draw(st.integers(0, 2))}"
        lines.append(f"c{number} = Conv <pads: ints = [1,1,1,1]> ({value}, {weight})")
        kind = draw(st.sampled_from(["relu", "residual", "pool", "quantized", "two readers"]))
        after = f"r{number}"
        if kind == "residual":
            lines += [f"s{number} = Add(c{number}, {value})", f"{after} = Relu(s{number})"]
        elif kind == "pool":
            lines += [
                f"p{number} = Relu(c{number})",
                f"{after} = MaxPool <kernel_shape: ints = [3,3], pads: ints = [1,1,1,1]> (p{number})",
            ]
        elif kind == "quantized":
            lines += [f"q{number} = QuantizeLinear(c{number}, s, z)", f"{after} = DequantizeLinear(q{number}, s, z)"]
        elif kind == "two readers":
            lines += [f"t{number} = Sigmoid(c{number})", f"{after} = Mul(c{number}, t{number})"]
        else:
            lines.append(f"{after} = Relu(c{number})")
        value = after
    lines.append(f"y = Conv <pads: ints = [1,1,1,1]> ({value}, w0)")
    shape = f"float[N, {channels}, 6, 6]"
    text = f"g ({shape} x) => ({shape} y) {{" + "\n".join(lines) + "}"
    known = {f"w{seed}": convolution(seed, channels, channels) for seed in range(3)}
    known |= {"s": np.float32(0.05), "z": np.uint8(128)}
    return typed(
        graph(text, {name: array for name, array in known.items() if f"{name})" in text or f"{name}," in text})
    )


@settings(max_examples=60, deadline=None)
@given(networks(), st.integers(1, 8))
def test_any_network_cut_anywhere_gives_the_same_bits(model: ir.Model, max_segments: int) -> None:
    segments = segments_of(model, max_segments)
    assert 1 <= len(segments) <= max_segments
    shape = model.graph.inputs[0].shape
    assert shape is not None
    feed = {"x": np.random.default_rng(3).normal(size=(2, *list(shape)[1:])).astype(np.float32)}
    assert_same(model, feed, segments)
