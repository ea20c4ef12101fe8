"""The plan: what the config asks for, held against the model and the target, and why a layer stays float."""

import dataclasses
from typing import Any

import pytest

from amct_lite.errors import ConfigError
from amct_lite.files.config import ArqParams, FloatWeightParams, LayerConfig, NuqParams, QuantConfig
from amct_lite.files.target import load_target
from amct_lite.quantize.default_config import default_config
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.plan import make_plan
from amct_lite.types import Layer, LayerKind

ASCEND, ONNXRUNTIME = load_target("ascend"), load_target("onnxruntime")
NUQ = {"wts_algo": "nuq_quantize", "num_steps": 16}
RATIO = {"nuq": {"target_compression_ratio": 0.25}}


def conv(name: str = "conv1", kernel=(3, 3), shape=(8, 4), **fields: Any) -> Layer:
    layer = Layer(name, "Conv", LayerKind.CONVOLUTION, "x", 0, 1, "y", f"{name}.weight", 1, (*shape, *kernel))
    fields = {"kernel_shape": kernel, "dilations": (1,) * len(kernel), **fields}
    return dataclasses.replace(layer, **fields)


def deconv(name: str, **fields: Any) -> Layer:
    return conv(name, op_type="ConvTranspose", kind=LayerKind.DECONVOLUTION, output_channel_axis=1, **fields)


def fc(name: str = "fc", **fields: Any) -> Layer:
    layer = Layer(name, "Gemm", LayerKind.INNER_PRODUCT, "x", 0, 1, "y", f"{name}.weight", 1, (8, 4), 1, axis=1)
    return dataclasses.replace(layer, **fields)


POOL = Layer("pool", "AveragePool", LayerKind.AVERAGE_POOL, "x", 0, 1, "y", kernel_shape=(2, 2), dilations=(1, 1))


def plan(layers: list[Layer], target=ONNXRUNTIME, **document: Any) -> dict[str, LayerPlan]:
    plans = make_plan(layers, QuantConfig.model_validate(document), target)
    assert [found.layer for found in plans] == layers
    return {found.layer.name: found for found in plans}


def refusal(layers: list[Layer], target=ONNXRUNTIME, **document: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        plan(layers, target, **document)
    assert caught.value.remedy
    return caught.value


def default(layers: list[Layer], target=ASCEND, **options: Any) -> QuantConfig:
    return default_config(layers, target, target_name=target.name, **options)


def test_by_default_every_layer_that_the_target_allows_is_quantized_with_amcts_channel_wise() -> None:
    config = default([conv(), fc(), POOL, conv("c3", (1, 1, 1, 1))], batch_num=3, activation_offset=False)
    assert (config.batch_num, config.activation_offset, config.target) == (3, False, "ascend")
    assert set(config.layers) == {"conv1", "fc", "pool"}
    assert config.layers["conv1"].weight_quant_params == ArqParams(channel_wise=True)
    assert config.layers["fc"].weight_quant_params == ArqParams(channel_wise=False)
    assert config.layers["pool"].weight_quant_params is None


def test_a_skipped_layer_is_left_out_and_so_are_those_that_share_its_weight() -> None:
    layers = [conv("a", tied_with=("b",)), conv("b", tied_with=("a",)), conv("c")]
    assert set(default(layers, skip_layers=["a"]).layers) == {"c"}


def test_an_unknown_skipped_layer_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"Layer conv2 does not exist in the graph\. Did you mean 'conv1'\?"):
        default([conv()], skip_layers=["conv2"])
    with pytest.raises(ConfigError, match=r"Layer zzz does not exist in the graph\. Correct skip_layers\."):
        default([conv()], skip_layers=["zzz"])


def test_skipping_every_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Except skip_layers, no layer needs to quantize\."):
        default([conv(), fc()], skip_layers=["fc", "conv1"])


@pytest.mark.parametrize("layers", [[], [conv(kernel=(1, 1, 1, 1))], [conv(blocked="Its weight is not constant.")]])
def test_a_model_without_a_layer_to_quantize_is_refused(layers: list[Layer]) -> None:
    with pytest.raises(ConfigError, match=r"No layer support quantization in the graph\.") as caught:
        default(layers)
    assert "amct-lite inspect" in str(caught.value.remedy)


@pytest.mark.parametrize("name", ["version", "batch_num", "target", "auto_nuq"])
def test_a_layer_called_like_a_global_key_is_refused_unless_it_is_skipped(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is a global parameter, can not be a layer name") as caught:
        default([conv(name), fc()])
    assert caught.value.layer == name
    assert "skip_layers" in str(caught.value.remedy)
    assert set(default([conv(name), fc()], skip_layers=[name]).layers) == {"fc"}
    assert plan([conv(name), fc()], fc={})[name].reason == "it is not in the config"


def test_the_default_config_makes_a_plan_also_where_the_target_refuses_one_of_the_layers_that_share_a_weight() -> None:
    layers = [deconv("a", tied_with=("b",)), deconv("b", tied_with=("a",), dilations=(2, 2)), conv("c")]
    config = default(layers)
    assert set(config.layers) == {"c"}
    plans = make_plan(layers, config, ASCEND)
    assert [found.config is None for found in plans] == [True, True, False]


def test_the_default_config_makes_a_plan_also_where_one_of_the_layers_that_share_a_weight_takes_one_scale() -> None:
    layers = [deconv("a", tied_with=("b",)), deconv("b", tied_with=("a",), group=2)]
    plans = make_plan(layers, default(layers, ONNXRUNTIME), ONNXRUNTIME)
    assert [found.channel_wise for found in plans] == [False, False]


def test_an_unknown_layer_is_refused_with_the_nearest_name() -> None:
    error = refusal([conv("features.0"), conv("features.1")], **{"features.00": {}, "features.1": {}})
    assert error.cause == "Layer features.00 does not exist in the graph. Did you mean 'features.0'?"


def test_a_layer_stays_float_with_the_reason() -> None:
    plans = plan(
        [conv(), fc(), conv("off"), conv("stuck", blocked="Its weight is not constant.")],
        conv1={},
        off={"quant_enable": False},
    )
    assert plans["conv1"].reason is None
    assert plans["fc"].reason == "it is not in the config"
    assert plans["off"].reason == "quant_enable is false"
    assert plans["stuck"].reason == "Its weight is not constant."
    assert plans["off"].weight_params is None


def test_a_config_that_enables_nothing_is_refused_with_the_reasons() -> None:
    error = refusal([conv(), fc(blocked="Its weight is not constant.")], conv1={"quant_enable": False})
    assert error.cause == (
        "No quant enable layer in quant config file (conv1: quant_enable is false; fc: Its weight is not constant)."
    )


def test_asking_for_a_blocked_layer_is_refused_with_its_reason() -> None:
    error = refusal([conv(blocked="Its weight is not constant.")], conv1={})
    assert error.layer == "conv1"
    assert error.cause == "layer conv1 does not support quant. Its weight is not constant."
    assert error.remedy == "No built-in target allows it: delete its block from the config."


def test_asking_for_a_layer_that_the_target_refuses_names_rule_value_and_who_allows_it() -> None:
    error = refusal([deconv("up", dilations=(2, 2))], ASCEND, up={})
    assert str(error) == (
        "Layer 'up': layer up does not support quant. Dilation must be 1, found [2, 2]."
        " Set \"target\" to 'onnxruntime', which allows it, or delete its block from the config."
    )


@pytest.mark.parametrize(
    ("layer", "rule", "allowing"),
    [
        (conv(), "kernel_shape must be [4, 4], found [3, 3]", "'ascend-rank4' or 'onnxruntime', which allow it"),
        (conv(kernel=(4, 4), group=2, shape=(8, 2)), "group must be 1, found 2", "'onnxruntime', which allows it"),
        (conv(kernel=(4, 4), dilations=(2, 2)), "dilation must be 1, found [2, 2]", "'onnxruntime', which allows it"),
        (fc("conv1", axis=2), "axis must be 1, found 2", "'onnxruntime', which allows it"),
    ],
)
@pytest.mark.parametrize(
    ("block", "what"), [({"weight_quant_params": NUQ}, "weights"), ({"activation_quant_params": RATIO}, "activations")]
)
def test_asking_for_nuq_that_the_target_refuses_names_layer_rule_value_and_who_allows_it(
    layer: Layer, rule: str, allowing: str, block: dict[str, Any], what: str
) -> None:
    error = refusal([layer], ASCEND, conv1=block)
    assert error.layer == "conv1"
    assert error.cause == f"The target 'ascend' does not allow NUQ of this layer's {what}: {rule}."
    assert str(error.remedy).startswith(f'Set "target" to {allowing}, or use arq_quantize')
    assert plan([layer], conv1=block)["conv1"].config is not None


def test_weights_that_stay_float_are_for_targets_that_run_float_layers() -> None:
    block = {"weight_quant_params": {"wts_algo": "none"}}
    # One by one is too small for an int8 form to pay, which is no reason against quantizing its input.
    found = plan([conv("c", (1, 1, 1, 1))], c=block)["c"]
    assert found.reason is None
    assert found.weight_params == FloatWeightParams(wts_algo="none")
    error = refusal([conv()], ASCEND, conv1=block)
    assert "wts_algo must not be 'none' under the target 'ascend'" in error.cause
    assert error.layer == "conv1"


def test_layers_that_share_a_weight_keep_it_float_together() -> None:
    layers = [conv("a", tied_with=("b",)), conv("b", tied_with=("a",))]
    block = {"weight_quant_params": {"wts_algo": "none"}}
    assert "configured differently" in refusal(layers, a=block, b={}).cause
    assert plan(layers, a=block, b=block)["a"].reason is None


def test_nuq_that_no_built_in_target_allows_says_so() -> None:
    error = refusal([POOL], pool={"activation_quant_params": RATIO})
    assert "type must be one of Convolution, Deconvolution, InnerProduct, found AveragePool" in error.cause
    assert str(error.remedy).startswith("No built-in target allows it: use arq_quantize")


def test_weight_parameters_of_a_layer_without_weights_are_refused() -> None:
    error = refusal([POOL], pool={"weight_quant_params": {}})
    assert (error.layer, error.cause) == ("pool", "AveragePool has no weights, but the config has weight_quant_params.")


def test_scales_per_channel_where_they_are_not_allowed_are_refused() -> None:
    error = refusal([fc()], ASCEND, fc={"weight_quant_params": {"channel_wise": True}})
    assert error.layer == "fc"
    assert error.cause.startswith("The channel_wise must be False for layer type Gemm")
    error = refusal([deconv("up", group=2)], up={"weight_quant_params": {"channel_wise": True}})
    assert error.cause.startswith("The channel_wise must be False for layer type ConvTranspose")


@pytest.mark.parametrize(("given", "expected"), [(None, True), (True, True), (False, False)])
def test_channel_wise_is_the_targets_default_unless_it_is_given(given: bool | None, expected: bool) -> None:
    assert plan([conv()], conv1={"weight_quant_params": {"channel_wise": given}})["conv1"].channel_wise is expected


def test_a_block_without_weight_parameters_means_arq() -> None:
    assert plan([conv()], conv1={})["conv1"].weight_params == ArqParams()
    params = plan([conv()], conv1={"weight_quant_params": NUQ})["conv1"].weight_params
    assert params == NuqParams(wts_algo="nuq_quantize", num_steps=16)


def test_asymmetric_overrides_activation_offset_where_it_is_given() -> None:
    blocks = {
        "a": {"activation_quant_params": {"asymmetric": False}},
        "b": {"activation_quant_params": {"asymmetric": True}},
        "c": {},
    }
    layers = [conv("a"), conv("b"), conv("c")]
    for offset in (True, False):
        plans = plan(layers, activation_offset=offset, **blocks)
        assert [plans[name].with_offset for name in "abc"] == [False, True, offset]


def test_an_average_pool_on_ascend_has_no_offset() -> None:
    assert not plan([POOL], ASCEND, pool={})["pool"].with_offset
    assert plan([POOL], pool={})["pool"].with_offset


def test_a_layer_whose_int8_form_is_larger_stays_float_and_says_so() -> None:
    tiny = conv("tiny", (1, 1), shape=(8, 1), group=8)
    plans = plan([tiny, conv()], tiny={}, conv1={})
    assert plans["tiny"].config is None
    assert plans["tiny"].reason == "its int8 form with scales takes 40 bytes, the float one 32"
    assert plan([tiny], tiny={"weight_quant_params": {"channel_wise": False}})["tiny"].reason is None
    assert "its int8 form with scales takes 40 bytes" in refusal([tiny], tiny={}).cause


@pytest.mark.parametrize(
    "other",
    [
        {"weight_quant_params": NUQ},
        {"weight_quant_params": {"channel_wise": False}},
        {"quant_enable": False},
        None,
    ],
)
def test_layers_that_share_a_weight_and_are_configured_differently_are_refused(other: dict[str, Any] | None) -> None:
    layers = [conv("a", tied_with=("b",)), conv("b", tied_with=("a",))]
    error = refusal(layers, a={}, **({} if other is None else {"b": other}))
    assert error.layer == "a"
    assert error.cause == "It shares its weight with layer 'b', whose weight is configured differently."
    assert "or disable both" in str(error.remedy)


def test_layers_that_share_a_weight_may_differ_in_their_activations() -> None:
    layers = [conv("a", tied_with=("b",)), conv("b", tied_with=("a",))]
    plans = plan(layers, a={}, b={"activation_quant_params": {"act_algo": "minmax"}})
    assert all(found.config is not None for found in plans.values())


@pytest.mark.parametrize(("columns", "fits"), [(6144, True), (6145, False)])
def test_auto_rounding_leaves_weights_alone_whose_moments_would_be_too_large(columns, fits):
    layer = Layer("fc", "MatMul", LayerKind.INNER_PRODUCT, "x", 0, 1, "y", "w", 1, (columns, 10), 1)
    config = LayerConfig(weight_quant_params=ArqParams(rounding="auto"))
    assert LayerPlan(layer, config).prefers_samples is fits
    asked = LayerConfig(weight_quant_params=ArqParams(rounding="gptq"))
    assert LayerPlan(layer, asked).needs_samples, "what is asked for by name is done"
