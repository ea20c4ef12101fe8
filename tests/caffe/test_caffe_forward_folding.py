"""Norms in front of a layer: folded into it, and gone from the written pair, which real Caffe runs alike."""

import numpy as np
import pytest

import amct_lite as amct
from amct_lite.caffe_layers import write_caffe_layers
from amct_lite.files.protos import message_class

HEAD = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 9 dim: 9 } } }
layer { name: "first" type: "Convolution" bottom: "data" top: "first"
        convolution_param { num_output: 4 kernel_size: 3 } }
"""
CONV = "convolution_param { num_output: 4 kernel_size: 1 } }"
BODIES = {
    # The norm's input is read by the sum, too.
    "residual": f"""
        layer {{ name: "bn" type: "BatchNorm" bottom: "first" top: "bn" }}
        layer {{ name: "scale" type: "Scale" bottom: "bn" top: "bn" scale_param {{ bias_term: true }} }}
        layer {{ name: "conv" type: "Convolution" bottom: "bn" top: "conv" {CONV}
        layer {{ name: "sum" type: "Eltwise" bottom: "first" bottom: "conv" top: "sum" }}""",
    # In place.
    "in place": f"""
        layer {{ name: "pool" type: "Pooling" bottom: "first" top: "pool" pooling_param {{ kernel_size: 2 }} }}
        layer {{ name: "bn" type: "BatchNorm" bottom: "pool" top: "pool" }}
        layer {{ name: "conv" type: "Convolution" bottom: "pool" top: "sum" {CONV}""",
}


@pytest.mark.parametrize("body", BODIES)
def test_a_norm_in_front_of_a_convolution_folds_and_real_caffe_runs_the_pair(body, tmp_path, real_caffe, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(write_caffe_layers(tmp_path / "layers")))
    prototxt, caffemodel = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(HEAD + BODIES[body])
    rng = np.random.default_rng(0)
    params = {("first", 0): rng.normal(size=(4, 3, 3, 3)), ("first", 1): rng.normal(size=4)}
    params |= {("conv", 0): rng.normal(size=(4, 4, 1, 1)), ("conv", 1): rng.normal(size=4)}
    params |= {("bn", 0): rng.normal(size=4), ("bn", 1): rng.uniform(1, 4, size=4), ("bn", 2): [1.0]}
    if body == "residual":
        params |= {("scale", 0): rng.normal(size=4), ("scale", 1): rng.normal(size=4)}
    x = rng.normal(size=(1, 3, 9, 9)).astype(np.float32)
    expected = real_caffe(prototxt, {"data": x}, params=params, save=caffemodel).blobs["sum"]

    amct.create_quant_config(tmp_path / "c.json", prototxt, caffemodel)
    graph = amct.init(tmp_path / "c.json", prototxt, caffemodel, tmp_path / "r.txt")
    assert "BatchNormalization" not in [node.op_type for node in graph.model.ir.graph]
    amct.calibrate(graph, [x])
    saved = amct.save_model(graph, "Fakequant", tmp_path / "out" / "net")
    pair = saved.files["fake_quant_model"], saved.files["fake_quant_weights"]
    assert "BatchNorm" not in pair[0].read_text()
    ours = amct.InferenceSession(*pair).run(None, {"data": x})[0]
    theirs = real_caffe(pair[0], {"data": x}, pair[1]).blobs["sum"]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    # Eight bits of a small net: the signal is there and only a little noise with it.
    assert np.mean((theirs - expected) ** 2) < 2e-3 * np.mean(expected**2)


def test_separate_batch_norm_and_scale_layers_in_front_of_a_layer_leave_a_pair_that_loads(tmp_path):
    body = f"""
        layer {{ name: "bn" type: "BatchNorm" bottom: "first" top: "bn" }}
        layer {{ name: "scale" type: "Scale" bottom: "bn" top: "scale" scale_param {{ bias_term: true }} }}
        layer {{ name: "conv" type: "Convolution" bottom: "scale" top: "conv" {CONV}
        layer {{ name: "sum" type: "Eltwise" bottom: "first" bottom: "conv" top: "sum" }}"""
    prototxt, caffemodel = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(HEAD + body)
    rng = np.random.default_rng(0)
    weights = message_class("caffe", "caffe.NetParameter")()
    shapes = {
        "first": [(4, 3, 3, 3), (4,)],
        "conv": [(4, 4, 1, 1), (4,)],
        "bn": [(4,), (4,), (1,)],
        "scale": [(4,)] * 2,
    }
    for name, blobs in shapes.items():
        layer = weights.layer.add(name=name)
        for shape in blobs:
            blob = layer.blobs.add(data=rng.uniform(0.5, 2, int(np.prod(shape))).tolist())
            blob.shape.dim.extend(shape)
    caffemodel.write_bytes(weights.SerializeToString())
    x = rng.normal(size=(1, 3, 9, 9)).astype(np.float32)
    amct.create_quant_config(tmp_path / "c.json", prototxt, caffemodel)
    graph = amct.init(tmp_path / "c.json", prototxt, caffemodel, tmp_path / "r.txt")
    amct.calibrate(graph, [x])
    saved = amct.save_model(graph, "Both", tmp_path / "out" / "net")
    pair = saved.files["fake_quant_model"], saved.files["fake_quant_weights"]
    ours = amct.InferenceSession(*pair).run(None, {"data": x})[0]
    exact = amct.InferenceSession(prototxt, caffemodel).run(None, {"data": x})[0]
    assert np.mean((ours - exact) ** 2) < 2e-3 * np.mean(exact**2)
