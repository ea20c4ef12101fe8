"""A whole search for target `onnxruntime`: with and without reuse, with either kind of session, it finds the same."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

import amct_lite as amct
from amct_lite.reuse.segmented_session import SegmentedSession
from amct_lite.samples.digits.data import MODEL_FILE, load_split
from amct_lite.search import candidates

BATCHES = [load_split().calibration.images[start : start + 25] for start in range(0, 100, 25)]


def load_evaluator_class():
    spec = importlib.util.spec_from_file_location("digits_evaluator", Path(__file__).with_name("digits_evaluator.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.DigitsEvaluator


DigitsEvaluator = load_evaluator_class()


class Plain(DigitsEvaluator):
    """Uses onnxruntime itself."""

    def eval_model(self, model_file, weights_file, batch_num):
        session = onnxruntime.InferenceSession(model_file, providers=["CPUExecutionProvider"])
        images, labels = self.validation.images[:300], self.validation.labels[:300]
        return float((session.run(None, {"image": images})[0].argmax(1) == labels).mean())


class Watching(DigitsEvaluator):
    """Notes what kind of session it gets."""

    def __init__(self):
        super().__init__()
        self.kinds = []

    def eval_model(self, model_file, weights_file, batch_num):
        self.kinds.append(isinstance(amct.InferenceSession(model_file)._session, SegmentedSession))
        return super().eval_model(model_file, weights_file, batch_num)


def search(folder: Path, evaluator, **options):
    folder.mkdir()
    config_file = folder / "config.json"
    amct.create_quant_config(config_file, MODEL_FILE, batch_num=4, target="onnxruntime")
    return amct.auto_nuq(
        MODEL_FILE,
        None,
        evaluator,
        config_file,
        folder / "record.txt",
        folder / "out",
        calibration_data=BATCHES,
        max_evaluations=10,
        **options,
    )


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    evaluator = Watching()
    found = search(tmp_path_factory.mktemp("searches") / "with", evaluator)
    assert evaluator.kinds == [False, *[True] * (len(found.trials) - 1)], "all but the float model"
    return found


def test_without_reuse_it_finds_the_same(tmp_path, result, monkeypatch):
    monkeypatch.setattr(candidates.CandidateWriter, "__enter__", lambda self: self)
    evaluator = Watching()
    other = search(tmp_path / "without", evaluator)
    assert not any(evaluator.kinds)
    assert other.trials == result.trials
    for kind in ("deploy_model", "record", "config"):
        assert other.files[kind].read_bytes() == result.files[kind].read_bytes()


def test_an_evaluator_with_sessions_of_onnxruntime_sees_the_same_models(tmp_path, result):
    assert [t.metric for t in search(tmp_path / "plain", Plain()).trials] == [t.metric for t in result.trials]


def test_workers_in_threads_find_the_same(tmp_path, result):
    other = search(tmp_path / "threads", DigitsEvaluator(), n_jobs=2, backend="threading")
    assert other.trials == result.trials


@pytest.mark.parametrize("session", [DigitsEvaluator, Plain])
def test_the_saved_deploy_model_is_the_one_that_was_evaluated(result, session):
    assert session().eval_model(str(result.files["deploy_model"]), None, 6) == result.metric


def test_operators_between_layers_are_quantized_as_they_are_without_a_search(tmp_path):
    generator = np.random.default_rng(0)
    text = """g (float[N, 16, 8, 8] x) => (float[N, 16, 8, 8] y) {
        a = Conv <pads: ints = [1,1,1,1]> (x, wa)  b = Relu(a)  c = Conv <pads: ints = [1,1,1,1]> (b, wb)
        d = Add(b, c)  y = Conv <pads: ints = [1,1,1,1]> (d, wc)
    }"""
    model = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": 13]> {text}')
    for node in list(model.graph):
        for value in node.inputs:
            if value is not None and value.name in ("wa", "wb", "wc"):
                array = generator.normal(0, 0.1, (16, 16, 3, 3)).astype("float32")
                value.const_value = ir.Tensor(array, name=value.name)
                value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.FLOAT)
                model.graph.register_initializer(value)
    ir.save(model, tmp_path / "net.onnx")
    images = generator.normal(size=(8, 16, 8, 8)).astype("float32")

    class Distance(amct.AutoNuqEvaluatorBase):
        def eval_model(self, model_file, weights_file, batch_num):
            return float(amct.InferenceSession(model_file).run(None, {"x": images})[0].sum())

        def is_satisfied(self, original_metric, new_metric):
            return True

    config = tmp_path / "config.json"
    amct.create_quant_config(config, tmp_path / "net.onnx", batch_num=1, target="onnxruntime")
    result = amct.auto_nuq(
        tmp_path / "net.onnx", None, Distance(1), config, tmp_path / "r.txt", tmp_path / "out",
        calibration_data=[images], max_evaluations=4,
    )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(result.files["deploy_model"]), options)
    kinds = {node.op_type for node in ir.load(tmp_path / "optimized.onnx").graph}
    assert "QLinearAdd" in kinds and "Add" not in kinds
    # The files of the search say the same to the other verbs.
    again = amct.init(result.files["config"], tmp_path / "net.onnx", None, result.files["record"])
    saved = amct.save_model(again, "Deploy", tmp_path / "again" / "net")
    assert json.loads(saved.files["quant_json"].read_text()) == json.loads(result.files["quant_json"].read_text())
    assert saved.files["deploy_model"].read_bytes() == result.files["deploy_model"].read_bytes()
