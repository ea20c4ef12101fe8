"""The default of target onnxruntime, `rounding: "auto"`: gptq where calibration has samples, else nearest."""

import json

import pytest

import amct_lite as amct
from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.samples.digits.data import MODEL_FILE, load_split

IMAGES = load_split().calibration.images
BATCHES = [IMAGES[:50], IMAGES[50:100]]


def plan(folder, rounding=None):
    """A graph of the written default config, or of the same with another rounding."""
    folder.mkdir(exist_ok=True)
    file = folder / "config.json"
    amct.create_quant_config(file, MODEL_FILE, batch_num=len(BATCHES), target="onnxruntime")
    if rounding is not None:
        config = json.loads(file.read_text())
        for block in config.values():
            if isinstance(block, dict) and "weight_quant_params" in block:
                block["weight_quant_params"]["rounding"] = rounding
        file.write_text(json.dumps(config))
    return amct.init(file, MODEL_FILE, None, folder / "record.txt")


def saved(graph, folder):
    """The deploy model's bytes, and how the summary says that weights were rounded."""
    files = amct.save_model(graph, "Deploy", folder / "digits").files
    layers = json.loads(files["summary"].read_text())["layers"]
    return files["deploy_model"].read_bytes(), {layer["rounding"] for layer in layers if layer["num_weights"]}


def run_own_loop(graph, folder):
    amct.quantize_model(graph, folder / "modified.onnx")
    session = amct.InferenceSession(folder / "modified.onnx")
    for batch in BATCHES:
        session.run(None, {"image": batch})


@pytest.fixture(scope="module")
def explicit(tmp_path_factory):
    """Rounding -> the deploy model that it gives where the config names it."""
    found = {}
    for rounding in ("nearest", "gptq"):
        folder = tmp_path_factory.mktemp(rounding)
        graph = plan(folder, rounding)
        amct.calibrate(graph, BATCHES)
        found[rounding], _ = saved(graph, folder)
    assert found["nearest"] != found["gptq"]
    return found


def test_the_default_of_onnxruntime_asks_for_it_and_that_of_ascend_stays_amcts(tmp_path):
    for target in ("onnxruntime", "ascend", "ascend-rank4"):
        file = tmp_path / f"{target}.json"
        amct.create_quant_config(file, MODEL_FILE, target=target)
        block = json.loads(file.read_text())["conv2"]
        rounding, algorithm = ("auto", "mse") if target == "onnxruntime" else (None, "ifmr")
        assert block["weight_quant_params"].get("rounding") == rounding
        assert block["activation_quant_params"]["act_algo"] == algorithm


def test_with_batches_it_is_gptq_and_the_summary_says_so(tmp_path, explicit):
    graph = plan(tmp_path)
    amct.calibrate(graph, BATCHES)
    assert saved(graph, tmp_path) == (explicit["gptq"], {"gptq"})


def test_in_a_loop_of_the_users_own_it_is_nearest_and_the_summary_says_so(tmp_path, explicit):
    graph = plan(tmp_path)
    run_own_loop(graph, tmp_path)
    assert saved(graph, tmp_path) == (explicit["nearest"], {"nearest"})


def test_a_statistics_file_alone_gives_nearest_and_with_the_data_gptq(tmp_path, explicit):
    graph, file = plan(tmp_path), tmp_path / "statistics.npz"
    amct.calibrate(graph, BATCHES, statistics_file=file)
    assert saved(graph, tmp_path) == (explicit["gptq"], {"gptq"})
    amct.calibrate(graph, None, statistics_file=file)
    assert saved(graph, tmp_path) == (explicit["nearest"], {"nearest"})
    amct.calibrate(graph, BATCHES, statistics_file=file)
    assert saved(graph, tmp_path) == (explicit["gptq"], {"gptq"})


class AnyModel(AutoNuqEvaluatorBase):
    """Accepts everything."""

    def eval_model(self, model_file, weights_file, batch_num):
        return 1.0

    def is_satisfied(self, original_metric, new_metric):
        return True


def test_the_search_rounds_by_nearest_and_its_record_says_nothing_else(tmp_path):
    plan(tmp_path)
    result = amct.auto_nuq(
        MODEL_FILE,
        None,
        AnyModel(1),
        tmp_path / "config.json",
        tmp_path / "record.txt",
        tmp_path / "out",
        calibration_data=BATCHES,
        max_evaluations=2,
    )
    assert {layer.rounding for layer in result.summary.layers} <= {"nearest", None}
    assert not list(tmp_path.rglob("*.weights.npz"))


def test_what_cannot_do_without_samples_is_still_refused_beside_it(tmp_path):
    plan(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["conv2"]["weight_quant_params"]["bias_correction"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    graph = amct.init(tmp_path / "config.json", MODEL_FILE, None, tmp_path / "record.txt")
    with pytest.raises(amct.errors.ParameterError, match=r"conv2.*\"bias_correction\": true"):
        amct.quantize_model(graph, tmp_path / "modified.onnx")
