"""Networks whose convolutions are split: the same function at full rank, within its bound below, AMCT's names."""

import logging
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import amct_lite
from amct_lite.errors import ParameterError
from amct_lite.tensor_decompose import auto_decomposition
from amct_lite.tensor_decompose.low_rank import decompose_filter

RNG = np.random.default_rng(0)

# Uneven kernels, strides, dilations and pads; then what is not split: 1 x 1, a group, a shared weight, one dimension.
NETWORK = """g (float[N,8,31,29] x) => (float[N,C,H,W] y, float[N,D,I,J] z) {
    [first] a = Conv <kernel_shape=[3,5], pads=[2,1,0,3], strides=[2,3]> (x, w1, b1)
    [relu] r = Relu(a)
    [second] b = Conv <kernel_shape=[3,3], dilations=[2,1], pads=[2,1,2,1]> (r, w2)
    [third] c = Conv <kernel_shape=[3,3], auto_pad="SAME_UPPER", strides=[1,2]> (b, w3)
    [thin] d = Conv <kernel_shape=[1,1]> (c, w4)
    [row] e = Conv <kernel_shape=[1,3], pads=[0,1,0,1]> (d, w5)
    [grouped] y = Conv <kernel_shape=[3,3], group=2> (e, w6)
    [one] f = Conv <kernel_shape=[3,3]> (b, w7)
    [two] z = Conv <kernel_shape=[3,3]> (f, w7)
}"""


def low_rank(out_channels: int, in_channels: int, height: int, width: int, rank: int = 2) -> np.ndarray:
    vertical, horizontal = RNG.normal(size=(rank, in_channels, height)), RNG.normal(size=(out_channels, rank, width))
    return (np.einsum("kci,nkj->ncij", vertical, horizontal) / 4).astype(np.float32)


WEIGHTS = {
    "w1": low_rank(12, 8, 3, 5),
    "b1": RNG.normal(size=12).astype(np.float32),
    "w2": low_rank(12, 12, 3, 3),
    "w3": low_rank(12, 12, 3, 3),
    "w4": RNG.normal(size=(12, 12, 1, 1)).astype(np.float32),
    "w5": RNG.normal(size=(12, 12, 1, 3)).astype(np.float32),
    "w6": RNG.normal(size=(12, 6, 3, 3)).astype(np.float32),
    "w7": low_rank(12, 12, 3, 3),
}


def worst(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def test_a_network_of_low_rank_is_the_same_with_a_tenth_of_the_weights(
    tmp_path: Path, write_network, run_network
) -> None:
    network = write_network(NETWORK, WEIGHTS)
    splits = auto_decomposition(network, tmp_path / "new.onnx", kept_energy=1.0)
    assert [split.layer for split in splits] == ["first", "second", "third"]
    assert [split.rank for split in splits] == [2, 2, 2]
    x = RNG.normal(size=(2, 8, 31, 29)).astype(np.float32)
    before, after = run_network(network, {"x": x}), run_network(tmp_path / "new.onnx", {"x": x})
    assert list(after) == ["y", "z"]
    for name in before:
        assert worst(after[name], before[name]) < 1e-4
    assert all(split.weights_now < split.weights / 4 for split in splits)
    assert (tmp_path / "new.onnx").stat().st_size < network.stat().st_size


def test_the_two_have_amcts_names_and_stand_where_the_one_stood(tmp_path: Path, write_network) -> None:
    auto_decomposition(write_network(NETWORK, WEIGHTS), tmp_path / "new.onnx", kept_energy=1.0)
    nodes = [node.name for node in ir.load(tmp_path / "new.onnx").graph]
    assert nodes[:4] == ["first_0", "first_1", "relu", "second_0"]
    assert not {"first", "second", "third"} & set(nodes)
    assert {"thin", "row", "grouped", "one", "two"} <= set(nodes)


def test_amcts_sentences_are_logged(tmp_path: Path, write_network, caplog) -> None:
    with caplog.at_level(logging.INFO):
        auto_decomposition(write_network(NETWORK, WEIGHTS), tmp_path / "new.onnx", kept_energy=1.0)
    assert "Decomposition first ->['first_0', 'first_1']" in caplog.messages
    assert caplog.messages[-1] == "auto_decomposition complete."


@pytest.mark.parametrize("kept_energy", [0.6, 0.9])
def test_below_full_rank_an_output_is_off_by_no_more_than_the_filters_error_allows(
    tmp_path: Path, write_network, run_network, kept_energy: float
) -> None:
    """At each position |dy| <= |dW| |patch|, by Cauchy and Schwarz."""
    weight = (low_rank(16, 8, 3, 3, rank=4) + 0.05 * RNG.normal(size=(16, 8, 3, 3))).astype(np.float32)
    network = write_network(
        "g (float[1,8,10,10] x) => (float[1,16,8,8] y) { [c] y = Conv <kernel_shape=[3,3]> (x, w) }", {"w": weight}
    )
    (split,) = auto_decomposition(network, tmp_path / "new.onnx", kept_energy=kept_energy)
    assert split.rank < split.full_rank
    x = RNG.normal(size=(1, 8, 10, 10)).astype(np.float32)
    before, after = (run_network(path, {"x": x})["y"] for path in (network, tmp_path / "new.onnx"))
    patches = np.lib.stride_tricks.sliding_window_view(x[0], (3, 3), axis=(1, 2))
    patch_norms = np.sqrt(np.einsum("chwij,chwij->hw", patches, patches))
    factors = decompose_filter(weight, kept_energy)
    assert factors is not None
    bound = np.linalg.norm(weight - factors.product()) * patch_norms
    off = np.linalg.norm(after - before, axis=1)[0]
    assert (off <= bound * (1 + 1e-3) + 1e-4).all()
    assert off.max() > 1e-3


def test_a_filter_that_splitting_would_not_make_cheaper_stays_as_it_is(tmp_path: Path, write_network) -> None:
    weights = {"w": RNG.normal(size=(16, 16, 3, 3)).astype(np.float32)}
    network = write_network("g (float[1,16,9,9] x) => (float[1,16,7,7] y) { [c] y = Conv(x, w) }", weights)
    assert auto_decomposition(network, tmp_path / "new.onnx", kept_energy=1.0) == ()
    assert [node.name for node in ir.load(tmp_path / "new.onnx").graph] == ["c"]


def test_a_split_network_goes_through_quantization(tmp_path: Path, write_network) -> None:
    auto_decomposition(write_network(NETWORK, WEIGHTS), tmp_path / "new.onnx", kept_energy=1.0)
    amct_lite.create_quant_config(tmp_path / "config.json", tmp_path / "new.onnx")
    graph = amct_lite.init(tmp_path / "config.json", tmp_path / "new.onnx", None, tmp_path / "record.txt")
    amct_lite.calibrate(graph, [RNG.normal(size=(2, 8, 31, 29)).astype(np.float32)])
    saved = amct_lite.save_model(graph, "Fakequant", tmp_path / "out" / "net")
    assert saved.files["fake_quant_model"].is_file()


def test_squeezenet_with_a_fifth_of_the_energy_given_up_is_cheaper_in_every_3_x_3(tmp_path: Path, find_model) -> None:
    network = find_model("squeezenet1.1/squeezenet1.1.onnx")
    splits = auto_decomposition(network, tmp_path / "new.onnx", kept_energy=0.8)
    assert len(splits) == 9
    assert all(split.kept_energy >= 0.8 and split.products_share < 1 for split in splits)
    assert (tmp_path / "new.onnx").stat().st_size < 0.8 * network.stat().st_size


def test_amcts_module_path_leads_to_the_verb() -> None:
    assert amct_lite.tensor_decompose.auto_decomposition is auto_decomposition
    assert amct_lite.auto_decomposition is auto_decomposition


def test_amcts_keywords_are_known(tmp_path: Path, write_network) -> None:
    auto_decomposition(model_file=write_network(NETWORK, WEIGHTS), new_model_file=tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").is_file()


@pytest.mark.parametrize("kept_energy", [0, -1, 1.5, True, "0.9", None])
def test_a_share_that_is_none_is_refused(tmp_path: Path, kept_energy) -> None:
    with pytest.raises(ParameterError, match=r"must be a number in the range \(0, 1\]"):
        auto_decomposition("net.onnx", tmp_path / "new.onnx", kept_energy=kept_energy)


def test_a_network_without_a_place_to_go_is_refused(write_network) -> None:
    with pytest.raises(ParameterError, match="auto_decomposition writes"):
        auto_decomposition(write_network(NETWORK, WEIGHTS))
