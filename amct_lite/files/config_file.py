"""The quantization config on disk: read with every mistake named by its JSON path, written in AMCT's form."""

import difflib
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from amct_lite.errors import ConfigError
from amct_lite.files.activation_params import ACTIVATION_PARAMS
from amct_lite.files.atomic import write_text_atomically
from amct_lite.files.config import (
    ArqParams,
    AutoNuqOptions,
    CodebookParams,
    FloatWeightParams,
    LayerConfig,
    NuqActivationParams,
    NuqParams,
    QuantConfig,
    TensorQuantize,
)
from amct_lite.files.json_document import dump_json, json_path, read_json_object

__all__ = ["config_schema", "describe_mistakes", "read_config", "write_config"]

_ALGORITHM_KEYS = {"activation_quant_params": "act_algo", "weight_quant_params": "wts_algo"}
_BRANCHES: dict[str, dict[str, type[BaseModel]]] = {
    "activation_quant_params": {**ACTIVATION_PARAMS},
    "weight_quant_params": {
        "arq_quantize": ArqParams,
        "nuq_quantize": NuqParams,
        "codebook_quantize": CodebookParams,
        "none": FloatWeightParams,
    },
}
# What was found is quoted, but a whole file put in the wrong place is not.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80


def read_config(path: Path) -> QuantConfig:
    """Read and validate a config file; what depends on the model is checked by the plan.

    Args:
        path: A JSON file, written by `create_quant_config` or by hand.

    Raises:
        FileError: It cannot be read.
        ConfigError: It is not valid; the message lists every mistake with its JSON path and a remedy.
    """
    document = read_json_object(path, "config file")
    try:
        return QuantConfig.model_validate(document)
    except ValidationError as error:
        listed = "\n".join(f"  {mistake}" for mistake in describe_mistakes(error))
        raise ConfigError(
            f"The config file {path} is not valid:\n{listed}\n",
            remedy="Correct these places; docs/config.md lists every key with its range.",
        ) from error


def write_config(config: QuantConfig, path: Path) -> None:
    """Write a config file, whole or not at all."""
    write_text_atomically(path, dump_json(config.to_document()))


def config_schema() -> dict[str, Any]:
    """The JSON schema of the config, as published in schemas/quant_config.schema.json."""
    schema = QuantConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def describe_mistakes(error: ValidationError, block: str = "$") -> list[str]:
    """Every mistake that pydantic found, each as a sentence with its place.

    Args:
        error: Of a QuantConfig; or of a LayerConfig, which some block of a file has become.
        block: What to call that block, as the beginning of a place; "$" for a QuantConfig.
    """
    items: list[dict[str, Any]] = [dict(item) for item in error.errors(include_url=False)]
    if block == "$":
        return [_describe(item) for item in items]
    described = [_describe({**item, "loc": ("block", *item["loc"])}) for item in items]
    return [text.replace("$.block", block, 1) for text in described]


def _describe(item: dict[str, Any]) -> str:
    """One mistake that pydantic found, in our words: where, what must be, what was found, what may be meant."""
    location, algorithm = _without_branch(item["loc"])
    where, kind = json_path(location), item["type"]
    if kind == "extra_forbidden":
        inside = next(part for part in reversed(location[:-1]) if isinstance(part, str))
        return f"{where}: Unknown parameter {location[-1]} in {inside}.{_explain_unknown(location, algorithm)}"
    if kind == "union_tag_invalid":
        key = _ALGORITHM_KEYS[str(location[-1])]
        return f"{where}.{key}: must be one of {item['ctx']['expected_tags']}. Got {item['input'][key]!r} instead."
    found = _SHORT.repr(item["input"])
    if kind == "model_type" and len(location) == 1 and location[0] not in QuantConfig.model_fields:
        near = _nearest(str(location[0]), QuantConfig.model_fields)
        what = f"{location[0]} is an invalid layer name or parameter."
        return f"{where}: {what} A layer's value must be an object. Got {found} instead.{near}"
    if kind in ("model_type", "union_tag_not_found"):
        return f"{where}: must be an object. Got {found} instead."
    message = item["msg"].removeprefix("Value error, ").replace("Input should be ", "must be ", 1)
    return f"{where}: {message}. Got {found} instead."


def _without_branch(location: tuple[str | int, ...]) -> tuple[list[str | int], str | None]:
    """A location as in the file, and the algorithm that pydantic inserts where a union's branch was chosen."""
    # "conv1", "activation_quant_params", "ifmr", ... or "tensor_quantize", 0, "activation_quant_params", "ifmr", ...
    place = 2 if location[0] == "tensor_quantize" else 1
    if len(location) > place + 1 and location[place] in _ALGORITHM_KEYS:
        return [*location[: place + 1], *location[place + 2 :]], str(location[place + 1])
    return list(location), None


def _explain_unknown(location: list[str | int], algorithm: str | None) -> str:
    key = str(location[-1])
    if location[0] == "auto_nuq":
        return _nearest(key, AutoNuqOptions.model_fields)
    if location[0] == "tensor_quantize":
        location = location[1:]
        if algorithm is None:
            return _nearest(key, TensorQuantize.model_fields)
    if algorithm is None:
        return _nearest(key, LayerConfig.model_fields)
    if len(location) > 3:
        return _nearest(key, NuqActivationParams.model_fields)
    part = str(location[1])
    for other, model in _BRANCHES[part].items():
        if key in model.model_fields and key not in _BRANCHES[part][algorithm].model_fields:
            return f" It belongs to {_ALGORITHM_KEYS[part]} {other!r}, here it is {algorithm!r}."
    return _nearest(key, _BRANCHES[part][algorithm].model_fields)


def _nearest(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else f" Known here: {', '.join(sorted(known))}."
