"""Deploy and fake-quant models are one quantization: each quantized layer gives the same within a step."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amct_lite.samples.digits.data import MODEL_FILE, load_split
from tests.ascend_reference.agreement import assert_onnx_layers_agree
from tests.conftest import Flow, quantize_file, write_graph


def check(flow: Flow, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    files = flow.saved.files
    return assert_onnx_layers_agree(files["fake_quant_model"], files["deploy_model"], flow.layers, feeds)


def test_digits(quantize: Callable[..., Flow]) -> None:
    split = load_split()
    check(quantize(MODEL_FILE, [split.calibration.images], target="ascend"), {"image": split.held_out.images[:32]})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet1.1/squeezenet1.1.onnx", "efficientnet_lite0.onnx"])
def test_known_networks(name: str, find_model, quantize: Callable[..., Flow], image_batch) -> None:
    path = find_model(name)
    feeds = image_batch(path)
    check(quantize(path, [feeds], target="ascend"), feeds)


@pytest.fixture
def image_batch() -> Callable[..., dict[str, np.ndarray]]:
    import onnxruntime

    def make(path) -> dict[str, np.ndarray]:
        value = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_inputs()[0]
        shape = [1 if index == 0 else size for index, size in enumerate(value.shape)]
        return {value.name: np.random.default_rng(0).normal(size=shape).astype(np.float32)}

    return make


@st.composite
def small_networks(draw: st.DrawFn) -> tuple[str, dict[str, tuple[int, ...]], tuple[int, ...]]:
    """(ONNX text, shapes of its weights, shape of its input): up to three layers over images, then two products."""
    size = draw(st.integers(5, 9))
    channels = draw(st.sampled_from([2, 4, 6]))
    shapes: dict[str, tuple[int, ...]] = {}
    lines, value = [], "x"
    shape = (2, channels, size, size)
    side = size
    for index in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["conv", "depthwise", "transposed", "average", "max"]))
        kernel = draw(st.integers(1, min(3, side)))  # no window is larger than what it slides over
        stride = draw(st.integers(1, 2))
        begin, end = draw(st.integers(0, kernel - 1)), draw(st.integers(0, kernel - 1))
        if kind == "transposed":
            begin, end = (0, 0) if (side - 1) * stride + kernel <= begin + end else (begin, end)
            side = (side - 1) * stride + kernel - begin - end
        else:
            side = (side + begin + end - kernel) // stride + 1
        pads = f"pads = [{begin},{begin},{end},{end}]"
        window = f"strides = [{stride},{stride}], kernel_shape = [{kernel},{kernel}], {pads}"
        out = f"v{index}"
        if kind == "average":
            include = draw(st.integers(0, 1))
            lines.append(f"[pool{index}] {out} = AveragePool<{window}, count_include_pad = {include}>({value})")
        elif kind == "max":
            lines.append(f"[max{index}] {out} = MaxPool<{window}>({value})")
        else:
            group = channels if kind == "depthwise" else draw(st.sampled_from([1, 2]))
            out_channels = channels * draw(st.integers(1, 2)) if kind == "depthwise" else draw(st.sampled_from([2, 4]))
            operator = "ConvTranspose" if kind == "transposed" else "Conv"
            if kind == "transposed":
                shapes[f"w{index}"] = (channels, out_channels // group, kernel, kernel)
            else:
                shapes[f"w{index}"] = (out_channels, channels // group, kernel, kernel)
            bias = ""
            if draw(st.booleans()):
                shapes[f"b{index}"], bias = (out_channels,), f", b{index}"
            lines.append(f"[{kind}{index}] {out} = {operator}<{window}, group = {group}>({value}, w{index}{bias})")
            channels = out_channels
        if draw(st.booleans()):
            lines.append(f"[relu{index}] r{index} = Relu({out})")
            out = f"r{index}"
        value = out
    features = channels * 4
    lines += [f"[pooled] p = GlobalAveragePool({value})", "[flat] f = Flatten(p)"]
    trans = draw(st.integers(0, 1))
    shapes["u"] = (features, channels) if trans else (channels, features)
    shapes["c"] = (features,)
    lines.append(f"[gemm] g = Gemm<transB = {trans}>(f, u, c)")
    shapes["m"], shapes["d"] = (features, 3), draw(st.sampled_from([(3,), (1, 3)]))
    lines.append("[product] h = MatMul(g, m)")
    lines.append(draw(st.sampled_from(["[plus] y = Add(h, d)", "[plus] y = Add(d, h)", "[plus] y = Identity(h)"])))
    text = f"g (float[N,{shape[1]},{size},{size}] x) => (y) {{ {' '.join(lines)} }}"
    used = {name: s for name, s in shapes.items() if name != "d" or "Identity" not in lines[-1]}
    return text, used, shape


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(network=small_networks(), offset=st.booleans(), seed=st.integers(0, 1000))
def test_small_networks(tmp_path_factory, network, offset: bool, seed: int) -> None:
    text, shapes, shape = network
    folder, rng = tmp_path_factory.mktemp("net"), np.random.default_rng(seed)
    weights = {name: rng.normal(size=size).astype(np.float32) for name, size in shapes.items()}
    feeds = {"x": rng.normal(0.3, 1, size=shape).astype(np.float32)}
    path = write_graph(folder / "net.onnx", text, weights)
    check(quantize_file(folder, path, [feeds], target="ascend", activation_offset=offset), feeds)


BETWEEN = """g (float[N,4,8,8] x) => (y) {
    [conv] a = Conv<pads = [1,1,1,1]>(x, w) [conv2] b = Conv<pads = [1,1,1,1]>(x, w2) [add] s = Add(a, b)
    [pool] p = MaxPool<kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]>(s) [out] y = Conv(p, v) }"""


def test_quantized_inputs_of_operators(write_network, quantize: Callable[..., Flow]) -> None:
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 4, 3, 3), "w2": (4, 4, 3, 3), "v": (4, 4, 1, 1)}
    path = write_network(BETWEEN, {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()})
    feeds = {"x": rng.normal(size=(2, 4, 8, 8)).astype(np.float32)}

    def edit(document: dict[str, Any]) -> None:
        document["tensor_quantize"] = [{"layer_name": "pool"}, {"layer_name": "add", "input_index": 1}]

    flow = quantize(path, [feeds], target="ascend", edit=edit)
    assert {"pool:0", "add:1"} < set(flow.layers)
    values = check(flow, feeds)
    nodes = {node.name: node for node in flow.model("deploy_model").graph}
    # MaxPool selects, so it runs on the levels; Add has its floats back in front.
    assert nodes["pool"].inputs[0].producer().name == "pool.quant"
    assert nodes["pool.anti_quant"].inputs[0].producer().name == "pool"
    assert values[nodes["pool"].outputs[0].name].dtype == np.int8
    assert nodes["add"].inputs[1].producer().name == "add.anti_quant"
    assert nodes["add.anti_quant"].inputs[0].producer().name == "add.quant"
    scale = nodes["pool.anti_quant"].attributes.get_float("scale")
    assert scale == np.float32(flow.layers["pool:0"].grid.scale)


def test_bias_behind_a_matmul_is_added_in_the_accumulator(write_network, quantize: Callable[..., Flow]) -> None:
    rng = np.random.default_rng(0)
    text = "g (float[N,3,6] x) => (y) { [product] h = MatMul(x, w) [plus] y = Add(b, h) }"
    weights = {"w": rng.normal(size=(6, 4)).astype(np.float32), "b": rng.normal(size=(1, 4)).astype(np.float32)}
    feeds = {"x": rng.normal(size=(5, 3, 6)).astype(np.float32)}
    flow = quantize(write_network(text, weights), [feeds], target="ascend")
    check(flow, feeds)
    graph = flow.model("deploy_model").graph
    assert [node.name for node in graph] == ["product.quant", "product", "plus", "product.dequant"]
    bias = graph.node("plus").inputs[0].const_value
    layer = flow.layers["product"]
    assert bias.dtype.name == "INT32" and tuple(bias.shape) == (1, 4)
    np.testing.assert_array_equal(bias.numpy(), np.rint(weights["b"] / layer.bias_scale()).astype(np.int32))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[product] h = MatMul(x, w) [plus] y = Add(h, b) [again] z = Relu(h)", "something else reads the product"),
        ("[product] h = MatMul(x, w) [plus] y = Add(h, c) [again] z = Relu(y)", "no vector over the channels"),
        ("[product] h = MatMul(x, w) [plus] y = Add(h, x4) [again] z = Relu(y)", "no constant"),
    ],
)
def test_other_sums_behind_a_matmul_stay_float(text: str, reason: str, write_network, quantize) -> None:
    rng = np.random.default_rng(0)
    shapes = {"w": (6, 4), "b": (4,), "c": (3, 1)}
    weights = {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items() if f", {name})" in text}
    path = write_network(f"g (float[N,3,6] x, float[N,3,4] x4) => (y, z) {{ {text} }}", weights)
    feeds = {"x": rng.normal(size=(5, 3, 6)).astype(np.float32), "x4": np.ones((5, 3, 4), np.float32)}
    flow = quantize(path, [feeds], target="ascend")
    check(flow, feeds)
    graph = flow.model("deploy_model").graph
    assert graph.node("product.dequant").inputs[0].producer().name == "product", reason


def test_config_json_keeps_its_bytes_without_the_new_keys(quantize: Callable[..., Flow]) -> None:
    flow = quantize(MODEL_FILE, [load_split().calibration.images], target="ascend")
    document = json.loads((flow.folder / "config.json").read_text())
    assert not {"joint_quant", "tensor_quantize", "fakequant_precision_mode"} & set(document)
