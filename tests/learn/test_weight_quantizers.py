"""Levels of weights against twins in plain numpy, and gradients of points against sums and finite differences."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")

from amct_lite.codebook.codebook import LevelType  # noqa: E402
from amct_lite.codebook.exact_floats import best_float_levels  # noqa: E402
from amct_lite.errors import ParameterError  # noqa: E402
from amct_lite.learn.buckets import BucketType, make_buckets  # noqa: E402
from amct_lite.learn.weight_quantizers import INIT_STYLES, PointQuantizer, UniformQuantizer  # noqa: E402
from amct_lite.quantize.weight_rows import weight_layout  # noqa: E402
from amct_lite.types import Layer, LayerKind  # noqa: E402

# A convolution, an inner product stored the other way round, and a transposed convolution of two groups.
LAYERS = {
    "convolution": Layer("a", "Conv", LayerKind.CONVOLUTION, "x", 0, 1, "y", "w", 1, (6, 4, 3, 2), 0),
    "product": Layer("a", "MatMul", LayerKind.INNER_PRODUCT, "x", 0, 1, "y", "w", 1, (10, 7), 1),
    "transposed": Layer(
        "a", "ConvTranspose", LayerKind.DECONVOLUTION, "x", 0, 1, "y", "w", 1, (4, 3, 2, 2), 1, group=2
    ),
}
BUCKETS = [("layer", 256), ("channel", 256), ("split", 5), ("split", 48), ("split", 1000)]


def weight_of(layer, seed=0):
    return np.random.default_rng(seed).normal(size=layer.weight_shape).astype(np.float32)


def rows_in_buckets(layer, weight, kind, size):
    """The buckets of a weight as a list of lists of (row, column)."""
    rows = weight_layout(layer).to_rows(weight)
    places = [(row, column) for row in range(rows.shape[0]) for column in range(rows.shape[1])]
    if kind == "channel":
        size = rows.shape[1]
    elif kind == "layer":
        size = len(places)
    return rows, [places[start : start + size] for start in range(0, len(places), size)]


def rounded(levels, level_type):
    return np.asarray(levels, np.float32).astype(np.float16 if level_type is LevelType.FLOAT16 else np.float32)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("kind", "size"), BUCKETS)
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_uniform_levels_are_pocketflows_function_bucket_by_bucket(name, kind, size, bits):
    layer = LAYERS[name]
    weight = weight_of(layer)
    buckets = make_buckets(weight_layout(layer), BucketType(kind), size)
    quantizer = UniformQuantizer(buckets, bits, torch.from_numpy(weight), LevelType.FLOAT32)
    found = weight_layout(layer).to_rows(quantizer(torch.from_numpy(weight)).numpy())
    rows, parts = rows_in_buckets(layer, weight, kind, size)
    steps = 2**bits - 1
    for part in parts:
        numbers = np.array([rows[place] for place in part], np.float64)
        alpha, beta = max(numbers.max() - numbers.min(), 1e-30), numbers.min()
        wanted = alpha * np.round((numbers - beta) / alpha * steps) / steps + beta
        np.testing.assert_allclose([found[place] for place in part], wanted, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("kind", "size"), BUCKETS)
@pytest.mark.parametrize("init_style", INIT_STYLES)
def test_each_weight_goes_to_the_nearest_point_of_its_bucket(name, kind, size, init_style):
    layer = LAYERS[name]
    weight = weight_of(layer)
    buckets = make_buckets(weight_layout(layer), BucketType(kind), size)
    quantizer = PointQuantizer(buckets, 2, torch.from_numpy(weight), LevelType.FLOAT16, init_style)
    found = weight_layout(layer).to_rows(quantizer(torch.from_numpy(weight)).detach().numpy())
    rows, parts = rows_in_buckets(layer, weight, kind, size)
    for points, part in zip(quantizer.points.detach().numpy(), parts, strict=True):
        numbers = np.array([rows[place] for place in part])
        low, span = numbers.min(), np.ptp(numbers) or np.float32(1)
        levels = rounded(low + span * points, quantizer.level_type).astype(np.float32)
        wanted = levels[np.abs(numbers[:, None] - levels).argmin(1)]
        np.testing.assert_array_equal(np.abs([found[place] for place in part] - numbers), np.abs(wanted - numbers))
        assert {found[place] for place in part} <= set(levels.tolist())


def quantizer_of(weight, *, bits=2, init_style="quantile", level_type=LevelType.FLOAT32, kind="layer"):
    layer = LAYERS["convolution"]
    buckets = make_buckets(weight_layout(layer), BucketType(kind), 256)
    return PointQuantizer(buckets, bits, torch.from_numpy(weight), level_type, init_style)


def test_points_begin_at_quantiles_at_even_steps_or_where_the_error_is_least():
    weight = weight_of(LAYERS["convolution"])
    low, span = weight.min(), np.ptp(weight)
    points = {style: quantizer_of(weight, init_style=style).points.detach().numpy()[0] for style in INIT_STYLES}
    found = {style: low + span * shares for style, shares in points.items()}
    np.testing.assert_allclose(found["uniform"], np.linspace(low, low + span, 4), rtol=1e-5)
    shares = [(weight < level).mean() for level in found["quantile"]]
    np.testing.assert_allclose(shares, [0.2, 0.4, 0.6, 0.8], atol=2 / weight.size)
    np.testing.assert_allclose(found["optimal"], best_float_levels(weight, 4).levels, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["layer", "channel"])
def test_the_gradient_of_a_point_is_the_sum_of_the_gradients_of_its_weights(kind):
    weight = weight_of(LAYERS["convolution"])
    quantizer = quantizer_of(weight, kind=kind)
    leaf = torch.from_numpy(weight).requires_grad_()
    outside = torch.from_numpy(weight_of(LAYERS["convolution"], seed=1))
    quantized = quantizer(leaf)
    (quantized * outside).sum().backward()
    torch.testing.assert_close(leaf.grad, outside)  # straight through
    for number, part in enumerate(weight.reshape(1, -1) if kind == "layer" else weight.reshape(6, -1)):
        given = outside.numpy().reshape(-1, part.size)[number]
        low, span = part.min(), np.ptp(part)
        levels = low + span * quantizer.points.detach().numpy()[number]
        nearest = np.abs(part[:, None] - levels).argmin(1)
        wanted = [span * given[nearest == index].sum() for index in range(4)]
        np.testing.assert_allclose(quantizer.points.grad[number].numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_point_is_that_of_finite_differences():
    weight = weight_of(LAYERS["convolution"])
    quantizer = quantizer_of(weight)
    outside = torch.from_numpy(weight_of(LAYERS["convolution"], seed=1))

    def loss():
        return (quantizer(torch.from_numpy(weight)) * outside).square().sum().double()

    loss().backward()
    step = 1e-3
    for index in range(4):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                quantizer.points[0, index] += sign * step
                # The assignment must not change between the two, so it is that of the weights moved along.
                values.append(float(loss()))
                quantizer.points[0, index] -= sign * step
        difference = (values[0] - values[1]) / (2 * step)
        assert difference == pytest.approx(float(quantizer.points.grad[0, index]), rel=0.1)


def test_points_that_cross_give_an_ascending_codebook_of_the_same_numbers():
    weight = weight_of(LAYERS["convolution"])
    quantizer = quantizer_of(weight)
    with torch.no_grad():
        quantizer.points.copy_(quantizer.points.flip(1))
    book = quantizer.codebook(torch.from_numpy(weight))
    assert (np.diff(book.tables[0, :, 0]) >= 0).all()
    np.testing.assert_array_equal(book.decode().reshape(weight.shape), quantizer(torch.from_numpy(weight)).detach())


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("kind", "size"), BUCKETS)
def test_a_codebook_is_what_training_saw_or_there_is_none(name, kind, size):
    layer = LAYERS[name]
    layout = weight_layout(layer)
    weight = weight_of(layer)
    buckets = make_buckets(layout, BucketType(kind), size)
    quantizer = UniformQuantizer(buckets, 3, torch.from_numpy(weight), LevelType.FLOAT16)
    book = quantizer.codebook(torch.from_numpy(weight))
    whole_rows = kind != "split" or size % layout.columns == 0 or size >= weight.size
    assert (book is not None) == whole_rows
    if book is not None:
        np.testing.assert_array_equal(layout.from_rows(book.decode()), quantizer(torch.from_numpy(weight)).numpy())


def test_weights_that_are_all_alike_stay():
    weight = np.full(LAYERS["convolution"].weight_shape, 0.25, np.float32)
    for quantizer in (
        quantizer_of(weight),
        quantizer_of(weight, init_style="optimal"),
        UniformQuantizer(quantizer_of(weight).buckets, 2, torch.from_numpy(weight), LevelType.FLOAT16),
    ):
        np.testing.assert_array_equal(quantizer(torch.from_numpy(weight)).detach(), weight)


def test_weights_too_small_for_float16_get_levels_of_32_bits():
    assert quantizer_of(weight_of(LAYERS["convolution"]), level_type=LevelType.FLOAT16).level_type == "float16"
    tiny = weight_of(LAYERS["convolution"]) * np.float32(1e-5)
    assert quantizer_of(tiny, level_type=LevelType.FLOAT16).level_type == "float32"


def test_a_quantizer_that_is_off_lets_weights_through():
    weight = torch.from_numpy(weight_of(LAYERS["convolution"]))
    quantizer = quantizer_of(weight.numpy())
    quantizer.enabled = False
    assert torch.equal(quantizer(weight), weight)


def test_buckets_of_one_weight_are_refused():
    with pytest.raises(ParameterError, match="bucket_size"):
        make_buckets(weight_layout(LAYERS["product"]), BucketType.SPLIT, 1)
