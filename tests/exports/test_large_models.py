"""A model whose weights are beyond protobuf's 2 GB goes through, and so do its quantized forms."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import amct_lite as amct

WORDS, WIDTH = 132_000, 4096
PROTOBUF_BYTES = 2**31
NET = f"""<ir_version: 8, opset_import: ["": 13]> g (int32[N] words) => (float[N,{WIDTH}] y) {{
    x = Gather(table, words) a = MatMul(x, w0) b = Relu(a) y = MatMul(b, w1) }}"""


def write_large_model(path: Path) -> None:
    """An embedding, which alone is beyond 2 GB, and two inner products."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(NET)
    weight = rng.standard_normal((WIDTH, WIDTH), dtype=np.float32) * np.float32(np.sqrt(2 / WIDTH))
    repeats = -(-WORDS // WIDTH)
    with path.with_name("weights.bin").open("wb") as file:
        for name, pieces in {"table": [weight] * repeats, "w0": [weight], "w1": [weight[::-1]]}.items():
            rows = sum(map(len, pieces))
            tensor = model.graph.initializer.add(
                name=name, dims=[rows, WIDTH], data_type=onnx.TensorProto.FLOAT, data_location="EXTERNAL"
            )
            for key, value in {"location": "weights.bin", "offset": file.tell(), "length": rows * WIDTH * 4}.items():
                tensor.external_data.add(key=key, value=str(value))
            for piece in pieces:
                np.ascontiguousarray(piece).tofile(file)
    path.write_bytes(model.SerializeToString())


def run(path: Path, words: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    assert [(value.name, value.type) for value in session.get_inputs()] == [("words", "tensor(int32)")]
    return session.run(None, {"words": words})[0]


@pytest.mark.slow
def test_a_model_above_two_gigabytes_with_external_data(tmp_path: Path) -> None:
    float_file = tmp_path / "large.onnx"
    write_large_model(float_file)
    assert float_file.with_name("weights.bin").stat().st_size > PROTOBUF_BYTES
    config_file, record_file = tmp_path / "config.json", tmp_path / "record.txt"
    amct.create_quant_config(config_file, float_file, target="onnxruntime")
    # Half a billion weights would be rounded on samples for a quarter of an hour; this is about files.
    config_file.write_text(config_file.read_text().replace('"rounding":"auto"', '"rounding":"nearest"'))
    assert '"rounding":"nearest"' in config_file.read_text()
    graph = amct.init(config_file, float_file, scale_offset_record_file=record_file)
    calibration, held_out = np.split(np.arange(64, dtype=np.int32), 2)
    amct.calibrate(graph, [calibration])
    expected = run(float_file, held_out)
    for save_type, form in {"Fakequant": "fake_quant_model", "Deploy": "deploy_model"}.items():
        folder = tmp_path / save_type
        file = amct.save_model(graph, save_type, folder / "net").files[form]
        # One data file beside the model, which itself is small.
        (data,) = folder.glob("*.data")
        assert data.stat().st_size > PROTOBUF_BYTES and file.stat().st_size < 1e6
        found = run(file, held_out)
        assert np.sum(found * expected) / np.linalg.norm(found) / np.linalg.norm(expected) > 0.99
        data.unlink()
