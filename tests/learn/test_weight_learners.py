"""The uniform and the non-uniform learner: options, files, and that ONNX Runtime gives what training saw."""

import json

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")

import amct_lite as amct  # noqa: E402
from amct_lite.errors import ParameterError, TrainingError  # noqa: E402
from amct_lite.files.record import read_record  # noqa: E402
from amct_lite.learn import ArrayBatches, NonUniformLearner, UniformLearner  # noqa: E402
from amct_lite.learn.input_quantizer import InputQuantizer  # noqa: E402
from amct_lite.samples.digits.data import INPUT_NAME, MODEL_FILE, load_split  # noqa: E402
from amct_lite.samples.fashion_lenet_caffe.data import DATA_FOLDER, load_part  # noqa: E402
from amct_lite.samples.fashion_lenet_caffe.run import MODEL_FOLDER  # noqa: E402

SPLIT = load_split()
BATCHES = ArrayBatches(SPLIT.train.images[:256], SPLIT.train.labels[:256])


def outputs_of(file, images):
    return onnxruntime.InferenceSession(str(file)).run(None, {INPUT_NAME: images})[0]


def codebook_levels(saved):
    return {name: record.codebook for name, record in read_record(saved.files["record"]).items()}


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (UniformLearner, {"weight_bits": 2}),
        (UniformLearner, {"weight_bits": 3, "use_buckets": True, "bucket_type": "channel"}),
        (UniformLearner, {"weight_bits": 4, "use_buckets": True, "bucket_size": 250, "activation_bits": 4}),
        (UniformLearner, {"weight_bits": 8, "activation_bits": 8, "level_type": "float32"}),
        (NonUniformLearner, {"weight_bits": 2, "quantize_all_layers": True}),
        (NonUniformLearner, {"weight_bits": 1, "use_buckets": True, "bucket_type": "channel", "activation_bits": 2}),
        (NonUniformLearner, {"weight_bits": 4, "init_style": "optimal", "activation_bits": 8}),
    ],
)
def test_every_form_gives_what_training_saw(tmp_path, make, options):
    learner = make(MODEL_FILE, **options)
    learner.fit(BATCHES, epochs=1)
    saved = learner.save(tmp_path / "digits")
    images = SPLIT.held_out.images
    ours = learner.predict(images)
    for form in ("fake_quant_model", "deploy_model"):
        theirs = outputs_of(saved.files[form], images)
        differing = np.abs(theirs - ours).max(1) > 1e-5 * np.abs(ours).max()
        # A sum in another order can fall on the other side of the middle between two levels of an input's grid.
        assert differing.mean() <= (0.0 if learner.activation_bits == 32 else 0.02), form
        assert np.abs(theirs - ours).max() <= 0.1 * np.abs(ours).max()
    if learner.activation_bits == 32:
        np.testing.assert_allclose(outputs_of(saved.files["float_model"], images), ours, rtol=1e-4, atol=1e-4)


def test_files_go_through_the_verbs_again_to_the_same_bytes(tmp_path):
    learner = NonUniformLearner(MODEL_FILE, weight_bits=2, activation_bits=8)
    learner.fit(BATCHES, epochs=1)
    files = learner.save(tmp_path / "digits").files
    graph = amct.init(files["config"], files["float_model"], None, files["record"])
    again = amct.save_model(graph, "Both", tmp_path / "again").files
    for form in ("fake_quant_model", "deploy_model"):
        images = SPLIT.held_out.images
        np.testing.assert_array_equal(outputs_of(files[form], images), outputs_of(again[form], images))
        assert abs(again[form].stat().st_size - files[form].stat().st_size) < 200


def test_first_and_last_layer_are_left_alone_unless_asked_for():
    weighted = [layer.name for layer in UniformLearner(MODEL_FILE).model.layers if layer.weight is not None]
    assert [layer.name for layer in UniformLearner(MODEL_FILE).layers] == weighted[1:-1]
    assert [layer.name for layer in UniformLearner(MODEL_FILE, quantize_all_layers=True).layers] == weighted
    fewer = UniformLearner(MODEL_FILE, quantize_all_layers=True, skip_layers=weighted[:1])
    assert [layer.name for layer in fewer.layers] == weighted[1:]


def test_layers_can_have_bits_of_their_own(tmp_path):
    names = [layer.name for layer in UniformLearner(MODEL_FILE).layers]
    learner = UniformLearner(MODEL_FILE, weight_bits={names[0]: 2})
    learner.fit(BATCHES)
    books = codebook_levels(learner.save(tmp_path / "a"))
    assert books[names[0]].num_levels == 4 and {books[name].num_levels for name in names[1:]} == {16}


def test_uniform_levels_are_equally_spaced_and_points_are_not(tmp_path):
    for make, even in ((UniformLearner, True), (NonUniformLearner, False)):
        learner = make(MODEL_FILE, weight_bits=3, level_type="float32")
        learner.fit(BATCHES)
        for book in codebook_levels(learner.save(tmp_path / make.__name__)).values():
            steps = np.diff(book.tables[0, :, 0])
            assert (np.ptp(steps) < 1e-5) == even


def test_the_mode_says_what_is_trained():
    def changed(mode):
        learner = NonUniformLearner(MODEL_FILE, weight_bits=2, opt_mode=mode)
        before = {name: value.clone() for name, value in learner.graph.state_dict().items()}
        learner.fit(BATCHES, learning_rate=0.01)
        after = learner.graph.state_dict()
        moved = [name for name in after if not torch.equal(before[name], after[name])]
        return {"points" if "points" in name else "weights" for name in moved}

    assert changed("weights") == {"weights"}
    assert changed("clusters") == {"points"}
    assert changed("both") == {"weights", "points"}


def test_buckets_within_channels_are_stored_dense_and_the_summary_says_why(tmp_path):
    learner = UniformLearner(MODEL_FILE, weight_bits=2, use_buckets=True, bucket_size=7)
    learner.fit(BATCHES)
    saved = learner.save(tmp_path / "a")
    assert "record" not in saved.files
    layers = json.loads(saved.files["summary"].read_text())["layers"]
    assert any("buckets of 7 weights end within output channels" in (layer.get("reason") or "") for layer in layers)
    images = SPLIT.held_out.images
    np.testing.assert_allclose(outputs_of(saved.files["deploy_model"], images), learner.predict(images), atol=1e-3)


def test_quantizers_are_switched_on_after_the_delay(monkeypatch):
    learner = UniformLearner(MODEL_FILE, weight_bits=1, activation_bits=8, quant_delay=3)
    seen = []
    quantizer = next(iter(learner._inputs.values()))
    forward = InputQuantizer.forward

    def watch(self, values):
        if self is quantizer and self.training:
            seen.append(self.enabled)
        return forward(self, values)

    monkeypatch.setattr(InputQuantizer, "forward", watch)
    learner.fit(ArrayBatches(*(array[:60] for array in (SPLIT.train.images, SPLIT.train.labels)), 10))
    assert seen == [False] * 3 + [True] * 3
    assert int(quantizer.batches) == 6 and quantizer.enabled


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_input_grids_are_those_of_numpy_and_follow_ranges(bits):
    quantizer = InputQuantizer(bits, momentum=0.25)
    values = np.random.default_rng(0).normal(0.3, size=(3, 500)).astype(np.float32)
    low, high = min(values[0].min(), 0), max(values[0].max(), 0)
    for batch in values:
        low, high = low + 0.25 * (min(batch.min(), 0) - low), high + 0.25 * (max(batch.max(), 0) - high)
        quantizer(torch.from_numpy(batch))
    grid, used = quantizer.eval().grid()
    assert grid.scale == pytest.approx((high - low) / (2**bits - 1), rel=1e-5)
    tests = np.linspace(-5, 5, 1001, dtype=np.float32)
    levels = np.array(used or range(-128, 128))
    q = np.clip(np.round(tests / np.float32(grid.scale)) + grid.offset, levels[0], levels[-1])
    wanted = (q - grid.offset).astype(np.float32) * np.float32(grid.scale)
    leaf = torch.from_numpy(tests).requires_grad_()
    found = quantizer(leaf)
    np.testing.assert_array_equal(found.detach().numpy(), wanted)
    found.sum().backward()
    inside = np.round(tests / np.float32(grid.scale)) + grid.offset == q
    np.testing.assert_array_equal(leaf.grad.numpy()[1:-1], inside[1:-1].astype(np.float32))


def test_saving_before_a_range_is_known_says_so(tmp_path):
    with pytest.raises(TrainingError, match="Call fit"):
        UniformLearner(MODEL_FILE, activation_bits=8).save(tmp_path / "a")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_bits": 9}, "weight_bits"),
        ({"weight_bits": {"nothing": 2}}, "nothing"),
        ({"activation_bits": 16}, "activation_bits"),
        ({"bucket_type": "rows"}, "bucket_type"),
        ({"level_type": "int8"}, "level_type"),
        ({"opt_mode": "all"}, "opt_mode"),
        ({"init_style": "random"}, "init_style"),
    ],
)
def test_options_out_of_their_range_are_refused(options, message):
    with pytest.raises(ParameterError, match=message):
        NonUniformLearner(MODEL_FILE, **options)


def test_a_checkpoint_of_other_options_is_refused(tmp_path):
    UniformLearner(MODEL_FILE, weight_bits=2).fit(BATCHES, checkpoint=tmp_path / "a.pt")
    with pytest.raises(ParameterError, match="weight_bits was"):
        UniformLearner(MODEL_FILE, weight_bits=3).fit(BATCHES, checkpoint=tmp_path / "a.pt")


@pytest.mark.slow
@pytest.mark.skipif(not DATA_FOLDER.exists(), reason=f"Fashion-MNIST is not in {DATA_FOLDER}")
@pytest.mark.skipif(not MODEL_FOLDER.exists(), reason="../shared/models/lenet_fashion is not there")
def test_a_caffe_pair_becomes_a_small_onnx_file_as_accurate_as_in_training(tmp_path):
    images, labels = load_part("train")
    learner = NonUniformLearner(
        MODEL_FOLDER / "deploy.prototxt",
        MODEL_FOLDER / "lenet_fashion.caffemodel",
        weight_bits=2,
        quantize_all_layers=True,
    )
    learner.fit(ArrayBatches(images[:6400], labels[:6400]))
    saved = learner.save(tmp_path / "lenet", "Deploy")
    assert saved.files["deploy_model"].stat().st_size <= 120_000
    images, labels = load_part("t10k")
    session = onnxruntime.InferenceSession(str(saved.files["deploy_model"]))
    scores = np.concatenate([session.run(None, {"data": images[at : at + 500]})[0] for at in range(0, 10_000, 500)])
    found = (scores.argmax(1) == labels).mean()
    assert found > 0.85
    assert abs(found - learner.evaluate(ArrayBatches(images, labels, 500, shuffle=False))) <= 0.001
