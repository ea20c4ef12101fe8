"""Whole quantizations on small models, for the rooms above the graph."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

import amct_lite
from amct_lite.export.save import Saved
from amct_lite.graph import save_ir
from amct_lite.quantize.apply_record import quantized_layers
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.quantize.quantized_layer import QuantizedLayer

SHARED_MODELS = Path(__file__).resolve().parents[2] / "shared" / "models"

NUQ_WEIGHTS = {"wts_algo": "nuq_quantize", "num_steps": 16}
NUQ_ACTIVATIONS = {"target_compression_ratio": 0.25}

EditConfig = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Flow:
    """One quantization from config to files."""

    graph: PlannedGraph
    saved: Saved
    folder: Path

    @property
    def layers(self) -> dict[str, QuantizedLayer]:
        return {q.layer.name: q for q in quantized_layers(self.graph.model, self.graph.read_records())}

    def model(self, kind: str) -> ir.Model:
        return ir.load(self.saved.files[kind])


def with_nuq(weights: bool = True, activations: bool = True) -> EditConfig:
    """Edit a config so that each layer that may have NUQ has it."""

    def edit(document: dict[str, Any]) -> None:
        for block in document.values():
            if isinstance(block, dict) and "weight_quant_params" in block:
                if weights:
                    block["weight_quant_params"] = dict(NUQ_WEIGHTS)
                if activations:
                    block["activation_quant_params"]["nuq"] = dict(NUQ_ACTIVATIONS)

    return edit


def quantize_file(
    folder: Path,
    model_file: Path,
    batches: Iterable[Any],
    *,
    target: str = "onnxruntime",
    edit: EditConfig | None = None,
    save_type: str = "Both",
    **config: Any,
) -> Flow:
    config_file, record_file = folder / "config.json", folder / "record.txt"
    amct_lite.create_quant_config(config_file, model_file, target=target, **config)
    if edit is not None:
        document = json.loads(config_file.read_text())
        edit(document)
        config_file.write_text(json.dumps(document))
    graph = amct_lite.init(config_file, model_file, scale_offset_record_file=record_file)
    amct_lite.calibrate(graph, batches)
    return Flow(graph, amct_lite.save_model(graph, save_type, folder / "out" / "net"), folder)


def write_graph(path: Path, text: str, weights: Mapping[str, np.ndarray], opset: int = 13) -> Path:
    """Write ONNX text without its header, with initializers by name."""
    model = ir.from_onnx_text(f'<ir_version: 8, opset_import: ["": {opset}]> {text}')
    free = {value.name: value for node in model.graph.all_nodes() for value in node.inputs if value is not None}
    free |= {value.name: value for value in model.graph.outputs}
    for name, array in weights.items():
        value = free[name]
        value.const_value = ir.Tensor(np.asarray(array), name=name)
        value.shape, value.type = ir.Shape(array.shape), ir.TensorType(value.const_value.dtype)
        model.graph.register_initializer(value)
    save_ir(model, path)
    return path


def run_file(path: Path, feeds: Mapping[str, np.ndarray], level: str = "ALL") -> dict[str, np.ndarray]:
    """Run a file on ONNX Runtime at a level of graph optimization: DISABLE, BASIC, EXTENDED or ALL."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    name = "ORT_DISABLE_ALL" if level == "DISABLE" else f"ORT_ENABLE_{level}"
    # Without VNNI, ONNX Runtime adds two products of a signed and an unsigned byte in 16 bits unless told not to.
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, name)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def optimized_graph(path: Path, folder: Path) -> ir.Model:
    """The graph that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / f"optimized_{path.name}")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return ir.load(options.optimized_model_filepath)


def shared_model(name: str) -> Path:
    path = SHARED_MODELS / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


def file_hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def quantize(tmp_path: Path) -> Callable[..., Flow]:
    """Configure, calibrate and save; each call in a folder of its own."""
    calls: list[Path] = []

    def run(model_file: Path, batches: Iterable[Any], **options: Any) -> Flow:
        calls.append(tmp_path / f"flow{len(calls)}")
        calls[-1].mkdir()
        return quantize_file(calls[-1], model_file, batches, **options)

    return run


@pytest.fixture
def write_network(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, weights: Mapping[str, np.ndarray], opset: int = 13, name: str = "network.onnx") -> Path:
        return write_graph(tmp_path / name, text, weights, opset)

    return write


@pytest.fixture(scope="session")
def run_network() -> Callable[..., dict[str, np.ndarray]]:
    return run_file


@pytest.fixture
def optimized(tmp_path: Path) -> Callable[[Path], ir.Model]:
    return lambda path: optimized_graph(path, tmp_path)


@pytest.fixture(scope="session")
def nuq() -> Callable[..., EditConfig]:
    return with_nuq


@pytest.fixture(scope="session")
def find_model() -> Callable[[str], Path]:
    """A real model of ../shared; the test is skipped where it is not there."""
    return shared_model


@pytest.fixture(scope="session")
def hashes() -> Callable[[Path], dict[str, str]]:
    return file_hashes
