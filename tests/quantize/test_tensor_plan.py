"""Which tensors between layers are quantized: those that let whole chains run on integers, and no others."""

import json
from collections.abc import Callable

import numpy as np
import pytest

import amct_lite as amct
from amct_lite.files.record import read_record, write_record

RESIDUAL = """g (float[N,8,6,6] x) => (float[N,4] y) {
    a = Conv<pads = [1,1,1,1]>(x, w) ar = Relu(a) b = Conv<pads = [1,1,1,1]>(ar, w2) s = Add(ar, b) r = Relu(s)
    p = GlobalAveragePool(r) f = Flatten(p) y = Gemm<transB = 1>(f, u) }"""


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def weights(rng: np.random.Generator, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {n: (rng.normal(size=s) / np.sqrt(np.prod(s[1:]))).astype(np.float32) for n, s in shapes.items()}


@pytest.fixture
def planned(write_network: Callable, rng, tmp_path) -> Callable:
    def plan(text: str, target: str = "onnxruntime", skip=(), **shapes):
        path = write_network(text, weights(rng, **shapes))
        amct.create_quant_config(tmp_path / "config.json", path, skip_layers=skip, target=target)
        return amct.init(tmp_path / "config.json", path)

    return plan


def names(graph) -> list[str]:
    return [plan.layer.name for plan in graph.tensor_plans]


def test_a_residual_block_runs_on_integers_throughout(planned: Callable) -> None:
    graph = planned(RESIDUAL, w=(8, 8, 3, 3), w2=(8, 8, 3, 3), u=(4, 8))
    assert names(graph) == ["Add_3:0", "Add_3:1", "GlobalAveragePool_5:0"]
    assert "GlobalAveragePool_5:0" in str(graph)
    # Add reads the tensor that the second convolution reads: on the same grid, so as one quantizer.
    shared = graph.tensor_plans[0].config.activation_quant_params
    assert shared == graph.plans[1].config.activation_quant_params


def test_targets_without_integer_operators_get_none(planned: Callable) -> None:
    assert names(planned(RESIDUAL, target="ascend", w=(8, 8, 3, 3), w2=(8, 8, 3, 3), u=(4, 8))) == []


def test_what_the_network_returns_is_not_put_on_a_grid(planned: Callable) -> None:
    graph = planned(
        """g (float[N,8,6,6] x) => (y, z) { a = Conv(x, w) p = GlobalAveragePool(a) y = Flatten(p)
        z = Conv(x, w2) }""",
        w=(8, 8, 3, 3),
        w2=(8, 8, 1, 1),
    )
    assert names(graph) == ["GlobalAveragePool_1:0"]


def test_operators_away_from_integer_layers_are_left_alone(planned: Callable) -> None:
    graph = planned(
        """g (float[N,8,6,6] x) => (y) { a = Add(x, x) b = Sigmoid(a) c = Mul(a, b) d = Conv(c, w) e = Relu(d)
        y = Conv(e, w) }""",
        w=(8, 8, 1, 1),
    )
    assert names(graph) == []


def test_all_readers_of_a_quantized_tensor_read_it_quantized(planned: Callable) -> None:
    """A single float reader would keep the convolution before it from its integer kernel."""
    graph = planned(
        "g (float[N,8,6,6] x) => (y) { a = Conv(x, w) b = Sigmoid(a) c = Mul(a, b) y = Conv(c, w2) }",
        w=(8, 8, 1, 1),
        w2=(8, 8, 1, 1),
    )
    assert names(graph) == ["Sigmoid_1:0", "Mul_2:0", "Mul_2:1"]


def test_skipped_layers_keep_reading_floats(planned: Callable) -> None:
    graph = planned(RESIDUAL, skip=["Conv_2"], w=(8, 8, 3, 3), w2=(8, 8, 3, 3), u=(4, 8))
    assert names(graph) == ["Add_3:0", "Add_3:1", "GlobalAveragePool_5:0"]
    assert graph.plans[1].config is None


def test_bias_additions_are_no_integer_operators(planned: Callable) -> None:
    graph = planned(
        "g (float[N,8,6,6] x) => (y) { a = Conv(x, w) b = Add(a, c) d = Relu(b) y = Conv(d, w2) }",
        w=(8, 8, 1, 1),
        w2=(8, 8, 1, 1),
        c=(8, 1, 1),
    )
    assert names(graph) == ["Add_1:0"], "the convolution's output alone"


def test_tensors_that_bodies_read_stay_float(planned: Callable) -> None:
    graph = planned(
        """g (float[N,8,6,6] x, bool flag) => (y) { a = Conv(x, w) s = Sigmoid(a)
        c = If(flag) <then_branch = t () => (o) { o = Relu(a) }, else_branch = e () => (o2) { o2 = Tanh(a) }>
        y = Add(s, c) }""",
        w=(8, 8, 1, 1),
    )
    assert names(graph) == []


def test_the_config_can_choose_or_refuse_them(planned: Callable, tmp_path) -> None:
    graph = planned(RESIDUAL, w=(8, 8, 3, 3), w2=(8, 8, 3, 3), u=(4, 8))
    for wanted, expected in (([], []), (["Add"], ["Add_3:0", "Add_3:1", "GlobalAveragePool_5:0"])):
        config = graph.config.model_copy(update={"integer_operators": wanted})
        (tmp_path / "other.json").write_text(json.dumps(config.to_document()))
        assert names(amct.init(tmp_path / "other.json", graph.model.path)) == expected


@pytest.mark.parametrize("params", ["weight_quant_params", "activation_quant_params"])
def test_layers_that_compute_in_float_ask_for_none(planned: Callable, tmp_path, params: str) -> None:
    graph = planned(RESIDUAL, w=(8, 8, 3, 3), w2=(8, 8, 3, 3), u=(4, 8))
    document = graph.config.to_document()
    for layer in ("Conv_0", "Conv_2"):
        document[layer][params] = {"wts_algo": "none"} if params.startswith("weight") else {"act_algo": "none"}
    (tmp_path / "other.json").write_text(json.dumps(document))
    assert names(amct.init(tmp_path / "other.json", graph.model.path)) == []


def test_old_records_without_them_still_serve(planned: Callable, tmp_path, rng) -> None:
    graph = planned(RESIDUAL, w=(8, 8, 3, 3), w2=(8, 8, 3, 3), u=(4, 8))
    record = tmp_path / "record.txt"
    graph = amct.init(graph.config_file, graph.model.path, None, record)
    amct.calibrate(graph, [rng.normal(size=(4, 8, 6, 6)).astype(np.float32)])
    records = read_record(record)
    assert [name for name in records if ":" in name] == names(graph)
    write_record({name: found for name, found in records.items() if ":" not in name}, record)
    amct.save_model(graph, "Both", tmp_path / "out" / "net")
