"""A file edited by hand: every mistake is named with its place, what was found, and what must stand there."""

from pathlib import Path

import pytest

from amct_lite.errors import ConfigError
from amct_lite.files.config_file import read_config

ACT_ALGOS = "'ifmr', 'hfmg', 'minmax', 'moving_average', 'percentile', 'entropy', 'mse', 'auto', 'none'"


@pytest.fixture
def mistakes(tmp_path: Path):
    """The error for a config's text, or for one part of layer c."""

    def of(text: str | None = None, *, activation: str | None = None, weight: str | None = None) -> str:
        if activation is not None:
            text = f'{{"c":{{"activation_quant_params":{activation}}}}}'
        if weight is not None:
            text = f'{{"c":{{"weight_quant_params":{weight}}}}}'
        path = tmp_path / "config.json"
        path.write_text(str(text))
        with pytest.raises(ConfigError) as caught:
            read_config(path)
        assert str(path) in str(caught.value)
        assert caught.value.remedy
        return str(caught.value)

    return of


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"version":2}', "$.version: must be 1. Got 2 instead."),
        ('{"version":true}', "$.version: must be of type int. Got True instead."),
        ('{"batch_num":0}', "$.batch_num: must be greater than 0. Got 0 instead."),
        ('{"batch_num":true}', "$.batch_num: must be a valid integer. Got True instead."),
        ('{"batch_num":"2"}', "$.batch_num: must be a valid integer. Got '2' instead."),
        ('{"batch_num":1.5}', "$.batch_num: must be a valid integer. Got 1.5 instead."),
        ('{"activation_offset":1}', "$.activation_offset: must be a valid boolean. Got 1 instead."),
        ('{"activation_offset":"true"}', "$.activation_offset: must be a valid boolean. Got 'true' instead."),
        ('{"joint_quant":0}', "$.joint_quant: must be a valid boolean. Got 0 instead."),
        ('{"weight_offset":true}', "$.weight_offset: must be False. Got True instead."),
        ('{"do_fusion":null}', "$.do_fusion: must be a valid boolean. Got None instead."),
        ('{"fakequant_precision_mode":"FP16"}', "$.fakequant_precision_mode: must be 'DEFAULT' or 'FORCE_FP16_QUANT'."),
        ('{"tensor_quantize":{}}', "$.tensor_quantize: must be a valid list. Got {} instead."),
        ('{"tensor_quantize":[1]}', "$.tensor_quantize[0]: must be an object. Got 1 instead."),
        ('{"tensor_quantize":[{}]}', "$.tensor_quantize[0].layer_name: Field required."),
        ('{"tensor_quantize":[{"layer_name":"a","input_index":-1}]}', "[0].input_index: must be greater than or equal"),
        (
            '{"tensor_quantize":[{"layer_name":"a","index":1}]}',
            "$.tensor_quantize[0].index: Unknown parameter index in tensor_quantize. Did you mean 'input_index'?",
        ),
        (
            '{"tensor_quantize":[{"layer_name":"a","activation_quant_params":{"num_of_bins":2048}}]}',
            "$.tensor_quantize[0].activation_quant_params.num_of_bins: Unknown parameter num_of_bins in"
            " activation_quant_params. It belongs to act_algo 'hfmg', here it is 'ifmr'.",
        ),
        (
            '{"tensor_quantize":[{"layer_name":"a","activation_quant_params":{"act_algo":"none"}}]}',
            '$.tensor_quantize[0].activation_quant_params: act_algo must not be "none"',
        ),
        (
            '{"tensor_quantize":[{"layer_name":"a","activation_quant_params":{"act_algo":"x"}}]}',
            "$.tensor_quantize[0].activation_quant_params.act_algo: must be one of 'ifmr'",
        ),
        (
            '{"tensor_quantize":[{"layer_name":"a"},{"layer_name":"a","input_index":0}]}',
            "$.tensor_quantize: must name each input once, but a:0 is there twice.",
        ),
        ('{"skip_fusion_layers":"conv1"}', "$.skip_fusion_layers: must be a valid list. Got 'conv1' instead."),
        ('{"skip_fusion_layers":[1]}', "$.skip_fusion_layers[0]: must be a valid string. Got 1 instead."),
        ('{"target":3}', "$.target: must be a valid string. Got 3 instead."),
        ('{"auto_nuq":3}', "$.auto_nuq: must be an object. Got 3 instead."),
        ('{"auto_nuq":{"num_steps":[1]}}', "$.auto_nuq.num_steps[0]: must be greater than or equal to 2. Got 1"),
        ('{"auto_nuq":{"num_steps":[]}}', "$.auto_nuq.num_steps: List should have at least 1 item"),
        ('{"auto_nuq":{"target_compression_ratio":[0]}}', "$.auto_nuq.target_compression_ratio[0]: must be greater"),
        (
            '{"auto_nuq":{"num_step":[4]}}',
            "$.auto_nuq.num_step: Unknown parameter num_step in auto_nuq. Did you mean 'num_steps'?",
        ),
        (
            '{"batch_nmu":3}',
            "$.batch_nmu: batch_nmu is an invalid layer name or parameter. A layer's value must be an object."
            " Got 3 instead. Did you mean 'batch_num'?",
        ),
        ('{"c":{"quant_enable":1}}', "$.c.quant_enable: must be a valid boolean. Got 1 instead."),
        ('{"c":{"quant_enabled":true}}', "$.c.quant_enabled: Unknown parameter quant_enabled in c. Did you mean"),
        (
            '{"c":{"x":true}}',
            "Known here: activation_quant_params, dmq_balancer_param, quant_enable, search_space, weight_quant_params.",
        ),
        (
            '{"c":[1]}',
            "$.c: c is an invalid layer name or parameter. A layer's value must be an object. Got [1] instead.",
        ),
        ('{"/a.0/Conv":{"x":1}}', "$['/a.0/Conv'].x: Unknown parameter x in /a.0/Conv."),
        (
            '{"nuq":{"num_steps":1}}',
            "$.nuq.num_steps: Unknown parameter num_steps in nuq. Known here: activation_quant_params",
        ),
        ('{"ifmr":{"x":1}}', "$.ifmr.x: Unknown parameter x in ifmr."),
    ],
)
def test_a_mistake_outside_a_layers_parameters_is_named(mistakes, text: str, message: str) -> None:
    assert message in mistakes(text)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("3", "$.c.activation_quant_params: must be an object. Got 3 instead."),
        ("null", "$.c.activation_quant_params: must be an object. Got None instead."),
        ("[]", "$.c.activation_quant_params: must be an object. Got [] instead."),
        ('{"num_bits":4}', ".num_bits: must be 8 or 16. Got 4 instead."),
        ('{"num_bits":"8"}', ".num_bits: must be 8 or 16. Got '8' instead."),
        ('{"act_algo":"kl"}', f".act_algo: must be one of {ACT_ALGOS}. Got 'kl' instead."),
        ('{"act_algo":null}', f".act_algo: must be one of {ACT_ALGOS}. Got None instead."),
        ('{"act_algo":["ifmr"]}', f".act_algo: must be one of {ACT_ALGOS}. Got ['ifmr'] instead."),
        ('{"max_percentile":0.5}', ".max_percentile: must be greater than 0.5. Got 0.5 instead."),
        ('{"max_percentile":1.1}', ".max_percentile: must be less than or equal to 1. Got 1.1 instead."),
        ('{"min_percentile":0.4}', ".min_percentile: must be greater than 0.5. Got 0.4 instead."),
        ('{"min_percentile":true}', ".min_percentile: must be a valid number. Got True instead."),
        ('{"search_range":[1.3,0.7]}', ".search_range: must be [start, end] with 0 < start < end. Got [1.3, 0.7]"),
        ('{"act_algo":"hfmg","num_of_bins":1000}', ".num_of_bins: must be 1024, 2048, 4096 or 8192. Got 1000"),
        (
            '{"act_algo":"entropy","num_of_bins":512}',
            ".num_of_bins: must be 1024, 2048, 4096 or 8192. Got 512",
        ),
        (
            '{"act_algo":"percentile","max_percentile":0.5}',
            ".max_percentile: must be greater than 0.5. Got 0.5 instead.",
        ),
        ('{"act_algo":"moving_average","averaging_constant":0}', ".averaging_constant: must be greater than 0. Got 0"),
        ('{"act_algo":"mse","num_of_bins":2048}', "It belongs to act_algo 'hfmg', here it is 'mse'."),
        ('{"num_bits":16,"nuq":{"target_compression_ratio":0.5}}', "num_bits must be 8 beside it."),
        ('{"search_range":[0,1]}', ".search_range: must be [start, end] with 0 < start < end. Got [0, 1] instead."),
        ('{"search_range":[1]}', ".search_range: List should have at least 2 items"),
        ('{"search_range":[1,2,3]}', ".search_range: List should have at most 2 items"),
        ('{"search_range":[0.7,1e999]}', ".search_range[1]: must be a finite number. Got inf instead."),
        ('{"search_step":0}', ".search_step: must be greater than 0. Got 0 instead."),
        ('{"search_step":0.7}', ".search_step: must be at most the length of search_range, 0.6. Got 0.7 instead."),
        ('{"search_range":[1,1.001]}', ".search_step: must be at most the length of search_range, 0.001. Got 0.01"),
        ('{"asymmetric":0}', ".asymmetric: must be a valid boolean. Got 0 instead."),
        ('{"nuq":0.5}', ".nuq: must be an object. Got 0.5 instead."),
        ('{"nuq":{}}', ".nuq.target_compression_ratio: Field required."),
        ('{"nuq":{"target_compression_ratio":0}}', ".nuq.target_compression_ratio: must be greater than 0."),
        ('{"nuq":{"target_compression_ratio":1.5}}', ".nuq.target_compression_ratio: must be less than or equal to 1."),
        ('{"nuq":{"target_ratio":0.5}}', ".nuq.target_ratio: Unknown parameter target_ratio in nuq. Did you mean"),
        (
            '{"search_rnge":[1,2]}',
            ".search_rnge: Unknown parameter search_rnge in activation_quant_params. Did you mean 'search_range'?",
        ),
        (
            '{"act_algo":"minmax","max_percentile":1}',
            "Unknown parameter max_percentile in activation_quant_params."
            " It belongs to act_algo 'ifmr', here it is 'minmax'.",
        ),
    ],
)
def test_a_mistake_in_the_activations_parameters_is_named(mistakes, part: str, message: str) -> None:
    text = mistakes(activation=part)
    assert message in text
    assert "$.c.activation_quant_params" in text


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ('"arq"', "$.c.weight_quant_params: must be an object. Got 'arq' instead."),
        ('{"num_bits":3}', ".num_bits: must be 4, 5, 6, 7 or 8. Got 3 instead."),
        ('{"num_bits":6,"wts_algo":"nuq_quantize"}', ".num_bits: must be 8. Got 6 instead."),
        (
            '{"wts_algo":"nuq"}',
            ".wts_algo: must be one of 'arq_quantize', 'nuq_quantize', 'codebook_quantize', 'none'. Got 'nuq' instead.",
        ),
        ('{"channel_wise":"yes"}', ".channel_wise: must be a valid boolean. Got 'yes' instead."),
        ('{"num_steps":16}', "It belongs to wts_algo 'nuq_quantize', here it is 'arq_quantize'."),
        ('{"chanel_wise":true}', "Unknown parameter chanel_wise in weight_quant_params. Did you mean 'channel_wise'?"),
        ('{"wts_algo":"nuq_quantize","num_steps":1}', ".num_steps: must be greater than or equal to 2. Got 1"),
        ('{"wts_algo":"nuq_quantize","num_steps":257}', ".num_steps: must be less than or equal to 256. Got 257"),
        ('{"wts_algo":"nuq_quantize","num_steps":32.0}', ".num_steps: must be a valid integer. Got 32.0 instead."),
        ('{"wts_algo":"nuq_quantize","num_of_iteration":6}', ".num_of_iteration: must be less than or equal to 5."),
        ('{"wts_algo":"nuq_quantize","num_of_iteration":-1}', ".num_of_iteration: must be greater than or equal to 0."),
        ('{"wts_algo":"nuq_quantize","entropy_weight":-1}', ".entropy_weight: must be greater than or equal to 0."),
        ('{"wts_algo":"nuq_quantize","entropy_weight":"2"}', ".entropy_weight: must be a valid number."),
        ('{"entropy_weight":2}', "It belongs to wts_algo 'nuq_quantize', here it is 'arq_quantize'."),
        (
            '{"wts_algo":"nuq_quantize","num_stpes":4}',
            "Unknown parameter num_stpes in weight_quant_params. Did you mean 'num_steps'?",
        ),
    ],
)
def test_a_mistake_in_the_weights_parameters_is_named(mistakes, part: str, message: str) -> None:
    text = mistakes(weight=part)
    assert message in text
    assert "$.c.weight_quant_params" in text


def test_all_mistakes_of_a_file_are_told_at_once(mistakes) -> None:
    text = mistakes(
        '{"version":2,"batch_num":0,"c":{"quant_enable":3,"activation_quant_params":{"num_bits":4,"x":1}},"d":{"y":1}}'
    )
    for place in (
        *("$.version:", "$.batch_num:", "$.c.quant_enable:", "$.c.activation_quant_params.num_bits:"),
        *("$.c.activation_quant_params.x:", "$.d.y:"),
    ):
        assert place in text


def test_what_was_found_is_quoted_in_short(mistakes) -> None:
    assert len(mistakes(f'{{"batch_num":"{"x" * 10_000}"}}')) < 1000
    assert len(mistakes(f'{{"batch_num":[{",".join("1" * 5000)}]}}')) < 1000
