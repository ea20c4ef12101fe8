"""The compiler's file of a NUQ run: the operators whose weights it would compress, by the layers they were made of.

AMCT's `mapping_file` is what `atc --mode=1 --om=net.om --json=net.json` writes of a compiled network. An operator whose
weights are worth compressing has the attribute `_fe_weight_compress` (`fe_weight_compress` in the manual); the layers
that were fused into it stand in `_datadump_original_op_names`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amct_lite.errors import ConfigError
from amct_lite.files.json_document import read_json_object

__all__ = ["FlaggedOperator", "flagged_operators", "read_mapping_file"]

_FLAGS = ("_fe_weight_compress", "fe_weight_compress")
_ORIGINAL_NAMES = "_datadump_original_op_names"
# What AMCT puts around a layer in a Caffe network, and in an ONNX or PyTorch one.
_ENDINGS_OF_QUANTIZERS = ("_quant_layer", "_dequant_layer", ".quant", ".dequant", ".anti_quant")
_REMEDY = "Give the file that `atc --mode=1 --om=net.om --json=net.json` writes, or leave mapping_file out."


@dataclass(frozen=True)
class FlaggedOperator:
    """An operator of the compiled network whose weights are worth compressing.

    Attributes:
        name: Its name there.
        layers: Names of what was fused into it, quantizers left out; its own name where the file lists none.
    """

    name: str
    layers: tuple[str, ...]


def read_mapping_file(path: Path) -> tuple[FlaggedOperator, ...]:
    """Read which operators are flagged.

    Args:
        path: The compiler's JSON file.

    Raises:
        FileError: It cannot be read.
        ConfigError: It is no JSON, or not the compiler's.
    """
    return tuple(flagged_operators(read_json_object(path, "mapping file"), path))


def flagged_operators(document: dict[str, Any], path: Path) -> Iterator[FlaggedOperator]:
    """The flagged operators of a parsed file.

    Args:
        document: Its contents.
        path: Where it came from, for messages.

    Raises:
        ConfigError: It is not the compiler's.
    """
    for place, operator in _operators(document, path):
        try:
            attributes = {entry["key"]: entry["value"] for entry in operator.get("attr") or ()}
            if any((attributes.get(flag) or {}).get("b") is True for flag in _FLAGS):
                name = operator["name"]
                listed = ((attributes.get(_ORIGINAL_NAMES) or {}).get("list") or {}).get("s") or [name]
                yield FlaggedOperator(name, tuple(n for n in listed if not n.endswith(_ENDINGS_OF_QUANTIZERS)))
        except (AttributeError, KeyError, TypeError) as error:
            raise _not_the_compilers(path, f"{place} is no operator with a list of attributes") from error


def _operators(document: dict[str, Any], path: Path) -> Iterator[tuple[str, Any]]:
    graphs = document.get("graph")
    if not isinstance(graphs, list) or not graphs:
        raise _not_the_compilers(path, "it has no list 'graph'")
    for number, graph in enumerate(graphs):
        operators = graph.get("op") if isinstance(graph, dict) else None
        if not isinstance(operators, list):
            raise _not_the_compilers(path, f"$.graph[{number}] has no list 'op'")
        yield from ((f"$.graph[{number}].op[{index}]", operator) for index, operator in enumerate(operators))


def _not_the_compilers(path: Path, why: str) -> ConfigError:
    return ConfigError(f"The mapping file {path} is not a compiled network's: {why}.", remedy=_REMEDY)
