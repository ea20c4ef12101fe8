"""Quantized models take every shape that the float model takes, at every opset."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amct_lite.export.editor import GraphEditor
from amct_lite.graph import load_model

SEQUENCE = "g (float[N,S,4] x) => (y) { [layer] y = MatMul (x, w) }"
KINDS = ("fake_quant_model", "deploy_model")


def weight() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1, 4), (5, 2, 4), (0, 3, 4), (2, 0, 4)])
def test_empty_and_odd_shapes_pass_an_activation_table(
    shape: tuple[int, ...],
    kind: str,
    write_network: Callable[..., Path],
    quantize: Callable[..., Any],
    nuq: Callable[..., Any],
    run_network: Callable[..., Any],
) -> None:
    x = np.random.default_rng(1).normal(size=(5, 3, 4)).astype(np.float32)
    flow = quantize(write_network(SEQUENCE, {"w": weight()}, opset=14), [x], edit=nuq())
    assert run_network(flow.saved.files[kind], {"x": np.ones(shape, np.float32)})["y"].shape == (*shape[:2], 8)


@pytest.mark.parametrize("with_nuq", [False, True])
@pytest.mark.parametrize("opset", [7, 11, 14, 17, 19, 21, 23])
def test_every_opset_gives_the_same_numbers(
    opset: int,
    with_nuq: bool,
    write_network: Callable[..., Path],
    quantize: Callable[..., Any],
    nuq: Callable[..., Any],
    run_network: Callable[..., Any],
) -> None:
    x = np.random.default_rng(1).normal(size=(5, 3, 4)).astype(np.float32)
    outputs = []
    for version in (13, opset):
        file = write_network(SEQUENCE, {"w": weight()}, opset=version)
        flow = quantize(file, [x], edit=nuq() if with_nuq else None)
        outputs.append([run_network(flow.saved.files[kind], {"x": x}, "DISABLE")["y"] for kind in KINDS])
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_new_names_avoid_those_inside_loops(write_network: Callable[..., Path]) -> None:
    text = """g (float[N,4] x, int64 n, bool c) => (y) {
      y = Loop (n, c, x) < body = b (int64 i, bool go, float[N,4] state) => (bool again, float[N,4] next) {
        again = Identity (go) next = MatMul (state, w) }>
    }"""
    editor = GraphEditor(load_model(write_network(text, {"w": np.eye(4, dtype=np.float32)})))
    for name in ("x", "state", "next", "i"):
        assert editor.constant(name, np.float32(0)).name == f"{name}_1"
