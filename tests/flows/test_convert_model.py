"""`convert_model`: a float model and a record, without a config, give what calibration gives."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import amct_lite as amct
from amct_lite.errors import ModelError, ParameterError, RecordError
from amct_lite.files.record import LayerRecord, read_record, write_record
from amct_lite.samples.digits.data import MODEL_FILE, load_split
from amct_lite.samples.fashion_lenet_caffe.run import MODEL_FOLDER

LENET = MODEL_FOLDER / "deploy.prototxt", MODEL_FOLDER / "lenet_fashion.caffemodel"
needs_lenet = pytest.mark.skipif(not MODEL_FOLDER.is_dir(), reason="../shared/models/lenet_fashion is not there")

TWO_NORMS = """net (float[N, 3, 8, 8] x) => (y)
{ [one] a = Conv (x, v)
  [norm1] b = BatchNormalization (a, g, h, m, s)
  [two] c = Conv (b, w)
  [norm2] y = BatchNormalization (c, g, h, m, s) }"""


def models(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "net_summary.json"}


def two_norms(write: Callable[..., Path], rng: np.random.Generator) -> Path:
    weights = {name: rng.normal(size=(4, channels, 3, 3)).astype(np.float32) for name, channels in (("v", 3), ("w", 4))}
    weights |= {name: rng.uniform(0.5, 2, 4).astype(np.float32) for name in "ghms"}
    return write(TWO_NORMS, weights)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def nuq(document: dict[str, Any]) -> None:
    document["fc1"]["weight_quant_params"] = {"wts_algo": "nuq_quantize", "num_steps": 16}
    document["fc1"]["activation_quant_params"]["nuq"] = {"target_compression_ratio": 0.25}


def balanced(document: dict[str, Any]) -> None:
    document["cross_layer_equalization"] = True
    document["conv2"]["dmq_balancer_param"] = 0.5


def codebook(document: dict[str, Any]) -> None:
    document["fc1"]["weight_quant_params"] = {"wts_algo": "codebook_quantize", "num_bits": 4}
    document["fc2"]["weight_quant_params"] = {"wts_algo": "none"}
    document["conv1"]["activation_quant_params"] = {"act_algo": "minmax", "num_bits": 16}


def partly(document: dict[str, Any]) -> None:
    del document["conv2"]
    document["fc2"]["quant_enable"] = False


@pytest.mark.parametrize(
    ("target", "edit"),
    [
        ("ascend", None),
        ("ascend", nuq),
        ("ascend", partly),
        ("ascend", balanced),
        ("onnxruntime", None),
        ("onnxruntime", nuq),
        ("onnxruntime", balanced),
        ("onnxruntime", codebook),
    ],
)
def test_a_record_of_calibrate_gives_the_same_files(tmp_path: Path, quantize: Callable[..., Any], target, edit) -> None:
    images = load_split().calibration.images
    flow = quantize(MODEL_FILE, [images[:16], images[16:32]], target=target, edit=edit, batch_num=2)
    saved = amct.convert_model(MODEL_FILE, flow.folder / "record.txt", tmp_path / "again" / "net", target=target)
    assert models(tmp_path / "again") == models(flow.folder / "out")
    assert {kind: path.name for kind, path in saved.files.items()} == {
        kind: path.name for kind, path in flow.saved.files.items()
    }


MAX_POOL = """net (float[N, 3, 8, 8] x) => (y)
{ [one] a = Conv (x, v) [pool] b = MaxPool <kernel_shape = [2, 2]> (a) [two] y = Conv (b, w) }"""


@pytest.mark.parametrize("target", ["ascend", "onnxruntime"])
def test_requested_tensors_are_in_the_record(tmp_path, quantize, write_network, rng, target) -> None:
    weights = {name: rng.normal(size=(4, channels, 2, 2)).astype(np.float32) for name, channels in (("v", 3), ("w", 4))}
    model = write_network(MAX_POOL, weights)
    flow = quantize(
        model,
        [rng.normal(size=(4, 3, 8, 8)).astype(np.float32)],
        target=target,
        edit=lambda document: document.update(tensor_quantize=[{"layer_name": "pool", "input_index": 0}]),
    )
    assert "pool:0" in read_record(flow.folder / "record.txt")
    amct.convert_model(model, flow.folder / "record.txt", tmp_path / "again" / "net", target=target)
    assert models(tmp_path / "again") == models(flow.folder / "out")


def float16(document: dict[str, Any]) -> None:
    document["fakequant_precision_mode"] = "FORCE_FP16_QUANT"


def test_the_record_says_that_a_device_rounds_in_float16(tmp_path: Path, quantize) -> None:
    flow = quantize(MODEL_FILE, [load_split().calibration.images], target="ascend", edit=float16)
    record = flow.folder / "record.txt"
    amct.convert_model(MODEL_FILE, record, tmp_path / "again" / "net")
    assert models(tmp_path / "again") == models(flow.folder / "out")
    with pytest.raises(RecordError, match="FORCE_FP16_QUANT simulates Ascend devices"):
        amct.convert_model(MODEL_FILE, record, tmp_path / "ort" / "net", target="onnxruntime")


def test_shifts_stand_in_the_deploy_model(tmp_path: Path) -> None:
    record = LayerRecord(scale_d=0.1, scale_w=(0.1,) * 10, offset_w=(0,) * 10, shift_bit=tuple(range(1, 11)))
    write_record({"fc2": record}, tmp_path / "record.txt")
    saved = amct.convert_model(MODEL_FILE, tmp_path / "record.txt", tmp_path / "out" / "net")
    param = ir.load(saved.files["deploy_model"]).graph.initializers["fc2.dequant.param"].const_value.numpy()
    assert ((param >> np.uint64(32)) & np.uint64(0xFF)).tolist() == list(range(1, 11))


@pytest.mark.parametrize(
    ("options", "skipped"),
    [
        ({}, []),
        ({}, ["two"]),
        ({"skip_fusion_layers": ["one"]}, []),
        ({"skip_fusion_layers": ["one", "two"]}, []),
        ({"do_fusion": False}, []),
        ({"do_fusion": False}, ["two"]),
    ],
)
def test_the_record_says_what_was_folded(tmp_path, quantize, write_network, rng, options, skipped) -> None:
    model = two_norms(write_network, rng)
    flow = quantize(
        model,
        [rng.normal(size=(4, 3, 8, 8)).astype(np.float32)],
        edit=lambda document: document.update(options),
        skip_layers=skipped,
    )
    amct.convert_model(model, flow.folder / "record.txt", tmp_path / "again" / "net", target="onnxruntime")
    assert models(tmp_path / "again") == models(flow.folder / "out")


@needs_lenet
@pytest.mark.parametrize("kind", ["uniform", "nuq", "tensor", "float16"])
def test_a_caffe_pair_gives_the_same_files(tmp_path: Path, rng, kind: str) -> None:
    amct.create_quant_config(tmp_path / "config.json", *LENET)
    document = json.loads((tmp_path / "config.json").read_text())
    if kind == "nuq":
        document["ip1"]["weight_quant_params"] = {"wts_algo": "nuq_quantize", "num_steps": 16}
    if kind == "tensor":
        document["tensor_quantize"] = [{"layer_name": "pool1", "input_index": 0}]
    if kind == "float16":
        float16(document)
    (tmp_path / "config.json").write_text(json.dumps(document))
    graph = amct.init(tmp_path / "config.json", *LENET, tmp_path / "record.txt")
    amct.calibrate(graph, [rng.random((8, 1, 28, 28), np.float32)])
    amct.save_model(graph, "Both", tmp_path / "out" / "net")
    amct.convert_model(*LENET, tmp_path / "record.txt", tmp_path / "again" / "net")
    assert models(tmp_path / "again") == models(tmp_path / "out")
    amct.convert_model(
        model_file=LENET[0],
        weights_file=LENET[1],
        scale_offset_record_file=tmp_path / "record.txt",
        save_path=tmp_path / "named" / "net",
    )
    assert models(tmp_path / "named") == models(tmp_path / "out")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_record_by_hand_decides_what_is_quantized(tmp_path: Path) -> None:
    text = """
    record { key: "fc1" value { scale_d: 0.125 offset_d: -128 scale_w: 0.01 offset_w: 0 cluster: [-64, 0, 64]
                                dst_type: "INT8" shift_bit: 0 } }
    record { key: "conv1" value { skip_fusion: true } }
    """
    saved = amct.convert_model(
        MODEL_FILE, save_path=f"{tmp_path}/", record_file=write(tmp_path / "record.txt", text), target="onnxruntime"
    )
    forms = {layer.name: layer.form for layer in saved.summary.layers}
    assert [name for name, form in forms.items() if form != "float"] == ["fc1"]
    assert forms["fc1"] == "nuq"
    assert "conv1 stays float: it is not in the record." in saved.summary.notes()
    model = ir.load(saved.files["fake_quant_model"])
    weight = next(value for name, value in model.graph.initializers.items() if name.endswith(".quantized"))
    levels = np.unique(np.round(weight.const_value.numpy() / np.float32(0.01)))
    assert set(levels) <= {-64, 0, 64}


def test_an_input_of_an_operator_goes_by_its_layer_and_index(tmp_path, write_network, rng, run_network) -> None:
    model = write_network("net (float[2, 4] x, float[2, 4] z) => (y) { [sum] y = Add (x, z) }", {})
    record = write(tmp_path / "record.txt", 'record { key: "sum:1" value { scale_d: 0.5 offset_d: 0 } }')
    saved = amct.convert_model(model, record, tmp_path / "out" / "net", target="onnxruntime")
    x, z = rng.normal(size=(2, 2, 4)).astype(np.float32)
    found = run_network(saved.files["fake_quant_model"], {"x": x, "z": z})["y"]
    np.testing.assert_array_equal(found, x + np.rint(z / np.float32(0.5)) * np.float32(0.5))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('key: "conv9" value { scale_d: 1 scale_w: 1 }', "find conv9 failure in model"),
        ('key: "conv9" value { skip_fusion: true }', "find conv9 failure in model .*has skip_fusion for it"),
        ('key: "relu1" value { scale_d: 1 scale_w: 1 }', "find relu1 failure in model .*type Relu"),
        ('key: "fc1" value { scale_d: 1 }', "cannot find scale_w of layer fc1"),
        ('key: "fc1" value { scale_w: 1 }', "cannot find scale_d of layer fc1"),
        ('key: "pool" value { scale_d: 1 scale_w: 1 }', "find undesirable scale_w of layer pool in record_file"),
        ('key: "pool" value { scale_d: 1 offset_d: 0 shift_bit: [] offset_w: [] }', None),
        ('key: "conv1" value { skip_fusion: true }', "record_file is empty, no layers to be quantized"),
    ],
)
def test_a_record_that_does_not_fit_is_told_in_amcts_words(tmp_path: Path, value: str, message: str | None) -> None:
    record = write(tmp_path / "record.txt", f"record {{ {value} }}")
    if message is None:
        amct.convert_model(MODEL_FILE, record, tmp_path / "out" / "net")
        return
    with pytest.raises(RecordError, match=message) as caught:
        amct.convert_model(MODEL_FILE, record, tmp_path / "out" / "net")
    assert caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_a_shift_on_average_pooling_is_refused_as_amct_does(tmp_path: Path) -> None:
    from amct_lite.graph.model import load_model
    from amct_lite.quantize.apply_record import quantized_layers

    with pytest.raises(RecordError, match="shift_bit is not support, please delete shift_bit of layer pool"):
        quantized_layers(load_model(MODEL_FILE), {"pool": LayerRecord(scale_d=1.0, shift_bit=(1,))})


def test_a_layer_that_the_target_cannot_run_is_refused(tmp_path: Path, write_network, rng) -> None:
    text = "net (float[1, 4, 5, 5] x) => (y) { [up] y = ConvTranspose <dilations = [2, 2]> (x, w) }"
    model = write_network(text, {"w": rng.normal(size=(4, 3, 3, 3)).astype(np.float32)})
    record = write(tmp_path / "record.txt", 'record { key: "up" value { scale_d: 1 scale_w: 1 } }')
    with pytest.raises(RecordError, match="layer up cannot be quantized under the target 'ascend': dilation must be 1"):
        amct.convert_model(model, record, tmp_path / "out" / "net")


def test_a_model_that_is_quantized_already_is_refused(tmp_path: Path, quantize) -> None:
    flow = quantize(MODEL_FILE, [load_split().calibration.images], target="ascend")
    record = flow.folder / "record.txt"
    for kind in ("fake_quant_model", "deploy_model"):
        with pytest.raises(ModelError, match="is quantized already") as caught:
            amct.convert_model(flow.saved.files[kind], record, tmp_path / "out" / "net")
        assert "convert_qat_model" in str(caught.value)


def test_int8_weights_are_refused(tmp_path: Path, write_network) -> None:
    text = "net (float[1, 4] x) => (y) { f = Cast <to = 1> (w) [fc] y = MatMul (x, f) }"
    model = write_network(text, {"w": np.ones((4, 4), np.int8)})
    record = write(tmp_path / "record.txt", 'record { key: "fc" value { scale_d: 1 scale_w: 1 } }')
    with pytest.raises(ModelError, match="INT8 data in the initializer 'w'"):
        amct.convert_model(model, record, tmp_path / "out" / "net")


@needs_lenet
def test_a_caffe_pair_that_is_quantized_already_is_refused(tmp_path: Path, rng) -> None:
    amct.create_quant_config(tmp_path / "config.json", *LENET)
    graph = amct.init(tmp_path / "config.json", *LENET, tmp_path / "record.txt")
    amct.calibrate(graph, [rng.random((8, 1, 28, 28), np.float32)])
    saved = amct.save_model(graph, "Both", tmp_path / "out" / "net")
    for form in ("fake_quant", "deploy"):
        pair = saved.files[f"{form}_model"], saved.files[f"{form}_weights"]
        with pytest.raises(ModelError, match="is quantized already: it has the layer 'conv1_0_quant_layer'"):
            amct.convert_model(*pair, tmp_path / "record.txt", tmp_path / "again" / "net")
    with pytest.raises(ModelError, match="is quantized already: it has INT8 or INT32 data in the layer 'conv1'"):
        amct.convert_model(LENET[0], saved.files["deploy_weights"], tmp_path / "record.txt", tmp_path / "again" / "net")


BATCH_NORM = """
name: "n"
input: "data" input_shape {{ dim: 1 dim: 2 dim: 4 dim: 4 }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "c"
  convolution_param {{ num_output: 2 kernel_size: 1 bias_term: false weight_filler {{ }} }}
  blobs {{ shape {{ dim: 2 dim: 2 dim: 1 dim: 1 }} data: [1, 2, 3, 4] }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "c" top: "b" batch_norm_param {{ {stats} }}
  blobs {{ shape {{ dim: 2 }} data: [0, 0] }} blobs {{ shape {{ dim: 2 }} data: [1, 1] }}
  blobs {{ shape {{ dim: 1 }} data: 1 }} }}
"""


@pytest.mark.parametrize(
    ("stats", "refused"), [("", False), ("use_global_stats: true", False), ("use_global_stats: false", True)]
)
def test_a_caffe_batch_norm_must_have_global_statistics(tmp_path: Path, stats: str, refused: bool) -> None:
    from google.protobuf import text_format

    from amct_lite.files.protos import message_class

    network = text_format.Parse(BATCH_NORM.format(stats=stats), message_class("caffe", "caffe.NetParameter")())
    (tmp_path / "net.caffemodel").write_bytes(network.SerializeToString())
    for layer in network.layer:
        layer.ClearField("blobs")
    model = write(tmp_path / "net.prototxt", text_format.MessageToString(network))
    record = write(tmp_path / "record.txt", 'record { key: "conv" value { scale_d: 1 scale_w: 1 } }')
    files = model, tmp_path / "net.caffemodel", record, tmp_path / "out" / "net"
    if not refused:
        amct.convert_model(*files)
        return
    with pytest.raises(ModelError, match="use_global_stats must be 1") as caught:
        amct.convert_model(*files)
    assert caught.value.layer == "bn"


@pytest.mark.parametrize(
    ("positional", "named", "mistake"),
    [
        (("net.onnx", "record.txt"), {}, "missing a required argument: 'save_path'"),
        (("net.onnx", "record.txt", "out/net"), {"record_file": "r"}, "multiple values for argument 'record_file'"),
        (("net.onnx", "record.txt"), {"save_path": "o", "weights_file": "w"}, "weights_file"),
        (("net.onnx",), {"scale_offset_record_file": "r", "save_path": "o"}, "scale_offset_record_file"),
        (("net.prototxt", "net.caffemodel"), {"record_file": "r", "save_path": "o"}, "record_file"),
        (("net.onnx", "net.caffemodel", "record.txt", "out/net"), {}, "as for Caffe, but net.onnx is no prototxt"),
        (("net.prototxt", "record.txt", "out/net"), {}, "as for ONNX, but net.prototxt is a Caffe network"),
    ],
)
def test_a_mix_up_of_arguments_names_both_forms(positional, named, mistake) -> None:
    with pytest.raises(ParameterError) as caught:
        amct.convert_model(*positional, **named)
    assert mistake in str(caught.value)
    assert "convert_model(model_file, weights_file, scale_offset_record_file, save_path)" in str(caught.value)
    assert "convert_model(model_file, record_file, save_path)" in str(caught.value)


def test_what_amct_would_not_take_of_a_record_is_said_as_advice(tmp_path: Path, caplog) -> None:
    scales = " ".join(["scale_w: 0.01"] * 10)
    text = f"""
    record {{ key: "fc1" value {{ scale_d: 0.1 scale_w: 0.01 cluster: [-5, 0, 5] }} }}
    record {{ key: "fc2" value {{ scale_d: 0.1 {scales} }} }}
    record {{ key: "pool" value {{ scale_d: 0.1 offset_d: -128 }} }}
    """
    record = write(tmp_path / "record.txt", text)
    with caplog.at_level(logging.WARNING):
        amct.convert_model(MODEL_FILE, record, tmp_path / "ort" / "net", target="onnxruntime")
        assert not caplog.messages
        amct.convert_model(MODEL_FILE, record, tmp_path / "out" / "net")
    told = "\n".join(caplog.messages)
    assert "The length of cluster center is 16 or 32, but is 3" in told
    assert "The channel_wise must be False for layer type Gemm" in told
    assert "'pool': The offset -128 of its input is left to the device's compiler" in told


def test_what_a_record_says_of_other_layers_does_not_hinder(tmp_path: Path) -> None:
    records = {"fc1": LayerRecord(scale_d=0.1, scale_w=(0.01,), offset_w=(0,))}
    write_record(records, tmp_path / "record.txt")
    more = (tmp_path / "record.txt").read_text() + 'record { key: "fc2" kv_cache_value { scale: 1 offset: 0 } }'
    write(tmp_path / "record.txt", more)
    assert len(read_record(tmp_path / "record.txt")) == 2
    saved = amct.convert_model(MODEL_FILE, tmp_path / "record.txt", tmp_path / "out" / "net")
    assert [layer.name for layer in saved.summary.layers if layer.form != "float"] == ["fc1"]


def test_entries_that_only_say_skip_fusion_do_not_hinder_save_model_either(tmp_path: Path, quantize) -> None:
    flow = quantize(MODEL_FILE, [load_split().calibration.images], target="ascend", skip_layers=["conv2"])
    record = flow.folder / "record.txt"
    write(record, record.read_text() + 'record { key: "conv2" value { skip_fusion: true } }')
    amct.save_model(flow.graph, "Both", tmp_path / "again" / "net")
    assert models(tmp_path / "again") == models(flow.folder / "out")


@needs_lenet
def test_a_caffe_pair_with_a_clustered_activation_gets_no_deploy_form_and_is_told_so(tmp_path: Path, caplog) -> None:
    text = 'record { key: "ip1" value { scale_d: 0.1 scale_w: 0.01 activation_cluster: [0, 9, 90] } }'
    with caplog.at_level(logging.WARNING):
        saved = amct.convert_model(*LENET, write(tmp_path / "record.txt", text), tmp_path / "out" / "net")
    assert sorted(saved.files) == ["fake_quant_model", "fake_quant_weights", "summary"]
    assert "No deploy model is written" in "\n".join(caplog.messages)
