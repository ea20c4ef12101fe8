"""AMCT's simplified config as a file: both ways to write it, what counts where it contradicts itself, every mistake."""

import logging
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2

from amct_lite.errors import ConfigError, FileError
from amct_lite.files.calibration_block import CalibrationBlock
from amct_lite.files.protos import message_class
from amct_lite.files.simplified_config import SimplifiedConfig, read_simplified_config

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "amct-samples"

# Written for this test after the shape of the two NUQ configs that AMCT ships: colons before braces and none, comments.
RESNET50 = """
# global quantize parameter
activation_offset : true
batch_num : 2
nuq_config {
    mapping_file : "net_om.json"
    nuq_quantize : { num_steps : 32  num_of_iteration : 0 }
}
common_config : {
    ifmr_quantize : { search_range_start : 0.7 search_range_end : 1.3 search_step : 0.01
                      max_percentile : 0.999999 min_percentile : 0.999999 }
}
override_layer_types : {
    layer_type : "Pooling"
    calibration_config : { arq_quantize : { channel_wise : false } ifmr_quantize : { search_step : 0.02 } }
}
"""


@pytest.fixture
def read(tmp_path: Path):
    def run(text: str) -> SimplifiedConfig:
        path = tmp_path / "quant.cfg"
        path.write_text(text)
        return read_simplified_config(path)

    return run


@pytest.fixture
def mistake(read):
    def run(text: str) -> str:
        with pytest.raises(ConfigError) as caught:
            read(text)
        assert caught.value.remedy
        return str(caught.value)

    return run


@pytest.mark.parametrize("name", ["onnx-resnet101/nuq_quant.cfg", "tensorflow/yolo_quant.cfg"])
def test_the_configs_that_amct_ships_are_read(name: str, tmp_path: Path) -> None:
    if not SAMPLES.is_dir():
        pytest.skip(f"{SAMPLES} is not there")
    text = (SAMPLES / name).read_text()
    (tmp_path / "src" / "nuq_conf").mkdir(parents=True)
    (tmp_path / "src" / "nuq_conf" / "resnet-101_quantized.json").write_text("{}")
    (tmp_path / "quant.cfg").write_text(text)
    config = read_simplified_config(tmp_path / "quant.cfg")
    assert config.global_keys == {"batch_num": 1, "activation_offset": True}
    assert config.notes == ()
    if "nuq" in name:
        assert config.nuq is not None
        assert config.nuq.weights == {"wts_algo": "nuq_quantize", "num_steps": 32, "num_of_iteration": 1}
    else:
        assert config.common is not None
        assert config.common.weights == {"wts_algo": "arq_quantize", "channel_wise": True}


def test_a_nuq_config_is_read_with_its_mapping_file_beside_it(read, tmp_path: Path) -> None:
    (tmp_path / "net_om.json").write_text("{}")
    config = read(RESNET50)
    assert config.nuq is not None
    assert config.nuq.mapping_file == tmp_path / "net_om.json"
    assert config.nuq.weights == {"wts_algo": "nuq_quantize", "num_steps": 32, "num_of_iteration": 0}
    assert config.common == CalibrationBlock(
        activation={
            "act_algo": "ifmr",
            "search_range": [0.7, 1.3],
            "search_step": 0.01,
            "max_percentile": 0.999999,
            "min_percentile": 0.999999,
        }
    )
    assert config.by_type["Pooling"].weights == {"wts_algo": "arq_quantize", "channel_wise": False}


def test_a_mapping_file_is_looked_for_from_the_current_folder_first(read, tmp_path: Path, monkeypatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for folder in (here, tmp_path):
        (folder / "net_om.json").write_text("{}")
    monkeypatch.chdir(here)
    assert read(RESNET50).nuq.mapping_file.absolute() == here / "net_om.json"


def test_a_mapping_file_that_is_nowhere_is_an_error_with_both_places(mistake, tmp_path: Path, monkeypatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    text = mistake(RESNET50)
    assert f"there is no file {here / 'net_om.json'} or {tmp_path / 'net_om.json'}" in text


@pytest.mark.parametrize("between", [" ", " : ", ":"])
def test_a_block_may_have_a_colon_or_none(read, between: str) -> None:
    text = f"common_config{between}{{ hfmg_quantize{between}{{ num_of_bins: 1024 }} }}"
    assert read(text).common.activation == {"act_algo": "hfmg", "num_of_bins": 1024}


@pytest.mark.parametrize("value", [0.7, 1.3, 0.01, 0.999999, 0.1, 0.8500001, 1.0])
def test_numbers_come_back_as_they_were_written_though_they_were_float32_between(read, value: float) -> None:
    block = f"ifmr_quantize {{ search_range_start: 0.001 search_range_end: {value} search_step: 0.0005 }}"
    end = read(f"common_config {{ {block} }}").common.activation["search_range"][1]
    assert end == value
    assert np.float32(end) == np.float32(value)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("arq_quantize { channel_wise: true } nuq_quantize { num_steps: 16 }", "nuq_quantize"),
        ("nuq_quantize { num_steps: 16 } arq_quantize { channel_wise: true }", "arq_quantize"),
        ("ada_quantize { } arq_quantize { } nuq_quantize { }", "nuq_quantize"),
        ("nuq_quantize { } ada_quantize { }", "adaround"),
    ],
)
def test_of_several_weight_algorithms_the_last_one_in_the_file_counts_and_a_warning_says_so(
    read, caplog, written: str, kept: str
) -> None:
    with caplog.at_level(logging.WARNING):
        weights = read(f"batch_num: 1\ncommon_config {{ {written} }}").common.weights
    assert weights["wts_algo"] == ("arq_quantize" if kept == "adaround" else kept)
    assert ("rounding" in weights) == (kept == "adaround")
    assert kept != "arq_quantize" or "num_steps" not in weights
    assert "line 2" in caplog.text
    assert "The last one in the file counts." in caplog.text


def test_a_field_that_comes_twice_counts_as_written_last_and_is_told_of(read, caplog) -> None:
    assert read("batch_num: 1\nbatch_num: 3").global_keys == {"batch_num": 3}
    assert "line 2" in caplog.text


def test_a_file_without_contradictions_is_read_without_a_warning(read, caplog) -> None:
    read("batch_num: 1 common_config { arq_quantize { } ifmr_quantize { } }")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_num: 1\nbatch_nun: 2", "line 2: AMCTConfig has no field 'batch_nun'. Did you mean 'batch_num'?"),
        ("nuq_config {\n nuq_quantise { } }", "line 2: NuqConfig has no field 'nuq_quantise'. Did you mean"),
        ("common_config { arq_quantize { bits: 8 } }", "line 1: ARQuantize has no field 'bits'. Did you mean"),
        (
            "common_config {\n hfmg_quantize {\n xyz: 8 } }",
            "line 3: HFMGQuantize has no field 'xyz'. Known here: num_of",
        ),
        ("batch_num: }", "line 1: "),
        ("common_config {", "line 1: "),
        ("batch_num: 0", "$.batch_num: must be greater than 0"),
        ("version: 2", "$.version: must be 1"),
        ("weight_offset: true", "$.weight_offset: must be False"),
        (
            "common_config { ifmr_quantize { max_percentile: 0.2 } }",
            "common_config.activation_quant_params.max_percentile: must be greater than 0.5. Got 0.2 instead.",
        ),
        (
            "common_config { hfmg_quantize { num_of_bins: 100 } }",
            "common_config.activation_quant_params.num_of_bins: must be 1024, 2048, 4096 or 8192.",
        ),
        (
            'override_layer_types { layer_type: "Conv" calibration_config { nuq_quantize { num_steps: 1 } } }',
            "override_layer_types 'Conv'.weight_quant_params.num_steps: must be greater than or equal to 2.",
        ),
        (
            "nuq_config { nuq_quantize { num_of_iteration: 6 } }",
            "nuq_config.weight_quant_params.num_of_iteration: must be less than or equal to 5.",
        ),
        (
            "common_config { dmq_balancer { migration_strength: 0.9 } }",
            "common_config.dmq_balancer_param: must be less",
        ),
        ("common_config { arq_quantize { asymmetric: true } }", "arq_quantize.asymmetric: must be false"),
        ('skip_layers: "a" skip_layers: "a"', "Please delete repeated items in skip_layers, repeated items are ['a']"),
        ('override_layer_types { layer_type: "Conv" }', "override_layer_types 'Conv': calibration_config is missing."),
        ("override_layer_configs { calibration_config { } }", "override_layer_configs: layer_name is missing"),
        ("tensor_quantize { input_index: 0 }", 'To quantize tensor, must set "layer_name" at first.'),
        ('tensor_quantize { layer_name: "a" }', 'To quantize tensor, must set "input_index" at first.'),
    ],
)
def test_every_mistake_is_named_with_its_place(mistake, text: str, message: str) -> None:
    assert message in mistake(text)


def test_all_mistakes_are_told_at_once(mistake) -> None:
    text = mistake("batch_num: 0 common_config { ifmr_quantize { max_percentile: 0.2 search_step: 9 } }")
    assert text.count("\n") >= 4


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "quant.cfg").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError):
        read_simplified_config(tmp_path / "quant.cfg")
    with pytest.raises(FileError):
        read_simplified_config(tmp_path / "missing.cfg")


def test_deprecated_blocks_count_with_a_note_and_not_beside_common_config(read) -> None:
    alone = read("conv_calibration_config { ifmr_quantize { } } fc_calibration_config { hfmg_quantize { } }")
    assert (alone.conv.activation["act_algo"], alone.fc.activation["act_algo"]) == ("ifmr", "hfmg")
    assert "conv_calibration_config field has been deprecated, use common_config" in alone.notes[0]
    beside = read("conv_calibration_config { ifmr_quantize { } } common_config { hfmg_quantize { } }")
    assert (beside.conv, beside.fc) == (None, None)
    assert "would be ignored when common_config or override_layer_types exists" in beside.notes[0]


def test_what_amcts_adaround_learns_by_is_not_used_and_a_note_says_so(read) -> None:
    config = read("common_config { ada_quantize { num_iteration: 5 reg_param: 0.1 channel_wise: true } }")
    assert config.common.weights == {"wts_algo": "arq_quantize", "rounding": "adaround", "channel_wise": True}
    assert "num_iteration, reg_param of ada_quantize are not used" in config.notes[0]


def test_widths_and_weights_only_have_the_json_configs_names(read) -> None:
    config = read(
        "common_config { weight_compress_only: true arq_quantize { quant_bits: 6 } }"
        ' override_layer_configs { layer_name: "a" calibration_config { ifmr_quantize { dst_type: INT16 } } }'
    )
    assert config.common.document() == {
        "weight_quant_params": {"wts_algo": "arq_quantize", "num_bits": 6},
        "activation_quant_params": {"act_algo": "none"},
    }
    assert config.by_layer["a"].activation == {"act_algo": "ifmr", "num_bits": 16}


def test_fields_that_amct_does_not_publish_numbers_of_are_numbered_from_1000() -> None:
    file = message_class("calibration_config", "amct_lite.AMCTConfig").DESCRIPTOR.file
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    numbers = {f"{m.name}.{f.name}": f.number for m in proto.message_type for f in m.field}
    assert numbers["AMCTConfig.common_config"] == 50
    assert numbers["CalibrationConfig.hfmg_quantize"] == 101
    assert numbers["AMCTConfig.nuq_config"] >= 1000
    assert numbers["NuqConfig.mapping_file"] >= 1000
