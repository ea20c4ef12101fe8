"""N2UQLearner: the saved network gives the numbers of training on int8 kernels, and training resumes."""

from collections import Counter

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")

import onnx_ir as ir  # noqa: E402

import amct_lite as amct  # noqa: E402
from amct_lite.errors import ParameterError, TrainingError  # noqa: E402
from amct_lite.files.record import read_record  # noqa: E402
from amct_lite.graph import save_ir  # noqa: E402
from amct_lite.learn import ArrayBatches, N2UQLearner  # noqa: E402
from amct_lite.samples.digits.data import INPUT_NAME, MODEL_FILE, load_split  # noqa: E402
from amct_lite.samples.fashion_lenet_caffe.data import DATA_FOLDER, load_part  # noqa: E402
from amct_lite.samples.fashion_lenet_caffe.run import MODEL_FOLDER  # noqa: E402

SPLIT = load_split()
IMAGES = SPLIT.held_out.images


def batches(count=256):
    return ArrayBatches(SPLIT.train.images[:count], SPLIT.train.labels[:count], 64)


def trained(**options):
    learner = N2UQLearner(MODEL_FILE, **options)
    learner.fit(batches(), epochs=2, learning_rate=2e-3)
    return learner


def outputs_of(file, images, name=INPUT_NAME, batch=500):
    session = onnxruntime.InferenceSession(str(file))
    return np.concatenate(
        [session.run(None, {name: images[at : at + batch]})[0] for at in range(0, len(images), batch)]
    )


def optimized_operators(file, folder):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(str(file), options)
    return Counter(node.op_type for node in ir.load(folder / "optimized.onnx").graph)


@pytest.mark.parametrize(
    "options",
    [
        {"weight_bits": 2, "activation_bits": 2},
        {"weight_bits": 3, "activation_bits": 4, "quantize_all_layers": True},
        {"weight_bits": 2, "activation_bits": 3, "outer_bits": 8},
        {"weight_bits": {"conv2": 4}, "activation_bits": {"conv3": 3}},
    ],
)
def test_every_form_gives_what_training_saw(tmp_path, options):
    learner = trained(**options)
    saved = learner.save(tmp_path / "digits")
    ours = learner.predict(IMAGES)
    for form in ("fake_quant_model", "deploy_model"):
        theirs = outputs_of(saved.files[form], IMAGES)
        # Sums in another order, and biases in whole steps, can fall on the other side of a threshold.
        assert (np.abs(theirs - ours).max(1) > 1e-3 * np.abs(ours).max()).mean() < 0.02, form
        assert (
            abs((theirs.argmax(1) == SPLIT.held_out.labels).mean() - (ours.argmax(1) == SPLIT.held_out.labels).mean())
            <= 0.0025
        )
    for name, record in read_record(saved.files["record"]).items():
        if name not in learner.activation_bits:
            assert options["outer_bits"] == 8 and not record.activation_cluster
            continue
        assert len(record.activation_cluster) == 2 ** learner.activation_bits[name]
        assert len(set(np.diff(record.activation_cluster))) == 1, "levels are evenly spaced"


def test_the_saved_network_runs_on_int8_kernels(tmp_path):
    learner = trained(outer_bits=8)
    operators = optimized_operators(learner.save(tmp_path / "digits", "Deploy").files["deploy_model"], tmp_path)
    assert operators["QLinearConv"] >= 2
    assert operators["QGemm"] == 2
    assert operators["GatherElements"] == len(learner.layers), "each input has its table of thresholds"


def test_files_go_through_the_verbs_again_to_the_same_numbers(tmp_path):
    files = trained().save(tmp_path / "digits").files
    graph = amct.init(files["config"], files["float_model"], None, files["record"])
    again = amct.save_model(graph, "Both", tmp_path / "again").files
    for form in ("fake_quant_model", "deploy_model"):
        np.testing.assert_array_equal(outputs_of(files[form], IMAGES), outputs_of(again[form], IMAGES))


def test_thresholds_are_trained_and_the_loss_falls():
    learner = N2UQLearner(MODEL_FILE)
    history = learner.fit(batches(997), epochs=6, learning_rate=2e-3)
    assert history[-1].loss < history[0].loss / 2
    assert learner.evaluate([(IMAGES, SPLIT.held_out.labels)]) > 0.9
    for name, parameter in learner.graph.named_parameters():
        if name.startswith("input_transform") and name.endswith("intervals"):
            assert float((parameter - parameter[0]).detach().abs().max()) > 1e-4


def test_training_goes_on_from_a_checkpoint_to_the_same_weights(tmp_path):
    file = tmp_path / "checkpoint.pt"

    class Learner(N2UQLearner):
        def before_step(self, steps):
            if steps == 6:
                raise KeyboardInterrupt
            super().before_step(steps)

    options = {"epochs": 3, "seed": 1}
    with pytest.raises(KeyboardInterrupt):
        stopped = Learner(MODEL_FILE)
        stopped._identity["learner"] = "N2UQLearner"
        stopped.fit(batches(), checkpoint=file, **options)
    resumed, whole = N2UQLearner(MODEL_FILE), N2UQLearner(MODEL_FILE)
    resumed.fit(batches(), checkpoint=file, **options)
    whole.fit(batches(), **options)
    first, second = resumed.graph.state_dict(), whole.graph.state_dict()
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_bits_are_checked():
    for wrong in (1, 8, "2", True):
        with pytest.raises(ParameterError, match=r"'weight_bits'.*range \[2, 7\]"):
            N2UQLearner(MODEL_FILE, weight_bits=wrong)
    with pytest.raises(ParameterError, match="'activation_bits' parameter names the layer 'conv1'"):
        N2UQLearner(MODEL_FILE, activation_bits={"conv1": 2})


def test_saving_before_training_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="Call fit first"):
        N2UQLearner(MODEL_FILE).save(tmp_path / "digits")


def residual_network(folder):
    """Four convolutions, one of them 1x1 with a stride."""
    generator = np.random.default_rng(0)
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[n, 2, 6, 6] x) => (float[n, 3, 1, 1] y) {
        a = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w1)
        b = Relu(a)
        c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]>(b, w2)
        d = Conv<kernel_shape = [1, 1], strides = [2, 2]>(b, w3)
        e = Add(c, d)
        f = Relu(e)
        y = Conv<kernel_shape = [3, 3]>(f, w4)
    }"""
    model = ir.from_onnx_text(text)
    for name, shape in {"w1": (8, 2, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 8, 1, 1), "w4": (3, 8, 3, 3)}.items():
        array = generator.normal(size=shape).astype(np.float32) / 4
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
        value.const_value = ir.Tensor(array, name=name)
        for node in model.graph:
            for index, used in enumerate(node.inputs):
                if used is not None and used.name == name:
                    node.replace_input_with(index, value)
        model.graph.initializers[name] = value
    save_ir(model, folder / "residual.onnx")
    return folder / "residual.onnx"


def test_downsampling_layers_can_be_left_alone(tmp_path):
    file = residual_network(tmp_path)
    assert [layer.weight for layer in N2UQLearner(file).layers] == ["w2", "w3"]
    assert [layer.weight for layer in N2UQLearner(file, quantize_downsampling=False).layers] == ["w2"]


@pytest.mark.slow
def test_fashion_mnist_in_two_bits_is_the_same_in_onnx_runtime(tmp_path):
    if not DATA_FOLDER.is_dir() or not MODEL_FOLDER.is_dir():
        pytest.skip("needs Fashion-MNIST and the network in ../shared")
    images, labels = load_part("train")
    learner = N2UQLearner(MODEL_FOLDER / "deploy.prototxt", MODEL_FOLDER / "lenet_fashion.caffemodel")
    learner.fit(ArrayBatches(images[:4000], labels[:4000], 64))
    images, labels = load_part("t10k")
    ours = learner.evaluate(ArrayBatches(images, labels, 500, shuffle=False))
    saved = learner.save(tmp_path / "lenet", "Deploy")
    theirs = (outputs_of(saved.files["deploy_model"], images, "data").argmax(1) == labels).mean()
    assert ours > 0.8
    assert abs(ours - theirs) <= 0.001
    assert saved.files["deploy_model"].stat().st_size < 150_000
