"""Streams: a tensor is what the whole network gives, from wherever it is computed."""

import numpy as np
import pytest

from amct_lite.graph.model import load_model
from amct_lite.graph.runtime import create_session
from amct_lite.refine import stream as stream_module
from amct_lite.refine.stream import Stream

BRANCHES = """
g (float[n, 4] x, float[n, 4] z) => (float[n, 4] y, float[n, 4] side) {
    a = MatMul (x, w)
    b = Relu (a)
    c = MatMul (b, w)
    d = Add (b, z)
    e = Add (c, d)
    side = Neg (a)
    y = MatMul (e, w)
}
"""

CAPTURING = """
g (float[2, 4] x) => (float[2, 4] y) {
    a = MatMul (x, w)
    b = Relu (a)
    s = ReduceSum <keepdims = 0> (x)
    zero = Sub (s, s)
    c = GreaterOrEqual (s, zero)
    d = MatMul (b, w)
    e = If (c) <then_branch = t () => (float[2, 4] t1) { t1 = Add (a, x) }, else_branch = f () => (float[2, 4] f1) { f1 = Neg (a) }>
    y = Add (d, e)
}
"""  # noqa: E501


def feeds(names, count=3):
    rng = np.random.default_rng(0)
    return [{name: rng.normal(size=(2, 4)).astype(np.float32) for name in names} for _ in range(count)]


def whole(model, name, samples):
    session = create_session(model.ir, extra_outputs=[name])
    return [session.run([name], feed)[0] for feed in samples]


@pytest.fixture
def weights():
    return {"w": np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)}


@pytest.mark.parametrize(("text", "names"), [(BRANCHES, ["x", "z"]), (CAPTURING, ["x"])], ids=["branches", "if"])
def test_a_tensor_is_the_same_from_wherever_the_stream_has_advanced_to(text, names, write_network, weights):
    model = load_model(write_network(text, weights))
    samples = feeds(names)
    nodes = list(model.ir.graph)
    for start in range(len(nodes)):
        stream = Stream(model.ir, samples)
        assert len(stream) == len(samples)
        for node in nodes[: start + 1]:
            stream.advance(node.name)
        for node in nodes[start:]:
            name = str(node.outputs[0].name)
            if node.outputs[0].type.dtype.numpy() != np.float32:
                continue
            for found, expected in zip(stream.tensor(name), whole(model, name, samples), strict=True):
                assert np.array_equal(found, expected), (start, name)


def test_a_stream_may_skip_nodes_and_keeps_what_is_alive_only(write_network, weights):
    model = load_model(write_network(BRANCHES, weights))
    samples = feeds(["x", "z"])
    stream = Stream(model.ir, samples)
    last = list(model.ir.graph)[-1]
    stream.advance(last.name)
    assert {name for values in stream._kept for name in values} == {"e"}
    for found, expected in zip(stream.tensor("y"), whole(model, "y", samples), strict=True):
        assert np.allclose(found, expected, rtol=1e-6)


def test_a_graph_input_is_a_tensor_too(write_network, weights):
    model = load_model(write_network(BRANCHES, weights))
    samples = feeds(["x", "z"])
    assert all(a is feed["z"] for a, feed in zip(Stream(model.ir, samples).tensor("z"), samples, strict=True))


def test_a_cut_that_is_too_large_is_not_kept(write_network, weights, monkeypatch):
    model = load_model(write_network(BRANCHES, weights))
    samples = feeds(["x", "z"])
    monkeypatch.setattr(stream_module, "MAX_KEPT_BYTES", 40)
    stream = Stream(model.ir, samples)
    stream.advance(list(model.ir.graph)[-1].name)
    assert [set(values) for values in stream._kept] == [{"x", "z"}] * 3
    for found, expected in zip(stream.tensor("y"), whole(model, "y", samples), strict=True):
        assert np.array_equal(found, expected)


def test_an_edit_behind_the_place_reached_counts(write_network, weights):
    model = load_model(write_network(BRANCHES, weights))
    graph = model.clone()
    stream = Stream(graph, feeds(["x", "z"]))
    last = list(graph.graph)[-1]
    stream.advance(last.name)
    before = list(stream.tensor("y"))
    last.replace_input_with(0, graph.graph.inputs[0])
    last.graph.sort()
    stream = Stream(graph, feeds(["x", "z"]))
    after = list(stream.tensor("y"))
    assert not np.array_equal(before[0], after[0])
    assert np.allclose(after[0], feeds(["x", "z"])[0]["x"] @ weights["w"], atol=1e-6)
