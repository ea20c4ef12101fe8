"""The published schemas are what the code generates, and the config's schema agrees with the reader."""

import json
from pathlib import Path

import pydantic
import pytest

from amct_lite.errors import ConfigError
from amct_lite.files.config import QuantConfig
from amct_lite.files.config_file import read_config
from amct_lite.files.json_document import dump_json
from amct_lite.schemas import compile as generator

jsonschema = pytest.importorskip("jsonschema")
SCHEMA_FILE = generator.FOLDER / "quant_config.schema.json"


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)


@pytest.mark.skipif(
    tuple(map(int, pydantic.VERSION.split(".")[:2])) < (2, 12),
    reason="older versions of pydantic word the same schema differently",
)
def test_the_configs_schema_is_generated_from_its_models() -> None:
    assert SCHEMA_FILE.read_bytes() == generator.config_schema_file(), "run `python schemas/compile.py`"
    assert SCHEMA_FILE.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize("proto", sorted(generator.FOLDER.glob("*.proto")), ids=lambda path: path.stem)
def test_every_descriptor_set_is_compiled_from_its_proto(proto: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools compiles .proto files")
    assert proto.with_suffix(".binpb").read_bytes() == generator.compile_schema(proto), (
        "run `python schemas/compile.py`"
    )


def test_generating_twice_gives_the_same_bytes() -> None:
    assert generator.config_schema_file() == generator.config_schema_file()


FULL = {
    "version": 1,
    "batch_num": 2,
    "target": "onnxruntime",
    "auto_nuq": {"num_steps": [16, 32], "target_compression_ratio": [0.5]},
    "conv1": {
        "quant_enable": True,
        "activation_quant_params": {"act_algo": "ifmr", "search_range": [0.7, 1.3], "asymmetric": False},
        "weight_quant_params": {"num_bits": 8, "wts_algo": "nuq_quantize", "num_steps": 16, "entropy_weight": 1.5},
    },
    "fc": {
        "activation_quant_params": {"act_algo": "minmax", "nuq": {"target_compression_ratio": 0.25}},
        "weight_quant_params": {"wts_algo": "arq_quantize", "channel_wise": False},
    },
    "pool": {},
}


@pytest.mark.parametrize("document", [{}, FULL, QuantConfig.model_validate(FULL).to_document()])
def test_what_the_reader_takes_the_schema_accepts(validator, document) -> None:
    validator.validate(document)
    QuantConfig.model_validate(document)


@pytest.mark.parametrize(
    "document",
    [
        {"version": 2},
        {"version": True},
        {"batch_num": 0},
        {"batch_num": "2"},
        {"batch_num": True},
        {"batch_nmu": 2},
        {"joint_quant": 0},
        {"fakequant_precision_mode": "FP16"},
        {"tensor_quantize": [{}]},
        {"tensor_quantize": [{"layer_name": "add", "index": 1}]},
        {"skip_fusion_layers": [1]},
        {"auto_nuq": {"num_steps": []}},
        {"auto_nuq": {"num_steps": [257]}},
        {"c": {"quant_enabled": True}},
        {"c": {"quant_enable": "true"}},
        {"c": {"activation_quant_params": 3}},
        {"c": {"activation_quant_params": {"act_algo": "hfmg", "num_of_bins": 1000}}},
        {"c": {"activation_quant_params": {"act_algo": "minmax", "max_percentile": 1}}},
        {"c": {"activation_quant_params": {"max_percentile": 0.5}}},
        {"c": {"activation_quant_params": {"search_range": [1]}}},
        {"c": {"activation_quant_params": {"search_step": 0}}},
        {"c": {"activation_quant_params": {"nuq": {"target_compression_ratio": 0}}}},
        {"c": {"weight_quant_params": {"wts_algo": "nuq"}}},
        {"c": {"weight_quant_params": {"num_steps": 32}}},
        {"c": {"weight_quant_params": {"wts_algo": "nuq_quantize", "num_steps": 1}}},
        {"c": {"weight_quant_params": {"wts_algo": "nuq_quantize", "num_of_iteration": 6}}},
        {"c": {"weight_quant_params": {"wts_algo": "nuq_quantize", "entropy_weight": -1}}},
        {"c": {"weight_quant_params": {"entropy_weight": 1}}},
    ],
    ids=json.dumps,
)
def test_what_the_schema_refuses_the_reader_refuses_too(validator, tmp_path: Path, document) -> None:
    assert not validator.is_valid(document)
    (tmp_path / "c.json").write_text(dump_json(document))
    with pytest.raises(ConfigError):
        read_config(tmp_path / "c.json")
