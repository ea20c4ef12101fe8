"""Files put together by hand are those that protobuf would write, but for the order of their fields."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from amct_lite.errors import FileError
from amct_lite.graph import load_model
from amct_lite.graph.cloning import clone_self_contained
from amct_lite.graph.digest import FileDigest
from amct_lite.graph.serializing import to_bytes

TYPES = [ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.INT8, ir.DataType.UINT4]


def one_weight(dtype: ir.DataType, shape: tuple[int, ...]) -> ir.Model:
    values = np.random.default_rng(0).integers(0, 7, shape).astype(dtype.numpy())
    text = '<ir_version: 10, opset_import: ["": 21]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
    model = ir.from_onnx_text(text)
    model.metadata_props["key"] = "value"
    tensor = ir.Tensor(values, dtype=dtype, name="w", doc_string="the weight", metadata_props={"a": "b"})
    model.graph.register_initializer(ir.Value(name="w", const_value=tensor))
    return model


@pytest.mark.parametrize("shape", [(), (0, 3), (3, 5), (40, 1000)])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_the_message_is_what_protobuf_writes(dtype: ir.DataType, shape: tuple[int, ...]) -> None:
    model = clone_self_contained(one_weight(dtype, shape))
    expected = ir.to_proto(model)
    found = onnx.ModelProto()
    found.ParseFromString(to_bytes(model))
    assert found == expected
    assert len(to_bytes(model)) == expected.ByteSize()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_what_is_written_is_read_again(dtype: ir.DataType, tmp_path: Path) -> None:
    model = one_weight(dtype, (40, 100))
    model.graph.node(0).append(ir.node("Identity", [model.graph.initializers["w"]], outputs=[ir.Value(name="z")]))
    model.graph.outputs.append(model.graph.node(1).outputs[0])
    path = tmp_path / "model.onnx"
    path.write_bytes(to_bytes(clone_self_contained(model)))
    tensor = load_model(path).ir.graph.initializers["w"].const_value
    assert tensor is not None
    assert (tensor.dtype, tensor.doc_string, tensor.metadata_props) == (dtype, "the weight", {"a": "b"})
    expected = model.graph.initializers["w"].const_value
    assert expected is not None
    assert tensor.tobytes() == expected.tobytes()


def test_a_digest_is_never_of_changed_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    digest = FileDigest([path])
    assert digest.size_bytes == 3
    path.write_bytes(b"abcd")
    with pytest.raises(FileError, match="has changed since"):
        digest.hexdigest()
    path.unlink()
    with pytest.raises(FileError, match="can be read no more"):
        digest.hexdigest()
