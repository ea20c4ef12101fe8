"""AMCT's records in every variant: each field is read, kept and written again, and its checks speak its words."""

import dataclasses
from pathlib import Path

import pytest
from google.protobuf import text_format

from amct_lite.errors import RecordError
from amct_lite.files.protos import message_class
from amct_lite.files.record import LayerRecord, read_record, write_record

SHARED = Path(__file__).resolve().parents[3] / "shared"
AMCT_RECORD = SHARED / "amct-samples" / "tensorflow" / "mobilenet_v2_record.txt"

CAFFE = """
record {
  key: "conv1"
  value {
    scale_d: 1.07450986
    offset_d: -14
    scale_w: 0.00448934268
    scale_w: 0.000430673215
    offset_w: 0
    offset_w: 0
    shift_bit: 1
    shift_bit: 3
    channels: 3
    height: 224
    width: 224
    skip_fusion: false
  }
}
record { key: "fc" value { scale_d: 0.5 offset_d: -128 scale_w: 0.25 offset_w: 0 channels: 2048 height: 1 width: 1 } }
record { key: "only_skip" value { skip_fusion: true } }
"""

ONNX = """
record {
  key: "Conv_0"
  value: {
    scale_d: 0.0235294122
    offset_d: -128
    scale_w: 0.0128474627
    offset_w: 0
    tensor_balance_factor: 0.5
    tensor_balance_factor: 2
    skip_fusion: true
    dst_type: "INT8"
    act_type: "INT8"
    wts_type: "INT8"
    op_data_type: "FLOAT32"
    fakequant_precision_mode: "FORCE_FP16_QUANT"
    cluster: [-128, -3, 0, 127]
  }
}
record { key: "Gemm_1" value { scale_d: 0.1 offset_d: -30000 act_type: "INT16" wts_type: "INT6" scale_w: 1 } }
record { key: "Add_2:1" value { scale_d: 0.1 offset_d: 3 dst_type: 'INT8' } }
"""

REST = """
record {
  key: "lstm"
  value {
    scale_d: 0.5 offset_d: 1 scale_w: [1, 2, 3, 4] offset_w: [0, 0, 0, 0]
    scale_h: 0.25 offset_h: -7 scale_r: [1, 2, 3, 4] offset_r: [0, 0, 0, 0]
  }
}
record { key: "attention" kv_cache_value { scale: [0.5, 0.25] offset: [0, 3] } }
prune_record {
  producer { name: "conv1" attr { name: "type" type: STRING s: "Conv2d" } attr { name: "begin" type: INT i: 0 } }
  consumer { name: "conv2" attr { name: "groups" type: INTS ints: [1, 2] } attr { name: "r" type: FLOATS floats: 0.5 } }
  selective_prune { name: "conv1" attr { name: "n" type: STRINGS strings: ["a", "b"] } attr { type: FLOAT f: 2 } }
}
"""


def parsed(text: str):
    return text_format.Parse(text, message_class("scale_offset_record", "amct_lite.ScaleOffsetRecord")())


def write(folder: Path, text: str) -> Path:
    (folder / "record.txt").write_text(text)
    return folder / "record.txt"


@pytest.mark.parametrize("text", [CAFFE, ONNX, REST, CAFFE + ONNX + REST], ids=["caffe", "onnx", "rest", "all"])
def test_every_variant_is_written_again_as_it_was(tmp_path: Path, text: str) -> None:
    records = read_record(write(tmp_path, text))
    write_record(records, tmp_path / "again.txt")
    again = (tmp_path / "again.txt").read_text()
    assert parsed(again) == parsed(text)
    assert read_record(tmp_path / "again.txt") == records


@pytest.mark.skipif(not AMCT_RECORD.exists(), reason="AMCT's sample record is not here")
def test_amcts_own_record_is_written_again_as_it_was(tmp_path: Path) -> None:
    write_record(read_record(AMCT_RECORD), tmp_path / "again.txt")
    assert parsed((tmp_path / "again.txt").read_text()) == parsed(AMCT_RECORD.read_text())


def test_what_each_variant_says_is_understood(tmp_path: Path) -> None:
    caffe = read_record(write(tmp_path, CAFFE))
    assert caffe["conv1"].shift_bit == (1, 3)
    assert caffe["conv1"].input_shape == (3, 224, 224)
    assert caffe["fc"].input_shape == (2048, 1, 1)
    assert caffe["only_skip"].skip_fusion
    assert [name for name, record in caffe.items() if not record.has_factors] == ["only_skip"]
    onnx = read_record(write(tmp_path, ONNX))
    assert onnx["Conv_0"].tensor_balance_factor == (0.5, 2.0)
    assert onnx["Conv_0"].cluster == (-128, -3, 0, 127)
    assert onnx["Conv_0"].skip_fusion
    assert (onnx["Gemm_1"].activation_bits, onnx["Gemm_1"].offset_d, onnx["Gemm_1"].weight_bits) == (16, -30000, 6)
    assert onnx["Add_2:1"] == LayerRecord(scale_d=onnx["Add_2:1"].scale_d, offset_d=3)


def test_a_changed_record_keeps_what_amct_lite_has_no_use_for(tmp_path: Path) -> None:
    records = read_record(write(tmp_path, ONNX + REST))
    for name in ("Conv_0", "lstm"):
        records[name] = dataclasses.replace(
            records[name], scale_d=2.0, offset_d=5, input_shape=(3, 4), skip_fusion=False, activation_bits=16
        )
    records["attention"] = dataclasses.replace(records["attention"], scale_d=1.0)
    write_record(records, tmp_path / "again.txt")
    wanted = parsed(ONNX + REST)
    for entry in wanted.record:
        if entry.key in ("Conv_0", "lstm"):
            value = entry.value
            value.scale_d, value.offset_d, value.channels, value.height, value.act_type = 2.0, 5, 3, 4, "INT16"
            value.ClearField("dst_type")
            if entry.key == "Conv_0":
                value.skip_fusion = False
        if entry.key == "attention":
            entry.value.scale_d, entry.value.offset_d = 1.0, 0
    assert parsed((tmp_path / "again.txt").read_text()) == wanted
    assert read_record(tmp_path / "again.txt") == records


def test_an_entry_that_is_renamed_or_loses_fields_does_not_keep_them(tmp_path: Path) -> None:
    records = read_record(write(tmp_path, CAFFE))
    bare = dataclasses.replace(records["conv1"], shift_bit=(), input_shape=(), scale_d=None, offset_d=0)
    write_record({"other": bare}, tmp_path / "again.txt")
    assert read_record(tmp_path / "again.txt") == {"other": bare}
    again = (tmp_path / "again.txt").read_text()
    assert not {"conv1", "shift_bit", "channels", "scale_d", "offset_d"} & set(again.replace(":", " ").split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("record {\n  keys: 1\n}", "line 2: the field 'keys' of MapFiledEntry is not known; 'key' is."),
        ('record {\n key: "a"\n value {\n  scale_x: 1 } }', "line 4: the field 'scale_x' of SingleLayerRecord is not"),
        ('record { key: "a" kv_cache_value { zzz: 1 } }', "line 1: the field 'zzz' of SingleLayerKVCacheRecord is not"),
        ("prune_record { producer { zzz: 1 } }", "line 1: the field 'zzz' of PruneNode is not known."),
        ("zzz { }", "line 1: the field 'zzz' of ScaleOffsetRecord is not known."),
    ],
)
def test_a_field_that_is_not_known_is_named_with_its_line_and_never_lost(tmp_path: Path, text, message) -> None:
    with pytest.raises(RecordError) as caught:
        read_record(write(tmp_path, text))
    assert message in str(caught.value)
    assert caught.value.remedy


def test_a_pruned_layer_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"prune_record\[0\]\.producer\[0\]\.name is missing"):
        read_record(write(tmp_path, CAFFE + "prune_record { producer { } }"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("scale_d: 0", "scale_d's value shoule be in positivate range of float32 in layer conv1"),
        ("scale_w: 0", "scale_w's value shoule be in positivate range of float32 in layer conv1"),
        ("scale_h: 0", "scale_h's value shoule be in positivate range of float32 in layer conv1"),
        ("scale_r: 0", "scale_r's value shoule be in positivate range of float32 in layer conv1"),
        ("offset_d: 128", "offset_d's value should be in [-128, 127] in layer conv1"),
        ("offset_h: 128", "offset_h's value should be in [-128, 127] in layer conv1"),
        ('act_type: "INT16" offset_d: 32768', "offset_d's value should be in [-32768, 32767] in layer conv1"),
        ("scale_w: 1 offset_w: 1", "offset_w's value should be 0 in layer conv1"),
        ("scale_r: 1 offset_r: 1", "offset_r's value should be 0 in layer conv1"),
        ("scale_w: 1 shift_bit: 17", "shift_bit's value shoule be in [1, 16] or all be 0 in layer conv1"),
        ("scale_w: [1, 1] shift_bit: [0, 2]", "shift_bit's value shoule be in [1, 16] or all be 0 in layer conv1"),
        ("scale_w: 1 cluster: 128", "Cluster center should between [-128, 127], but is 128"),
        ('dst_type: "INT4"', "Do not support dst_type INT4 in record file"),
        ('act_type: "INT4"', "Do not support act_type INT4 in record file"),
        ('wts_type: "INT3"', "Do not support wts_type INT3 in record file"),
        ('fakequant_precision_mode: "X"', "Do not support fakequant_precision_mode X in record file"),
    ],
)
def test_a_value_out_of_its_range_is_told_in_amcts_words(tmp_path: Path, value: str, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        read_record(write(tmp_path, f'record {{ key: "conv1" value {{ {value} }} }}'))
    assert message in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("shift", ["[0, 0]", "[1, 16]"])
def test_shifts_are_all_0_or_each_1_to_16(tmp_path: Path, shift: str) -> None:
    text = f'record {{ key: "c" value {{ scale_d: 1 scale_w: [1, 1] shift_bit: {shift} }} }}'
    assert read_record(write(tmp_path, text))["c"].shift_bit in ((0, 0), (1, 16))
