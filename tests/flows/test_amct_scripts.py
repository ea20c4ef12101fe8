"""Scripts as AMCT's manual and samples have them, unchanged but for what they import.

Each is written for amct_caffe or amct_onnx and calls everything as the vendor's documentation does. It is run in a
process of its own after the package's name has been replaced, and pycaffe's where the script runs a network itself.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from amct_lite.samples.digits.data import MODEL_FILE, load_split
from amct_lite.samples.fashion_lenet_caffe.run import MODEL_FOLDER

needs_lenet = pytest.mark.skipif(not MODEL_FOLDER.is_dir(), reason="../shared/models/lenet_fashion is not there")

CAFFE_CALIBRATION = """
import os
import caffe
import numpy as np
import amct_caffe as amct

amct.set_cpu_mode()
os.makedirs("tmp", exist_ok=True)
os.makedirs("results", exist_ok=True)
config_json_file = "./tmp/config.json"
scale_offset_record_file = "./tmp/scale_offset_record.txt"
modified_model, modified_weights = "./tmp/modified_model.prototxt", "./tmp/modified_model.caffemodel"


def run_caffe_model(model_file, weights_file, iterations):
    net = caffe.Net(model_file, weights_file, caffe.TEST)
    images = np.load("images.npy")
    for i in range(iterations):
        net.blobs["data"].reshape(8, 1, 28, 28)
        net.blobs["data"].data[...] = images[8 * i : 8 * i + 8]
        net.forward()
    return net.blobs["ip2"].data.copy()


original = run_caffe_model("model.prototxt", "model.caffemodel", 1)
amct.create_quant_config(
    config_json_file, "model.prototxt", "model.caffemodel", skip_layers=[], batch_num=2, activation_offset=True
)
graph = amct.init(config_json_file, "model.prototxt", "model.caffemodel", scale_offset_record_file)
amct.quantize_model(graph, modified_model, modified_weights)
run_caffe_model(modified_model, modified_weights, 2)
amct.save_model(graph, "Both", "./results/lenet")
quantized = run_caffe_model(
    "./results/lenet_fake_quant_model.prototxt", "./results/lenet_fake_quant_weights.caffemodel", 1
)
print("AGREE", float(np.mean(original.argmax(1) == quantized.argmax(1))))
"""

CAFFE_AUTO_NUQ = """
import caffe
import numpy as np
import amct_caffe as amct
from amct_caffe.auto_nuq import AutoNuqEvaluatorBase


class AutoNuqEvaluator(AutoNuqEvaluatorBase):
    def __init__(self, evaluate_batch_num):
        super().__init__(self)
        self.evaluate_batch_num = evaluate_batch_num

    def eval_model(self, model_file, weights_file, batch_num):
        net = caffe.Net(model_file, weights_file, caffe.TEST)
        images, labels = np.load("images.npy"), np.load("labels.npy")
        correct = 0
        for i in range(batch_num):
            net.blobs["data"].reshape(8, 1, 28, 28)
            net.blobs["data"].data[...] = images[8 * i : 8 * i + 8]
            net.forward()
            correct += int((net.blobs["ip2"].data.argmax(1) == labels[8 * i : 8 * i + 8]).sum())
        return correct / (8 * batch_num)

    def is_satisfied(self, original_metric, new_metric):
        return original_metric - new_metric < 0.05


amct.create_quant_config(
    config_file="./config.json",
    model_file="model.prototxt",
    weights_file="model.caffemodel",
    config_defination="./quant.cfg",
)
amct.auto_nuq(
    model_file="model.prototxt",
    weights_file="model.caffemodel",
    nuq_evaluator=AutoNuqEvaluator(4),
    config_file="./config.json",
    scale_offset_record_file="./record.txt",
    save_dir="./results",
)
"""

NUQ_CFG = """
activation_offset : true
batch_num : 2
nuq_config {
    mapping_file : "./mapping.json"
    nuq_quantize : {
        num_steps : 32
        num_of_iteration : 0
    }
}
common_config : {
    ifmr_quantize : {
        search_range_start : 0.7
        search_range_end : 1.3
        search_step : 0.01
        max_percentile : 0.999999
        min_percentile : 0.999999
    }
}
"""

ONNX_CALIBRATION = """
import os
import numpy as np
import onnxruntime as ort
import amct_onnx as amct


def onnx_forward(onnx_model, batch_size=16, iterations=2):
    session = ort.InferenceSession(onnx_model, amct.AMCT_SO)
    input_name = session.get_inputs()[0].name
    images = np.load("images.npy")
    outputs = []
    for i in range(iterations):
        outputs.append(session.run(None, {input_name: images[i * batch_size : (i + 1) * batch_size]})[0])
    return np.concatenate(outputs)


os.makedirs("outputs", exist_ok=True)
config_file, record_file, modified_model = "outputs/config.json", "outputs/record.txt", "outputs/modified_model.onnx"
amct.create_quant_config(
    config_file=config_file,
    model_file="model.onnx",
    skip_layers=[],
    batch_num=2,
    activation_offset=True,
    updated_model="outputs/updated.onnx",
)
amct.quantize_model(config_file, "model.onnx", modified_model, record_file)
original = onnx_forward(modified_model)
amct.save_model(modified_model, record_file, "outputs/net")
quantized = onnx_forward("outputs/net_fake_quant_model.onnx")
print("AGREE", float(np.mean(original.argmax(1) == quantized.argmax(1))))
"""

ONNX_AUTO_CALIBRATION = """
import numpy as np
import onnxruntime as ort
import amct_onnx as amct
from amct_onnx.common.auto_calibration import AutoCalibrationEvaluatorBase


class Evaluator(AutoCalibrationEvaluatorBase):
    def __init__(self, target_loss, batch_num):
        super().__init__()
        self.target_loss = target_loss
        self.batch_num = batch_num

    def _run(self, model_file, batches):
        session = ort.InferenceSession(model_file, amct.AMCT_SO)
        name = session.get_inputs()[0].name
        images = np.load("images.npy")
        return np.concatenate([session.run(None, {name: images[16 * i : 16 * i + 16]})[0] for i in range(batches)])

    def calibration(self, model_file):
        self._run(model_file, self.batch_num)

    def evaluate(self, model_file):
        return float((self._run(model_file, 3).argmax(1) == np.load("labels.npy")[:48]).mean())

    def metric_eval(self, original_metric, new_metric):
        loss = original_metric - new_metric
        return loss < self.target_loss, loss


amct.create_quant_config("./config.json", "model.onnx", None, 2, config_defination="./quant.cfg")
amct.accuracy_based_auto_calibration(
    model_file="model.onnx",
    model_evaluator=Evaluator(target_loss=0.05, batch_num=2),
    config_file="./config.json",
    record_file="./record.txt",
    save_dir="./results",
    strategy="BinarySearch",
    sensitivity="CosineSimilarity",
)
"""


def run(script: str, folder: Path) -> str:
    """What a script prints after the names of the packages it imports are ours."""
    script = script.replace("import caffe\n", "import amct_lite.pycaffe as caffe\n")
    script = script.replace("amct_caffe", "amct_lite").replace("amct_onnx", "amct_lite")
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def agreement(printed: str) -> float:
    return float(printed.split("AGREE ")[1])


@pytest.fixture
def onnx_folder(tmp_path: Path) -> Path:
    part = load_split().calibration
    np.save(tmp_path / "images.npy", part.images[:48])
    np.save(tmp_path / "labels.npy", part.labels[:48])
    (tmp_path / "model.onnx").write_bytes(MODEL_FILE.read_bytes())
    return tmp_path


@pytest.fixture
def caffe_folder(tmp_path: Path) -> Path:
    for name, file in (("model.prototxt", "deploy.prototxt"), ("model.caffemodel", "lenet_fashion.caffemodel")):
        (tmp_path / name).write_bytes((MODEL_FOLDER / file).read_bytes())
    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((32, 1, 28, 28), np.float32))
    np.save(tmp_path / "labels.npy", np.arange(32) % 10)
    names = {"list": {"s": ["ip1", "ip1_dequant_layer"], "val_type": "VT_LIST_STRING"}}
    flagged = [
        {"key": "_datadump_original_op_names", "value": names},
        {"key": "_fe_weight_compress", "value": {"b": True}},
    ]
    graph = [{"name": "lenet", "op": [{"name": "ip1ip1_dequant_layer", "type": "FullyConnection", "attr": flagged}]}]
    (tmp_path / "mapping.json").write_text(json.dumps({"graph": graph, "name": "lenet"}))
    (tmp_path / "quant.cfg").write_text(NUQ_CFG)
    return tmp_path


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@needs_lenet
def test_caffe_calibration_in_the_users_own_loop(caffe_folder: Path) -> None:
    assert agreement(run(CAFFE_CALIBRATION, caffe_folder)) > 0.8
    assert files(caffe_folder / "tmp") == {
        *("config.json", "scale_offset_record.txt"),
        *("modified_model.prototxt", "modified_model.caffemodel"),
    }
    models = {
        f"lenet_{form}_{part}" for form in ("fake_quant", "deploy") for part in ("model.prototxt", "weights.caffemodel")
    }
    assert files(caffe_folder / "results") == models | {"lenet_quant.json", "lenet_summary.json"}


@needs_lenet
def test_caffe_auto_nuq_with_a_simplified_config_and_the_compilers_file(caffe_folder: Path) -> None:
    run(CAFFE_AUTO_NUQ, caffe_folder)
    config = json.loads((caffe_folder / "config.json").read_text())
    assert config["batch_num"] == 2
    assert config["ip1"]["weight_quant_params"]["wts_algo"] == "nuq_quantize"
    assert config["ip1"]["weight_quant_params"]["num_steps"] == 32
    assert config["conv1"]["weight_quant_params"]["wts_algo"] == "arq_quantize"
    record = (caffe_folder / "record.txt").read_text()
    assert "cluster:" in record
    written = files(caffe_folder / "results")
    for ending in ("fake_quant_model.prototxt", "fake_quant_weights.caffemodel", "deploy_model.prototxt"):
        assert any(name.endswith(ending) for name in written), written


def test_onnx_calibration_with_amct_so(onnx_folder: Path) -> None:
    assert agreement(run(ONNX_CALIBRATION, onnx_folder)) > 0.9
    assert files(onnx_folder / "outputs") == {
        *("config.json", "record.txt", "modified_model.onnx", "updated.onnx"),
        *("net_fake_quant_model.onnx", "net_deploy_model.onnx", "net_quant.json", "net_summary.json"),
    }
    types = {node.op_type for node in ir.load(onnx_folder / "outputs" / "net_deploy_model.onnx").graph}
    assert {"AscendQuant", "AscendDequant"} <= types


def test_onnx_accuracy_based_auto_calibration(onnx_folder: Path) -> None:
    (onnx_folder / "quant.cfg").write_text("batch_num : 2\ncommon_config { hfmg_quantize { num_of_bins : 4096 } }\n")
    run(ONNX_AUTO_CALIBRATION, onnx_folder)
    written = files(onnx_folder / "results")
    assert "accuracy_based_auto_calibration_final_config.json" in written
    assert "accuracy_based_auto_calibration_ranking_information.json" in written
    assert {"net_fake_quant_model.onnx", "net_deploy_model.onnx"} <= written
    config = json.loads((onnx_folder / "config.json").read_text())
    assert config["conv1"]["activation_quant_params"]["act_algo"] == "hfmg"
