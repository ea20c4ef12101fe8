from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from amct_lite.errors import FileError
from amct_lite.graph import load_model, save_ir

TEXT = "g (float[N,64] x) => (float[N,64] y) { a = MatMul(x, w) b = MatMul(a, v) y = Add(b, k) }"


@pytest.fixture
def model(make_graph: Callable, rng: np.random.Generator) -> ir.Model:
    arrays = {name: rng.normal(size=(64, 64)).astype(np.float32) for name in ("w", "v")}
    return make_graph(TEXT, {**arrays, "k": np.ones(64, np.float32)})


def test_two_saves_give_the_same_bytes(model: ir.Model, tmp_path: Path) -> None:
    save_ir(model, tmp_path / "a.onnx")
    save_ir(model, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    first, second = load_model(tmp_path / "a.onnx"), load_model(tmp_path / "a.onnx")
    first.save(tmp_path / "c.onnx")
    second.save(tmp_path / "d.onnx")
    assert (tmp_path / "c.onnx").read_bytes() == (tmp_path / "d.onnx").read_bytes()


def test_saving_what_was_loaded_changes_nothing_more(model: ir.Model, tmp_path: Path) -> None:
    save_ir(model, tmp_path / "a.onnx")
    load_model(tmp_path / "a.onnx").save(tmp_path / "b.onnx")
    load_model(tmp_path / "b.onnx").save(tmp_path / "c.onnx")
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "c.onnx").read_bytes()


def test_all_numbers_are_raw_data(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 13]> g (float[2] x) => (y) <float[2] w = {1, 2}> {'
        "c = Constant<value = float[2] {3, 4}>() a = Add(x, w) y = Mul(a, c) }"
    )
    assert proto.graph.initializer[0].float_data
    save_ir(ir.from_proto(proto), tmp_path / "a.onnx")
    saved = onnx.ModelProto.FromString((tmp_path / "a.onnx").read_bytes())
    assert saved.graph.initializer[0].HasField("raw_data")
    assert saved.graph.node[0].attribute[0].t.HasField("raw_data")


def test_above_the_threshold_big_weights_go_beside_the_model(
    model: ir.Model, tmp_path: Path, assert_same: Callable, rng: np.random.Generator
) -> None:
    save_ir(model, tmp_path / "one.onnx")
    save_ir(model, tmp_path / "two.onnx", external_threshold_bytes=1000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.onnx", "two.data", "two.onnx"]
    assert (tmp_path / "two.data").stat().st_size == 2 * 64 * 64 * 4
    assert model.graph.initializers["w"].const_value.numpy().shape == (64, 64)
    x = rng.normal(size=(3, 64)).astype(np.float32)
    assert_same(tmp_path / "one.onnx", tmp_path / "two.onnx", {"x": x}, 0)
    save_ir(load_model(tmp_path / "two.onnx").ir, tmp_path / "three.onnx")
    assert_same(tmp_path / "one.onnx", tmp_path / "three.onnx", {"x": x}, 0)


def test_a_model_can_be_saved_over_itself(model: ir.Model, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    save_ir(model, path, external_threshold_bytes=0)
    loaded = load_model(path)
    weight = model.graph.initializers["w"].const_value.numpy()
    edited = loaded.clone()
    first = edited.graph.initializers["v"]
    first.const_value = ir.Tensor(np.zeros((64, 128), np.float32)[:, :64].copy(), name="v")
    save_ir(edited, path, external_threshold_bytes=0)
    np.testing.assert_array_equal(loaded.weight("w"), weight)
    np.testing.assert_array_equal(load_model(path).weight("w"), weight)
    assert not load_model(path).weight("v").any()


def test_a_failure_leaves_nothing_behind(model: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for threshold in (0, 10**9):
        with pytest.raises(FileError, match="No space left") as caught:
            save_ir(model, tmp_path / "m.onnx", external_threshold_bytes=threshold)
        assert str(tmp_path) in str(caught.value) and caught.value.remedy
        assert not list(tmp_path.iterdir())
