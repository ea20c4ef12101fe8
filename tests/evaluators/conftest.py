"""Tiny real networks for the evaluators' tests."""

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest

IDENTITY = """
<ir_version: 8, opset_import: ["" : 13]>
network (float[{batch}, 3] scores) => (float[{batch}, 3] logits, float[{batch}, 3] probabilities)
{{
  logits = Identity (scores)
  probabilities = Softmax <axis: int = 1> (scores)
}}
"""

ModelWriter = Callable[[str, str], str]


@pytest.fixture
def write_model(tmp_path: Path) -> ModelWriter:
    """Write ONNX text as a model file and return its path."""

    def write(text: str, name: str = "model") -> str:
        file = tmp_path / f"{name}.onnx"
        ir.save(ir.from_onnx_text(text), file)
        return str(file)

    return write


@pytest.fixture
def identity_model(write_model: ModelWriter) -> str:
    """A network with 3 classes whose logits are its input, so that tests choose what it says."""
    return write_model(IDENTITY.format(batch="N"), "identity")


@pytest.fixture
def fixed_batch_model(write_model: ModelWriter) -> str:
    """The same with a batch of exactly 4."""
    return write_model(IDENTITY.format(batch="4"), "fixed")


@pytest.fixture
def doubled_model(write_model: ModelWriter) -> str:
    """Its logits are twice the input: the same classes, other probabilities."""
    text = """
    <ir_version: 8, opset_import: ["" : 13]>
    doubled (float[N, 3] scores) => (float[N, 3] logits, float[N, 3] probabilities)
    {
      logits = Add (scores, scores)
      probabilities = Softmax <axis: int = 1> (logits)
    }
    """
    return write_model(text, "doubled")


@pytest.fixture
def reversed_model(write_model: ModelWriter) -> str:
    """Its logits are the input with the sign changed."""
    text = """
    <ir_version: 8, opset_import: ["" : 13]>
    reversed (float[N, 3] scores) => (float[N, 3] logits)
    {
      logits = Neg (scores)
    }
    """
    return write_model(text, "reversed")
