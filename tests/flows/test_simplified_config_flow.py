"""From a simplified config with NUQ to the record and the models."""

import json
from pathlib import Path

import numpy as np

import amct_lite

NETWORK = """g (float[N,64,9,9] x) => (float[N,10] y) {
    [narrow] a = Conv <kernel_shape=[1,1]> (x, w1)
    [relu] r = Relu(a)
    [wide] b = Conv <kernel_shape=[3,3], strides=[3,3]> (r, w3)
    [flat] f = Flatten(b)
    [fc] y = MatMul(f, w)
}"""


def test_the_layers_that_are_a_bottleneck_keep_as_many_levels_as_the_text_says(tmp_path: Path, write_network) -> None:
    rng = np.random.default_rng(0)
    shapes = {"w1": (256, 64, 1, 1), "w3": (128, 256, 3, 3), "w": (1152, 10)}
    weights = {name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}
    network = write_network(NETWORK, weights)
    (tmp_path / "nuq.cfg").write_text("""
        batch_num : 2
        nuq_config { nuq_quantize : { num_steps : 16  num_of_iteration : 0 } }
        common_config : { ifmr_quantize : { search_range_start : 0.8 } }
    """)
    config, record = tmp_path / "config.json", tmp_path / "record.txt"
    amct_lite.create_quant_config(config, network, config_defination=tmp_path / "nuq.cfg", target="ascend-rank4")
    assert amct_lite.candidates(network).names == ("wide",)
    graph = amct_lite.init(config, network, None, record)
    amct_lite.calibrate(graph, [rng.normal(size=(4, 64, 9, 9)).astype(np.float32) for _ in range(2)])
    saved = amct_lite.save_model(graph, "Both", tmp_path / "out" / "net")
    clusters = {name: layer.cluster for name, layer in graph.read_records().items()}
    assert {name: len(cluster) for name, cluster in clusters.items()} == {"narrow": 0, "wide": 16, "fc": 0}
    assert json.loads(config.read_text())["wide"]["activation_quant_params"]["search_range"] == [0.8, 1.3]
    assert {"fake_quant_model", "deploy_model"} <= set(saved.files)
