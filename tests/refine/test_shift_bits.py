"""shift_bit: found for targets that ask for it, in the record, in both forms, and the forms still agree."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import amct_lite as amct
from amct_lite.errors import CalibrationError, ConfigError, ExportError, ParameterError
from amct_lite.files.record import write_record
from tests.ascend_reference.agreement import assert_onnx_layers_agree
from tests.ascend_reference.arithmetic import unpack
from tests.conftest import Flow

SCHEMAS = Path(__file__).parents[2] / "schemas" / "targets"

NETWORK = """g (float[N,3,7,7] x) => (float[N,5] y) {
    [conv] a = Conv<pads = [1,1,1,1]>(x, w, b) [relu] r = Relu(a) [pool] p = AveragePool<kernel_shape = [2,2]>(r)
    [up] u = ConvTranspose<strides = [2,2]>(p, t) [whole] g = Conv(u, k) [flat] f = Flatten(g) [gemm] h = Gemm(f, m, c)
    [product] q = MatMul(h, o) [plus] y = Add(q, d) }"""
SHAPES = {
    "w": (4, 3, 3, 3),
    "b": (4,),
    "t": (4, 3, 2, 2),
    "k": (6, 3, 12, 12),
    "m": (6, 5),
    "c": (5,),
    "o": (5, 5),
    "d": (5,),
}


@pytest.fixture
def old_chip(tmp_path: Path) -> str:
    """A target's file: Ascend with an int16 stage."""
    document = json.loads((SCHEMAS / "ascend.json").read_text()) | {"name": "old", "shift_bit": True}
    (tmp_path / "old.json").write_text(json.dumps(document))
    return str(tmp_path / "old.json")


@pytest.fixture
def network(write_network: Callable[..., Path]) -> Path:
    rng = np.random.default_rng(0)
    return write_network(NETWORK, {name: rng.normal(size=s).astype(np.float32) for name, s in SHAPES.items()})


@pytest.fixture
def feeds() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(size=(6, 3, 7, 7)).astype(np.float32)}


def test_forms_agree_with_shifts(network, feeds, old_chip, quantize: Callable[..., Flow]) -> None:
    flow = quantize(network, [feeds], target=old_chip)
    records = flow.graph.read_records()
    assert {name: len(record.shift_bit) for name, record in records.items()} == {
        "conv": 4,
        "pool": 0,
        "up": 3,
        "whole": 6,
        "gemm": 1,
        "product": 1,
    }
    assert all(1 <= shift <= 16 for record in records.values() for shift in record.shift_bit)
    # A channel of a 1 x 1 output has few values: all share one shift.
    assert len(set(records["whole"].shift_bit)) == 1
    files = flow.saved.files
    values = assert_onnx_layers_agree(files["fake_quant_model"], files["deploy_model"], flow.layers, feeds)
    graph = flow.model("deploy_model").graph
    for name, record in records.items():
        param = unpack(graph.node(f"{name}.dequant").inputs[1].const_value.numpy())
        assert tuple(param.shift) == (record.shift_bit or (0,))
    # The layers between are not what they were: the stage is really there.
    plain = quantize(network, [feeds], target="ascend")
    other = assert_onnx_layers_agree(
        plain.saved.files["fake_quant_model"], plain.saved.files["deploy_model"], plain.layers, feeds
    )
    assert 0 < np.abs(values["a"] - other["a"]).max() < 0.01 * np.abs(other["a"]).max()


def test_shifts_are_those_of_the_deploy_models_own_accumulators(network, feeds, old_chip, quantize) -> None:
    """Against the definition, on the integers that the reference executor sums up."""
    plain, shifted = quantize(network, [feeds], target="ascend"), quantize(network, [feeds], target=old_chip)
    files = plain.saved.files
    values = assert_onnx_layers_agree(files["fake_quant_model"], files["deploy_model"], plain.layers, feeds)
    accumulator = values[plain.model("deploy_model").graph.node("conv").outputs[0].name].astype(np.int64)
    shifts = np.arange(1, 17).reshape(-1, 1, 1, 1, 1)
    errors = (np.clip(accumulator >> shifts, -(2**15), 2**15 - 1) * 2**shifts - accumulator) ** 2
    best = errors.sum(axis=(1, 3, 4)).argmin(axis=0) + 1
    assert shifted.graph.read_records()["conv"].shift_bit == tuple(best)


def test_bias_in_float_and_records_of_zeros_have_no_stage(feeds, old_chip, write_network, quantize) -> None:
    text = "g (float[N,3,7,7] x, float[4] b) => (y) { [conv] y = Conv(x, w, b) }"
    path = write_network(text, {"w": np.ones((4, 3, 3, 3), np.float32)})
    flow = quantize(path, [feeds | {"b": np.ones(4, np.float32)}], target=old_chip)
    records = flow.graph.read_records()
    assert records["conv"].shift_bit == ()


def test_what_has_no_samples_is_refused(network, feeds, old_chip, tmp_path) -> None:
    config = tmp_path / "config.json"
    amct.create_quant_config(config, network, target=old_chip)
    graph = amct.init(config, network, scale_offset_record_file=tmp_path / "record.txt")
    with pytest.raises(ParameterError, match=r"'old' has shift_bit.*amct_lite\.calibrate"):
        amct.quantize_model(graph, tmp_path / "modified.onnx")
    with pytest.raises(CalibrationError, match="no calibration data"):
        amct.calibrate(graph)
    amct.calibrate(graph, [feeds], statistics_file=tmp_path / "seen.npz")
    with pytest.raises(CalibrationError, match="its shift_bit is found"):
        amct.calibrate(graph, statistics_file=tmp_path / "seen.npz")


def test_the_form_for_onnx_runtime_refuses_shifts(network, feeds, old_chip, quantize, tmp_path) -> None:
    shifted = quantize(network, [feeds], target=old_chip).graph.read_records()
    amct.create_quant_config(tmp_path / "config.json", network, target="ascend")
    document = json.loads((tmp_path / "config.json").read_text()) | {"target": "onnxruntime", "integer_operators": []}
    (tmp_path / "config.json").write_text(json.dumps(document))
    write_record(shifted, tmp_path / "record.txt")
    graph = amct.init(tmp_path / "config.json", network, scale_offset_record_file=tmp_path / "record.txt")
    with pytest.raises(ExportError, match="shift_bit is not support, please delete it"):
        amct.save_model(graph, "Both", tmp_path / "out" / "net")


def test_a_search_refuses_such_a_target(network, feeds, old_chip, tmp_path) -> None:
    from amct_lite.search.calibration import refuse_refinement

    amct.create_quant_config(tmp_path / "config.json", network, target=old_chip)
    with pytest.raises(ConfigError, match="shift_bit, which is found on samples"):
        refuse_refinement(amct.init(tmp_path / "config.json", network))
