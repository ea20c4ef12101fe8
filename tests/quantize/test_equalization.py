"""Which pairs are equalized, and that the float function stays."""

import json
from pathlib import Path

import numpy as np
import pytest

import amct_lite
from amct_lite.errors import RecordError
from amct_lite.graph import load_model, save_ir
from amct_lite.quantize.equalization import equalized_model, find_pairs
from amct_lite.quantize.weight_rows import to_channels
from amct_lite.uniform.equalization import input_ranges, magnitudes, output_ranges
from tests.conftest import quantize_file, run_file, write_graph


def spread_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Weights whose channels differ by orders of magnitude, for convolution, depthwise, convolution."""
    random = np.random.default_rng(seed)
    spread = np.exp(random.normal(0, 2, (2, 6))).astype(np.float32)
    return {
        "w1": random.normal(size=(6, 3, 1, 1)).astype(np.float32) * spread[0].reshape(6, 1, 1, 1),
        "b1": random.normal(size=6).astype(np.float32) * spread[0],
        "w2": random.normal(size=(6, 1, 3, 3)).astype(np.float32) * (spread[1] / spread[0]).reshape(6, 1, 1, 1),
        "b2": random.normal(size=6).astype(np.float32) * spread[1],
        "w3": random.normal(size=(4, 6, 1, 1)).astype(np.float32) / spread[1].reshape(1, 6, 1, 1),
    }


def triple(path: Path, between: str = "Relu") -> Path:
    text = f"""g (float[n, 3, 8, 8] x) => (float[n, 4, 8, 8] y) {{
        [first] c = Conv(x, w1, b1)
        a = {between}(c)
        [depthwise] d = Conv<group = 6, pads = [1, 1, 1, 1]>(a, w2, b2)
        b = Relu(d)
        [last] y = Conv(b, w3)
    }}"""
    return write_graph(path, text, spread_weights())


def pairs_of(path: Path) -> list[tuple[str, str]]:
    return [(pair.first.name, pair.second.name) for pair in find_pairs(load_model(path))]


def outputs_of(path: Path, x: np.ndarray) -> np.ndarray:
    return run_file(path, {"x": x})["y"]


def assert_same_function(path: Path, x: np.ndarray) -> None:
    equalized = equalized_model(load_model(path))
    save_ir(equalized.ir, path.with_name("equalized.onnx"))
    expected, found = outputs_of(path, x), outputs_of(path.with_name("equalized.onnx"), x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("between", ["Relu", "LeakyRelu<alpha = 0.2>", "Identity", "MaxPool<kernel_shape = [1, 1]>"])
def test_a_triple_is_two_pairs_and_keeps_its_function(tmp_path: Path, between: str) -> None:
    path = triple(tmp_path / "net.onnx", between)
    assert pairs_of(path) == [("first", "depthwise"), ("depthwise", "last")]
    assert_same_function(path, np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32))


def padded(path: Path, pads: list[int], value: float) -> Path:
    text = """g (float[n, 3, 8, 8] x) => (float[n, 4, h, v] y) {
        [first] c = Conv(x, w1, b1)
        a = Pad(c, pads, value)
        [last] y = Conv(a, w3)
    }"""
    weights = {name: array for name, array in spread_weights().items() if name in ("w1", "b1", "w3")}
    return write_graph(path, text, {**weights, "pads": np.array(pads), "value": np.float32(value)})


def test_channels_are_scaled_across_zeros_beside_them(tmp_path: Path) -> None:
    path = padded(tmp_path / "net.onnx", [0, 0, 1, 1, 0, 0, 2, 0], 0.0)
    assert pairs_of(path) == [("first", "last")]
    assert_same_function(path, np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32))


@pytest.mark.parametrize(("pads", "value"), [([0, 0, 1, 1, 0, 0, 2, 0], 1.0), ([0, 1, 0, 0, 0, -1, 0, 0], 0.0)])
def test_nothing_is_scaled_across_other_pads(tmp_path: Path, pads: list[int], value: float) -> None:
    assert pairs_of(padded(tmp_path / "net.onnx", pads, value)) == []


@pytest.mark.parametrize("between", ["Sigmoid", "HardSwish", "Elu", "Softplus"])
def test_nothing_is_scaled_across_other_functions(tmp_path: Path, between: str) -> None:
    path = write_graph(
        tmp_path / "net.onnx",
        f"""g (float[n, 3, 8, 8] x) => (float[n, 4, 8, 8] y) {{
            [first] c = Conv(x, w1, b1)
            a = {between}(c)
            [last] y = Conv(a, w3)
        }}""",
        {name: array for name, array in spread_weights().items() if name in ("w1", "b1", "w3")},
        opset=14,
    )
    assert pairs_of(path) == []


def test_nothing_is_scaled_across_relu6(tmp_path: Path) -> None:
    weights = {name: array for name, array in spread_weights().items() if name in ("w1", "b1", "w3")}
    path = write_graph(
        tmp_path / "net.onnx",
        """g (float[n, 3, 8, 8] x) => (float[n, 4, 8, 8] y) {
            [first] c = Conv(x, w1, b1)
            a = Clip(c, zero, six)
            [last] y = Conv(a, w3)
        }""",
        {**weights, "zero": np.float32(0), "six": np.float32(6)},
    )
    assert pairs_of(path) == []


BRANCHES = {
    "another reader": ("(float[n, 4, 8, 8] y, float[n, 6, 8, 8] z)", "z = Sigmoid(a)"),
    "a graph output": ("(float[n, 4, 8, 8] y, float[n, 6, 8, 8] a)", ""),
    "the bias is used elsewhere": ("(float[n, 4, 8, 8] y, float[6] z)", "z = Sigmoid(b1)"),
}


@pytest.mark.parametrize("why", BRANCHES)
def test_a_tensor_that_others_see_stays(tmp_path: Path, why: str) -> None:
    outputs, other = BRANCHES[why]
    path = write_graph(
        tmp_path / "net.onnx",
        f"""g (float[n, 3, 8, 8] x) => {outputs} {{
            [first] c = Conv(x, w1, b1)
            a = Relu(c)
            {other}
            [last] y = Conv(a, w3)
        }}""",
        {name: array for name, array in spread_weights().items() if name in ("w1", "b1", "w3")},
    )
    assert pairs_of(path) == []


def test_tied_weights_stay(tmp_path: Path) -> None:
    square = np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype(np.float32)
    path = write_graph(
        tmp_path / "net.onnx",
        """g (float[n, 3, 8, 8] x) => (float[n, 3, 8, 8] y) {
            [first] a = Conv(x, w)
            [last] y = Conv(a, w)
        }""",
        {"w": square},
    )
    assert pairs_of(path) == []


FLATTENINGS = {
    "Flatten": "f = Flatten<axis = 1>(p)",
    "Reshape with -1": "f = Reshape(p, rows)",
    "Reshape by size": "f = Reshape(p, sizes)",
}


@pytest.mark.parametrize("how", FLATTENINGS)
def test_channels_stay_whole_through_flattening_into_gemm_and_matmul(tmp_path: Path, how: str) -> None:
    random = np.random.default_rng(0)
    spread = np.exp(random.normal(0, 2, 6)).astype(np.float32)
    text = f"""g (float[n, 3, 8, 8] x) => (float[n, 5] y) {{
        [first] c = Conv(x, w1, b1)
        a = PRelu(c, slope)
        p = AveragePool<kernel_shape = [4, 4], strides = [4, 4]>(a)
        {FLATTENINGS[how]}
        [middle] g = Gemm<transB = 1>(f, w2, b2)
        r = Relu(g)
        [last] y = MatMul(r, w3)
    }}"""
    weights = {
        "w1": random.normal(size=(6, 3, 1, 1)).astype(np.float32) * spread.reshape(6, 1, 1, 1),
        "b1": random.normal(size=6).astype(np.float32),
        "slope": np.array([0.25], np.float32),
        "w2": random.normal(size=(7, 24)).astype(np.float32) / spread.repeat(4),
        "b2": random.normal(size=(1, 7)).astype(np.float32),
        "w3": random.normal(size=(7, 5)).astype(np.float32),
    }
    shapes = {"rows": np.array([0, -1]), "sizes": np.array([-1, 24])}
    used = {name: array for name, array in shapes.items() if name in FLATTENINGS[how]}
    path = write_graph(tmp_path / "net.onnx", text, {**weights, **used})
    assert pairs_of(path) == [("first", "middle"), ("middle", "last")]
    assert_same_function(path, random.normal(size=(2, 3, 8, 8)).astype(np.float32))


def test_a_reshape_that_tears_channels_apart_stays(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    path = write_graph(
        tmp_path / "net.onnx",
        """g (float[n, 3, 8, 8] x) => (float[m, 5] y) {
            [first] c = Conv(x, w1)
            f = Reshape(c, rows)
            [last] y = Gemm(f, w2)
        }""",
        {
            "w1": random.normal(size=(6, 3, 1, 1)).astype(np.float32),
            "rows": np.array([-1, 6]),
            "w2": random.normal(size=(6, 5)).astype(np.float32),
        },
    )
    assert pairs_of(path) == []


def test_a_pool_behind_matmul_runs_over_its_channels_and_stays(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    path = write_graph(
        tmp_path / "net.onnx",
        """g (float[2, 3, 4, 4] x) => (float[2, 3, 4, 5] y) {
            [first] c = MatMul(x, w1)
            p = MaxPool<kernel_shape = [1, 1]>(c)
            [last] y = MatMul(p, w2)
        }""",
        {"w1": random.normal(size=(4, 6)).astype(np.float32), "w2": random.normal(size=(6, 5)).astype(np.float32)},
    )
    assert pairs_of(path) == []


@pytest.mark.parametrize("group", [1, 2])
def test_transposed_and_grouped_convolutions_keep_their_function(tmp_path: Path, group: int) -> None:
    random = np.random.default_rng(group)
    path = write_graph(
        tmp_path / "net.onnx",
        f"""g (float[n, 4, 5, 5] x) => (float[n, 6, 11, 11] y) {{
            [first] c = Conv<group = {group}>(x, w1, b1)
            a = Relu(c)
            [middle] d = ConvTranspose<group = {group}, strides = [2, 2]>(a, w2, b2)
            b = Relu(d)
            [last] y = Conv<group = {group}>(b, w3)
        }}""",
        {
            "w1": (random.normal(size=(8, 4 // group, 1, 1)) * 100.0 ** random.normal(size=(8, 1, 1, 1))).astype("f4"),
            "b1": random.normal(size=8).astype(np.float32),
            "w2": random.normal(size=(8, 6 // group, 3, 3)).astype(np.float32),
            "b2": random.normal(size=6).astype(np.float32),
            "w3": random.normal(size=(6, 6 // group, 1, 1)).astype(np.float32),
        },
    )
    assert pairs_of(path) == [("first", "middle"), ("middle", "last")]
    assert_same_function(path, random.normal(size=(2, 4, 5, 5)).astype(np.float32))


def test_ranges_of_the_model_become_equal(tmp_path: Path) -> None:
    model = equalized_model(load_model(triple(tmp_path / "net.onnx")))
    sizes = {layer.name: magnitudes(to_channels(model.weight(layer.weight or ""), layer)) for layer in model.layers}
    np.testing.assert_allclose(output_ranges(sizes["first"]), input_ranges(sizes["depthwise"]), rtol=1e-3)
    np.testing.assert_allclose(output_ranges(sizes["depthwise"]), input_ranges(sizes["last"]), rtol=1e-3)


def test_an_equalized_model_has_a_digest_of_its_own_and_leaves_the_original(tmp_path: Path) -> None:
    model = load_model(triple(tmp_path / "net.onnx"))
    before = model.weight("w1").copy()
    equalized = equalized_model(model)
    assert equalized.digest != model.digest
    assert equalized.equalized_layers == {"first", "depthwise", "last"}
    np.testing.assert_array_equal(model.weight("w1"), before)


def set_key(document: dict) -> None:
    document["cross_layer_equalization"] = True
    for block in document.values():
        if isinstance(block, dict):
            block["weight_quant_params"]["channel_wise"] = False


def per_tensor(document: dict) -> None:
    set_key(document)
    del document["cross_layer_equalization"]


def test_int8_weights_per_tensor_are_much_better_with_it(tmp_path: Path) -> None:
    path = triple(tmp_path / "net.onnx")
    random = np.random.default_rng(5)
    batches = [random.normal(size=(16, 3, 8, 8)).astype(np.float32) for _ in range(2)]
    expected = outputs_of(path, batches[0])
    errors = {}
    for name, edit in (("plain", per_tensor), ("equalized", set_key)):
        (tmp_path / name).mkdir()
        flow = quantize_file(tmp_path / name, path, batches, edit=edit, batch_num=2)
        found = {kind: outputs_of(flow.saved.files[kind], batches[0]) for kind in ("fake_quant_model", "deploy_model")}
        np.testing.assert_allclose(found["deploy_model"], found["fake_quant_model"], atol=0.02 * np.abs(expected).max())
        errors[name] = float(np.square(found["fake_quant_model"] - expected).mean())
    assert errors["equalized"] < 0.1 * errors["plain"]


@pytest.mark.parametrize("made_with", [True, False])
def test_a_record_is_only_applied_with_what_it_was_made_with(tmp_path: Path, made_with: bool) -> None:
    path = triple(tmp_path / "net.onnx")
    batch = np.random.default_rng(5).normal(size=(4, 3, 8, 8)).astype(np.float32)
    flow = quantize_file(tmp_path, path, [batch], edit=set_key if made_with else per_tensor)
    config_file = tmp_path / "config.json"
    document = json.loads(config_file.read_text())
    document["cross_layer_equalization"] = not made_with
    config_file.write_text(json.dumps(document))
    graph = amct_lite.init(config_file, path, scale_offset_record_file=tmp_path / "record.txt")
    with pytest.raises(RecordError, match='Set "cross_layer_equalization" to'):
        amct_lite.save_model(graph, "Both", tmp_path / "other" / "net")
    assert flow.graph.model.digest != graph.model.digest


def test_a_calibration_model_computes_with_equalized_weights_and_writes_the_same_record(tmp_path: Path) -> None:
    path = triple(tmp_path / "net.onnx")
    batch = np.random.default_rng(5).normal(size=(4, 3, 8, 8)).astype(np.float32)

    def edit(document: dict) -> None:
        set_key(document)
        for block in document.values():
            if isinstance(block, dict):
                # As a loop of the user's own rounds.
                block["weight_quant_params"].pop("rounding", None)

    flow = quantize_file(tmp_path, path, [batch], edit=edit)
    record = (tmp_path / "record.txt").read_text()
    (tmp_path / "record.txt").unlink()
    amct_lite.quantize_model(flow.graph, tmp_path / "modified.onnx")
    amct_lite.InferenceSession(tmp_path / "modified.onnx").run(None, {"x": batch})
    assert (tmp_path / "record.txt").read_text() == record
