"""Whole flows over Caffe pairs: every verb, calibration in the user's loop, the search, the samples."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import onnx_ir
import pytest

import amct_lite as amct
import amct_lite.pycaffe as caffe
from amct_lite.caffe_layers import write_caffe_layers
from amct_lite.errors import CalibrationError, ConfigError, ExportError, ModelError, ParameterError
from amct_lite.evaluators import AgreementEvaluator, ArrayData, ClassificationEvaluator, DivergenceEvaluator
from amct_lite.graph.runtime import create_session
from amct_lite.samples.fashion_lenet_caffe.data import DATA_FOLDER
from amct_lite.samples.fashion_lenet_caffe.run import MODEL_FOLDER

pytestmark = pytest.mark.skipif(not MODEL_FOLDER.is_dir(), reason="../shared/models/lenet_fashion is not there")

MODEL, WEIGHTS = MODEL_FOLDER / "deploy.prototxt", MODEL_FOLDER / "lenet_fashion.caffemodel"


@pytest.fixture
def batches():
    rng = np.random.default_rng(0)
    return [rng.random((8, 1, 28, 28), np.float32) for _ in range(3)]


@pytest.fixture
def real_caffe_layers(real_caffe, tmp_path, monkeypatch):
    """Real Caffe that finds the Python layers of a fake-quant pair."""
    monkeypatch.setenv("PYTHONPATH", str(write_caffe_layers(tmp_path / "layers")))
    return real_caffe


@pytest.fixture
def graph(tmp_path):
    amct.create_quant_config(tmp_path / "config.json", MODEL, WEIGHTS, batch_num=3)
    return amct.init(tmp_path / "config.json", MODEL, WEIGHTS, tmp_path / "record.txt")


def ask_for_nuq(config_file, names, **more):
    config = json.loads(config_file.read_text())
    for name in names:
        config[name]["weight_quant_params"].update(wts_algo="nuq_quantize", num_steps=16, **more)
        config[name]["activation_quant_params"]["nuq"] = {"target_compression_ratio": 0.125}
    config_file.write_text(json.dumps(config))


def test_names_and_types_are_caffes(graph):
    assert [(layer.name, layer.op_type) for layer in graph.model.layers] == [
        ("conv1", "Convolution"),
        ("conv2", "Convolution"),
        ("ip1", "InnerProduct"),
        ("ip2", "InnerProduct"),
    ]


def test_the_default_target_allows_nuq_on_inner_products_and_refuses_other_filters(graph, tmp_path):
    ask_for_nuq(tmp_path / "config.json", ["ip1", "ip2"])
    amct.init(tmp_path / "config.json", MODEL, WEIGHTS)
    ask_for_nuq(tmp_path / "config.json", ["conv1"])
    with pytest.raises(ConfigError, match=r"conv1.*kernel_shape must be \[4, 4\], found \[5, 5\].*ascend-rank4"):
        amct.init(tmp_path / "config.json", MODEL, WEIGHTS)


@pytest.mark.parametrize("with_nuq", [None, {}, {"entropy_weight": 4.0}], ids=["uniform", "nuq", "entropy"])
def test_the_saved_pair_runs_as_the_graph_says(graph, tmp_path, batches, with_nuq, real_caffe_layers):
    if with_nuq is not None:
        ask_for_nuq(tmp_path / "config.json", ["ip1", "ip2"], **with_nuq)
        graph = amct.init(tmp_path / "config.json", MODEL, WEIGHTS, tmp_path / "record.txt")
    amct.calibrate(graph, batches)
    saved = amct.save_model(graph, "Both" if with_nuq is None else "Fakequant", tmp_path / "out" / "lenet")
    deploy = ["lenet_deploy_model.prototxt", "lenet_deploy_weights.caffemodel"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *(deploy if with_nuq is None else []),
        "lenet_fake_quant_model.prototxt",
        "lenet_fake_quant_weights.caffemodel",
        *(["lenet_quant.json"] if with_nuq is None else []),
        "lenet_summary.json",
    ]
    pair = saved.files["fake_quant_model"], saved.files["fake_quant_weights"]
    ours = amct.InferenceSession(*pair).run(None, {"data": batches[0]})[0]
    theirs = real_caffe_layers(pair[0], {"data": batches[0]}, pair[1]).blobs["prob"]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    exact = amct.InferenceSession(MODEL, WEIGHTS).run(None, {"data": batches[0]})[0]
    assert 0 < np.abs(ours - exact).max() < 0.2


def test_a_clustered_activation_has_no_caffe_deploy_form_and_nothing_is_written(graph, tmp_path, batches):
    ask_for_nuq(tmp_path / "config.json", ["ip1"])
    graph = amct.init(tmp_path / "config.json", MODEL, WEIGHTS, tmp_path / "record.txt")
    amct.calibrate(graph, batches)
    with pytest.raises(ExportError, match=r"ip1.*Fakequant"):
        amct.save_model(graph, "Both", tmp_path / "out" / "lenet")
    assert not (tmp_path / "out").exists()


def test_blobs_go_by_their_caffe_names(batches):
    session = amct.InferenceSession(MODEL, WEIGHTS)
    conv1, ip1 = session.run(["conv1", "ip1"], {"data": batches[0]})
    assert conv1.shape == (8, 20, 24, 24)
    assert ip1.min() >= 0, "ip1 is changed in place by its ReLU"
    assert [item.name for item in session.get_outputs()] == ["prob"]
    with pytest.raises(ModelError, match="no blob 'conv9'"):
        session.run(["conv9"], {"data": batches[0]})


def calibrate_through_session(model, weights, batches):
    session = amct.InferenceSession(model, weights)
    for batch in batches:
        session.run(None, {"data": batch})


def calibrate_through_pycaffe(model, weights, batches):
    net = caffe.Net(str(model), str(weights), caffe.TEST)
    net.blobs["data"].reshape(*batches[0].shape)
    for batch in batches:
        net.blobs["data"].data[...] = batch
        net.forward()


@pytest.mark.parametrize("calibrate", [calibrate_through_session, calibrate_through_pycaffe])
def test_calibration_in_the_users_own_loop_gives_the_same_record(graph, tmp_path, batches, calibrate):
    amct.calibrate(graph, batches)
    expected = (tmp_path / "record.txt").read_bytes()
    (tmp_path / "record.txt").unlink()
    amct.quantize_model(graph, tmp_path / "modified.prototxt", tmp_path / "modified.caffemodel")
    calibrate(tmp_path / "modified.prototxt", tmp_path / "modified.caffemodel", batches[:2])
    assert not (tmp_path / "record.txt").exists(), "two of three batches"
    calibrate(tmp_path / "modified.prototxt", tmp_path / "modified.caffemodel", batches)
    assert (tmp_path / "record.txt").read_bytes() == expected


def test_nan_in_the_users_loop_is_told_and_the_calibration_does_not_go_on(graph, tmp_path, batches):
    amct.quantize_model(graph, tmp_path / "modified.prototxt", tmp_path / "modified.caffemodel")
    net = caffe.Net(str(tmp_path / "modified.prototxt"), str(tmp_path / "modified.caffemodel"), caffe.TEST)
    net.blobs["data"].reshape(8, 1, 28, 28)
    net.blobs["data"].data[...] = np.nan
    with pytest.raises(CalibrationError, match="not finite"):
        net.forward()
    net.blobs["data"].data[...] = batches[0]
    with pytest.raises(CalibrationError, match="earlier batch"):
        net.forward()


def test_a_calibration_pair_needs_a_place_for_its_weights(graph, tmp_path):
    with pytest.raises(ParameterError, match="modified_weights_file"):
        amct.quantize_model(graph, tmp_path / "modified.prototxt")


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        (WEIGHTS, MODEL, "is a caffemodel, which holds only weights"),
        (MODEL, None, "needs its weights"),
    ],
)
def test_a_mix_up_of_the_two_files_is_told(tmp_path, model, weights, message):
    with pytest.raises(ModelError, match=message):
        amct.create_quant_config(tmp_path / "config.json", model, weights)


@pytest.mark.parametrize(
    "head", ["# \u5377\u79ef\n".encode("gbk"), b"\xef\xbb\xbf"], ids=["gbk comment", "byte order mark"]
)
@pytest.mark.parametrize("calibrate", [calibrate_through_session, calibrate_through_pycaffe])
def test_a_prototxt_in_another_encoding_calibrates_in_the_users_loop(tmp_path, batches, head, calibrate):
    model = tmp_path / "net.prototxt"
    model.write_bytes(head + MODEL.read_bytes())
    amct.create_quant_config(tmp_path / "c.json", model, WEIGHTS, batch_num=3)
    graph = amct.init(tmp_path / "c.json", model, WEIGHTS, tmp_path / "r.txt")
    amct.quantize_model(graph, tmp_path / "modified.prototxt", tmp_path / "modified.caffemodel")
    calibrate(tmp_path / "modified.prototxt", tmp_path / "modified.caffemodel", batches)
    assert (tmp_path / "r.txt").is_file()


def test_ready_made_evaluators_run_a_pair(batches):
    images = np.concatenate(batches)
    labels = amct.InferenceSession(MODEL, WEIGHTS).run(None, {"data": images})[0].argmax(axis=1)
    data = ArrayData(images, labels)
    assert ClassificationEvaluator(data, max_drop=0).eval_model(str(MODEL), str(WEIGHTS), 9) == 1
    float_net = {"float_model_file": MODEL, "float_weights_file": WEIGHTS}
    divergence = DivergenceEvaluator(data, **float_net, max_divergence=0.1)
    assert divergence.eval_model(str(MODEL), str(WEIGHTS), 9) == pytest.approx(0, abs=1e-6)
    agreement = AgreementEvaluator(data, **float_net, min_agreement=0.9)
    assert agreement.eval_model(str(MODEL), str(WEIGHTS), 9) == 1


def test_two_runs_write_the_same_bytes(tmp_path, batches):
    found = []
    for name in ("one", "two"):
        folder = tmp_path / name
        amct.create_quant_config(folder / "config.json", MODEL, WEIGHTS, batch_num=3)
        graph = amct.init(folder / "config.json", MODEL, WEIGHTS, folder / "record.txt")
        amct.calibrate(graph, batches)
        amct.save_model(graph, "Both", folder / "lenet")
        found.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())})
    assert found[0] == found[1]


def test_a_caffe_source_for_onnxruntime_is_deployed_as_onnx(tmp_path, batches):
    amct.create_quant_config(tmp_path / "config.json", MODEL, WEIGHTS, batch_num=3, target="onnxruntime")
    graph = amct.init(tmp_path / "config.json", MODEL, WEIGHTS, tmp_path / "record.txt")
    amct.calibrate(graph, batches)
    saved = amct.save_model(graph, "Both", tmp_path / "lenet")
    assert saved.files["deploy_model"].suffix == ".onnx"
    ours = amct.InferenceSession(saved.files["deploy_model"]).run(None, {"data": batches[0]})[0]
    pair = saved.files["fake_quant_model"], saved.files["fake_quant_weights"]
    fake = amct.InferenceSession(*pair).run(None, {"data": batches[0]})[0]
    np.testing.assert_allclose(ours, fake, atol=2e-2)


def test_the_command_line_takes_a_pair(tmp_path):
    def run(*arguments):
        command = [sys.executable, "-c", "from amct_lite.cli import main; main()", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    np.savez(tmp_path / "data.npz", data=np.random.default_rng(0).random((8, 1, 28, 28), np.float32))
    pair = ("--model", MODEL, "--weights", WEIGHTS)
    assert run("config", *pair, "--config", "c.json").returncode == 0
    assert "found [5, 5]" in run("inspect", *pair).stdout
    done = run("calibrate", *pair, "--config", "c.json", "--record", "r", "--data", "data.npz", "--save", "o/net")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o" / "net_fake_quant_weights.caffemodel").is_file()


def test_a_search_over_clustered_activations_saves_the_fake_quant_pair(tmp_path, graph, batches):
    ask_for_nuq(tmp_path / "config.json", ["ip1", "ip2"])

    class Evaluator(amct.AutoNuqEvaluatorBase):
        def eval_model(self, model_file, weights_file, batch_num):
            outputs = amct.InferenceSession(model_file, weights_file).run(None, {"data": batches[0]})[0]
            return float(outputs.max(axis=1).mean())

        def is_satisfied(self, original_metric, new_metric):
            return abs(original_metric - new_metric) < 0.02

    places = (tmp_path / "config.json", tmp_path / "record.txt", tmp_path / "out")
    result = amct.auto_nuq(MODEL, WEIGHTS, Evaluator(), *places, calibration_data=batches, max_evaluations=8)
    assert result.files["fake_quant_weights"].is_file()
    assert ("deploy_model" in result.files) == all(layer.activation_levels == 256 for layer in result.summary.layers)


def test_a_mixed_search_over_a_pair_evaluates_pairs_and_deploys_to_onnxruntime(tmp_path, batches):
    amct.create_quant_config(tmp_path / "config.json", MODEL, WEIGHTS, batch_num=2, target="onnxruntime")
    config = json.loads((tmp_path / "config.json").read_text())
    config["search_space"] = ["int8", "codebook4", "codebook2"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    reference = amct.InferenceSession(MODEL, WEIGHTS).run(None, {"data": batches[0]})[0]

    class Evaluator(amct.AutoNuqEvaluatorBase):
        def eval_model(self, model_file, weights_file, batch_num):
            assert weights_file is not None
            outputs = amct.InferenceSession(model_file, weights_file).run(None, {"data": batches[0]})[0]
            return float((outputs.argmax(1) == reference.argmax(1)).mean())

        def is_satisfied(self, original_metric, new_metric):
            return new_metric >= 0.9

    places = (tmp_path / "config.json", tmp_path / "record.txt", tmp_path / "out")
    result = amct.auto_nuq(MODEL, WEIGHTS, Evaluator(), *places, calibration_data=batches, max_evaluations=8)
    assert result.satisfied
    assert result.size_bytes < 0.6 * result.uniform_bytes
    outputs = amct.InferenceSession(result.files["deploy_model"]).run(None, {"data": batches[0]})[0]
    assert (outputs.argmax(1) == reference.argmax(1)).mean() >= 0.85


@pytest.mark.skipif(
    not DATA_FOLDER.is_dir(), reason="Fashion-MNIST is not there: apt-get install dataset-fashion-mnist"
)
def test_the_lenet_sample_stays_within_half_a_point_and_clusters_what_the_target_allows(tmp_path):
    from amct_lite.samples.fashion_lenet_caffe.data import load_part
    from amct_lite.samples.fashion_lenet_caffe.run import LeNetEvaluator, run

    result = run(tmp_path)
    assert result.satisfied
    forms = {layer.name: layer.form for layer in result.summary.layers}
    assert forms == {"conv1": "int8", "conv2": "int8", "ip1": "nuq", "ip2": "nuq"}
    judge = LeNetEvaluator(*load_part("t10k"))
    before = judge.eval_model(str(MODEL), str(WEIGHTS), judge.evaluate_batch_num)
    assert before == pytest.approx(0.906, abs=1e-4), "the accuracy that its makers state"
    files = result.files
    after = judge.eval_model(str(files["fake_quant_model"]), str(files["fake_quant_weights"]), judge.evaluate_batch_num)
    assert before - after <= 0.005


def test_open_nsfw_from_caffe_and_from_onnx_gives_the_same_record(tmp_path):
    from amct_lite.errors import OptionalDependencyError
    from amct_lite.samples.open_nsfw.files import caffe_pair, onnx_file, photos
    from amct_lite.samples.open_nsfw.run import largest_difference, quantize_both

    try:
        pair, twin = caffe_pair(), onnx_file()
    except OptionalDependencyError as error:
        pytest.skip(str(error))
    images = photos(2)
    of_caffe = amct.InferenceSession(*pair).run(None, {"data": images})[0]
    of_onnx = amct.InferenceSession(twin).run(None, {"input:0": images.transpose(0, 2, 3, 1)})[0]
    np.testing.assert_allclose(of_caffe, of_onnx, atol=1e-5)
    one, other = quantize_both(tmp_path)
    assert len(one) == 54
    assert [a.offset_d for a in one] == [b.offset_d for b in other]
    # Folding differs in the last bits, and a percentile may then fall into the next histogram bin.
    assert largest_difference(one, other) < 2e-3


def test_a_pair_compresses_to_a_small_onnx_file_near_the_float_pair(batches, tmp_path):
    compressed = amct.compress(MODEL, WEIGHTS, bits=4, batches=batches)
    saved = compressed.save(tmp_path / "out")
    small = saved.files["deploy_model"]
    assert small.suffix == ".onnx"
    assert small.stat().st_size < 0.16 * WEIGHTS.stat().st_size
    unseen = np.random.default_rng(9).random((16, 1, 28, 28), np.float32)
    exact, found = (
        create_session(graph).run(None, {"data": unseen})[0]
        for graph in (compressed.graph.model.ir, onnx_ir.load(small))
    )
    without = amct.compress(MODEL, WEIGHTS, bits=4).save(tmp_path / "without").files["deploy_model"]
    blind = create_session(onnx_ir.load(without)).run(None, {"data": unseen})[0]
    assert np.abs(found - exact).mean() < np.abs(blind - exact).mean()


@pytest.mark.parametrize("key", ["cross_layer_equalization", "dmq_balancer_param"])
def test_scaled_weights_are_refused(tmp_path, key):
    config_file = tmp_path / "config.json"
    amct.create_quant_config(config_file, MODEL, WEIGHTS)
    config = json.loads(config_file.read_text())
    if key == "dmq_balancer_param":
        config["conv2"][key] = 0.5
    else:
        config[key] = True
    config_file.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="in the graph, not in the pair's blobs"):
        amct.init(config_file, MODEL, WEIGHTS)
