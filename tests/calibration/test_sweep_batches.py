"""The sweep sees the same whatever the batches: their size, order, kind, and number beyond batch_num."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amct_lite.calibration.statistics import Statistics
from amct_lite.calibration.sweep import sweep
from amct_lite.evaluators import ArrayData, Batches
from amct_lite.graph import load_model
from amct_lite.samples.digits.data import MODEL_FILE, load_split
from amct_lite.samples.squeezenet_imagenet.data import SHARED_DATA, shared_images

IMAGES = load_split().calibration.images


def histograms(statistics: Statistics) -> dict[str, dict[str, np.ndarray]]:
    return {name: statistics._histograms[name].to_arrays() for name in statistics.tensors}


def cut(images: np.ndarray, size: int) -> list[np.ndarray]:
    return [images[start : start + size] for start in range(0, len(images), size)]


def observe_digits(batches: list[np.ndarray]) -> Statistics:
    model = load_model(MODEL_FILE)
    return sweep(model, model.layers, batches, len(batches))


@pytest.fixture(scope="module")
def reference() -> Statistics:
    return observe_digits([IMAGES])


@pytest.mark.parametrize("size", [1, 4, 16, 33])
def test_batch_size_does_not_matter(size: int, reference: Statistics) -> None:
    found = observe_digits(cut(IMAGES, size))
    assert found.samples == reference.samples == 100
    np.testing.assert_equal(histograms(found), histograms(reference))


def test_order_does_not_matter(reference: Statistics) -> None:
    found = observe_digits(cut(IMAGES[np.random.default_rng(0).permutation(100)], 16))
    np.testing.assert_equal(histograms(found), histograms(reference))


@pytest.mark.parametrize(("first", "second"), [(1, 16), (4, 7)])
def test_record_is_the_same_for_every_batch_size(
    first: int, second: int, quantize: Callable[..., Any], nuq: Callable[..., Any]
) -> None:
    def record(size: int) -> bytes:
        batches = cut(IMAGES, size)
        flow = quantize(MODEL_FILE, batches, target="ascend", edit=nuq(), batch_num=len(batches))
        return flow.graph.require_record_file().read_bytes()

    assert record(first) == record(second)


def test_real_network_gives_the_same_grids_for_every_batch_size(find_model: Callable[[str], Path]) -> None:
    """ONNX Runtime itself may sum in another order for another batch size, so a value may change bins."""
    model = load_model(find_model("squeezenet1.1/squeezenet1.1.onnx"))
    if not SHARED_DATA.is_dir():
        pytest.skip("there are no photos in ../shared")
    photos = next(iter(Batches(shared_images("tuxpaint141"), batch_size=4)))
    whole = sweep(model, model.layers, [photos], 1)
    single = sweep(model, model.layers, cut(photos, 1), 4)
    for layer in model.layers:
        first, second = whole.histogram(layer).snapshot(), single.histogram(layer).snapshot()
        assert first.total == second.total
        assert first.width == second.width
        assert second.maximum == pytest.approx(first.maximum, rel=1e-5)
        moved = np.abs(np.cumsum(first.counts) - np.cumsum(second.counts)).max() if first.counts.size else 0
        assert moved <= 1e-4 * first.total


def test_kinds_of_batches_are_alike(reference: Statistics) -> None:
    def generator() -> Iterator[dict[str, np.ndarray]]:
        for batch in cut(IMAGES, 50):
            yield {"image": batch}

    model = load_model(MODEL_FILE)
    for batches in (
        generator(),
        Batches(ArrayData(IMAGES), batch_size=50),
        [np.asfortranarray(batch) for batch in cut(IMAGES, 50)],
        [batch.astype(">f4") for batch in cut(IMAGES, 50)],
    ):
        np.testing.assert_equal(histograms(sweep(model, model.layers, batches, 2)), histograms(reference))


def test_only_batch_num_batches_are_read() -> None:
    read = []

    def endless() -> Iterator[np.ndarray]:
        while True:
            read.append(len(read))
            yield IMAGES[:2]

    model, calls = load_model(MODEL_FILE), []
    statistics = sweep(model, model.layers, endless(), 3, progress=lambda *done: calls.append(done))
    assert read == [0, 1, 2]
    assert statistics.batches == 3
    assert calls == [(1, 3), (2, 3), (3, 3)]


SIZES = "g (float[N,3,H,W] x) => (y) { [layer] h = Conv (x, w) y = Relu (h) }"


def test_shapes_may_change_and_be_empty(write_network: Callable[..., Path]) -> None:
    w = np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32)
    model = load_model(write_network(SIZES, {"w": w}))
    values = np.random.default_rng(1).normal(size=60).astype(np.float32)
    batches = [values[:48].reshape(1, 3, 4, 4), values[48:].reshape(2, 3, 1, 2), np.zeros((0, 3, 5, 5), np.float32)]
    found = sweep(model, model.layers, batches, 3).histogram(model.layers[0]).snapshot()
    assert found.total == 60
    assert (found.minimum, found.maximum) == (values.min(), values.max())


def test_empty_tensor_inside_is_taken_as_it_is(write_network: Callable[..., Path]) -> None:
    text = "g (float[N,S,4] x) => (y) { h = Relu (x) [layer] y = MatMul (h, w) }"
    model = load_model(write_network(text, {"w": np.eye(4, dtype=np.float32)}))
    batches = [np.ones((2, 0, 4), np.float32), np.ones((2, 3, 4), np.float32)]
    assert sweep(model, model.layers, batches, 2).histogram(model.layers[0]).total == 24


SEVERAL = """g (int32[N] ids, float[N,4] x) => (y) {
  e = Gather (table, ids) [a] h = MatMul (e, w) s = Add (h, x) [b] y = MatMul (s, w2)
}"""


def test_several_inputs_in_any_order(write_network: Callable[..., Path], quantize: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    shapes = {"table": (10, 4), "w": (4, 4), "w2": (4, 5)}
    file = write_network(SEVERAL, {name: rng.normal(size=size).astype(np.float32) for name, size in shapes.items()})
    ids, x = np.arange(10, dtype=np.int32), rng.normal(size=(10, 4)).astype(np.float32)
    records = []
    for batch in ({"ids": ids, "x": x}, {"x": x, "ids": ids}):
        flow = quantize(file, [batch])
        records.append(flow.graph.require_record_file().read_bytes())
        model = load_model(file)
        assert sweep(model, model.layers, [batch], 1).samples == 10
    assert records[0] == records[1]
