"""The loop: data in every form, checkpoints that go on exactly, errors that say what is wrong."""

import io
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import rich.console

torch = pytest.importorskip("torch", reason="needs the extra 'train'")

from amct_lite.errors import FileError, ModelError, ParameterError, TrainingError  # noqa: E402
from amct_lite.graph import save_ir  # noqa: E402
from amct_lite.learn import ArrayBatches, Distillation  # noqa: E402
from amct_lite.samples.digits.data import INPUT_NAME, MODEL_FILE, load_split  # noqa: E402
from tests.learn.killed_training import data  # noqa: E402
from tests.learn.plain_learner import PlainLearner  # noqa: E402


def part(name="train", count=128):
    found = getattr(load_split(), name)
    return found.images[:count], found.labels[:count]


def same_numbers(first, second):
    ours, theirs = first.graph.state_dict(), second.graph.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def trained(batches, **options):
    learner = PlainLearner(MODEL_FILE)
    learner.fit(batches, **options)
    return learner


@pytest.mark.parametrize("epoch", [1, 3])
def test_training_that_was_killed_goes_on_to_the_same_weights(tmp_path, epoch):
    file = tmp_path / "checkpoint.pt"
    command = [sys.executable, str(Path(__file__).with_name("killed_training.py")), str(file), str(epoch)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert file.exists() == (epoch > 1)
    resumed = trained(data(), epochs=4, checkpoint=file, seed=3)
    whole = trained(data(), epochs=4, seed=3)
    assert same_numbers(resumed, whole)
    assert resumed.history == whole.history and len(whole.history) == 4


def test_training_that_is_over_is_not_done_again(tmp_path):
    batches = ArrayBatches(*part())
    first = trained(batches, epochs=2, checkpoint=tmp_path / "a.pt", validation=batches)
    again = trained(batches, epochs=2, checkpoint=tmp_path / "a.pt", validation=batches)
    assert same_numbers(first, again) and first.history == again.history


def test_epochs_can_be_added_where_the_learning_rate_does_not_depend_on_them(tmp_path):
    batches = ArrayBatches(*part())
    trained(batches, epochs=1, learning_rate_decay=0.5, checkpoint=tmp_path / "a.pt")
    longer = trained(batches, epochs=3, learning_rate_decay=0.5, checkpoint=tmp_path / "a.pt")
    assert same_numbers(longer, trained(batches, epochs=3, learning_rate_decay=0.5))


def test_a_checkpoint_of_another_training_is_refused_by_its_differences(tmp_path):
    batches = ArrayBatches(*part())
    trained(batches, epochs=1, checkpoint=tmp_path / "a.pt")
    with pytest.raises(ParameterError, match=r"learning_rate was 0.001 and is 0.01; seed was 0 and is 1"):
        trained(batches, epochs=1, learning_rate=0.01, seed=1, checkpoint=tmp_path / "a.pt")


def test_a_file_that_is_no_checkpoint_is_refused_and_stays(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    with pytest.raises(FileError, match="no checkpoint"):
        trained(ArrayBatches(*part()), checkpoint=file)
    assert file.read_text() == "mine"


def test_the_users_random_numbers_stay_his():
    batches = ArrayBatches(*part())

    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002

    before = states()
    trained(torch.utils.data.DataLoader(list(zip(*part(), strict=True)), 32, shuffle=True), epochs=2)
    trained(batches, epochs=1)
    assert states() == before


def test_the_same_seed_gives_the_same_weights_and_another_one_others():
    loader = torch.utils.data.DataLoader(list(zip(*part(), strict=True)), 32, shuffle=True)
    first, second, other = (trained(loader, epochs=2, seed=seed) for seed in (5, 5, 6))
    assert same_numbers(first, second) and not same_numbers(first, other)


def test_arrays_tensors_names_and_loaders_are_the_same_data():
    images, labels = part()
    forms = [
        [(images, labels)],
        [(images.astype(np.float64), labels.astype(np.int32))],
        [[torch.from_numpy(images), torch.from_numpy(labels)]],
        [({INPUT_NAME: images}, labels)],
        [((images,), labels.reshape(-1, 1))],
        ArrayBatches(images, labels, len(labels), shuffle=False),
        torch.utils.data.DataLoader(list(zip(images, labels, strict=True)), len(labels)),
        ((images, labels) for _ in range(1)),
    ]
    first, *others = (trained(batches) for batches in forms)
    assert all(same_numbers(first, other) for other in others)


def test_batches_that_can_be_iterated_once_do_for_one_epoch_only():
    with pytest.raises(ParameterError, match="iterated once only, and there are 2 epochs"):
        trained((pair for pair in [part()]), epochs=2)

    with pytest.raises(ParameterError, match="'validation' parameter of fit can be iterated once only"):
        trained([part()], epochs=2, validation=(pair for pair in [part()]))


def test_batches_that_end_for_good_are_noticed_in_the_next_epoch():
    class Once:
        left = 2

        def __iter__(self):
            # The first look, for the check before training, takes one of the two.
            self.left -= 1
            return iter([part()] if self.left >= 0 else [])

    with pytest.raises(ParameterError, match="empty in epoch 2"):
        trained(Once(), epochs=2)


@pytest.mark.parametrize(("batches", "message"), [([], "empty"), ([part()[0]], "pair"), ([(*part(), 1)], "pair")])
def test_batches_that_are_none_are_refused(batches, message):
    with pytest.raises(ParameterError, match=message):
        trained(batches)


def test_a_batch_that_does_not_fit_is_refused_before_training():
    images, labels = part()
    with pytest.raises(TrainingError, match=r"image float32\[128, 1, 8, 7\]"):
        trained([(images[..., :7], labels)])
    with pytest.raises(TrainingError, match="inputs are image, and the first batch has 2 arrays"):
        trained([((images, images), labels)])


def test_the_best_epoch_is_kept_and_patience_ends_training():
    batches = ArrayBatches(*part())
    metrics = iter([0.5, 0.9, 0.8, 0.7, 0.6, 0.5])
    learner = PlainLearner(MODEL_FILE)
    history = learner.fit(batches, epochs=6, validation=lambda _predict: next(metrics), patience=2)
    assert [epoch.metric for epoch in history] == [0.5, 0.9, 0.8, 0.7]
    metrics = iter([0.5, 0.9])
    two = PlainLearner(MODEL_FILE)
    two.fit(ArrayBatches(*part()), epochs=6, validation=lambda _predict: next(metrics, -1.0), patience=1)
    assert same_numbers(learner, two)


def test_training_lowers_the_loss_and_evaluate_is_accuracy():
    images, labels = part("held_out", 400)
    learner = PlainLearner(MODEL_FILE)
    with torch.no_grad():
        for layer in learner.layers:
            learner.graph.parameter(layer.weight).mul_(0.1)
    history = learner.fit(ArrayBatches(*part(count=997)), epochs=8, learning_rate=5e-3)
    assert history[-1].loss < history[0].loss / 2
    found = learner.evaluate([(images[:300], labels[:300]), (images[300:], labels[300:])])
    assert found == pytest.approx(float((learner.predict(images).argmax(1) == labels).mean()))
    assert found > 0.9


def test_loss_metric_and_optimizer_can_be_the_users():
    calls = []

    def loss(outputs, labels):
        calls.append("loss")
        return outputs.square().mean() + 0 * labels.sum()

    def metric(outputs, labels):
        return -float(outputs.square().mean())

    learner = PlainLearner(MODEL_FILE)
    before = learner.evaluate([part()], metric)
    learner.fit([part()] * 5, loss=loss, metric=metric, optimizer=torch.optim.SGD, learning_rate=0.01)
    assert len(calls) == 5 and learner.evaluate([part()], metric) > before


def test_a_loss_that_is_no_number_ends_training():
    with pytest.raises(TrainingError, match="The loss is nan at step 2"):
        values = iter([1.0, float("nan")])
        trained([part()] * 2, loss=lambda outputs, _labels: outputs.mean() * next(values))


def test_distillation_pulls_towards_the_float_network():
    images, labels = part()
    wrong = (labels + 1) % 10
    floats = PlainLearner(MODEL_FILE).predict(images)

    def distance(distillation):
        learner = PlainLearner(MODEL_FILE)
        learner.fit([(images, wrong)] * 10, distillation=distillation, learning_rate_decay=1)
        return float(np.abs(learner.predict(images) - floats).mean())

    assert distance(Distillation(temperature=2.0, weight=10.0)) < 0.7 * distance(None)


def with_softmax(folder):
    model = ir.load(MODEL_FILE)
    (logits,) = model.graph.outputs
    node = ir.node("Softmax", [logits], {"axis": 1}, name="softmax")
    node.outputs[0].name = "prob"
    node.outputs[0].shape, node.outputs[0].type = logits.shape, logits.type
    model.graph.append(node)
    model.graph.outputs[0] = node.outputs[0]
    save_ir(model, folder / "softmax.onnx")
    return folder / "softmax.onnx"


def test_a_softmax_at_the_end_changes_nothing_about_training(tmp_path):
    learner = PlainLearner(with_softmax(tmp_path))
    seen = []
    batches = ArrayBatches(*part())
    learner.fit(batches, validation=batches, metric=lambda outputs, _labels: seen.append(outputs) or 1.0)
    assert same_numbers(learner, trained(batches))
    assert all(torch.allclose(outputs.sum(1), torch.ones(len(outputs)), atol=1e-5) for outputs in seen)


def test_operators_that_cannot_be_trained_are_named_on_loading(tmp_path):
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[2, 3] x) => (int64[a, 2] y) {y = NonZero(x)}'
    save_ir(ir.from_onnx_text(text), tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="NonZero"):
        PlainLearner(tmp_path / "net.onnx")


def test_the_first_tensor_that_differs_is_named(monkeypatch):
    from amct_lite.learn import torch_graph

    wrong = {**torch_graph.OPERATORS, "Relu": lambda call, x: x.relu() + 1}
    monkeypatch.setattr(torch_graph, "OPERATORS", wrong)
    model = PlainLearner(MODEL_FILE).model
    first = next(node.outputs[0].name for node in model.ir.graph if node.op_type == "Relu")
    with pytest.raises(TrainingError, match=f"first for the tensor '{first}'"):
        trained([part()])


def test_nothing_is_left_to_quantize_is_said(tmp_path):
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[n, 3] x) => (float[n, 2] y)
        <float[3, 2] w = {1, 2, 3, 4, 5, 6}> {y = MatMul(x, w)}"""
    save_ir(ir.from_onnx_text(text), tmp_path / "net.onnx")
    with pytest.raises(ParameterError, match="1 layers with weights, and none of them is left"):
        PlainLearner(tmp_path / "net.onnx")
    assert PlainLearner(tmp_path / "net.onnx", quantize_all_layers=True).layers


def test_layers_that_share_a_weight_with_one_that_stays_float_stay_float(tmp_path):
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[n, 2] x) => (float[n, 2] y)
        <float[2, 2] w = {1, 2, 3, 4}, float[2, 2] v = {1, 2, 3, 4}>
        {a = MatMul(x, w) b = MatMul(a, w) c = MatMul(b, v) y = MatMul(c, v)}"""
    save_ir(ir.from_onnx_text(text), tmp_path / "net.onnx")
    with pytest.raises(ParameterError, match="none of them is left"):
        PlainLearner(tmp_path / "net.onnx")
    assert len(PlainLearner(tmp_path / "net.onnx", quantize_all_layers=True).layers) == 4


@pytest.mark.parametrize(
    "code",
    [
        "import amct_lite.learn; assert 'torch' not in sys.modules; dir(amct_lite.learn)",
        """
sys.modules['torch'] = None
import amct_lite.learn
from amct_lite.errors import OptionalDependencyError
try:
    amct_lite.learn.UniformLearner
except OptionalDependencyError as error:
    assert 'pip install amct-lite[train]' in str(error)
else:
    raise SystemExit('no error')
""",
    ],
)
def test_the_room_is_light_and_says_what_it_needs(code):
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_terminal_shows_loss_and_metric_of_each_epoch(monkeypatch):
    screen = io.StringIO()
    terminal = rich.console.Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(rich.console, "Console", lambda **_options: terminal)
    learner = trained(ArrayBatches(*part()), epochs=2, validation=ArrayBatches(*part(), shuffle=False))
    lines = [line for line in screen.getvalue().splitlines() if "/2] loss" in line]
    for line, epoch in zip(lines, learner.history, strict=True):
        assert f"[{epoch.number}/2] loss {epoch.loss:.4g}, metric {epoch.metric:.6g}" in line


def test_progress_is_silent_in_pipes(capfd):
    trained(ArrayBatches(*part()), epochs=2)
    assert capfd.readouterr() == ("", "")
