"""The closed loop on whole networks: what data buys, and graphs and data that are odd."""

import dataclasses
import json

import numpy as np
import pytest

import amct_lite
from amct_lite.codebook.specification import Refine
from amct_lite.errors import AmctError, CalibrationError
from amct_lite.export.fake_quant import fake_quant_model
from amct_lite.graph.model import load_model
from amct_lite.graph.runtime import create_session
from amct_lite.quantize.apply_record import quantized_layers
from amct_lite.refine.compression import compress_model
from amct_lite.refine.weight_fitting import WeightFitter
from amct_lite.samples.digits.data import MODEL_FILE, load_split

DIGITS = load_split()
BATCHES = [DIGITS.calibration.images[start : start + 25] for start in range(0, 100, 25)]
STEPS = ("none", "bias", "gptq", "lnq")


def outputs(graph, feed):
    return create_session(graph).run(None, feed)[0].astype(np.float64)


def quantized(compressed):
    return fake_quant_model(compressed.graph.model, quantized_layers(compressed.graph.model, compressed.records))


def relative_error(compressed, feed):
    before, after = outputs(compressed.graph.model.ir, feed), outputs(quantized(compressed), feed)
    return float(np.sum(np.square(after - before)) / np.sum(np.square(before)))


def same_records(first, second):
    assert list(first) == list(second)
    assert first == second
    for one, other in zip(first.values(), second.values(), strict=True):
        for field in dataclasses.fields(one.codebook):
            assert np.array_equal(getattr(one.codebook, field.name), getattr(other.codebook, field.name))
        assert (one.bias is None and other.bias is None) or np.array_equal(one.bias, other.bias)


@pytest.fixture(scope="module")
def digits():
    model = load_model(MODEL_FILE)
    return {step: compress_model(model, 2, BATCHES, refine=step) for step in STEPS}


@pytest.fixture
def network(write_network):
    """A small network of random weights: text and shapes -> model."""

    def make(text, **shapes):
        rng = np.random.default_rng(0)
        return load_model(
            write_network(text, {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})
        )

    return make


def normal(*shape, seed=5):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_each_step_brings_unseen_data_nearer_to_the_float_network(digits):
    error = {step: relative_error(digits[step], {"image": DIGITS.validation.images}) for step in STEPS}
    assert error["bias"] < error["none"]
    assert error["gptq"] < 0.7 * error["bias"]
    assert error["lnq"] < error["gptq"]


def test_outputs_of_many_layers_keep_their_spread(network, monkeypatch):
    """The least squared error alone lets them shrink from layer to layer."""
    chain = " ".join(f"[fc{i}] t{i} = Gemm <transB = 1> (r{i - 1}, w{i}) r{i} = Relu (t{i})" for i in range(1, 9))
    text = f"g (float[N,24] r0) => (y) {{ {chain} [last] y = Gemm <transB = 1> (r8, w9) }}"
    model = network(text, **{f"w{i}": (24, 24) for i in range(1, 10)})
    batches, feed = [normal(64, 24, seed=seed) for seed in range(4)], {"r0": normal(256, 24, seed=9)}

    def kept():
        compressed = compress_model(model, 1, batches)
        return outputs(quantized(compressed), feed).std() / outputs(model.ir, feed).std()

    ours = kept()
    monkeypatch.setattr(WeightFitter, "_with_spread", lambda self, target, sharing: target)
    assert kept() < 0.95 * ours
    assert 0.9 < ours < 1.1


def test_two_runs_give_the_same_records(digits):
    same_records(digits["lnq"].records, compress_model(load_model(MODEL_FILE), 2, BATCHES).records)


def test_how_samples_are_cut_into_batches_hardly_matters(digits):
    other = compress_model(load_model(MODEL_FILE), 2, [DIGITS.calibration.images])
    feed = {"image": DIGITS.validation.images}
    assert relative_error(other, feed) < 1.3 * relative_error(digits["lnq"], feed)


def test_the_mean_of_every_layers_output_is_the_float_networks(digits):
    """What the bias is for; held on the very samples that it was found with, where every position is looked at."""
    compressed = digits["lnq"]
    graph = quantized(compressed)
    for layer in compressed.graph.model.layers:
        if layer.op_type not in ("Conv", "Gemm") or layer.name not in compressed.records:
            continue
        feed = {"image": DIGITS.calibration.images}
        before, after = (
            create_session(model, extra_outputs=[layer.output]).run([layer.output], feed)[0]
            for model in (compressed.graph.model.ir, graph)
        )
        axes = tuple(axis for axis in range(before.ndim) if axis != 1)
        spread = before.std(axis=axes)
        assert np.allclose(before.mean(axis=axes), after.mean(axis=axes), atol=0.02 * spread.max()), layer.name


def test_inputs_of_8_bits_cost_little(digits):
    compressed = compress_model(load_model(MODEL_FILE), 2, BATCHES, activation_bits=8)
    assert all(record.scale_d is not None for record in compressed.records.values())
    assert all(record.codebook.level_type == "int8" for record in compressed.records.values())
    feed = {"image": DIGITS.validation.images}
    assert relative_error(compressed, feed) < 1.3 * relative_error(digits["lnq"], feed)


def test_layers_that_share_a_weight_share_its_codebook_and_have_a_bias_each(network):
    model = network(
        "g (float[n, 32] x) => (float[n, 32] y) { a = Gemm (x, w, b) r = Relu (a) y = Gemm (r, w) }", w=(32, 32), b=32
    )
    first, second = compress_model(model, 2, [normal(64, 32)]).records.values()
    assert first.codebook is second.codebook
    assert not np.array_equal(first.bias, second.bias)


def test_tied_layers_of_other_moments_have_less_error_than_without_data(network):
    model = network(
        "g (float[n, 32] x) => (float[n, 32] y) { a = MatMul (x, w) r = Tanh (a) y = MatMul (r, w) }", w=(32, 32)
    )
    data, unseen = normal(128, 32), {"x": normal(256, 32, seed=6)}
    data[:, ::2] *= 4
    unseen["x"][:, ::2] *= 4
    with_data, without = (compress_model(model, 2, [data], refine=step) for step in ("lnq", "none"))
    assert relative_error(with_data, unseen) < relative_error(without, unseen)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("MatMul (x, w)", (32, 24)),
        ("MatMul (w, x)", (24, 48)),
        ("Gemm (w, x)", (24, 48)),
        ("Gemm <transA = 1> (x, w)", (48, 24)),
    ],
)
def test_inner_products_of_every_form_are_refined_at_a_graph_input(layer, shape, network):
    model = network(f"g (float[48, 32] x) => (float y) {{ y = {layer} }}", w=shape)
    data = [normal(48, 32, seed=seed) @ np.diag(np.linspace(0.1, 4, 32, dtype=np.float32)) for seed in range(4)]
    errors = [relative_error(compress_model(model, 2, data, refine=step), {"x": data[0]}) for step in ("none", "lnq")]
    assert errors[1] < errors[0]


def test_a_matmul_has_no_bias_and_gets_none(network):
    model = network("g (float[n, 32] x) => (float[n, 48] y) { y = MatMul (x, w) }", w=(32, 48))
    (record,) = compress_model(model, 3, [normal(64, 32)]).records.values()
    assert record.bias is None


@pytest.mark.parametrize("shape", [(24,), (1, 24)], ids=str)
def test_a_gemm_keeps_the_shape_of_its_bias(shape, network):
    model = network("g (float[n, 64] x) => (float[n, 24] y) { y = Gemm (x, w, b) }", w=(64, 24), b=shape)
    for activation_bits in (None, 8):
        compressed = compress_model(model, 4, [normal(64, 64)], activation_bits=activation_bits)
        assert compressed.records[model.layers[0].name].bias.shape == (24,)
        assert relative_error(compressed, {"x": normal(64, 64, seed=9)}) < 0.05


@pytest.mark.parametrize("shape", [(1,), (1, 1), (7, 24), (7, 1)], ids=str)
def test_a_gemm_whose_third_input_is_no_bias_over_channels_keeps_it(shape, network):
    model = network("g (float[7, 64] x) => (float[7, 24] y) { y = Gemm (x, w, b) }", w=(64, 24), b=shape)
    compressed = compress_model(model, 4, [normal(7, 64, seed=s) for s in range(10)])
    assert next(iter(compressed.records.values())).bias is None
    assert relative_error(compressed, {"x": normal(7, 64, seed=99)}) < 0.05


def test_a_bias_that_the_graph_computes_stays(network):
    model = network(
        "g (float[n, 4, 8, 8] x, float[16] c) => (float[n, 16, 6, 6] y) { b = Neg (c) y = Conv (x, w, b) }",
        w=(16, 4, 3, 3),
    )
    batches = [{"x": normal(16, 4, 8, 8, seed=seed), "c": normal(16, seed=seed)} for seed in range(3)]
    compressed = compress_model(model, 3, batches)
    assert next(iter(compressed.records.values())).bias is None
    assert relative_error(compressed, batches[0]) < 0.1


def test_an_input_channel_that_is_always_0_does_no_harm(network):
    model = network("g (float[n, 8, 6, 6] x) => (float[n, 16, 4, 4] y) { y = Conv (x, w, b) }", w=(16, 8, 3, 3), b=16)
    data = normal(64, 8, 6, 6)
    data[:, [0, 5]] = 0.0
    compressed = compress_model(model, 3, [data])
    assert relative_error(compressed, {"x": data}) < 0.05
    assert relative_error(compressed, {"x": normal(32, 8, 6, 6, seed=1)}) < 0.5


def test_inputs_that_are_0_throughout_leave_the_weights_near_what_they_are(network):
    model = network("g (float[n, 32] x) => (float[n, 48] y) { y = Gemm (x, w) }", w=(32, 48))
    compressed = compress_model(model, 4, [np.zeros((20, 32), np.float32)])
    assert relative_error(compressed, {"x": normal(32, 32)}) < 0.05


def test_one_sample_is_enough(network):
    model = network("g (float[n, 32] x) => (float[n, 48] y) { y = Gemm (x, w, b) }", w=(32, 48), b=48)
    compressed = compress_model(model, 3, [normal(1, 32)])
    assert relative_error(compressed, {"x": normal(1, 32)}) < 0.01
    assert relative_error(compressed, {"x": normal(32, 32, seed=1)}) < 0.2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_data_that_is_not_finite_is_an_error_that_names_the_input(bad):
    images = DIGITS.calibration.images.copy()
    images[3, 0, 2, 2] = bad
    with pytest.raises(CalibrationError, match=r"'image' is not finite in batch 2"):
        compress_model(load_model(MODEL_FILE), 4, [BATCHES[0], images])


def test_a_network_that_overflows_is_an_error_that_names_the_layer(network):
    model = network(
        "g (float[n, 32] x) => (float[n, 32] y) { a = MatMul (x, w) e = Exp (a) f = Mul (e, e) y = MatMul (f, v) }",
        w=(32, 32),
        v=(32, 32),
    )
    with pytest.raises(CalibrationError, match=rf"Layer '{model.layers[1].name}'.*not finite"):
        compress_model(model, 4, [100 * normal(8, 32)])


@pytest.mark.parametrize("size", [1, 16])
def test_a_fixed_batch_size_is_kept_to(size, network):
    text = f"g (float[{size}, 32] x) => (float[{size}, 32] y) {{ a = Gemm (x, w, b) r = Relu (a) y = MatMul (r, v) }}"
    model = network(text, w=(32, 32), b=32, v=(32, 32))
    compressed = compress_model(model, 4, [normal(size, 32, seed=seed) for seed in range(64 // size)])
    assert relative_error(compressed, {"x": normal(size, 32, seed=99)}) < 0.1


def test_inputs_of_other_leading_sizes_and_types_go_together(network):
    text = """g (float[n, 16] x, int64[m] rows, float[16] shift) => (float[m, 32] y) {
        g = Gather (x, rows) s = Add (g, shift) a = MatMul (s, w) r = Relu (a) y = MatMul (r, v)
    }"""
    model = network(text, w=(16, 64), v=(64, 32))
    rng = np.random.default_rng(0)
    batches = [
        {"x": normal(9, 16, seed=s), "rows": rng.integers(0, 9, 5), "shift": normal(16, seed=s)} for s in range(12)
    ]
    compressed = compress_model(model, 3, batches)
    assert relative_error(compressed, batches[0]) < 0.1


def test_shapes_that_the_graph_computes_stay_right(write_network):
    text = """g (float[n, 4, 6, 6] x) => (float[n, k] y) {
        a = Conv <pads = [1, 1, 1, 1]> (x, w, b)
        s = Shape (x)
        first = Slice (s, zero, one)
        twice = Resize <mode = "nearest"> (a, , scales)
        c = Conv <strides = [2, 2]> (twice, v)
        shape = Concat <axis = 0> (first, minus)
        y = Reshape (c, shape)
    }"""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(16, 4, 3, 3)).astype(np.float32),
        "b": rng.normal(size=16).astype(np.float32),
        "v": rng.normal(size=(8, 16, 2, 2)).astype(np.float32),
        "zero": np.array([0]),
        "one": np.array([1]),
        "minus": np.array([-1]),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    model = load_model(write_network(text, weights))
    compressed = compress_model(model, 4, [normal(16, 4, 6, 6, seed=seed) for seed in range(2)])
    assert relative_error(compressed, {"x": normal(5, 4, 6, 6, seed=9)}) < 0.05


def test_fewer_batches_than_batch_num_are_an_error(tmp_path):
    config, record = tmp_path / "config.json", tmp_path / "record.txt"
    amct_lite.create_quant_config(config, MODEL_FILE, batch_num=3, target="onnxruntime")
    document = json.loads(config.read_text())
    for block in document.values():
        if isinstance(block, dict) and "weight_quant_params" in block:
            block["weight_quant_params"] = {"wts_algo": "codebook_quantize", "num_bits": 4}
    config.write_text(json.dumps(document))
    graph = amct_lite.init(config, MODEL_FILE, scale_offset_record_file=record)
    assert any(plan.codebook is not None and plan.codebook.refine is Refine.LNQ for plan in graph.plans)
    with pytest.raises(CalibrationError, match="batch_num is 3, but there were only 2"):
        amct_lite.calibrate(graph, BATCHES[:2])
    with pytest.raises(CalibrationError, match="no calibration data"):
        amct_lite.calibrate(graph)
    assert not record.exists()


@pytest.mark.parametrize("batches", [[], [np.zeros((2, 1, 8, 7), np.float32)], [np.zeros((2, 1, 8, 8))]])
def test_data_that_does_not_fit_is_an_error(batches):
    with pytest.raises(AmctError):
        compress_model(load_model(MODEL_FILE), 4, batches)


def test_many_levels_are_refined_too():
    model = load_model(MODEL_FILE)
    feed = {"image": DIGITS.validation.images}
    assert relative_error(compress_model(model, 7, BATCHES), feed) < 1e-3
