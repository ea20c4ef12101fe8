"""The config as AMCT writes it: keys, defaults, order, form; and what is written reads back equal."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.errors import FileError
from amct_lite.files.config import ArqParams, LayerConfig, NuqParams, QuantConfig
from amct_lite.files.config_file import read_config, write_config
from amct_lite.files.json_document import dump_json


def test_the_global_keys_are_amcts_with_its_defaults_and_order_and_then_ours() -> None:
    document = QuantConfig.model_validate({"z": {}, "a": {}, "auto_nuq": {}}).to_document()
    assert list(document) == [
        *("version", "batch_num", "activation_offset", "do_fusion", "skip_fusion_layers"),
        *("target", "auto_nuq"),
        *("a", "z"),
    ]
    amct = {"version": 1, "batch_num": 1, "activation_offset": True, "do_fusion": True, "skip_fusion_layers": []}
    assert {key: document[key] for key in amct} == amct
    assert document["target"] == "ascend"


def test_a_layers_keys_are_amcts_with_its_defaults_and_order() -> None:
    layer = {
        "activation_quant_params": {"asymmetric": False},
        "weight_quant_params": {"channel_wise": True},
    }
    (block,) = [QuantConfig.model_validate({"conv1": layer}).to_document()["conv1"]]
    assert json.dumps(block) == json.dumps(
        {
            "quant_enable": True,
            "activation_quant_params": {
                "num_bits": 8,
                "max_percentile": 0.999999,
                "min_percentile": 0.999999,
                "search_range": [0.7, 1.3],
                "search_step": 0.01,
                "act_algo": "ifmr",
                "asymmetric": False,
            },
            "weight_quant_params": {"num_bits": 8, "wts_algo": "arq_quantize", "channel_wise": True},
        }
    )


def test_a_nuq_layers_keys_are_amcts_and_the_ratio_comes_last() -> None:
    layer = {
        "activation_quant_params": {"act_algo": "minmax", "nuq": {"target_compression_ratio": 0.125}},
        "weight_quant_params": {"wts_algo": "nuq_quantize"},
    }
    (block,) = [QuantConfig.model_validate({"conv1": layer}).to_document()["conv1"]]
    assert json.dumps(block["weight_quant_params"]) == json.dumps(
        {"num_bits": 8, "wts_algo": "nuq_quantize", "num_steps": 32, "num_of_iteration": 1}
    )
    assert json.dumps(block["activation_quant_params"]) == json.dumps(
        {"num_bits": 8, "act_algo": "minmax", "nuq": {"target_compression_ratio": 0.125}}
    )


def test_the_file_has_amcts_indent_and_separators(tmp_path: Path) -> None:
    write_config(QuantConfig.model_validate({"conv1": {}}), tmp_path / "c.json")
    text = (tmp_path / "c.json").read_text()
    assert text.startswith('{\n    "version":1,\n    "batch_num":1,\n    "activation_offset":true,\n')
    assert '\n    "conv1":{\n        "quant_enable":true,\n' in text
    assert text.endswith("}\n")


def test_keys_that_amct_writes_and_we_leave_out_are_read() -> None:
    found = {"joint_quant": False, "weight_offset": False, "fakequant_precision_mode": "DEFAULT", "conv1": {}}
    assert QuantConfig.model_validate(found) == QuantConfig.model_validate({"conv1": {}})


def test_global_keys_beside_their_defaults_are_written_in_amcts_order(tmp_path: Path) -> None:
    tensor = {"layer_name": "add", "input_index": 1, "activation_quant_params": {"act_algo": "hfmg"}}
    document = {
        "tensor_quantize": [tensor],
        "skip_fusion_layers": ["conv1"],
        "fakequant_precision_mode": "FORCE_FP16_QUANT",
        "joint_quant": True,
        "conv1": {},
    }
    config = QuantConfig.model_validate(document)
    written = config.to_document()
    assert list(written) == [
        "version",
        "batch_num",
        "activation_offset",
        "joint_quant",
        "do_fusion",
        "fakequant_precision_mode",
        "skip_fusion_layers",
        "tensor_quantize",
        "target",
        "conv1",
    ]
    params = {"num_bits": 8, "num_of_bins": 4096, "act_algo": "hfmg"}
    assert json.dumps(written["tensor_quantize"]) == json.dumps([tensor | {"activation_quant_params": params}])
    write_config(config, tmp_path / "c.json")
    assert read_config(tmp_path / "c.json") == config


def test_a_block_without_keys_means_amcts_defaults() -> None:
    assert QuantConfig.model_validate({"conv1": {}}).layers == {"conv1": LayerConfig()}
    assert isinstance(LayerConfig.model_validate({"weight_quant_params": {}}).weight_quant_params, ArqParams)


def test_a_layer_may_be_called_like_an_attribute_or_an_algorithm_of_the_code(tmp_path: Path) -> None:
    names = ("layers", "model_fields", "to_document", "ifmr", "nuq", "activation_quant_params", "copy")
    config = QuantConfig.model_validate({name: {"quant_enable": False} for name in names})
    write_config(config, tmp_path / "c.json")
    assert set(read_config(tmp_path / "c.json").layers) == set(names)


def test_a_file_saved_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_bytes(b'\xef\xbb\xbf{"batch_num":3}')
    assert read_config(tmp_path / "c.json").batch_num == 3


def test_a_step_as_long_as_the_range_is_allowed_though_binary_fractions_make_the_range_shorter() -> None:
    params = {"search_range": [0.9, 1.0], "search_step": 0.1}
    QuantConfig.model_validate({"c": {"activation_quant_params": params}})


def test_a_config_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "c.json").mkdir()
    with pytest.raises(FileError, match="folder"):
        write_config(QuantConfig(), tmp_path / "c.json")
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


_optional_bool = st.none() | st.booleans()
_ratio = st.floats(0, 1, exclude_min=True)
_nuq = st.none() | st.builds(lambda ratio: {"target_compression_ratio": ratio}, _ratio)
_percentile = st.floats(0.5, 1, exclude_min=True)


@st.composite
def _search(draw):
    start = draw(st.floats(0.01, 2))
    end = start + draw(st.floats(0.1, 2))
    return {"search_range": [start, end], "search_step": draw(st.floats(1e-3, 1)) * (end - start)}


_ifmr = st.builds(
    lambda search, **other: {"act_algo": "ifmr", **search, **other},
    _search(),
    max_percentile=_percentile,
    min_percentile=_percentile,
    asymmetric=_optional_bool,
    nuq=_nuq,
)
_minmax = st.fixed_dictionaries({"act_algo": st.just("minmax"), "asymmetric": _optional_bool, "nuq": _nuq})
_arq = st.fixed_dictionaries({"wts_algo": st.just("arq_quantize"), "channel_wise": _optional_bool})
_nuq_weights = st.fixed_dictionaries(
    {
        "wts_algo": st.just("nuq_quantize"),
        "channel_wise": _optional_bool,
        "num_steps": st.integers(2, 256),
        "num_of_iteration": st.integers(0, 5),
        "entropy_weight": st.integers(0, 9) | st.floats(0, 1e6),
    }
)
_layer = st.fixed_dictionaries(
    {"quant_enable": st.booleans()},
    optional={
        "activation_quant_params": _ifmr | _minmax,
        "weight_quant_params": st.none() | _arq | _nuq_weights,
    },
)
_name = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name not in QuantConfig.model_fields
)
_document = st.builds(
    lambda layers, head: {**layers, **head},
    st.dictionaries(_name, _layer, max_size=4),
    st.fixed_dictionaries(
        {},
        optional={
            "batch_num": st.integers(1, 10**6),
            "activation_offset": st.booleans(),
            "do_fusion": st.booleans(),
            "skip_fusion_layers": st.lists(_name, max_size=3),
            "target": _name,
            "auto_nuq": st.fixed_dictionaries(
                {},
                optional={
                    "num_steps": st.lists(st.integers(2, 256), min_size=1, max_size=4),
                    "target_compression_ratio": st.lists(_ratio, min_size=1, max_size=4),
                },
            ),
        },
    ),
)


@settings(max_examples=60, deadline=None)
@given(_document)
def test_what_is_written_reads_back_equal_and_is_written_the_same_again(tmp_path_factory, document) -> None:
    path = tmp_path_factory.mktemp("round") / "c.json"
    config = QuantConfig.model_validate(document)
    write_config(config, path)
    first = path.read_bytes()
    read = read_config(path)
    assert read == config
    assert dump_json(read.to_document()).encode() == first


def test_nuq_params_default_to_amcts_32_steps_and_one_iteration() -> None:
    params = NuqParams(wts_algo="nuq_quantize")
    assert (params.num_steps, params.num_of_iteration, params.entropy_weight) == (32, 1, 0.0)


def test_an_entropy_weight_is_written_where_it_is_set() -> None:
    layer = {"weight_quant_params": {"wts_algo": "nuq_quantize", "entropy_weight": 2}}
    block = QuantConfig.model_validate({"conv1": layer}).to_document()["conv1"]["weight_quant_params"]
    assert list(block) == ["num_bits", "wts_algo", "num_steps", "num_of_iteration", "entropy_weight"]


def test_equalization_is_written_only_where_it_is_on():
    document = QuantConfig.model_validate({"cross_layer_equalization": True}).to_document()
    assert document["cross_layer_equalization"] is True
    assert "cross_layer_equalization" not in QuantConfig().to_document()


def test_migration_strength_has_amcts_range_and_place():
    blocks = {"conv": {"dmq_balancer_param": 0.5}}
    assert list(QuantConfig.model_validate(blocks).to_document()["conv"])[:2] == ["quant_enable", "dmq_balancer_param"]
    assert "dmq_balancer_param" not in QuantConfig.model_validate({"conv": {}}).to_document()["conv"]
    for strength in (0.19, 0.81):
        with pytest.raises(ValueError, match="dmq_balancer_param"):
            QuantConfig.model_validate({"conv": {"dmq_balancer_param": strength}})
