"""`compare` finds what was made bad on purpose, and agrees with running the networks one after the other."""

import json
import math
import shutil

import numpy as np
import onnxruntime
import pytest

import amct_lite as amct
from amct_lite.samples.digits.data import MODEL_FILE, load_split

NET = """g (float[N,3,8,8] x) => (float[N,4] y) { a = Conv<pads = [1,1,1,1]>(x, w) b = Relu(a)
    c = Conv<pads = [1,1,1,1]>(b, v) d = Relu(c) p = GlobalAveragePool(d) f = Flatten(p) y = Gemm<transB = 1>(f, u) }"""


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def network(write_network, rng):
    shapes = {"w": (16, 3, 3, 3), "v": (16, 16, 3, 3), "u": (4, 16)}
    weights = {name: rng.normal(size=s) / np.sqrt(np.prod(s[1:])) for name, s in shapes.items()}
    return write_network(NET, {name: values.astype(np.float32) for name, values in weights.items()})


@pytest.fixture
def images(rng):
    return [rng.normal(size=(n, 3, 8, 8)).astype(np.float32) for n in (6, 3)]


def tensors(path, names, images):
    import onnx_ir as ir

    model = ir.load(path)
    values = {value.name: value for node in model.graph for value in node.outputs}
    model.graph.outputs.extend(values[name] for name in names if not values[name].is_graph_output())
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.concatenate(found) for found in zip(*(session.run(names, {"x": x}) for x in images), strict=True)]


def test_figures_in_the_network_are_those_of_two_separate_runs(network, images, quantize) -> None:
    flow = quantize(network, images)
    table = amct.compare(flow.graph, images)
    names = ["a", "c", "y"]
    before = tensors(network, names, images)
    after = tensors(flow.saved.files["fake_quant_model"], names, images)
    for layer, x, y in zip(["Conv_0", "Conv_2", "Gemm_6"], before, after, strict=True):
        expected = 10 * np.log10(np.square(x, dtype=float).sum() / np.square(x - y, dtype=float).sum())
        assert table.row(layer).sqnr_db == pytest.approx(expected, abs=0.05)


def test_what_is_alone_adds_up_to_what_is_together(network, images, quantize) -> None:
    table = amct.compare(quantize(network, images).graph, images)
    first = table.row("Conv_0")
    assert first.own_sqnr_db == pytest.approx(first.sqnr_db), "nothing goes wrong before the first layer"
    for row in table:
        apart = 10 ** (-row.weight_sqnr_db / 10) + 10 ** (-row.input_sqnr_db / 10)
        assert -10 * np.log10(apart) == pytest.approx(row.own_sqnr_db, abs=1.0)
    own = table["own_sqnr_db"]
    assert own == sorted(own)


def test_the_layer_made_bad_on_purpose_comes_first_with_its_reason(network, images, quantize) -> None:
    def two_levels(document):
        document["Conv_2"]["weight_quant_params"] = {"wts_algo": "nuq_quantize", "num_steps": 2}

    graph = quantize(network, images, edit=two_levels).graph
    worst = amct.compare(graph, images)[0]
    assert (worst.layer, worst.type) == ("Conv_2", "Conv")
    assert worst.weight_share > 0.9
    assert "1 bits are too few" in worst.advice


def test_outliers_of_the_input_are_named(network, images, quantize) -> None:
    spiked = [x.copy() for x in images]
    spiked[0][0, 0, 0, 0] = 400

    def minmax(document):
        document["Conv_0"]["activation_quant_params"] = {"num_bits": 8, "act_algo": "minmax"}

    graph = quantize(network, spiked, edit=minmax).graph
    row = amct.compare(graph, spiked).row("Conv_0")
    assert row.weight_share < 0.1
    # The spike itself is kept, so the error is small beside it; on ordinary images the step is far too coarse.
    row = amct.compare(graph, images).row("Conv_0")
    assert row.own_sqnr_db < 10 and row.input_sqnr_db < 10
    assert "comes from its input" in row.advice


@pytest.mark.parametrize("form", ["fake_quant_model", "deploy_model"])
def test_a_quantized_file_gives_the_figures_of_its_record(network, images, quantize, form) -> None:
    flow = quantize(network, images)
    by_record, by_file = amct.compare(flow.graph, images), amct.compare(network, images, flow.saved.files[form])
    assert by_file["layer"] == by_record["layer"]
    np.testing.assert_allclose(by_file["own_sqnr_db"], by_record["own_sqnr_db"], atol=0.2)
    np.testing.assert_allclose(by_file["sqnr_db"], by_record["sqnr_db"], atol=0.2)


def test_a_file_of_onnxruntimes_own_quantizer(network, images, tmp_path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):
        feeds = iter([{"x": x} for x in images])

        def get_next(self):
            return next(self.feeds, None)

    quantize_static(network, tmp_path / "peer.onnx", Reader(), per_channel=True)
    table = amct.compare(network, images, tmp_path / "peer.onnx")
    # It takes Relu away, and the outputs of the convolutions before it with it: the last layer is found again.
    assert table["layer"] == ["Gemm_6"]
    assert 20 < table[0].sqnr_db < 60
    assert 20 < table[0].own_sqnr_db < 60


def test_batches_do_not_matter(network, images, quantize) -> None:
    graph = quantize(network, images).graph
    whole, parts = amct.compare(graph, [np.concatenate(images)]), amct.compare(graph, [*images[0][:, None], images[1]])
    np.testing.assert_allclose(whole["own_sqnr_db"], parts["own_sqnr_db"], rtol=1e-4)


def test_the_table_is_like_a_data_frame(network, images, quantize) -> None:
    table = amct.compare(quantize(network, images).graph, images)
    assert list(table.to_dict()) == list(table.columns)
    assert table.to_records()[0]["layer"] == table["layer"][0] == table[0].layer
    assert "what to do" in str(table)
    with pytest.raises(amct.AmctError, match="no column"):
        table["sqnr"]
    try:
        import pandas  # noqa: F401
    except ImportError:
        with pytest.raises(amct.AmctError, match="pip install pandas"):
            table.to_pandas()
    else:
        assert table.to_pandas().loc[table[0].layer, "cosine"] == table[0].cosine


def test_networks_that_do_not_belong_together_are_refused(network, images, write_network, tmp_path) -> None:
    network = shutil.copy(network, tmp_path / "kept.onnx")
    with pytest.raises(amct.AmctError, match="opset 13, the quantized one 17"):
        amct.compare(network, images, MODEL_FILE)
    with pytest.raises(amct.AmctError, match="no tensor by the name"):
        amct.compare(network, images, write_network("g (float[N,3,8,8] x) => (float[N,3,8,8] z) { z = Relu(x) }", {}))
    with pytest.raises(amct.AmctError, match="has the input 'q'"):
        amct.compare(network, images, write_network("g (float[N,3,8,8] q) => (float[N,3,8,8] z) { z = Relu(q) }", {}))
    with pytest.raises(amct.AmctError, match="'quantized' parameter"):
        amct.compare(network, images)


def test_no_batches_are_an_error(network, images, quantize) -> None:
    with pytest.raises(amct.AmctError, match="no batches"):
        amct.compare(quantize(network, images).graph, [])


def test_packed_codebooks_are_compared_too(tmp_path) -> None:
    images = load_split().calibration.images[:64]
    files = {bits: amct.compress(MODEL_FILE, bits=bits).save(tmp_path / str(bits)).files for bits in (2, 6)}
    tables = {bits: amct.compare(MODEL_FILE, [images], found["deploy_model"]) for bits, found in files.items()}
    for row in tables[2]:
        if row.weight_share is None:
            assert row.own_sqnr_db == math.inf, "float layers lose nothing"
        else:
            assert row.weight_share == 1.0
            assert row.own_sqnr_db < tables[6].row(row.layer).own_sqnr_db
    assert json.dumps(tables[2].to_records())
