"""`amct-lite calibration` with the options of AMCT's command, in a process of its own."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import amct_lite as amct
from amct_lite.errors import CalibrationError, ParameterError
from amct_lite.files.bin_batches import DATA_TYPES, BinBatches, parse_data_types, parse_input_shape
from amct_lite.samples.digits.data import MODEL_FILE, load_split

IMAGES = load_split().calibration.images[:32]
SHAPE = "image:16,1,8,8"

EVALUATOR = """
import numpy as np
import onnxruntime
import amct_lite as amct

class Evaluator:
    def calibration(self, model_file{more}):
        session = onnxruntime.InferenceSession(model_file, amct.AMCT_SO, providers=["CPUExecutionProvider"])
        for name in ("0.bin", "1.bin"):
            session.run(None, {{"image": np.fromfile("bins/" + name, np.float32).reshape(16, 1, 8, 8)}})

evaluator = Evaluator()
"""


def calibration(folder, *arguments):
    command = [sys.executable, "-c", "from amct_lite.cli import main; main()", "calibration", *map(str, arguments)]
    variables = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=variables)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "bins").mkdir()
    for number, batch in enumerate((IMAGES[:16], IMAGES[16:])):
        batch.astype(np.float32).tofile(tmp_path / "bins" / f"{number}.bin")
    return tmp_path


@pytest.fixture
def expected_record(tmp_path):
    folder = tmp_path / "expected"
    folder.mkdir()
    amct.create_quant_config(folder / "config.json", MODEL_FILE, batch_num=2)
    graph = amct.init(folder / "config.json", MODEL_FILE, None, folder / "record.txt")
    amct.calibrate(graph, [IMAGES[:16], IMAGES[16:]])
    return (folder / "record.txt").read_bytes()


def options(**changes):
    given = {"--model": MODEL_FILE, "--save_path": "out/net", "--input_shape": SHAPE, "--data_dir": "bins"}
    given |= {"--data_types": "float32", "--batch_num": 2} | {f"--{name}": value for name, value in changes.items()}
    return [part for option, value in given.items() if value is not None for part in (option, value)]


def test_a_folder_of_bin_files_calibrates_as_the_verbs_do(folder, expected_record):
    done = calibration(folder, *options())
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (folder / "out").iterdir()}
    models = {"net_fake_quant_model.onnx", "net_deploy_model.onnx", "net_quant.json", "net_summary.json"}
    assert names == models | {"net_config.json", "net_scale_offset_record.txt"}
    assert (folder / "out" / "net_scale_offset_record.txt").read_bytes() == expected_record


def test_a_save_path_that_ends_in_a_slash_is_a_folder_without_a_prefix(folder):
    done = calibration(folder, *options(save_path="out/"))
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (folder / "out").iterdir()}
    assert {"fake_quant_model.onnx", "deploy_model.onnx", "config.json", "scale_offset_record.txt"} <= names
    assert [path.name for path in folder.iterdir() if path.suffix == ".onnx"] == []


def test_options_may_be_joined_by_an_equals_sign_and_data_type_be_cut_short_as_in_amcts_samples(folder):
    done = calibration(
        folder, f"--model={MODEL_FILE}", "--save_path=out/net", f"--input_shape={SHAPE}", "--data_dir=./bins/;",
        "--data_type=float32;",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("more", ["", ", batch_num"])
def test_an_evaluators_own_loop_calibrates(folder, expected_record, more):
    (folder / "evaluator.py").write_text(EVALUATOR.format(more=more))
    changes = {"input_shape": None, "data_dir": None, "data_types": None, "evaluator": "evaluator.py"}
    done = calibration(folder, *options(**changes))
    assert done.returncode == 0, done.stderr
    assert (folder / "out" / "net_scale_offset_record.txt").read_bytes() == expected_record


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_num": 3}, "The number of given data batches is not enough: batch_num is 3, but bins has 2"),
        ({"input_shape": "image:16,1,8"}, "expects|does not fit|shape|takes 512"),
        ({"input_shape": "image;16"}, "Invalid input_shape"),
        ({"data_types": "float33"}, "Unsupported data type[float33]!"),
        ({"data_types": "float64"}, "has 4096 bytes, but a batch of [16, 1, 8, 8] float64 takes 8192"),
        ({"data_dir": "nowhere"}, "There is no folder nowhere for the input 'image'"),
        ({"data_dir": "bins;bins"}, "data_dir 2 folders"),
        ({"data_dir": None}, "--data_dir missing"),
        ({"evaluator": "evaluator.py"}, "--input_shape, --data_dir, --data_types cannot be given beside it"),
    ],
)
def test_a_mistake_is_told_in_a_sentence_and_leaves_no_model(folder, changes, message):
    done = calibration(folder, *options(**changes))
    assert done.returncode == 1
    assert any(part in " ".join(done.stderr.split()) for part in message.split("|")), done.stderr
    assert not (folder / "out" / "net_deploy_model.onnx").exists()


def test_a_file_without_one_evaluator_is_told_what_it_must_define(folder):
    (folder / "evaluator.py").write_text(EVALUATOR.format(more="").replace("evaluator = Evaluator()", ""))
    changes = {"input_shape": None, "data_dir": None, "data_types": None, "evaluator": "evaluator.py"}
    done = calibration(folder, *options(**changes))
    assert done.returncode == 1
    assert "must define one evaluator, an object with the method calibration. Found: none" in done.stderr


@pytest.mark.parametrize("name", DATA_TYPES)
def test_every_data_type_of_amcts_is_read_as_it_was_written(tmp_path, name):
    values = np.arange(6).reshape(2, 3).astype(name)
    values.tofile(tmp_path / "0.bin")
    (batch,) = BinBatches.from_texts("x:2,3", str(tmp_path), name, 1)
    assert batch["x"].dtype == values.dtype
    np.testing.assert_array_equal(batch["x"], values)


def test_several_inputs_take_their_files_in_the_order_of_names(tmp_path):
    for number in range(3):
        for name, shape in (("a", (2,)), ("b", (1, 2))):
            (tmp_path / name).mkdir(exist_ok=True)
            np.full(shape, number, np.float32).tofile(tmp_path / name / f"{number}.bin")
    batches = list(BinBatches.from_texts("a:2;b:1,2", f"{tmp_path / 'a'};{tmp_path / 'b'}", "float32;float32", 2))
    assert [batch["a"].tolist() for batch in batches] == [[0, 0], [1, 1]]
    assert [batch["b"].tolist() for batch in batches] == [[[0, 0]], [[1, 1]]]


def test_a_file_cut_short_is_named(tmp_path):
    (tmp_path / "0.bin").write_bytes(b"\0" * 7)
    with pytest.raises(CalibrationError, match=r"0\.bin has 7 bytes, but a batch of \[2\] float32 takes 8"):
        list(BinBatches.from_texts("x:2", str(tmp_path), "float32", 1))


@pytest.mark.parametrize("text", ["", "x", "x:", "x:a,b", "x:0,1", "x:-1,3", ":1,2", "x:1,2;y"])
def test_a_shape_that_is_none_is_refused(text):
    with pytest.raises(ParameterError, match="Invalid input_shape"):
        parse_input_shape(text)


def test_names_with_colons_keep_them():
    assert parse_input_shape("scope/x:0:1,2;") == {"scope/x:0": (1, 2)}


def test_types_may_stand_in_one_line():
    assert [item.name for item in parse_data_types("float32; int64 ;bool")] == ["float32", "int64", "bool"]


def test_a_simplified_config_says_how(folder):
    (folder / "quant.cfg").write_text("batch_num : 2\ncommon_config { hfmg_quantize { num_of_bins : 2048 } }\n")
    done = calibration(folder, *options(calibration_config="quant.cfg", batch_num=None))
    assert done.returncode == 0, done.stderr
    config = json.loads((folder / "out" / "net_config.json").read_text())
    assert config["batch_num"] == 2
    assert config["conv1"]["activation_quant_params"]["num_of_bins"] == 2048


@pytest.mark.parametrize("option", ["--help", "--h"])
def test_help_has_amcts_short_name(tmp_path, option):
    done = calibration(tmp_path, option)
    assert done.returncode == 0, done.stderr
    assert "--calibration_config" in done.stdout
