"""accuracy_based_auto_calibration over a Caffe pair, with scripts as in AMCT's manual."""

import json
import subprocess
import sys

import numpy as np
import pytest

import amct_lite as amct
import amct_lite.pycaffe as caffe
from amct_lite.auto_calibration import AutoCalibrationEvaluatorBase
from amct_lite.errors import EvaluatorError, ParameterError
from amct_lite.samples.fashion_lenet_caffe.run import MODEL_FOLDER

pytestmark = pytest.mark.skipif(not MODEL_FOLDER.is_dir(), reason="../shared/models/lenet_fashion is not there")

MODEL, WEIGHTS = MODEL_FOLDER / "deploy.prototxt", MODEL_FOLDER / "lenet_fashion.caffemodel"
LAYERS = ["conv1", "conv2", "ip1", "ip2"]


class Evaluator(AutoCalibrationEvaluatorBase):
    """Minus the mean distance of ip2 to the float network's."""

    def __init__(self, max_loss):
        super().__init__()
        self.max_loss = max_loss
        self.images = np.random.default_rng(0).random((24, 1, 28, 28), np.float32)

    def calibration(self, model_file, weights_file):
        self._forward(model_file, weights_file)

    def evaluate(self, model_file, weights_file):
        return -float(abs(self._forward(model_file, weights_file) - self._forward(str(MODEL), str(WEIGHTS))).mean())

    def metric_eval(self, original_metric, new_metric):
        loss = original_metric - new_metric
        return loss <= self.max_loss, loss

    def _forward(self, model_file, weights_file):
        net = caffe.Net(model_file, weights_file, caffe.TEST)
        net.blobs["data"].reshape(8, 1, 28, 28)
        found = []
        for start in range(0, 24, 8):
            net.blobs["data"].data[...] = self.images[start : start + 8]
            net.forward()
            found.append(net.blobs["ip2"].data.copy())
        return np.concatenate(found)


@pytest.fixture
def config_file(tmp_path):
    file = tmp_path / "config.json"
    amct.create_quant_config(file, MODEL, WEIGHTS, batch_num=3)
    return file


@pytest.mark.parametrize("strategy", [None, "BinarySearch"])
def test_layers_are_rolled_back_until_the_test_accepts(tmp_path, config_file, strategy):
    everything = amct.accuracy_based_auto_calibration(
        MODEL, WEIGHTS, Evaluator(1e9), config_file, tmp_path / "all" / "record.txt", tmp_path / "all"
    )
    loss = everything.original_metric - everything.metric
    assert len(everything.trials) == 2
    out = tmp_path / "out"
    result = amct.accuracy_based_auto_calibration(
        MODEL, WEIGHTS, Evaluator(0.8 * loss), config_file, out / "record.txt", out, strategy
    )
    assert result.satisfied
    config = json.loads((out / "accuracy_based_auto_calibration_final_config.json").read_text())
    rolled_back = [name for name in LAYERS if not config[name]["quant_enable"]]
    assert 0 < len(rolled_back) < 4
    files = result.files
    assert {path.name for path in files.values()} == {path.name for path in out.iterdir()}
    saved = Evaluator(0).evaluate(str(files["fake_quant_model"]), str(files["fake_quant_weights"]))
    assert saved == result.metric
    kinds = {line.split('"')[1] for line in files["deploy_model"].read_text().splitlines() if "type:" in line}
    assert "Quant" in kinds
    graph = amct.init(files["config"], MODEL, WEIGHTS, files["record"])
    again = amct.save_model(graph, "Both", tmp_path / "again" / files["summary"].name.removesuffix("_summary.json"))
    for kind in ("fake_quant_model", "fake_quant_weights", "deploy_model", "deploy_weights"):
        assert again.files[kind].read_bytes() == files[kind].read_bytes()


def test_where_nothing_satisfies_no_pair_is_left(tmp_path, config_file):
    places = (config_file, tmp_path / "out" / "record.txt", tmp_path / "out")
    assert "deploy_weights" in amct.accuracy_based_auto_calibration(MODEL, WEIGHTS, Evaluator(1e9), *places).files
    result = amct.accuracy_based_auto_calibration(MODEL, WEIGHTS, Evaluator(0.0), *places)
    assert "all quant layers are roll backed" in result.message
    names = {path.suffix for path in (tmp_path / "out").iterdir()}
    assert names == {".json", ".jsonl", ".npz"}


def test_the_cosine_is_measured_on_a_pair_too(tmp_path, config_file):
    batches = np.split(Evaluator(0).images, 3)
    result = amct.accuracy_based_auto_calibration(
        model_file=MODEL,
        weights_file=WEIGHTS,
        model_evaluator=Evaluator(1e9),
        config_file=config_file,
        record_file=tmp_path / "out" / "record.txt",
        save_dir=tmp_path / "out",
        sensitivity="CosineSimilarity",
        calibration_data=batches,
    )
    ranking = json.loads(result.files["ranking"].read_text())
    assert sorted(ranking) == LAYERS
    assert list(ranking.values()) == sorted(ranking.values())
    assert "derived" not in result.message


def test_an_evaluator_for_onnx_is_refused_for_a_pair(tmp_path, config_file):
    class ForOnnx(Evaluator):
        def calibration(self, model_file):
            raise AssertionError("called")

    with pytest.raises(EvaluatorError, match=r"calibration of ForOnnx cannot be called with \(model_file, weights"):
        amct.accuracy_based_auto_calibration(
            MODEL, WEIGHTS, ForOnnx(1.0), config_file, tmp_path / "r.txt", tmp_path / "out"
        )


def test_a_pair_without_its_weights_is_told_the_form_for_caffe(tmp_path, config_file):
    with pytest.raises(ParameterError, match=r"no weights_file is given.*\(model_file, weights_file, model_evaluator"):
        amct.accuracy_based_auto_calibration(MODEL, Evaluator(1.0), config_file, tmp_path / "r.txt", tmp_path / "out")


def test_a_script_of_amcts_manual_runs_with_other_imports(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "import numpy as np\n"
        "import amct_lite.pycaffe as caffe\n"
        "import amct_lite as amct\n"
        "from amct_lite.common.auto_calibration import AutoCalibrationEvaluatorBase\n"
        "MODEL_FILE, WEIGHTS_FILE = sys.argv[1:]\n"
        "class ModelEvaluator(AutoCalibrationEvaluatorBase):\n"
        "    def __init__(self, batch_num, iterations):\n"
        "        super().__init__()\n"
        "        self.batch_num, self.iterations = batch_num, iterations\n"
        "    def calibration(self, model_file, weights_file):\n"
        "        self.run(model_file, weights_file, self.batch_num)\n"
        "    def evaluate(self, model_file, weights_file):\n"
        "        return self.run(model_file, weights_file, self.iterations)\n"
        "    def metric_eval(self, original_metric, new_metric):\n"
        "        loss = original_metric - new_metric\n"
        "        return abs(loss) < 0.2, loss\n"
        "    def run(self, model_file, weights_file, count):\n"
        "        net = caffe.Net(model_file, weights_file, caffe.TEST)\n"
        "        rng, scores = np.random.RandomState(0), []\n"
        "        for _ in range(count):\n"
        "            net.blobs['data'].data[...] = rng.rand(*net.blobs['data'].data.shape)\n"
        "            scores.append(net.forward()['prob'].max())\n"
        "        return np.mean(scores)\n"
        "amct.create_quant_config('tmp/config.json', MODEL_FILE, WEIGHTS_FILE, batch_num=2)\n"
        "amct.accuracy_based_auto_calibration(MODEL_FILE, WEIGHTS_FILE, ModelEvaluator(2, 4), 'tmp/config.json',\n"
        "    'tmp/scale_offset_record.txt', 'results', strategy='BinarySearch', sensitivity='CosineSimilarity')\n"
    )
    command = [sys.executable, script, MODEL, WEIGHTS]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    endings = {path.name.partition("_")[2] for path in (tmp_path / "results").iterdir()}
    assert {"deploy_model.prototxt", "deploy_weights.caffemodel", "fake_quant_weights.caffemodel"} <= endings
