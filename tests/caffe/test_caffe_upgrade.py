"""Networks of old form become today's, as real Caffe upgrades them, and layers are chosen as Caffe chooses them."""

import warnings

import numpy as np
import pytest
from google.protobuf import text_format

from amct_lite.caffe.phases import layers_at_test
from amct_lite.caffe.reading import read_network
from amct_lite.caffe.upgrade import V1_TYPES, upgrade_layers
from amct_lite.errors import ModelError
from amct_lite.files.protos import message_class

V1 = """
name: "v1"
input: "data" input_dim: 2 input_dim: 3 input_dim: 9 input_dim: 9
layers { name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1" blobs_lr: 1 blobs_lr: 2 weight_decay: 1
  weight_decay: 0
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.1 } } }
layers { name: "relu1" type: RELU bottom: "conv1" top: "conv1" relu_param { negative_slope: 0.1 } }
layers { name: "pool1" type: POOLING bottom: "conv1" top: "pool1" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layers { name: "norm1" type: LRN bottom: "pool1" top: "norm1" lrn_param { local_size: 3 alpha: 0.001 k: 2 } }
layers { name: "slice" type: SLICE bottom: "norm1" top: "a" top: "b" slice_param { slice_dim: 1 slice_point: 1 } }
layers { name: "power" type: POWER bottom: "b" top: "b2" power_param { power: 2 shift: 1 } }
layers { name: "cat" type: CONCAT bottom: "a" bottom: "b2" top: "cat" concat_param { concat_dim: 1 } }
layers { name: "drop" type: DROPOUT bottom: "cat" top: "cat" dropout_param { dropout_ratio: 0.4 }
  include { phase: TRAIN } }
layers { name: "ip" type: INNER_PRODUCT bottom: "cat" top: "ip" inner_product_param { num_output: 5 }
  param: "shared_w" param: "" blob_share_mode: PERMISSIVE }
layers { name: "tanh" type: TANH bottom: "ip" top: "tanh" exclude { phase: TRAIN } }
layers { name: "prob" type: SOFTMAX bottom: "tanh" top: "prob" }
"""

V0 = """
name: "v0"
input: "data" input_dim: 1 input_dim: 2 input_dim: 8 input_dim: 8
layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "data" top: "pad1" }
layers { layer { name: "conv1" type: "conv" num_output: 4 kernelsize: 3 stride: 2 group: 2 biasterm: false
  weight_filler { type: "gaussian" std: 0.1 } blobs_lr: 1. weight_decay: 1. } bottom: "pad1" top: "conv1" }
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers { layer { name: "pool1" type: "pool" pool: AVE kernelsize: 3 stride: 2 } bottom: "conv1" top: "pool1" }
layers { layer { name: "norm1" type: "lrn" local_size: 3 alpha: 0.0001 beta: 0.5 } bottom: "pool1" top: "norm1" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.3 } bottom: "norm1" top: "norm1" }
layers { layer { name: "cat" type: "concat" concat_dim: 1 } bottom: "norm1" bottom: "pool1" top: "cat" }
layers { layer { name: "fc" type: "innerproduct" num_output: 3 bias_filler { type: "constant" value: 0.5 } }
  bottom: "cat" top: "fc" }
layers { layer { name: "prob" type: "softmax" } bottom: "fc" top: "prob" }
"""


def parse(text):
    return text_format.Parse(text, message_class("caffe", "caffe.NetParameter")())


def upgraded(text):
    network = parse(text)
    count = len(network.layer or network.layers)
    return [layer for layer, _ in upgrade_layers(network, [None] * count)]


@pytest.mark.parametrize("text", [V1, V0], ids=["V1", "V0"])
def test_an_old_network_is_upgraded_as_real_caffe_does(real_caffe, tmp_path, text) -> None:
    prototxt, caffemodel = tmp_path / "old.prototxt", tmp_path / "new.caffemodel"
    prototxt.write_text(text)
    real_caffe(prototxt, {}, save=caffemodel)
    saved = message_class("caffe", "caffe.NetParameter").FromString(caffemodel.read_bytes())
    theirs = {layer.name: layer for layer in saved.layer if layer.type not in ("Input", "Split")}
    ours = {layer.name: layer for layer in upgraded(text) if layer.name != "drop" or text is V0}
    assert list(ours) == list(theirs)
    for name, layer in ours.items():
        real = theirs[name]
        for field in (
            "phase",
            "blobs",
            "bottom",
            "propagate_down",
        ):  # set, filled or renamed (Split) when a net is made
            real.ClearField(field)
            layer.ClearField(field)
        assert layer == real, name


def test_an_old_network_reads_its_weights_from_an_upgraded_caffemodel(real_caffe, tmp_path) -> None:
    prototxt, caffemodel = tmp_path / "v1.prototxt", tmp_path / "new.caffemodel"
    prototxt.write_text(V1)
    run = real_caffe(prototxt, {}, save=caffemodel)
    network = read_network(prototxt, caffemodel)
    weights = {layer.name: layer.blobs for layer in network.layers}
    for (layer, index), values in run.params.items():
        np.testing.assert_array_equal(weights[layer][index], values)


def test_lines_of_old_layers_are_their_own(tmp_path) -> None:
    prototxt = tmp_path / "v0.prototxt"
    prototxt.write_text(V0)
    network = read_network(prototxt)
    assert {layer.name: layer.line for layer in network.layers}["conv1"] == 5  # the padding layer of line 4 is gone
    assert network.layers[0].params.convolution_param.pad == [2]
    assert network.layers[0].bottoms == ("data",)


def test_param_specs_come_from_blobs_lr_weight_decay_and_names() -> None:
    by_name = {layer.name: layer for layer in upgraded(V1)}
    assert [(spec.lr_mult, spec.decay_mult) for spec in by_name["conv1"].param] == [(1, 1), (2, 0)]
    assert [(spec.name, spec.HasField("share_mode")) for spec in by_name["ip"].param] == [
        ("shared_w", True),
        ("", False),
    ]


def test_data_transforms_move_to_transform_param() -> None:
    (layer,) = upgraded(
        """layers { name: "d" type: DATA top: "data" data_param { source: "s" scale: 0.5 mean_file: "m" crop_size: 3
        mirror: true batch_size: 4 } }"""
    )
    transform = layer.transform_param
    assert (transform.scale, transform.mean_file, transform.crop_size, transform.mirror) == (0.5, "m", 3, True)
    assert (layer.data_param.source, layer.data_param.batch_size) == ("s", 4)
    assert not any(layer.data_param.HasField(name) for name in ("scale", "mean_file", "crop_size", "mirror"))


def test_batch_norms_three_learning_rates_are_cleared() -> None:
    layers = upgraded(
        """layer { name: "bn" type: "BatchNorm" param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 } }
        layer { name: "c" type: "Convolution" param { lr_mult: 0 } }"""
    )
    assert [len(layer.param) for layer in layers] == [0, 1]


def test_the_network_read_stays_as_it_was() -> None:
    for text in (V0, V1):
        network = parse(text)
        upgrade_layers(network, [None] * len(network.layers))
        assert network == parse(text)


def test_every_v1_type_has_todays_name() -> None:
    values = message_class("caffe", "caffe.V1LayerParameter").DESCRIPTOR.enum_types_by_name["LayerType"].values
    assert {value.name for value in values} == set(V1_TYPES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('layer { name: "a" type: "ReLU" } layers { name: "b" type: RELU }', "both `layer` and `layers`"),
        ('layers { layer { name: "a" type: "warp" } }', "type 'warp'"),
        (
            'layers { layer { name: "p" type: "padding" pad: 1 } bottom: "d" top: "p" }'
            'layers { layer { name: "r" type: "relu" } bottom: "p" top: "r" }',
            "reads a padding layer",
        ),
    ],
)
def test_what_cannot_be_upgraded_is_refused(text, message) -> None:
    with pytest.raises(ModelError, match=message):
        upgraded(text)


def test_a_parameter_that_a_v0_type_does_not_take_is_left_out_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="'relu' does not take 'kernelsize'"):
        (layer,) = upgraded('layers { layer { name: "r" type: "relu" kernelsize: 3 } bottom: "d" top: "d" }')
    assert layer.type == "ReLU"


RULES = [
    ("", True),
    ("include { phase: TEST }", True),
    ("include { phase: TRAIN }", False),
    ("include { phase: TRAIN } include { phase: TEST }", True),
    ("exclude { phase: TEST }", False),
    ("exclude { phase: TRAIN }", True),
    ("include { min_level: 1 }", False),
    ("include { min_level: 0 max_level: 0 }", True),
    ("include { max_level: -1 }", False),
    ('include { stage: "deploy" }', False),
    ('include { not_stage: "deploy" }', True),
    ('exclude { not_stage: "deploy" }', False),
    ('include { phase: TEST stage: "s" }', False),
]


def test_phase_rules_choose_as_real_caffe(real_caffe, tmp_path) -> None:
    text = 'input: "data" input_shape { dim: 1 dim: 2 }\n'
    for index, (rule, _) in enumerate(RULES):
        text += f'layer {{ name: "{index}" type: "ReLU" bottom: "data" top: "{index}" {rule} }}\n'
    prototxt = tmp_path / "net.prototxt"
    prototxt.write_text(text)
    chosen = {str(index) for index, (_, runs) in enumerate(RULES) if runs}
    theirs = {blob for blob in real_caffe(prototxt, {}).blobs if not blob.startswith("data")}
    assert theirs == set(read_network(prototxt).blobs) - {"data"} == chosen


@pytest.mark.parametrize(("rule", "runs"), RULES)
def test_phase_rules_choose_by_phase_level_and_stage(rule, runs) -> None:
    network = parse(f'layer {{ name: "a" type: "ReLU" {rule} }}')
    assert bool(layers_at_test([(network.layer[0], 1)], network.state)) == runs


def test_the_networks_own_level_and_stages_count_and_its_phase_does_not() -> None:
    network = parse(
        """state { phase: TRAIN level: 2 stage: "s" }
        layer { name: "a" type: "ReLU" include { phase: TEST min_level: 2 stage: "s" } }"""
    )
    assert layers_at_test([(network.layer[0], 1)], network.state)


def test_include_and_exclude_together_are_refused() -> None:
    network = parse('layer { name: "a" type: "ReLU" include { phase: TEST } exclude { phase: TRAIN } }')
    with pytest.raises(ModelError, match="line 7: the layer has both include and exclude"):
        layers_at_test([(network.layer[0], 7)], network.state)


def test_upgrading_today_s_form_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        upgraded('layer { name: "a" type: "ReLU" bottom: "d" top: "d" }')
