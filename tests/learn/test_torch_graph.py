"""A network as a torch module: the same function, the same names, and back again."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")

from amct_lite.errors import ModelError  # noqa: E402
from amct_lite.graph import save_ir  # noqa: E402
from amct_lite.graph.model import load_model  # noqa: E402
from amct_lite.graph.opening import open_model  # noqa: E402
from amct_lite.graph.runtime import create_session  # noqa: E402
from amct_lite.learn.torch_graph import TorchGraph, with_weights  # noqa: E402
from amct_lite.samples.digits.data import MODEL_FILE, load_split  # noqa: E402

MODELS = Path(__file__).resolve().parents[3] / "shared" / "models"
NETWORKS = {
    "squeezenet": ("squeezenet1.1/squeezenet1.1.onnx", None, (2, 3, 227, 227)),
    "efficientnet": ("efficientnet_lite0.onnx", None, (2, 3, 224, 224)),
    "cifar10": ("cifar10_model.onnx", None, None),
    "mnist": ("ccexam_mnist.onnx", None, None),
    "lenet": ("lenet_fashion/deploy.prototxt", "lenet_fashion/lenet_fashion.caffemodel", (4, 1, 28, 28)),
}


def same_function(model, feed):
    session = create_session(model.ir)
    (wanted, *_) = session.run(None, feed)
    with torch.no_grad():
        found = TorchGraph(model)(**{name: torch.from_numpy(value) for name, value in feed.items()})
    found = found[0] if isinstance(found, tuple) else found
    assert np.abs(found.numpy() - wanted).max() <= 1e-4 * max(1, np.abs(wanted).max())


def test_the_embedded_network_is_the_same_function():
    same_function(load_model(MODEL_FILE), {"image": load_split().validation.images[:32]})


@pytest.mark.parametrize("name", NETWORKS)
def test_real_networks_are_the_same_function(name):
    file, weights, shape = NETWORKS[name]
    if not (MODELS / file).exists():
        pytest.skip(f"../shared/models/{file} is not there")
    model = open_model(MODELS / file, None if weights is None else MODELS / weights)
    (value,) = (value for value in model.ir.graph.inputs if not value.is_initializer())
    if shape is None:
        shape = tuple(size if isinstance(size, int) else 2 for size in value.shape)
    images = np.random.default_rng(0).random(shape, np.float32)
    same_function(model, {value.name: images})


def test_weights_go_back_by_their_names():
    model = load_model(MODEL_FILE)
    graph = TorchGraph(model)
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.mul_(0.5)
    changed = with_weights(model, graph.numbers())
    assert {value.name for value in changed.graph.initializers.values()} == set(model.ir.graph.initializers)
    for layer in model.layers:
        if layer.weight is not None:
            np.testing.assert_array_equal(
                changed.graph.initializers[layer.weight].const_value.numpy(), model.weight(layer.weight) * 0.5
            )
    images = load_split().validation.images[:4]
    with torch.no_grad():
        ours = graph(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(ours, create_session(changed).run(None, {"image": images})[0], rtol=1e-4, atol=1e-4)


def test_the_numbers_of_the_network_itself_stay():
    model = load_model(MODEL_FILE)
    before = {layer.weight: model.weight(layer.weight).copy() for layer in model.layers if layer.weight}
    graph = TorchGraph(model)
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.zero_()
    for name, numbers in before.items():
        np.testing.assert_array_equal(model.weight(name), numbers)


def test_every_layers_weight_and_bias_has_a_gradient():
    model = load_model(MODEL_FILE)
    graph = TorchGraph(model)
    graph(torch.from_numpy(load_split().validation.images[:8])).square().sum().backward()
    for layer in model.layers:
        for name in filter(None, (layer.weight, layer.bias)):
            assert graph.parameter(name).grad.abs().max() > 0, name


def test_transforms_are_where_they_were_put():
    model = load_model(MODEL_FILE)
    layer = next(layer for layer in model.layers if layer.weight is not None)
    images = torch.from_numpy(load_split().validation.images[:4])

    class Zero(torch.nn.Module):
        def forward(self, value):
            return value * 0

    weights, inputs = TorchGraph(model), TorchGraph(model)
    weights.transform_weight(layer.weight, Zero())
    inputs.transform_input(layer.node_name, layer.activation_index, Zero())
    with torch.no_grad():
        np.testing.assert_allclose(weights(images).numpy(), inputs(images).numpy(), rtol=1e-5, atol=1e-5)


def network(folder, text):
    path = folder / "net.onnx"
    save_ir(ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 17, "other": 1]> {text}'), path)
    return load_model(path, fold_batch_norm=False)


def test_operators_without_a_translation_are_all_named_before_anything_runs(tmp_path):
    text = """g (float[2, 3] x) => (float[2, 3] y) {
        a = Relu(x)
        b = Det2(a)
        y = other.Fancy(b)
    }""".replace("Det2", "Hardmax")
    with pytest.raises(ModelError, match=r"Hardmax \(.*other\.Fancy \("):
        TorchGraph(network(tmp_path, text))


def test_a_case_that_an_operator_does_not_have_names_the_layer(tmp_path):
    text = (
        "g (float[1, 1, 4, 4] x) => (float[1, 1, 3, 3] y, int64[1, 1, 3, 3] i) {y, i = MaxPool<kernel_shape=[2, 2]>(x)}"
    )
    graph = TorchGraph(network(tmp_path, text))
    with pytest.raises(ModelError, match="indices as an output has no translation"):
        graph(torch.zeros(1, 1, 4, 4))


def test_batch_normalization_follows_its_batches_only_where_it_is_asked_to(tmp_path):
    text = """g (float[n, 2] x) => (float[n, 2] y)
        <float[2] scale = {1, 1}, float[2] bias = {0, 0}, float[2] mean = {0, 0}, float[2] var = {1, 1}> {
        y = BatchNormalization(x, scale, bias, mean, var)
    }"""
    graph = TorchGraph(network(tmp_path, text))
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    np.testing.assert_allclose(graph(x).detach().numpy(), x.numpy(), rtol=1e-4)
    np.testing.assert_array_equal(graph.numbers()["mean"], [0, 0])
    graph.follow_batches(0.5)
    np.testing.assert_allclose(graph(x).detach().numpy(), [[-1, -1], [1, 1]], rtol=1e-4)
    np.testing.assert_allclose(graph.numbers()["mean"], [1, 2])
    graph.follow_batches(None)
    graph(x)
    np.testing.assert_allclose(graph.numbers()["mean"], [1, 2])


def test_a_session_of_plain_onnxruntime_agrees_after_saving(tmp_path):
    model = load_model(MODEL_FILE)
    path = tmp_path / "again.onnx"
    save_ir(with_weights(model, TorchGraph(model).numbers()), path)
    images = load_split().validation.images[:4]
    original, again = (
        onnxruntime.InferenceSession(str(file)).run(None, {"image": images})[0] for file in (MODEL_FILE, path)
    )
    np.testing.assert_allclose(again, original, rtol=1e-4, atol=1e-4)
