"""The quantization config on disk: read with every mistake named by its JSON path, written in AMCT's form."""

import difflib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from amct_lite.errors import ConfigError
from amct_lite.files.atomic import write_text_atomically
from amct_lite.files.config import (
    ArqParams,
    AutoNuqOptions,
    IfmrParams,
    LayerConfig,
    MinMaxParams,
    NuqActivationParams,
    NuqParams,
    QuantConfig,
)
from amct_lite.files.json_document import dump_json, read_json_object

__all__ = ["config_schema", "read_config", "write_config"]

# A union's chosen branch stands in pydantic's locations, but not in the file.
_BRANCHES = frozenset({"ifmr", "minmax", "arq_quantize", "nuq_quantize"})
_PARTS: dict[str, tuple[type[BaseModel], ...]] = {
    "activation_quant_params": (IfmrParams, MinMaxParams),
    "weight_quant_params": (ArqParams, NuqParams),
    "nuq": (NuqActivationParams,),
    "auto_nuq": (AutoNuqOptions,),
}


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
        mistakes = [_describe(dict(item)) for item in error.errors(include_url=False)]
        listed = "\n".join(f"  {mistake}" for mistake in mistakes)
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


def _describe(item: dict[str, Any]) -> str:
    location = [part for part in item["loc"] if part not in _BRANCHES]
    where = json_path(location)
    if item["type"] == "extra_forbidden":
        return f"{where}: Unknown parameter {location[-1]!r}.{_nearest(str(location[-1]), _known_keys(location))}"
    if item["type"] == "union_tag_invalid":
        key = "act_algo" if location[-1] == "activation_quant_params" else "wts_algo"
        found = item["ctx"]["tag"]
        expected = item["ctx"]["expected_tags"]
        return f"{where}.{key}: must be one of {expected}. Got {found!r} instead."
    if item["type"] == "model_type" and len(location) == 1:
        near = _nearest(str(location[0]), list(QuantConfig.model_fields))
        found = item["input"]
        return f"{where}: {location[0]!r} is neither a parameter nor a layer's object. Got {found!r} instead.{near}"
    message = item["msg"].removeprefix("Value error, ").replace("Input should be ", "must be ", 1)
    return f"{where}: {message}. Got {item['input']!r} instead."


def json_path(location: list[str | int]) -> str:
    """A location as a JSON path.

    Example:
        >>> json_path(["conv1", "activation_quant_params", "search_range", 0])
        '$.conv1.activation_quant_params.search_range[0]'
    """
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _known_keys(location: list[str | int]) -> list[str]:
    parent = str(location[-2]) if len(location) > 1 else ""
    models = _PARTS.get(parent, (LayerConfig,))
    return [name for model in models for name in model.model_fields]


def _nearest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else f" Known here: {', '.join(sorted(set(known)))}."
