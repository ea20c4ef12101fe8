"""caffe.proto is Caffe's: real Caffe's descriptor agrees, zoo prototxts of all forks parse, and nothing is lost."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, text_format

from amct_lite.files.protos import message_class

ROOT = Path(__file__).parents[2]
CAFFE_PYTHON = Path(os.environ.get("AMCT_LITE_CAFFE_PYTHON", ROOT / ".venv-caffe" / "bin" / "python"))

DUMP = """
import json
from caffe.proto import caffe_pb2
LABELLED_REPEATED, MESSAGE, GROUP = 3, 11, 10
messages, enums = {}, {}
def walk(message):
    fields = {}
    for field in message.fields:
        scalar = field.label != LABELLED_REPEATED and field.type not in (MESSAGE, GROUP)
        kind = field.message_type or field.enum_type
        default = field.default_value if scalar else None
        default = default.decode() if isinstance(default, bytes) else default
        packed = field.has_options and field.GetOptions().packed
        fields[field.name] = [field.number, field.type, field.label, default, packed, kind.full_name if kind else None]
    messages[message.full_name] = fields
    for enum in message.enum_types:
        enums[enum.full_name] = {value.name: value.number for value in enum.values}
    for nested in message.nested_types:
        walk(nested)
for message in caffe_pb2.DESCRIPTOR.message_types_by_name.values():
    walk(message)
for enum in caffe_pb2.DESCRIPTOR.enum_types_by_name.values():
    enums[enum.full_name] = {value.name: value.number for value in enum.values}
print(json.dumps([messages, enums]))
"""

# What kendryte added to its copy of Caffe 1.0; no zoo uses it, and most of its numbers are SSD's.
KENDRYTE = {
    "caffe.LayerParameter": {
        "ctc_loss_param",
        "continuation_indicator_param",
        "labelsequence_accuracy_param",
        "reverse_param",
    },
    "caffe.V0LayerParameter": {"axis"},
    "caffe.V1LayerParameter": {"reverse_param"},
}
KENDRYTE_MESSAGES = {
    "caffe.ReverseParameter",
    "caffe.CtcLossParameter",
    "caffe.ContinuationIndicatorParameter",
    "caffe.LabelsequenceAccuracyParameter",
}


@pytest.fixture(scope="module")
def real_descriptor():
    if not CAFFE_PYTHON.exists():
        pytest.skip(f"no Python with Caffe at {CAFFE_PYTHON}: see .ci/run")
    environment = {**os.environ, "GLOG_minloglevel": "2"}
    done = subprocess.run([CAFFE_PYTHON, "-c", DUMP], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def described(field):
    proto = _descriptor_proto(field)
    repeated = proto.label == proto.LABEL_REPEATED
    scalar = not repeated and field.message_type is None
    kind = field.message_type or field.enum_type
    default = field.default_value if scalar else None
    default = default.decode() if isinstance(default, bytes) else default
    name = kind.full_name if kind else None
    return [field.number, proto.type, proto.label, default, proto.options.packed, name]


def _descriptor_proto(field):
    """The field as its .proto has it: the one description that every protobuf version gives."""
    message = descriptor_pb2.DescriptorProto()
    field.containing_type.CopyToProto(message)
    return next(entry for entry in message.field if entry.name == field.name)


def test_every_field_of_real_caffe_is_here_with_its_number_type_label_and_default(real_descriptor) -> None:
    checked = 0
    for name, fields in real_descriptor[0].items():
        if name in KENDRYTE_MESSAGES:
            continue
        ours = message_class("caffe", name).DESCRIPTOR.fields_by_name
        for field, wanted in fields.items():
            if field in KENDRYTE.get(name, ()):
                continue
            assert described(ours[field]) == wanted, f"{name}.{field}"
            checked += 1
    assert checked > 400


def test_every_enum_value_of_real_caffe_is_here(real_descriptor) -> None:
    for name, values in real_descriptor[1].items():
        if name == "caffe.Phase":
            enum = message_class("caffe", "caffe.NetState").DESCRIPTOR.fields_by_name["phase"].enum_type
        else:
            parent, _, own = name.rpartition(".")
            if parent in KENDRYTE_MESSAGES:
                continue
            enum = message_class("caffe", parent).DESCRIPTOR.enum_types_by_name[own]
        ours = {value.name: value.number for value in enum.values}
        values.pop("REVERSE", None)  # kendryte's
        assert values.items() <= ours.items(), name


def test_the_numbers_of_amct_and_ssd_are_theirs() -> None:
    layer = message_class("caffe", "caffe.LayerParameter").DESCRIPTOR.fields_by_name
    numbers = {
        "annotated_data_param": 200,
        "multibox_loss_param": 201,
        "permute_param": 202,
        "prior_box_param": 203,
        "detection_output_param": 204,
        "detection_evaluate_param": 205,
        "norm_param": 206,
        "video_data_param": 207,
        "quant_param": 208,
        "dequant_param": 200000,
        "ifmr_param": 200001,
        "lstm_quant_param": 200002,
        "search_n_param": 200003,
        "retrain_data_quant_param": 200004,
        "retrain_weight_quant_param": 200005,
        "roi_pooling_param": 8266711,
        "smooth_l1_loss_param": 8266712,
    }
    assert {name: layer[name].number for name in numbers} == numbers
    blob = message_class("caffe", "caffe.BlobProto").DESCRIPTOR.fields_by_name
    assert [blob[name].number for name in ("int8_data", "int32_data", "uint64_data")] == [10, 11, 12]


FORKS = {
    "ssd prior box": """type: "PriorBox" prior_box_param { min_size: 30.0 max_size: 60.0 aspect_ratio: 2 flip: true
        clip: false variance: 0.1 variance: 0.2 step: 8 offset: 0.5 }""",
    "ssd detection output": """type: "DetectionOutput" include { phase: TEST } detection_output_param { num_classes: 21
        share_location: true background_label_id: 0 nms_param { nms_threshold: 0.45 top_k: 400 }
        save_output_param { output_directory: "" output_name_prefix: "comp4_det_test_" output_format: "VOC"
        label_map_file: "l" name_size_file: "n" num_test_image: 4952 resize_param { prob: 1 resize_mode: WARP
        height: 300 width: 300 interp_mode: LINEAR } } code_type: CENTER_SIZE keep_top_k: 200
        confidence_threshold: 0.01 }""",
    "ssd normalize": """type: "Normalize" norm_param { across_spatial: false scale_filler { type: "constant" value: 20 }
        channel_shared: false }""",
    "ssd multibox loss": """type: "MultiBoxLoss" propagate_down: true loss_param { normalization: VALID }
        multibox_loss_param { loc_loss_type: SMOOTH_L1 conf_loss_type: SOFTMAX match_type: PER_PREDICTION
        mining_type: MAX_NEGATIVE neg_pos_ratio: 3.0 code_type: CENTER_SIZE }""",
    "ssd data": """type: "AnnotatedData" transform_param { resize_param { resize_mode: WARP interp_mode: AREA }
        emit_constraint { emit_type: CENTER } distort_param { hue_prob: 0.5 } expand_param { max_expand_ratio: 4 }
        noise_param { saltpepper_param { fraction: 0.1 value: 3 } } } annotated_data_param { anno_type: BBOX
        batch_sampler { max_sample: 1 sampler { min_scale: 0.3 } sample_constraint { min_jaccard_overlap: 0.1 } } }""",
    "r-cnn": """type: "ROIPooling" roi_pooling_param { pooled_w: 7 pooled_h: 7 spatial_scale: 0.0625 }""",
    "faster r-cnn": """type: "Python" python_param { module: "rpn.proposal_layer" layer: "ProposalLayer"
        param_str: "'feat_stride': 16" } smooth_l1_loss_param { sigma: 3.0 }""",
    "r-fcn": """type: "PSROIPooling" psroi_pooling_param { spatial_scale: 0.0625 output_dim: 21 group_size: 7 }
        box_annotator_ohem_param { roi_per_img: 128 }
        loss_param { normalization: PRE_FIXED pre_fixed_normalizer: 128 }""",
    "segnet": """type: "Upsample" upsample_param { scale: 2 upsample_w: 60 upsample_h: 45 pad_out_h: true }
        bn_param { scale_filler { type: "constant" value: 1 } shift_filler { type: "constant" value: 0.001 }
        bn_mode: INFERENCE } dropout_param { sample_weights_test: true }
        loss_param { weight_by_label_freqs: true class_weighting: 0.2595 }""",
    "enet": """type: "SpatialDropout" spatial_dropout_param { dropout_ratio: 0.1 }
        dense_image_data_param { source: "l" batch_size: 4 new_height: 512 }""",
    "pspnet": """type: "BN" bn_param { slope_filler { value: 1 } bias_filler { value: 0 } frozen: true momentum: 0.95 }
        interp_param { height: 60 width: 60 }""",
    "deeplab": """type: "MatWrite" mat_write_param { prefix: "f/" source: "l" strip: 0 period: 1 }
        convolution_param { hole: 2 dilation: 4 } interp_param { zoom_factor: 8 shrink_factor: 2 pad_beg: -1 }
        dense_crf_param { max_iter: 10 pos_xy_std: 3 bi_w: 5 } seg_accuracy_param { ignore_label: 255 }
        image_data_param { label_type: NONE }""",
    "openpose": """type: "ImResize" imresize_param { factor: 8 scale_gap: 0.3 start_scale: 1.0 }
        nms_param { threshold: 0.05 max_peaks: 64 num_parts: 18 }""",
    "sphereface": """type: "MarginInnerProduct" margin_inner_product_param { num_output: 10572 type: QUADRUPLE
        weight_filler { type: "xavier" } base: 1000 gamma: 0.12 power: 1 lambda_min: 5 iteration: 0 }
        center_loss_param { num_output: 10 center_filler { type: "xavier" } }
        inner_product_param { normalize: true }""",
    "mobile": """type: "ShuffleChannel" shuffle_channel_param { group: 3 } relu6_param { negative_slope: 0 }
        swish_param { beta: 1 } clip_param { min: 0 max: 6 } pooling_param { round_mode: FLOOR ceil_mode: false }""",
    "senet": """type: "Axpy" bottom: "a" bottom: "b" bottom: "c" """,
    "yolo": """type: "Reorg" reorg_param { stride: 2 } mish_param { engine: CAFFE } upsample_param { scale: 2 }""",
    "ocr": """type: "LSTM" recurrent_param { num_output: 100 expose_hidden: false debug_info: false }""",
    "amct": """type: "Quant" quant_param { with_offset: true scale: 12.5 offset: "\\200" object_layer: "conv1" }
        dequant_param { channel_wise: true object_layer: "conv1" layer_type: "Convolution" }
        ifmr_param { batch_num: 2 with_offset: true search_step: 0.01 object_layer: "c" record_file_path: "r.txt" }
        search_n_param { batch_num: 2 layer_name: "c" layer_type: "Convolution" record_file_path: "r.txt" }""",
}


@pytest.mark.parametrize("fork", FORKS)
def test_parameters_of_forks_parse_and_survive_both_forms(fork) -> None:
    layer = message_class("caffe", "caffe.LayerParameter")
    parsed = text_format.Parse(FORKS[fork], layer())
    assert text_format.Parse(text_format.MessageToString(parsed), layer()) == parsed
    assert layer.FromString(parsed.SerializeToString()) == parsed


def test_unknown_fields_of_a_caffemodel_survive_a_round_trip() -> None:
    network, layer = message_class("caffe", "caffe.NetParameter"), message_class("caffe", "caffe.LayerParameter")
    known = layer(name="conv1", type="Convolution").SerializeToString()
    foreign = b"\xea\xff\x03\x03abc" + b"\x9d\xfa\x01\x00\x00\x80\x3f"  # fields 8189 (bytes) and 4003 (float)
    body = known + foreign
    data = b"\xa2\x06" + bytes([len(body)]) + body
    again = network.FromString(data).SerializeToString()
    assert again == data
    assert network.FromString(data).layer[0].name == "conv1"


def test_messages_that_amct_does_not_publish_keep_what_they_hold() -> None:
    layer = message_class("caffe", "caffe.LayerParameter")
    wire = b"\x92\xd4\x61\x02\x08\x07"  # lstm_quant_param (200002) { 1: 7 }
    assert layer.FromString(wire).HasField("lstm_quant_param")
    assert layer.FromString(wire).SerializeToString() == wire


def test_amcts_integer_blobs_keep_their_types() -> None:
    blob = message_class("caffe", "caffe.BlobProto")(int8_data=np.int8([-128, 127]).tobytes(), int32_data=[-5])
    blob.uint64_data.append(2**63)
    assert type(blob).FromString(blob.SerializeToString()) == blob
