import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from amct_lite.errors import AmctError, FileError, ModelError
from amct_lite.graph import load_model, save_ir

TEXT = "g (float[N,64] x) => (float[N,64] y) { y = Gemm(x, w) }"


@pytest.fixture
def external(tmp_path: Path, make_graph: Callable, rng: np.random.Generator) -> Path:
    model = make_graph(TEXT, {"w": rng.normal(size=(64, 64)).astype(np.float32)})
    save_ir(model, tmp_path / "m.onnx", external_threshold_bytes=0)
    return tmp_path / "m.onnx"


def _refer_to(path: Path, location: str) -> None:
    proto = onnx.ModelProto.FromString(path.read_bytes())
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(proto.SerializeToString())


def test_missing_file_is_a_file_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no file"):
        load_model(tmp_path / "none.onnx")


def test_folder_is_a_file_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="folder"):
        load_model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello, I am no model", b"\x08\x07", os.urandom(5000), b"\0" * 100])
def test_other_files_are_a_model_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="no complete ONNX model") as caught:
        load_model(tmp_path / "x.onnx")
    assert caught.value.remedy


def test_every_truncation_is_an_error_of_ours_and_quick(make_file: Callable, rng: np.random.Generator) -> None:
    path = make_file(TEXT, {"w": rng.normal(size=(64, 64)).astype(np.float32)})
    whole = path.read_bytes()
    start = time.monotonic()
    for length in [*range(0, 100, 7), *range(100, len(whole) - 1, 997), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(AmctError):
            load_model(path)
    assert time.monotonic() - start < 5


def test_too_short_weight_is_a_model_error(make_file: Callable) -> None:
    path = make_file(TEXT, {"w": np.zeros((64, 64), np.float32)})
    proto = onnx.ModelProto.FromString(path.read_bytes())
    proto.graph.initializer[0].raw_data = b"\0" * 8
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="'w' holds 8 bytes"):
        load_model(path)


def test_tensor_defined_twice_or_never_is_a_model_error(make_file: Callable) -> None:
    path = make_file("g (float[1] x) => (float[1] y) { t = Relu(x) y = Relu(t) }")
    proto = onnx.ModelProto.FromString(path.read_bytes())
    proto.graph.node[0].output[0] = "y"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="'y' more than once"):
        load_model(path)
    proto.graph.node[0].output[0] = "other"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="'t', which nothing defines"):
        load_model(path)


def test_cycle_is_a_model_error(make_file: Callable) -> None:
    path = make_file("g (float[1] x) => (float[1] y) { a = Add(x, x) b = Relu(a) y = Relu(b) }")
    proto = onnx.ModelProto.FromString(path.read_bytes())
    proto.graph.node[0].input[1] = "b"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="no valid ONNX model"):
        load_model(path)


def test_digest_covers_model_and_external_data_in_order(external: Path) -> None:
    data = external.read_bytes() + external.with_suffix(".data").read_bytes()
    assert load_model(external).digest == hashlib.sha256(data).hexdigest()


def test_external_data_gives_the_same_outputs(
    external: Path, tmp_path: Path, assert_same: Callable, rng: np.random.Generator
) -> None:
    load_model(external).save(tmp_path / "out.onnx")
    assert_same(external, tmp_path / "out.onnx", {"x": rng.normal(size=(3, 64)).astype(np.float32)})


def test_relative_path_finds_external_data(external: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(external.parent)
    assert load_model("m.onnx").weight("w").shape == (64, 64)


def test_missing_external_data_is_a_file_error(external: Path) -> None:
    external.with_suffix(".data").unlink()
    with pytest.raises(FileError, match=r"tensor 'w' is at 'm\.data', but there is no file"):
        load_model(external)


def test_short_external_data_is_a_model_error(external: Path) -> None:
    data = external.with_suffix(".data")
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ModelError, match="needs 16384 bytes at offset 0"):
        load_model(external)


@pytest.mark.parametrize(
    "location", ["../m.data", "a/../../m.data", "/etc/passwd", "C:\\m.data", "..\\m.data", "", "."]
)
def test_path_out_of_the_folder_is_refused(external: Path, location: str) -> None:
    _refer_to(external, location)
    with pytest.raises((ModelError, FileError), match="tensor 'w'") as caught:
        load_model(external)
    assert caught.value.remedy


def test_link_out_of_the_folder_is_refused(external: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "m.data"
    external.with_suffix(".data").rename(outside)
    external.with_suffix(".data").symlink_to(outside)
    with pytest.raises(ModelError, match="link that leads out"):
        load_model(external)


def test_link_inside_the_folder_is_followed(external: Path) -> None:
    data = external.with_suffix(".data")
    data.rename(data.with_name("real.data"))
    data.symlink_to("real.data")
    assert load_model(external).weight("w").shape == (64, 64)


def test_hard_link_is_refused(external: Path) -> None:
    os.link(external.with_suffix(".data"), external.with_suffix(".other"))
    with pytest.raises(ModelError, match="hard link"):
        load_model(external)


def test_attribute_of_a_wrong_type_is_a_model_error(make_file: Callable) -> None:
    path = make_file("g (float[1,2] x, float[2,2] w) => (y) { y = Gemm<alpha = 2.0>(x, w) }")
    proto = onnx.ModelProto.FromString(path.read_bytes())
    proto.graph.node[0].attribute[0].type = onnx.AttributeProto.STRING
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="no valid ONNX model"):
        load_model(path)
