"""Small models on disk, and the comparison of two files in onnxruntime."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from amct_lite.graph import save_ir

Weights = Mapping[str, np.ndarray]


def graph_of(text: str, weights: Weights | None = None, opset: int = 13, ir_version: int = 8) -> ir.Model:
    """A model from ONNX text without its header, with initializers added by name."""
    imports = f'"": {opset}, "custom": 1' if "custom." in text else f'"": {opset}'
    model = ir.from_onnx_text(f"<ir_version: {ir_version}, opset_import: [{imports}]> {text}")
    for name, array in (weights or {}).items():
        tensor = ir.Tensor(np.asarray(array), name=name)
        value = next((v for v in _free_values(model.graph) if v.name == name), None)
        assert value is not None, f"{name} is not used"
        value.const_value = tensor
        value.shape = ir.Shape(tensor.shape)
        value.type = ir.TensorType(tensor.dtype)
        model.graph.register_initializer(value)
    return model


def _free_values(graph: ir.Graph):
    yield from graph.inputs
    for node in graph.all_nodes():
        yield from (v for v in node.inputs if v is not None and v.producer() is None)


@pytest.fixture(scope="session")
def make_graph() -> Callable[..., ir.Model]:
    return graph_of


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[..., Path]:
    def make(text: str, weights: Weights | None = None, name: str = "model.onnx", **header: int) -> Path:
        save_ir(graph_of(text, weights, **header), tmp_path / name)
        return tmp_path / name

    return make


def run_file(path: Path, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


@pytest.fixture(scope="session")
def run_model() -> Callable[..., dict[str, np.ndarray]]:
    return run_file


@pytest.fixture(scope="session")
def assert_same() -> Callable[..., None]:
    def check(first: Path, second: Path, feeds: Mapping[str, np.ndarray], tolerance: float = 1e-5) -> None:
        expected, actual = run_file(first, feeds), run_file(second, feeds)
        assert list(expected) == list(actual)
        for name, array in expected.items():
            np.testing.assert_allclose(actual[name], array, rtol=tolerance, atol=tolerance)

    return check


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
