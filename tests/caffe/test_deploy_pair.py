"""AMCT's deploy pairs: field by field, and that integers give what the fake-quant pair gives at every layer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

import amct_lite as amct
import amct_lite.pycaffe as caffe
from amct_lite.caffe_layers import fake_shift
from amct_lite.export.save import Saved
from amct_lite.files.protos import message_class
from amct_lite.files.record import read_record
from amct_lite.files.target import Target, load_target
from amct_lite.quantize.apply_record import quantized_layers
from amct_lite.quantize.quantized_layer import QuantizedLayer
from tests.ascend_reference.agreement import assert_caffe_layers_agree
from tests.ascend_reference.caffe_networks import residual_pair
from tests.conftest import SHARED_MODELS

Layers = dict[str, QuantizedLayer]


def quantize_pair(
    folder: Path, pair: tuple[Path, Path], data: dict[str, np.ndarray], *, target: str = "ascend", **keys: Any
) -> tuple[Saved, Layers]:
    config = folder / "config.json"
    amct.create_quant_config(config, *pair, target=target)
    config.write_text(json.dumps(json.loads(config.read_text()) | keys))
    graph = amct.init(config, *pair, folder / "record.txt")
    amct.calibrate(graph, [data])
    saved = amct.save_model(graph, "Both", folder / "out" / "net")
    return saved, {q.layer.name: q for q in quantized_layers(graph.model, graph.read_records())}


def check(saved: Saved, layers: Layers, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    forms = [(saved.files[f"{form}_model"], saved.files[f"{form}_weights"]) for form in ("fake_quant", "deploy")]
    return assert_caffe_layers_agree(*forms, layers, data)


def messages(saved: Saved) -> dict[str, Any]:
    weights = message_class("caffe", "caffe.NetParameter").FromString(saved.files["deploy_weights"].read_bytes())
    return {layer.name: layer for layer in weights.layer}


@pytest.fixture
def data() -> dict[str, np.ndarray]:
    return {"data": np.random.default_rng(1).normal(0.2, 1, (2, 3, 12, 12)).astype(np.float32)}


TENSORS = [
    {"layer_name": "pool1"},
    {"layer_name": "sum", "input_index": 0},
    {"layer_name": "sum", "input_index": 1},
]


@pytest.mark.parametrize("offset", [True, False])
@pytest.mark.parametrize("tensors", [[], TENSORS], ids=["layers", "tensors"])
def test_integers_give_the_fake_quant_numbers(offset: bool, tensors: list[dict[str, Any]], tmp_path, data) -> None:
    pair = residual_pair(tmp_path)
    saved, layers = quantize_pair(tmp_path, pair, data, activation_offset=offset, tensor_quantize=tensors)
    # ip1 is transposed, which Ascend has no integer layer for.
    assert {"conv1", "conv2", "depthwise", "up", "pool2", "ip2", "rows"} <= set(layers)
    assert len(layers) == 7 + len(tensors)
    check(saved, layers, data)


def test_layers_fields_and_blobs_are_amcts(tmp_path, data) -> None:
    saved, layers = quantize_pair(tmp_path, residual_pair(tmp_path), data)
    found = messages(saved)
    text = text_format.Parse(saved.files["deploy_model"].read_text(), message_class("caffe", "caffe.NetParameter")())
    assert [layer.name for layer in text.layer] == list(found) and not any(layer.blobs for layer in text.layer)
    assert not {"bn1", "scale1"} & set(found)
    for name, layer in layers.items():
        dequant, message = found[f"{name}_dequant_layer"], found[name]
        assert dequant.type == "DeQuant" and list(dequant.bottom) == list(dequant.top) == list(message.top)
        param = dequant.dequant_param
        assert (param.object_layer, param.layer_type) == (name, message.type)
        assert param.channel_wise == (layer.scale_w.size > 1)
        size = max(1, layer.scale_w.size)
        assert [list(blob.shape.dim) for blob in dequant.blobs] == [[size]] * 3
        scale = layer.bias_scale() if layer.weight is not None else np.float32([layer.grid.scale])
        np.testing.assert_array_equal(np.float32(dequant.blobs[0].data), scale)
        assert not any(dequant.blobs[1].data) and not any(dequant.blobs[2].data)
        assert [len(blob.data) for blob in message.blobs] == [0] * len(message.blobs)
        if layer.weight is not None:
            assert len(message.blobs[0].int8_data) == layer.weight.size
        if layer.bias is not None:
            np.testing.assert_array_equal(message.blobs[1].int32_data, layer.bias)
    quant = found["conv2_0_quant_layer"]
    assert quant.type == "Quant" and quant.quant_param.object_layer == "conv2"
    grid = layers["conv2"].grid
    assert quant.quant_param.scale == np.float32(1) / np.float32(grid.scale)
    assert quant.quant_param.offset == np.int8(grid.offset).tobytes()
    assert quant.quant_param.with_offset == (grid.offset != 0)
    # Both convolutions read one blob on one grid.
    assert "depthwise_0_quant_layer" not in found
    assert found["depthwise"].bottom[0] == found["conv2"].bottom[0] == quant.top[0]


def test_field_numbers_on_the_wire_are_those_of_amcts_proto(tmp_path, data) -> None:
    """Read without any schema: keys of the messages as they stand in the file."""
    saved, layers = quantize_pair(tmp_path, residual_pair(tmp_path), data)
    layer_field = 100
    seen: dict[str, dict[int, list[bytes]]] = {}
    for body in fields(saved.files["deploy_weights"].read_bytes())[layer_field]:
        found = fields(body)
        seen[found[1][0].decode()] = found
    quant = fields(seen["conv2_0_quant_layer"][208][0])
    grid = layers["conv2"].grid
    assert quant[1] == [bytes([grid.offset != 0])]
    assert np.frombuffer(quant[2][0], "<f4") == np.float32(1) / np.float32(grid.scale)
    assert quant[3] == [np.int8(grid.offset).tobytes()] and quant[4] == [b"conv2"]
    dequant = fields(seen["conv2_dequant_layer"][200000][0])
    assert dequant[1] == [b"\x01"] and dequant[12] == [b"conv2"] and dequant[13] == [b"Convolution"]
    weight, bias = (fields(blob) for blob in seen["conv2"][7])
    assert weight[10] == [layers["conv2"].weight.tobytes()] and 5 not in weight
    assert len(bias[11]) == 1  # packed


def fields(data: bytes) -> dict[int, list[bytes]]:
    """A protobuf message as field number -> raw values, by the wire format alone."""
    found: dict[int, list[bytes]] = {}
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(data):
        key = varint()
        number, kind = key >> 3, key & 7
        if kind == 0:
            start = place
            varint()
            value = data[start:place]
        else:
            size = {1: 8, 5: 4}[kind] if kind in (1, 5) else varint()
            value = data[place : place + size]
            place += size
        found.setdefault(number, []).append(value)
    return found


def test_amcts_messages_have_its_numbers() -> None:
    def numbers(message: str) -> dict[str, int]:
        return {field.name: field.number for field in message_class("caffe", f"caffe.{message}").DESCRIPTOR.fields}

    layer = numbers("LayerParameter")
    names = ("quant_param", "dequant_param", "ifmr_param", "lstm_quant_param", "search_n_param")
    names += ("retrain_data_quant_param", "retrain_weight_quant_param")
    assert [layer[name] for name in names] == [208, 200000, 200001, 200002, 200003, 200004, 200005]
    blob = numbers("BlobProto")
    assert (blob["int8_data"], blob["int32_data"], blob["uint64_data"]) == (10, 11, 12)
    assert numbers("QuantParameter") == {"with_offset": 1, "scale": 2, "offset": 3, "object_layer": 4}
    assert numbers("DeQuantParameter") == {
        "channel_wise": 1,
        "need_calibration": 10,
        "batch_num": 11,
        "object_layer": 12,
        "layer_type": 13,
        "deqscale": 20,
        "shift_bit": 21,
        "offset": 22,
    }


def test_quantized_inputs_of_pooling_and_eltwise(tmp_path, data) -> None:
    saved, layers = quantize_pair(tmp_path, residual_pair(tmp_path), data, tensor_quantize=TENSORS)
    assert {"pool1:0", "sum:0", "sum:1"} < set(layers)
    values, found = check(saved, layers, data), messages(saved)
    order = list(found)
    # A pooling selects, so it runs on the levels; Eltwise has its floats back in front.
    assert list(found["pool1_0_quant_layer"].top) == list(found["pool1"].bottom) == ["pool1_0_quant"]
    anti = found["pool1_anti_quant_layer"]
    assert anti.type == "AntiQuant" and list(anti.bottom) == list(anti.top) == ["pool1"]
    assert anti.quant_param.scale == np.float32(layers["pool1:0"].grid.scale)
    assert order.index("pool1_anti_quant_layer") == order.index("pool1") + 1
    for index in (0, 1):
        anti = found[f"sum_{index}_anti_quant_layer"]
        assert list(anti.bottom) == [f"sum_{index}_quant"] and found["sum"].bottom[index] == anti.top[0]
        assert found[f"sum_{index}_quant_layer"].quant_param.object_layer == "sum"
    assert values["pool1_0_quant"].dtype == np.int8 and values["sum"].dtype == np.float32


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"layer_name": "relu2"}, "Pooling with MAX and Eltwise with SUM; this is ReLU"),
        ({"layer_name": "pool2"}, "Pooling with MAX and Eltwise with SUM; this is Pooling"),
        ({"layer_name": "sum", "input_index": 2}, "input_index must be below 2"),
    ],
)
def test_inputs_that_cannot_be_quantized_are_refused(entry: dict[str, Any], message: str, tmp_path, data) -> None:
    with pytest.raises(amct.errors.ConfigError, match=f"layer {entry['layer_name']} does not support quant.*{message}"):
        quantize_pair(tmp_path, residual_pair(tmp_path), data, tensor_quantize=[entry])


def old_chip(folder: Path) -> str:
    target: Target = load_target("ascend").model_copy(update={"name": "old", "shift_bit": True})
    (folder / "old.json").write_text(target.model_dump_json())
    return str(folder / "old.json")


def test_shifts_stand_in_the_dequant_blobs_and_the_fake_quant_pair_loses_what_they_lose(tmp_path, data) -> None:
    saved, layers = quantize_pair(tmp_path, residual_pair(tmp_path), data, target=old_chip(tmp_path))
    check(saved, layers, data)
    found = messages(saved)
    for name, layer in layers.items():
        shifts = list(found[f"{name}_dequant_layer"].blobs[1].data)
        assert shifts == ([0] if layer.weight is None else list(layer.shift_bit))
        assert layer.weight is None or all(1 <= shift <= 16 for shift in shifts)
    # The bias of `rows` has no int32 form: it is added behind the stage, in both pairs.
    fake = text_format.Parse(
        saved.files["fake_quant_model"].read_text(), message_class("caffe", "caffe.NetParameter")()
    )
    order = [layer.name for layer in fake.layer]
    start = order.index("rows")
    assert order[start : start + 3] == ["rows", "rows_shift_layer", "rows_bias_layer"]


def test_the_python_layer_shifts_as_the_graph_does(tmp_path, data) -> None:
    from amct_lite.caffe.reading import read_network
    from tests.ascend_reference.caffe_deploy import run_layers

    saved, _ = quantize_pair(tmp_path, residual_pair(tmp_path), data, target=old_chip(tmp_path))
    network = read_network(saved.files["fake_quant_model"], saved.files["fake_quant_weights"])
    for name, shape in (("conv2_shift_layer", (2, 8, 5, 5)), ("ip2_shift_layer", (3, 5))):
        layer = next(layer for layer in network.layers if layer.name == name)
        parameters = json.loads(layer.params.python_param.param_str)
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        (ours,) = run_layers(network, (layer,), {layer.bottoms[0]: x}).values()
        expected = fake_shift(x, parameters["deq_scale"], parameters["steps"], parameters["axis"])
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "weights", "shape"),
    [("lenet_fashion", "lenet_fashion", (4, 1, 28, 28)), ("squeezenet1.1", "squeezenet_v1.1", (1, 3, 227, 227))],
)
def test_known_networks(folder: str, weights: str, shape: tuple[int, ...], tmp_path) -> None:
    pair = SHARED_MODELS / folder / "deploy.prototxt", SHARED_MODELS / folder / f"{weights}.caffemodel"
    if not pair[0].is_file():
        pytest.skip(f"{folder} is not in ../shared")
    data = {"data": np.random.default_rng(2).normal(0, 1, shape).astype(np.float32)}
    check(*quantize_pair(tmp_path, pair, data), data)


def test_the_users_own_loop_finds_the_same_factors_of_quantized_inputs(tmp_path, data) -> None:
    pair, config = residual_pair(tmp_path), tmp_path / "config.json"
    amct.create_quant_config(config, *pair)
    keys = {"tensor_quantize": TENSORS, "joint_quant": True, "fakequant_precision_mode": "FORCE_FP16_QUANT"}
    config.write_text(json.dumps(json.loads(config.read_text()) | keys))
    graph = amct.init(config, *pair, tmp_path / "record.txt")
    amct.calibrate(graph, [data])
    expected = read_record(tmp_path / "record.txt")
    (tmp_path / "record.txt").unlink()
    modified = tmp_path / "modified.prototxt", tmp_path / "modified.caffemodel"
    amct.quantize_model(graph, *modified)
    net = caffe.Net(*map(str, modified), caffe.TEST)
    net.forward(**data)
    found = read_record(tmp_path / "record.txt")
    assert list(found) == list(expected) and {"pool1:0", "sum:0", "sum:1"} < set(found)
    for name, record in found.items():
        # The modified pair has its BatchNorm, calibrate's graph has it folded: sums differ in their last bits.
        assert record.scale_d == pytest.approx(expected[name].scale_d, rel=1e-4)
        assert abs(record.offset_d - expected[name].offset_d) <= 1
        assert record.fakequant_precision_mode == "FORCE_FP16_QUANT"
    assert found["sum:0"].scale_d == found["sum:1"].scale_d
