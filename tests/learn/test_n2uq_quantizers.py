"""N2UQ's quantizers: numbers as in numpy, gradients as in the paper's equations."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'train'")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from amct_lite.codebook.lookup import level_table  # noqa: E402
from amct_lite.errors import TrainingError  # noqa: E402
from amct_lite.learn.entropy_preserving_weight import EntropyPreservingWeight, from_rows, to_rows  # noqa: E402
from amct_lite.learn.generalized_straight_through import GeneralizedStraightThrough  # noqa: E402
from amct_lite.learn.learned_thresholds import LearnedThresholds  # noqa: E402
from amct_lite.quantize.weight_rows import weight_layout  # noqa: E402
from amct_lite.types import Layer, LayerKind  # noqa: E402
from amct_lite.uniform.grid import dequantize, quantize  # noqa: E402


def layer_of(shape, kind=LayerKind.CONVOLUTION, axis=0, group=1):
    return Layer("a", "Conv", kind, "x", 0, 1, "y", "w", 1, shape, axis, group=group)


LAYERS = {
    "convolution": layer_of((6, 3, 2, 2)),
    "product": layer_of((5, 7), LayerKind.INNER_PRODUCT, 1),
    "transposed convolution": layer_of((4, 6, 2, 2), LayerKind.DECONVOLUTION, 1),
    "grouped transposed convolution": layer_of((4, 3, 2, 2), LayerKind.DECONVOLUTION, 1, group=2),
}


def expectation(values, start, intervals, step):
    """The random encoding's expectation, interval after interval, for autograd to differentiate."""
    result, edge = torch.zeros_like(values), start
    for number in range(len(intervals)):
        inside = number * step + step * (values - edge) / intervals[number]
        result = torch.where(values > edge, inside, result)
        edge = edge + intervals[number]
    return torch.where(values > edge, torch.full_like(values, len(intervals) * step), result)


@pytest.mark.parametrize("num_intervals", [1, 3, 15])
def test_gradients_are_those_of_the_expected_random_encoding(num_intervals):
    generator = torch.Generator().manual_seed(num_intervals)

    def leaf(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    values = (leaf(40, 50) * 4 - 1).requires_grad_()
    start, intervals = (leaf(1)[0] * 0.4 - 0.2).requires_grad_(), (leaf(num_intervals) + 0.05).requires_grad_()
    upstream = leaf(40, 50) - 0.3
    parts = (values, start, intervals)
    wanted = torch.autograd.grad(expectation(*parts, 0.7), parts, upstream)
    levels = torch.zeros_like(values, dtype=torch.int64)
    found = torch.autograd.grad(
        GeneralizedStraightThrough.apply(values, levels, start, intervals, 0.7), parts, upstream
    )
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_even_intervals_are_the_plain_clipped_estimator():
    values = torch.linspace(-1, 3, 41).requires_grad_()
    out = GeneralizedStraightThrough.apply(values, torch.zeros(41), torch.zeros(()), torch.full((4,), 0.5), 0.5)
    out.sum().backward()
    inside = (values > 0) & (values <= 2)
    assert torch.equal(values.grad, inside.float())


def moved(num_bits, batch, seed, size=0.3):
    """A quantizer that began on a batch and was then moved at random."""
    quantizer = LearnedThresholds(num_bits).train()
    quantizer(torch.from_numpy(batch))
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in quantizer.parameters():
            change = generator.uniform(-size, size, parameter.shape).astype(np.float32)
            parameter.add_(torch.from_numpy(np.asarray(change)))
    return quantizer.eval()


def twin(values, quantizer):
    """What hardware does: the fine grid, the record's table, and the grid's scale."""
    grid, kept = quantizer.levels_and_bounds()
    table = level_table(kept.levels, kept.costs())
    assert np.array_equal(table, kept.table())
    return dequantize(table[quantize(values, grid).astype(np.int64) + 128], grid)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 7), st.integers(0, 10**6), st.sampled_from([0.0, 0.2, 1.0]), st.sampled_from([1e-3, 1.0, 80.0]))
def test_the_table_gives_the_numbers_of_training_whatever_was_learned(num_bits, seed, negative, size):
    generator = np.random.default_rng(seed)
    batch = (generator.normal(size=(8, 64)) * size).astype(np.float32)
    batch = np.where(generator.uniform(size=batch.shape) < negative, -np.abs(batch), np.abs(batch)).astype(np.float32)
    quantizer = moved(num_bits, batch, seed)
    values = np.concatenate([batch.ravel() * 2, [0.0, 1e30, -1e30]]).astype(np.float32)
    found = quantizer(torch.from_numpy(values)).detach().numpy()
    np.testing.assert_array_equal(found, twin(values, quantizer))
    assert len(np.unique(found)) <= 2**num_bits
    assert found[-3] == 0.0, "zeros of a padding must stay zeros"
    steps = np.diff(np.unique(found))
    assert steps.size == 0 or np.allclose(steps / steps.min(), np.round(steps / steps.min()), atol=1e-3)


def test_thresholds_lie_where_they_were_learned_to_within_a_fine_step():
    batch = np.abs(np.random.default_rng(0).normal(size=4000)).astype(np.float32)
    quantizer = moved(3, batch, 1, size=0.05)
    grid, kept = quantizer.levels_and_bounds()
    middles = float(quantizer.start.detach()) + np.cumsum(q := quantizer.intervals.detach().numpy()) - q / 2
    wanted = middles * float(quantizer.unit) / float(quantizer.input_scale.detach())
    found = (kept.bounds - grid.offset - 0.5) * grid.scale
    assert np.abs(found - wanted).max() <= 0.5 * grid.scale * (1 + 1e-6)
    assert grid.scale < np.diff(found).min() / 10


def test_even_steps_with_the_least_error_are_the_start():
    batch = np.abs(np.random.default_rng(0).normal(size=20_000)).astype(np.float32)
    quantizer = LearnedThresholds(2).train()
    out = quantizer(torch.from_numpy(batch)).detach().numpy()
    errors = {
        step: np.mean((batch - np.clip(np.rint(batch / step), 0, 3) * step) ** 2) for step in np.arange(0.3, 1.5, 0.01)
    }
    assert np.mean((batch - out) ** 2) <= min(errors.values()) * 1.03


def test_nothing_but_zeros_has_no_thresholds():
    with pytest.raises(TrainingError, match="all 0"):
        LearnedThresholds(2).train()(torch.zeros(4))
    with pytest.raises(TrainingError, match="Call fit first"):
        LearnedThresholds(2).grid_and_bounds()


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(("num_bits", "channel_wise"), [(2, True), (4, True), (3, False)])
def test_weights_are_what_numpy_makes_of_the_equation(kind, num_bits, channel_wise):
    layout = weight_layout(LAYERS[kind])
    weight = np.random.default_rng(1).normal(size=layout.weight_shape).astype(np.float32)
    quantizer = EntropyPreservingWeight(layout, num_bits, channel_wise=channel_wise)
    rows, steps = layout.to_rows(weight).astype(np.float64), 2**num_bits - 1
    mean = np.abs(rows).mean(1, keepdims=True) if channel_wise else np.abs(rows).mean()
    scale = steps / 2 ** (num_bits - 1) * mean
    wanted = (2 * np.rint((np.clip(rows / scale, -1, 1) + 1) * steps / 2) - steps) * scale / steps
    found = quantizer(torch.from_numpy(weight)).numpy()
    np.testing.assert_allclose(found, layout.from_rows(wanted), rtol=1e-5, atol=1e-7)
    integers, scales = quantizer.levels_and_scales(torch.from_numpy(weight))
    np.testing.assert_array_equal(layout.from_rows(integers * scales[:, None]), found)
    assert set(np.unique(integers)) <= set(range(-steps, steps + 1, 2))


@pytest.mark.parametrize("kind", LAYERS)
def test_rows_of_tensors_are_rows_of_arrays(kind):
    layout = weight_layout(LAYERS[kind])
    weight = np.arange(np.prod(layout.weight_shape), dtype=np.float32).reshape(layout.weight_shape)
    rows = to_rows(torch.from_numpy(weight), layout)
    np.testing.assert_array_equal(rows.numpy(), layout.to_rows(weight))
    np.testing.assert_array_equal(from_rows(rows, layout).numpy(), weight)


def test_levels_of_weights_are_used_about_evenly():
    layout = weight_layout(layer_of((4, 500, 3, 3)))
    weight = torch.from_numpy(np.random.default_rng(0).normal(size=layout.weight_shape).astype(np.float32))
    integers, _ = EntropyPreservingWeight(layout, 2).levels_and_scales(weight)
    shares = np.unique(integers, return_counts=True)[1] / integers.size
    assert -(shares * np.log2(shares)).sum() > 1.95


def test_gradients_of_weights_pass_where_nothing_is_cut_off():
    layout = weight_layout(layer_of((1, 4), LayerKind.INNER_PRODUCT))
    weight = torch.tensor([[0.1, -0.2, 3.0, -0.3]], requires_grad=True)
    EntropyPreservingWeight(layout, 2)(weight).sum().backward()
    np.testing.assert_allclose(weight.grad.numpy(), [[1, 1, 0, 1]], rtol=1e-6)
