"""Real networks: every blob of the translation is real Caffe's."""

from pathlib import Path

import numpy as np
import pytest

from amct_lite.caffe.reading import read_network
from amct_lite.caffe.translate import translate
from amct_lite.graph.passes.batch_norm_folding import fold_batch_norms
from amct_lite.graph.runtime import create_session

MODELS = Path(__file__).resolve().parents[3] / "shared" / "models"
NETWORKS = {
    "lenet": ("lenet_fashion/deploy.prototxt", "lenet_fashion/lenet_fashion.caffemodel", 0, 1),
    "squeezenet": ("squeezenet1.1/deploy.prototxt", "squeezenet1.1/squeezenet_v1.1.caffemodel", -120, 130),
    "mtcnn_det2": ("mtcnn/det2.prototxt", "mtcnn/det2.caffemodel", -1, 1),
    "mtcnn_det3": ("mtcnn/det3.prototxt", "mtcnn/det3.caffemodel", -1, 1),
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_blob_is_the_one_of_real_caffe(real_caffe, name, batch):
    prototxt, caffemodel, low, high = NETWORKS[name]
    if not (MODELS / caffemodel).exists():
        pytest.skip(f"no {MODELS / caffemodel}")
    network = read_network(MODELS / prototxt, MODELS / caffemodel)
    rng = np.random.default_rng(0)
    inputs = {
        blob: rng.uniform(low, high, (batch, *shape[1:])).astype(np.float32) for blob, shape in network.inputs.items()
    }
    expected = real_caffe(MODELS / prototxt, inputs, caffemodel=MODELS / caffemodel).blobs
    values = {blob: value for blob, value in network.blobs.items() if value not in inputs}
    session = create_session(translate(network), extra_outputs=list(values.values()))
    actual = dict(zip(values, session.run(list(values.values()), inputs), strict=True))
    assert len(actual) > len(network.outputs)
    for blob, array in actual.items():
        spread = np.ptp(expected[blob])
        assert array.shape == expected[blob].shape
        np.testing.assert_allclose(array, expected[blob], rtol=0, atol=1e-4 * spread, err_msg=blob)


RESIDUAL = """
name: "residual"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 13 dim: 10 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 bias_term: false } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" batch_norm_param { use_global_stats: true } }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "branch" type: "Convolution" bottom: "pool" top: "branch"
        convolution_param { num_output: 4 kernel_size: 3 pad: 2 dilation: 2 group: 2 } }
layer { name: "bn2" type: "BatchNorm" bottom: "branch" top: "bn2" }
layer { name: "bias2" type: "Bias" bottom: "bn2" top: "bias2" }
layer { name: "sum" type: "Eltwise" bottom: "pool" bottom: "bias2" top: "sum" eltwise_param { coeff: 1 coeff: -0.5 } }
layer { name: "drop" type: "Dropout" bottom: "sum" top: "sum" }
layer { name: "up" type: "Deconvolution" bottom: "sum" top: "up"
        convolution_param { num_output: 4 kernel_size: 4 stride: 2 pad: 1 group: 4 bias_term: false } }
layer { name: "gap" type: "Pooling" bottom: "up" top: "gap" pooling_param { pool: AVE global_pooling: true } }
layer { name: "fc" type: "InnerProduct" bottom: "gap" top: "fc" inner_product_param { num_output: 5 } }
"""


def test_a_residual_network_is_the_same_with_its_norms_folded(real_caffe, tmp_path):
    prototxt, caffemodel = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(RESIDUAL)
    rng = np.random.default_rng(0)
    shapes = {
        "conv": [(4, 3, 3, 3)],
        "scale": [(4,), (4,)],
        "branch": [(4, 2, 3, 3), (4,)],
        "bias2": [(4,)],
        "up": [(4, 1, 4, 4)],
        "fc": [(5, 4), (5,)],
    }
    params = {(layer, i): rng.normal(size=shape) for layer, blobs in shapes.items() for i, shape in enumerate(blobs)}
    for layer in ("bn", "bn2"):
        params |= {(layer, 0): rng.normal(size=4), (layer, 1): rng.uniform(1, 9, size=4), (layer, 2): [1.7]}
    x = rng.normal(size=(2, 3, 13, 10)).astype(np.float32)
    expected = real_caffe(prototxt, {"data": x}, params=params, save=caffemodel).blobs

    model = translate(read_network(prototxt, caffemodel))
    assert fold_batch_norms(model) == ("conv", "branch")
    assert "BatchNormalization" not in {node.op_type for node in model.graph}
    blobs = ["conv", "pool", "bias2", "sum", "up", "gap", "fc"]
    outputs = create_session(model, extra_outputs=blobs).run(blobs, {"data": x})
    for blob, array in zip(blobs, outputs, strict=True):
        np.testing.assert_allclose(array, expected[blob], rtol=0, atol=1e-5 * np.ptp(expected[blob]), err_msg=blob)
