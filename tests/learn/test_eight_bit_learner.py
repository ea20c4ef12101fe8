"""EightBitLearner: what training saw is what int8 kernels give, in ONNX and in ORT format."""

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")


import amct_lite as amct  # noqa: E402
from amct_lite.errors import ExportError, ParameterError, TrainingError  # noqa: E402
from amct_lite.export.mobile import write_mobile_model  # noqa: E402
from amct_lite.learn import ArrayBatches, EightBitLearner  # noqa: E402
from amct_lite.learn.eight_bit_layers import SymmetricWeight  # noqa: E402
from amct_lite.quantize.weight_rows import weight_layout  # noqa: E402
from amct_lite.samples.digits.data import INPUT_NAME, MODEL_FILE, load_split  # noqa: E402
from amct_lite.samples.fashion_lenet_caffe.data import DATA_FOLDER, load_part  # noqa: E402
from amct_lite.samples.fashion_lenet_caffe.run import MODEL_FOLDER  # noqa: E402
from amct_lite.uniform.arq import dequantize_weight, quantize_weight, weight_scales  # noqa: E402
from tests.learn.test_n2uq_learner import optimized_operators, outputs_of, residual_network  # noqa: E402
from tests.learn.test_n2uq_quantizers import LAYERS  # noqa: E402

SPLIT = load_split()
IMAGES, LABELS = SPLIT.held_out.images, SPLIT.held_out.labels


def batches(count=256):
    return ArrayBatches(SPLIT.train.images[:count], SPLIT.train.labels[:count], 64)


def trained(file=MODEL_FILE, **options):
    learner = EightBitLearner(file, **options)
    learner.fit(batches(), epochs=2)
    return learner


@pytest.mark.parametrize("kind", ["convolution", "product", "transposed convolution"])
def test_weights_are_those_of_arq(kind):
    layout = weight_layout(LAYERS[kind])
    weight = np.random.default_rng(0).normal(size=layout.weight_shape).astype(np.float32)
    weight[0] = 0.0
    quantizer = SymmetricWeight(layout)
    axis = LAYERS[kind].output_channel_axis
    scales = weight_scales(weight, axis=axis)
    np.testing.assert_array_equal(quantizer.scales(torch.from_numpy(weight)), scales)
    wanted = dequantize_weight(quantize_weight(weight, scales, axis=axis), scales, axis=axis)
    np.testing.assert_array_equal(quantizer(torch.from_numpy(weight)).numpy(), wanted)


def test_onnx_runtime_gives_what_training_saw(tmp_path):
    learner = trained()
    files = learner.save(tmp_path / "digits").files
    ours = learner.predict(IMAGES)
    fake, deploy, mobile = (outputs_of(files[f"{form}_model"], IMAGES) for form in ("fake_quant", "deploy", "mobile"))
    step = learner._inputs["fc2"].grid()[0].scale
    # Float sums in another order may round to the other one of two neighbouring steps now and then.
    for theirs in (fake, deploy):
        assert (np.abs(theirs - ours).max(1) > 1e-5 * np.abs(ours).max()).mean() < 0.01
        assert np.abs(theirs - ours).max() < 2 * step
    np.testing.assert_array_equal(mobile, deploy)


def test_whole_networks_run_on_integers(tmp_path):
    files = trained().save(tmp_path / "digits", "Deploy").files
    operators = optimized_operators(files["deploy_model"], tmp_path)
    assert (operators["QLinearConv"], operators["QGemm"], operators["QLinearAveragePool"]) == (3, 2, 1)
    assert operators["QuantizeLinear"] == 1 and not operators["Conv"] + operators["Gemm"] + operators["AveragePool"]


def test_what_stands_between_layers_runs_on_integers_too(tmp_path):
    images = np.random.default_rng(0).normal(size=(64, 2, 6, 6)).astype(np.float32)
    learner = EightBitLearner(residual_network(tmp_path))
    learner.fit([(images, np.zeros((64, 1, 1), np.int64))], loss=lambda outputs, _labels: outputs.square().mean())
    files = learner.save(tmp_path / "residual").files
    operators = optimized_operators(files["deploy_model"], tmp_path)
    # The last one gives the scores, which stay float.
    assert (operators["QLinearConv"], operators["Conv"], operators["QLinearAdd"], operators["Add"]) == (3, 1, 1, 0)
    ours = learner.predict(images)
    theirs = outputs_of(files["deploy_model"], images, "x")
    assert np.median(np.abs(theirs - ours)) < 1e-5 * np.abs(ours).max()
    assert np.abs(theirs - ours).max() < 0.05 * np.abs(ours).max()


def test_files_go_through_the_verbs_again_to_the_same_numbers(tmp_path):
    files = trained().save(tmp_path / "digits").files
    graph = amct.init(files["config"], files["float_model"], None, files["record"])
    again = amct.save_model(graph, "Both", tmp_path / "again").files
    for form in ("fake_quant_model", "deploy_model"):
        np.testing.assert_array_equal(outputs_of(files[form], IMAGES), outputs_of(again[form], IMAGES))


def test_ranges_are_followed_in_float_until_quant_delay_is_over():
    learner = EightBitLearner(MODEL_FILE, quant_delay=3)
    seen = []

    def loss(outputs, labels):
        quantizer = learner._inputs["conv2"]
        seen.append((quantizer.enabled, int(quantizer.batches)))
        return torch.nn.functional.cross_entropy(outputs, labels)

    learner.fit(batches(), epochs=2, loss=loss)
    assert seen[:5] == [(False, 1), (False, 2), (False, 3), (True, 4), (True, 5)]


def test_learning_rates_are_multiplied_by_lrn_rate_dcy():
    def moved(lrn_rate_dcy):
        learner = EightBitLearner(MODEL_FILE, lrn_rate_dcy=lrn_rate_dcy)
        before = learner.graph.numbers()
        learner.fit(batches(), optimizer=torch.optim.SGD)
        return max(np.abs(values - before[name]).max() for name, values in learner.graph.numbers().items())

    assert moved(1e-3) < 0.2 * moved(1e-1)
    with pytest.raises(ParameterError, match="lrn_rate_dcy"):
        EightBitLearner(MODEL_FILE, lrn_rate_dcy=0)


def test_training_goes_on_from_a_checkpoint_to_the_same_numbers(tmp_path):
    options = {"learning_rate_decay": 0.5, "seed": 2}
    first, resumed, whole = (EightBitLearner(MODEL_FILE, quant_delay=5) for _ in range(3))
    first.fit(batches(), epochs=1, checkpoint=tmp_path / "a.pt", **options)
    resumed.fit(batches(), epochs=3, checkpoint=tmp_path / "a.pt", **options)
    whole.fit(batches(), epochs=3, **options)
    ours, theirs = resumed.graph.state_dict(), whole.graph.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_saving_before_training_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="Call fit"):
        EightBitLearner(MODEL_FILE).save(tmp_path / "digits")


def test_ort_format_is_what_mobile_builds_read_and_needs_a_model(tmp_path):
    path = write_mobile_model(MODEL_FILE, tmp_path / "digits.ort")
    assert path.read_bytes()[4:8] == b"ORTM"
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.load_model_format", "ORT")
    session = onnxruntime.InferenceSession(path.read_bytes(), options)
    np.testing.assert_allclose(session.run(None, {INPUT_NAME: IMAGES})[0], outputs_of(MODEL_FILE, IMAGES), atol=1e-4)
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(ExportError, match=r"cannot write .*broken\.onnx in ORT format"):
        write_mobile_model(tmp_path / "broken.onnx", tmp_path / "broken.ort")
    assert not (tmp_path / "broken.ort").exists()


@pytest.mark.slow
def test_fashion_mnist_keeps_its_accuracy_in_eight_bits(tmp_path):
    if not DATA_FOLDER.is_dir() or not MODEL_FOLDER.is_dir():
        pytest.skip("needs Fashion-MNIST and the network in ../shared")
    learner = EightBitLearner(MODEL_FOLDER / "deploy.prototxt", MODEL_FOLDER / "lenet_fashion.caffemodel")
    images, labels = load_part("train")
    learner.fit(ArrayBatches(images[:4000], labels[:4000], 64))
    images, labels = load_part("t10k")
    ours = learner.evaluate(ArrayBatches(images, labels, 500, shuffle=False))
    files = learner.save(tmp_path / "lenet", "Deploy").files
    operators = optimized_operators(files["deploy_model"], tmp_path)
    assert operators["QLinearConv"] == 2 and operators["QGemm"] == 2
    assert ours > 0.9
    for form in ("deploy_model", "mobile_model"):
        theirs = (outputs_of(files[form], images, "data").argmax(1) == labels).mean()
        assert abs(ours - theirs) <= 0.001
