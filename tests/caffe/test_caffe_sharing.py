"""Shared weights, against real Caffe: one blob, whoever brings it, and the last one counts."""

import numpy as np
import pytest

import amct_lite as amct
from amct_lite.files.protos import message_class

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "one" type: "InnerProduct" bottom: "data" top: "one" param { name: "w" } param { name: "b" }
        inner_product_param { num_output: 3 } }
layer { name: "two" type: "InnerProduct" bottom: "one" top: "two" param { name: "w" } param { name: "b" }
        inner_product_param { num_output: 3 } }
"""


@pytest.mark.parametrize("bringers", [["one"], ["two"], ["one", "two"]])
def test_layers_that_share_weights_compute_what_real_caffe_computes(tmp_path, real_caffe, bringers):
    prototxt, caffemodel = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(NET)
    rng = np.random.default_rng(0)
    weights = message_class("caffe", "caffe.NetParameter")()
    for name in bringers:
        layer = weights.layer.add(name=name, type="InnerProduct")
        for shape in ((3, 3), (3,)):
            blob = layer.blobs.add(data=rng.normal(size=int(np.prod(shape))).tolist())
            blob.shape.dim.extend(shape)
    caffemodel.write_bytes(weights.SerializeToString())
    x = rng.normal(size=(2, 3)).astype(np.float32)
    expected = real_caffe(prototxt, {"data": x}, caffemodel).blobs["two"]
    np.testing.assert_allclose(
        amct.InferenceSession(prototxt, caffemodel).run(None, {"data": x})[0], expected, rtol=1e-5
    )
