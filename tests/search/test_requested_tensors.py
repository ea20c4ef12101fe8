"""Searches keep what `tensor_quantize` asks for, and refuse what they cannot evaluate."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import amct_lite as amct
from amct_lite.auto_calibration import AutoCalibrationEvaluatorBase, accuracy_based_auto_calibration
from amct_lite.auto_nuq import AutoNuqEvaluatorBase, auto_nuq
from amct_lite.errors import ConfigError
from amct_lite.files.record import read_record

NETWORK = """g (float[N,4,8,8] x) => (float[N,5] y) {
    [conv] a = Conv<pads = [1,1,1,1]>(x, w) [pool] p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(a)
    [flat] f = Flatten(p) [fc] y = Gemm(f, m, c) }"""
SHAPES = {"w": (8, 4, 3, 3), "m": (128, 5), "c": (5,)}


def metric(model_file: str, x: np.ndarray) -> float:
    return float(amct.InferenceSession(model_file).run(None, {"x": x})[0].mean())


class Calibration(AutoCalibrationEvaluatorBase):
    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def calibration(self, model_file):
        metric(model_file, self.x)

    def evaluate(self, model_file):
        return metric(model_file, self.x)

    def metric_eval(self, original_metric, new_metric):
        return True, abs(original_metric - new_metric)


class Nuq(AutoNuqEvaluatorBase):
    def __init__(self, x: np.ndarray) -> None:
        super().__init__(1)
        self.x = x

    def eval_model(self, model_file, weights_file, batch_num):
        return metric(model_file, self.x)

    def is_satisfied(self, original_metric, new_metric):
        return True


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(4, 4, 8, 8)).astype(np.float32)


@pytest.fixture
def prepared(write_network: Callable[..., Path], tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    def prepare(**keys) -> tuple[Path, Path]:
        rng = np.random.default_rng(0)
        path = write_network(NETWORK, {name: rng.normal(size=s).astype(np.float32) for name, s in SHAPES.items()})
        config = tmp_path / "config.json"
        amct.create_quant_config(config, path)
        config.write_text(json.dumps(json.loads(config.read_text()) | keys))
        return path, config

    return prepare


@pytest.mark.parametrize("search", ["auto_calibration", "auto_nuq"])
def test_a_search_keeps_the_quantized_inputs_of_operators(search: str, prepared, x, tmp_path) -> None:
    path, config = prepared(tensor_quantize=[{"layer_name": "pool"}])
    record = tmp_path / "record.txt"
    if search == "auto_nuq":
        result = auto_nuq(path, None, Nuq(x), config, record, tmp_path / "out", calibration_data=[x])
    else:
        result = accuracy_based_auto_calibration(path, Calibration(x), config, record, tmp_path / "out")
    deploy = ir.load(result.files["deploy_model"])
    assert [node.name for node in deploy.graph if node.op_type == "AscendAntiQuant"] == ["pool.anti_quant"]
    assert "pool:0" in read_record(result.files["record"])


def test_what_a_search_cannot_evaluate_is_refused(prepared, x, tmp_path) -> None:
    path, config = prepared(joint_quant=True)
    with pytest.raises(ConfigError, match="joint_quant makes layers share them"):
        auto_nuq(path, None, Nuq(x), config, tmp_path / "record.txt", tmp_path / "out", calibration_data=[x])
