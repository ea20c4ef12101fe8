"""A simplified config against a network: which part counts for which layer, and nothing that `init` would refuse."""

import json
import logging
from pathlib import Path

import numpy as np
import onnx
import pytest

import amct_lite
from amct_lite.errors import ConfigError, ParameterError

# A convolution of each kind that matters here: 3 x 3 and 4 x 4 filters, a pool without weights, an inner product.
NETWORK = """g (float[N,4,18,18] x) => (float[N,10] y) {
    [three] a = Conv <kernel_shape=[3,3]> (x, w3)
    [relu] r = Relu(a)
    [four] b = Conv <kernel_shape=[4,4]> (r, w4)
    [pool] p = AveragePool <kernel_shape=[13,13]> (b)
    [flat] f = Flatten(p)
    [fc] y = Gemm(f, w, c)
}"""
WEIGHTS = {
    "w3": np.ones((8, 4, 3, 3), np.float32),
    "w4": np.ones((8, 8, 4, 4), np.float32),
    "w": np.ones((8, 10), np.float32),
    "c": np.zeros(10, np.float32),
}


def flagging(*names: str) -> str:
    """A compiler's file that flags operators of these names."""
    flag = {"key": "_fe_weight_compress", "value": {"b": True}}
    return json.dumps({"graph": [{"name": "g", "op": [{"name": name, "attr": [flag]} for name in names]}]})


def params(block: dict) -> tuple[str, str]:
    weights = block.get("weight_quant_params", {}).get("wts_algo", "-")
    return weights, block["activation_quant_params"]["act_algo"]


@pytest.fixture
def configure(tmp_path: Path, write_network):
    """The JSON config that comes of a text; `init` must take it."""
    network = write_network(NETWORK, WEIGHTS)

    def run(text: str, model: Path = network, weights: Path | None = None, mapping: str | None = None, **options):
        if mapping is not None:
            (tmp_path / "net.json").write_text(mapping)
            text += f'\nnuq_config {{ mapping_file: "{tmp_path / "net.json"}" }}'
        (tmp_path / "quant.cfg").write_text(text)
        config_file = tmp_path / "config.json"
        amct_lite.create_quant_config(config_file, model, weights, config_defination=tmp_path / "quant.cfg", **options)
        amct_lite.init(config_file, model, weights)
        return json.loads(config_file.read_text())

    return run


@pytest.fixture
def refusal(configure, tmp_path: Path):
    def run(text: str, **options) -> str:
        with pytest.raises(ConfigError) as caught:
            configure(text, **options)
        assert not (tmp_path / "config.json").exists(), "what cannot be done is not written"
        assert caught.value.remedy
        return str(caught.value)

    return run


def test_an_empty_one_gives_what_no_simplified_config_gives(configure, tmp_path: Path) -> None:
    document = configure("")
    amct_lite.create_quant_config(tmp_path / "plain.json", tmp_path / "network.onnx")
    assert document == json.loads((tmp_path / "plain.json").read_text())


def test_global_keys_and_skipped_layers_come_from_it(configure) -> None:
    document = configure('batch_num: 3 activation_offset: false do_fusion: false skip_layers: "three"')
    assert [document[key] for key in ("batch_num", "activation_offset", "do_fusion")] == [3, False, False]
    assert [name for name in ("three", "four", "pool", "fc") if name in document] == ["four", "pool", "fc"]


def test_arguments_that_it_takes_the_place_of_are_ignored_and_a_warning_says_so(configure, caplog) -> None:
    document = configure("batch_num: 2", batch_num=9, activation_offset=False, skip_layers=["three"])
    assert document["batch_num"] == 2
    assert document["activation_offset"] is True
    assert "three" in document
    assert "skip_layers is ignored" in caplog.text


def test_types_are_skipped_by_their_names_in_the_models_format(configure) -> None:
    document = configure('skip_layer_types: "Conv" skip_layer_types: "AveragePool"')
    assert [name for name in ("three", "four", "pool", "fc") if name in document] == ["fc"]


@pytest.fixture
def normed(write_network) -> Path:
    text = """g (float[1,4,8,8] x) => (float[1,4,8,8] y) {
        [conv] a = Conv (x, w) [norm] y = BatchNormalization (a, ones, zeros, zeros, ones)
    }"""
    weights = {"w": np.ones((4, 4, 1, 1), np.float32), "ones": np.ones(4, np.float32), "zeros": np.zeros(4, np.float32)}
    return write_network(text, weights, name="normed.onnx")


def test_what_is_not_to_be_folded_is_handed_on(configure, normed: Path) -> None:
    assert configure('skip_fusion_layers: "conv"', model=normed)["skip_fusion_layers"] == ["conv"]
    assert configure("do_fusion: false", model=normed)["do_fusion"] is False


def test_a_layer_that_is_not_to_be_folded_must_exist(refusal, normed: Path) -> None:
    said = refusal('skip_fusion_layers: "con"', model=normed)
    assert "skip_fusion_layers" in said
    assert "'con'" in said


PRIORITIES = """
common_config { hfmg_quantize { num_of_bins: 1024 } }
override_layer_types { layer_type: "Conv" calibration_config { ifmr_quantize { search_step: 0.05 } } }
override_layer_configs { layer_name: "four" calibration_config { ifmr_quantize { search_step: 0.1 } } }
"""


def test_a_layers_own_block_counts_before_its_types_and_that_before_the_common_one(configure) -> None:
    document = configure(PRIORITIES)
    steps = {name: document[name]["activation_quant_params"].get("search_step") for name in ("three", "four", "fc")}
    assert steps == {"three": 0.05, "four": 0.1, "fc": None}
    assert document["fc"]["activation_quant_params"]["num_of_bins"] == 1024


def test_a_block_counts_whole_what_it_leaves_out_is_not_taken_from_the_common_one(configure) -> None:
    common = "common_config { ada_quantize { } hfmg_quantize { } }"
    own = 'override_layer_configs { layer_name: "four" calibration_config { arq_quantize { channel_wise: false } } }'
    document = configure(common + own)
    assert params(document["four"]) == ("arq_quantize", "ifmr")
    assert document["four"]["weight_quant_params"] == {
        "num_bits": 8,
        "wts_algo": "arq_quantize",
        "channel_wise": False,
    }
    assert document["three"]["weight_quant_params"]["rounding"] == "adaround"


def test_asymmetric_alone_comes_from_the_common_block_where_that_names_the_same_algorithm(configure) -> None:
    common = "common_config { ifmr_quantize { asymmetric: false } }"
    own = """override_layer_configs { layer_name: "four" calibration_config { ifmr_quantize { } } }
             override_layer_configs { layer_name: "three" calibration_config { hfmg_quantize { } } }
             override_layer_configs { layer_name: "fc" calibration_config { arq_quantize { } } }"""
    document = configure(common + own)
    assert document["four"]["activation_quant_params"]["asymmetric"] is False
    assert document["fc"]["activation_quant_params"]["asymmetric"] is False
    assert "asymmetric" not in document["three"]["activation_quant_params"]


def test_scales_per_channel_for_all_are_for_those_that_may_have_them(configure, refusal) -> None:
    document = configure("common_config { arq_quantize { channel_wise: true } }")
    given = {name: document[name]["weight_quant_params"]["channel_wise"] for name in ("three", "four", "fc")}
    assert given == {"three": True, "four": True, "fc": False}


def test_scales_per_channel_for_a_type_that_may_not_have_them_are_refused(refusal) -> None:
    text = 'override_layer_types { layer_type: "Gemm" calibration_config { arq_quantize { channel_wise: true } } }'
    assert "The channel_wise must be False for layer type Gemm" in refusal(text)


def test_deprecated_blocks_are_for_convolutions_and_for_what_has_one_scale(configure) -> None:
    document = configure(
        "conv_calibration_config { ifmr_quantize { search_step: 0.05 } }"
        "fc_calibration_config { ifmr_quantize { search_step: 0.1 } }"
    )
    steps = {name: document[name]["activation_quant_params"]["search_step"] for name in ("three", "pool", "fc")}
    assert steps == {"three": 0.05, "pool": 0.1, "fc": 0.1}


def test_a_mapping_files_layers_get_nuq_and_the_others_do_not(configure) -> None:
    document = configure("", mapping=flagging("three", "fc"), target="ascend-rank4")
    assert {name: params(document[name])[0] for name in ("three", "four", "fc")} == {
        "three": "nuq_quantize",
        "four": "arq_quantize",
        "fc": "nuq_quantize",
    }


def test_what_the_target_does_not_allow_stays_uniform_and_a_warning_names_layers_and_target(configure, caplog) -> None:
    document = configure("", mapping=flagging("three", "four"))
    assert (params(document["three"])[0], params(document["four"])[0]) == ("arq_quantize", "nuq_quantize")
    assert "Layer three gets no NUQ" in caplog.text
    assert "'ascend-rank4' allows it" in caplog.text


def test_a_mapping_file_counts_before_a_type_and_a_layers_own_algorithm_before_it(configure) -> None:
    types = 'override_layer_types { layer_type: "Conv" calibration_config { arq_quantize { } hfmg_quantize { } } }'
    own = """override_layer_configs { layer_name: "four" calibration_config { arq_quantize { } } }
             override_layer_configs { layer_name: "fc" calibration_config { hfmg_quantize { } } }"""
    document = configure(types + own, mapping=flagging("three", "four", "fc"), target="ascend-rank4")
    assert {name: params(document[name]) for name in ("three", "four", "fc")} == {
        "three": ("nuq_quantize", "hfmg"),
        "four": ("arq_quantize", "ifmr"),
        "fc": ("nuq_quantize", "hfmg"),
    }


def test_a_layer_that_is_skipped_is_not_told_of_for_want_of_nuq(configure, caplog) -> None:
    assert "three" not in configure('skip_layers: "three"', mapping=flagging("three"))
    assert caplog.text == ""


def test_an_operator_that_the_network_does_not_have_is_told_of_and_nothing_more(configure, caplog) -> None:
    configure("", mapping=flagging("four", "of_another_net"))
    assert "Op 'of_another_net' in the given mapping_file does not exist in the original graph" in caplog.text
    assert "Op 'four'" not in caplog.text


@pytest.mark.parametrize("asked", ["nuq_config { }", "enable_auto_nuq: true"])
def test_without_a_mapping_file_the_layers_are_those_of_the_compilers_rule(configure, write_network, asked) -> None:
    text = """g (float[1,512,9,9] x) => (float[1,512,7,7] y) {
        [small] a = Conv <kernel_shape=[1,1]> (x, w1)
        [large] y = Conv <kernel_shape=[3,3]> (a, w3)
    }"""
    weights = {"w1": np.ones((256, 512, 1, 1), np.float32), "w3": np.ones((512, 256, 3, 3), np.float32)}
    network = write_network(text, weights, name="wide.onnx")
    document = configure(asked, model=network, target="ascend-rank4")
    assert (params(document["small"])[0], params(document["large"])[0]) == ("arq_quantize", "nuq_quantize")
    with pytest.raises(ParameterError, match="must be one of Ascend310"):
        configure(asked, model=network, soc="Ascend1")


def test_auto_nuq_leaves_layers_with_a_block_of_their_own_alone(configure, write_network) -> None:
    text = "g (float[1,512,9,9] x) => (float[1,512,7,7] y) { [large] y = Conv <kernel_shape=[3,3]> (x, w3) }"
    network = write_network(text, {"w3": np.ones((512, 512, 3, 3), np.float32)}, name="wide.onnx")
    own = 'override_layer_configs { layer_name: "large" calibration_config { hfmg_quantize { } } }'
    document = configure("enable_auto_nuq: true " + own, model=network, target="ascend-rank4")
    assert params(document["large"]) == ("arq_quantize", "hfmg")


def test_what_all_layers_shall_have_is_done_where_it_can_be(configure, caplog) -> None:
    document = configure("common_config { ifmr_quantize { dst_type: INT16 } dmq_balancer { } nuq_quantize { } }")
    assert document["three"]["activation_quant_params"]["num_bits"] == 8
    assert [name for name in ("three", "four", "pool", "fc") if "dmq_balancer_param" in document[name]] == [
        *("three", "four", "fc")
    ]
    assert (params(document["three"])[0], params(document["four"])[0]) == ("arq_quantize", "nuq_quantize")
    assert "Layer pool does not support dmq_balancer, remove dmq_balancer in config file" in caplog.text
    assert "does not support int16_quantizable, set int8" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('skip_layers: "for"', "Layer for does not exist in the graph. Did you mean 'four'?"),
        ('skip_layers: "relu"', "Layer relu does not support quantization."),
        ('skip_layer_types: "Convolution"', "Layer type Convolution does not support quantize."),
        ('skip_layer_types: "Conv" skip_layer_types: "Gemm" skip_layer_types: "AveragePool"', "no layer needs to quan"),
        (
            'override_layer_configs { layer_name: "fo" calibration_config { } }',
            "Layer fo does not exist in the graph.",
        ),
        (
            'override_layer_types { layer_type: "Pooling" calibration_config { } }',
            "Unrecognized layer type:Pooling, only support Conv, ConvTranspose, Gemm, MatMul, AveragePool.",
        ),
        (
            'override_layer_configs { layer_name: "three" calibration_config { nuq_quantize { } } }',
            "does not allow NUQ of this layer's weights: kernel_shape must be [4, 4], found [3, 3]",
        ),
        (
            'override_layer_configs { layer_name: "pool" calibration_config { dmq_balancer { } } }',
            "dmq_balancer not support for pool layer",
        ),
        (
            'override_layer_configs { layer_name: "fc" calibration_config { ifmr_quantize { dst_type: INT16 } } }',
            "num_bits 16 is too wide",
        ),
        ("common_config { weight_compress_only: true }", 'act_algo "none" leaves the input float'),
    ],
)
def test_what_the_network_does_not_have_or_the_target_not_allow_is_refused(refusal, text: str, message: str) -> None:
    said = refusal(text)
    assert message in said
    assert "quant.cfg does not fit" in said


def test_a_block_for_a_layer_that_cannot_be_quantized_is_refused_with_the_reason(refusal, write_network) -> None:
    text = """g (float[1,4,9,9] x) => (float[1,4,11,11] z) {
        [up] y = ConvTranspose <dilations=[2,2], kernel_shape=[2,2]> (x, w) [last] z = Conv(y, v)
    }"""
    weights = {"w": np.ones((4, 4, 2, 2), np.float32), "v": np.ones((4, 4, 1, 1), np.float32)}
    own = 'override_layer_configs { layer_name: "up" calibration_config { ifmr_quantize { } } }'
    said = refusal(own, model=write_network(text, weights, name="up.onnx"))
    assert "layer up does not support quant. Dilation must be 1, found [2, 2]." in said


def test_for_onnx_runtime_what_it_leaves_out_keeps_that_targets_defaults(configure) -> None:
    document = configure("common_config { arq_quantize { quant_bits: 7 } }", target="onnxruntime")
    assert document["three"]["weight_quant_params"] == {
        "num_bits": 7,
        "wts_algo": "arq_quantize",
        "channel_wise": True,
        "rounding": "auto",
    }
    assert document["three"]["activation_quant_params"]["act_algo"] == "mse"


def test_weights_alone_are_quantized_for_onnx_runtime(configure) -> None:
    document = configure("common_config { weight_compress_only: true }", target="onnxruntime")
    assert document["three"]["activation_quant_params"] == {"act_algo": "none"}


ADDING = """g (float[1,4,8,8] x) => (float[1,4,3,3] y) {
    [conv] a = Conv <kernel_shape=[1,1]> (x, w)
    [add] b = Add(a, x)
    [pool] y = MaxPool <kernel_shape=[3,3], strides=[2,2]> (b)
}"""


def test_tensors_that_are_to_be_quantized_are_written_in_amcts_form(configure, write_network) -> None:
    network = write_network(ADDING, {"w": np.ones((4, 4, 1, 1), np.float32)}, name="adding.onnx")
    document = configure(
        """tensor_quantize { layer_name: "pool" input_index: 0 }
           tensor_quantize { layer_name: "add" input_index: 1
                             hfmg_quantize { num_of_bins: 1024 asymmetric: false } }""",
        model=network,
    )
    first, second = document["tensor_quantize"]
    assert list(first) == ["layer_name", "input_index", "activation_quant_params"]
    assert (first["layer_name"], first["input_index"]) == ("pool", 0)
    assert first["activation_quant_params"]["act_algo"] == "ifmr"
    assert second["activation_quant_params"] == {
        "num_bits": 8,
        "num_of_bins": 1024,
        "act_algo": "hfmg",
        "asymmetric": False,
    }


def test_a_tensor_that_cannot_be_quantized_is_refused(refusal) -> None:
    assert "layer relu does not support quant." in refusal('tensor_quantize { layer_name: "relu" input_index: 0 }')
    assert "Layer of does not exist in the graph." in refusal('tensor_quantize { layer_name: "of" input_index: 0 }')


def test_joint_factors_and_float16_are_handed_on_and_left_out_at_their_defaults(configure) -> None:
    document = configure("joint_quant: true fakequant_precision_mode: FORCE_FP16_QUANT")
    assert (document["joint_quant"], document["fakequant_precision_mode"]) == (True, "FORCE_FP16_QUANT")
    document = configure("joint_quant: false fakequant_precision_mode: DEFAULT")
    assert not {"joint_quant", "fakequant_precision_mode"} & set(document)


def test_a_caffe_networks_types_are_caffes(configure, find_model) -> None:
    pair = find_model("lenet_fashion/deploy.prototxt"), find_model("lenet_fashion/lenet_fashion.caffemodel")
    text = """skip_layer_types: "Convolution"
              override_layer_types { layer_type: "InnerProduct" calibration_config { nuq_quantize { num_steps: 16 } } }
              common_config { dmq_balancer { } }"""
    document = configure(text, model=pair[0], weights=pair[1])
    blocks = [block for block in document.values() if isinstance(block, dict)]
    assert blocks
    assert all(params(block)[0] == "nuq_quantize" for block in blocks)


def test_a_copy_with_names_of_their_own_is_saved_and_the_config_uses_those_names(tmp_path: Path, write_network) -> None:
    text = """g (float[1,4,9,9] x) => (float[1,4,9,9] y) {
        a = Relu(x) b = Conv(a, w) [c] d = Conv(b, w2) [c] y = Conv(d, w3)
    }"""
    shape = (4, 4, 1, 1)
    network = write_network(text, {name: np.ones(shape, np.float32) for name in ("w", "w2", "w3")})
    # write_network gives names where there were none; take them away again.
    proto = onnx.load_model(network)
    for node, name in zip(proto.graph.node, ["", "", "c", "c"], strict=True):
        node.name = name
    onnx.save_model(proto, network)
    amct_lite.create_quant_config(tmp_path / "c.json", network, updated_model=tmp_path / "out" / "named.onnx")
    names = [node.name for node in onnx.load_model(tmp_path / "out" / "named.onnx").graph.node]
    assert names == ["Relu_0", "Conv_1", "c", "c_1"]
    layers = [key for key, value in json.loads((tmp_path / "c.json").read_text()).items() if isinstance(value, dict)]
    assert layers == ["Conv_1", "c", "c_1"]
    amct_lite.init(tmp_path / "c.json", tmp_path / "out" / "named.onnx")


def test_amct_onnx_gives_updated_model_behind_the_others(tmp_path: Path, write_network) -> None:
    (tmp_path / "quant.cfg").write_text("batch_num: 2")
    network, named = write_network(NETWORK, WEIGHTS), tmp_path / "named.onnx"
    config, definition = tmp_path / "c.json", str(tmp_path / "quant.cfg")
    amct_lite.create_quant_config(str(config), str(network), None, 1, True, definition, str(named))
    assert named.is_file()
    assert json.loads(config.read_text())["batch_num"] == 2


def test_a_caffe_network_has_no_updated_model(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="updated_model"):
        amct_lite.create_quant_config(tmp_path / "c.json", "a.prototxt", "a.caffemodel", updated_model="b.onnx")


def test_warnings_go_through_logging(configure, caplog) -> None:
    configure("conv_calibration_config { }")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
