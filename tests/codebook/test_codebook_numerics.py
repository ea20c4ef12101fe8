"""What codebooks are made of, each part against brute force or a least-squares solver."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.coordinate_descent import descend
from amct_lite.codebook.gptq import gptq_codes, inverse_factor
from amct_lite.codebook.least_squares import fit_scales, fit_tables, output_error
from amct_lite.codebook.level_type import LevelType
from amct_lite.codebook.second_moments import SecondMoments, asymmetric_target, damped, mean_of
from amct_lite.codebook.tables import RowTables
from amct_lite.errors import ParameterError

SIZES = [(1, 3, 5, 3, 0), (2, 4, 6, 4, 1), (1, 4, 130, 3, 2), (4, 1, 9, 2, 0)]
"""groups, rows, K, levels, rows_per_table (0: one table)."""


def problem(groups, rows, size, num_levels, rows_per_table=0, seed=0):
    """Weight, positive definite moments, scales, tables."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(groups, size + 4, size)) @ rng.normal(size=(groups, size, size))
    moments = damped(inputs.transpose(0, 2, 1) @ inputs / (size + 4), 0.03)
    total = groups * rows
    per_table = rows_per_table or total
    levels = np.sort(rng.normal(size=(-(-total // per_table), num_levels)), axis=1)
    tables = RowTables(levels, np.arange(total) // per_table)
    return rng.normal(size=(groups, rows, size)), moments, rng.uniform(0.5, 2.0, (groups, rows)), tables


def decoded(scales, tables, codes):
    return tables.decode(codes.reshape(-1, codes.shape[2])).reshape(codes.shape) * scales[:, :, None]


def nearest(weight, scales, tables):
    return tables.nearest((weight / scales[:, :, None]).reshape(-1, weight.shape[2])).reshape(weight.shape)


def moments_of(x, z):
    return SecondMoments(
        quadratic=np.einsum("gni,gnj->gij", x, x) / x.shape[1],
        cross=np.einsum("gni,gnj->gij", z, x) / x.shape[1],
        quantized_mean=x.mean(axis=1),
        float_mean=z.mean(axis=1),
        count=x.shape[1],
    )


def parts(**changes):
    found = {
        "tables": np.array([[[-1.0], [2.0]]], np.float32),
        "codes": np.array([[0, 1, 1], [1, 0, 0]], np.uint8),
        "scales": np.ones(2, np.float32),
        "num_rows": 2,
        "rows_per_table": 2,
        "level_type": LevelType.FLOAT32,
    }
    return found | changes


@pytest.mark.parametrize(
    "wrong",
    [
        {"tables": np.zeros((1, 257, 1), np.float32)},
        {"tables": np.zeros((1, 0, 1), np.float32)},
        {"tables": np.zeros((2, 2, 1), np.float32)},
        {"tables": np.zeros((1, 2, 2), np.float32)},
        {"num_rows": 3},
        {"rows_per_table": 1},
        {"scales": np.ones(3, np.float32)},
        {"scales": np.ones((2, 1), np.float32)},
        {"codes": np.array([[0, 1, 1], [1, 0, 2]], np.uint8)},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_codebook_refuses_parts_that_do_not_fit(wrong):
    Codebook(**parts())
    with pytest.raises(ParameterError):
        Codebook(**parts(**wrong))


def test_a_codebook_of_vectors_cuts_the_rows_that_fill_up():
    book = Codebook(
        tables=np.array([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]], np.float32),
        codes=np.array([[0, 1], [1, 0]], np.uint8),
        scales=np.array([1.0, 10.0, 100.0], np.float32),
        num_rows=3,
        rows_per_table=1,
    )
    assert book.decode().tolist() == [[1.0, 3.0], [70.0, 50.0], [200.0, 400.0]]


@given(st.lists(st.integers(-40, 40), min_size=1, max_size=6, unique=True), st.lists(st.integers(-90, 90), min_size=1))
def test_a_code_is_that_of_the_nearest_level(levels, values):
    table = np.sort(np.array(levels, float))
    found = RowTables(table[None], np.zeros(1, int)).nearest(np.array([values], float))[0]
    distances = np.abs(np.array(values)[:, None] - table)
    assert np.array_equal(found, np.argmin(distances, axis=1))


@pytest.mark.parametrize("sizes", SIZES)
def test_error_feedback_over_independent_inputs_is_rounding(sizes):
    weight, _, scales, tables = problem(*sizes)
    rng = np.random.default_rng(1)
    diagonal = np.eye(sizes[2]) * rng.uniform(0.1, 9.0, (sizes[0], 1, sizes[2]))
    assert np.array_equal(gptq_codes(weight, diagonal, scales, tables), nearest(weight, scales, tables))


@pytest.mark.parametrize("sizes", SIZES[:3])
def test_error_feedback_lowers_the_output_error_of_rounding(sizes):
    weight, moments, scales, tables = problem(*sizes)
    rounded = output_error(weight, moments, decoded(scales, tables, nearest(weight, scales, tables)))
    fed_back = output_error(weight, moments, decoded(scales, tables, gptq_codes(weight, moments, scales, tables)))
    assert fed_back < rounded


def test_error_feedback_does_the_columns_in_order_of_falling_power():
    """Two inputs that move together: the strong one is rounded first, the weak one makes up for it."""
    moments = np.array([[[1.0, 2.0], [2.0, 4.0 + 1e-6]]])
    tables = RowTables(np.array([np.arange(-8.0, 9.0)]), np.zeros(1, int))
    codes = gptq_codes(np.array([[[0.0, 0.4]]]), moments, np.ones((1, 1)), tables)
    assert tables.decode(codes[0]).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("sizes", SIZES)
def test_descent_never_raises_the_error_and_ends_where_no_single_code_can_lower_it(sizes):
    weight, moments, scales, tables = problem(*sizes)
    codes = nearest(weight, scales, tables)
    error = output_error(weight, moments, decoded(scales, tables, codes))
    for _ in range(30):
        better = descend(weight, moments, scales, tables, codes, max_sweeps=1)
        new_error = output_error(weight, moments, decoded(scales, tables, better))
        assert new_error <= error * (1 + 1e-12)
        settled = np.array_equal(better, codes)
        codes, error = better, new_error
        if settled:
            break
    assert settled
    for group, row, column in itertools.product(range(sizes[0]), range(sizes[1]), range(0, sizes[2], 7)):
        for level in range(sizes[3]):
            changed = codes.copy()
            changed[group, row, column] = level
            assert output_error(weight, moments, decoded(scales, tables, changed)) >= error * (1 - 1e-9)


def test_descent_after_feedback_mostly_finds_the_best_of_all_codes():
    optimal = 0
    for seed in range(40):
        num_levels, size = 2 + seed % 2, 2 + seed % 3
        weight, moments, scales, tables = problem(1, 1, size, num_levels, seed=seed)
        start = gptq_codes(weight, moments, scales, tables)
        codes = descend(weight, moments, scales, tables, start, max_sweeps=20)
        found = output_error(weight, moments, decoded(scales, tables, codes))
        every = (np.array(way).reshape(1, 1, size) for way in itertools.product(range(num_levels), repeat=size))
        best = min(output_error(weight, moments, decoded(scales, tables, way)) for way in every)
        assert found >= best * (1 - 1e-9)
        optimal += found <= best * (1 + 1e-9)
    assert optimal >= 30


@pytest.mark.parametrize("sizes", SIZES)
def test_scales_and_tables_are_those_of_least_squares_on_the_design_matrix(sizes):
    weight, moments, scales, tables = problem(*sizes)
    codes = gptq_codes(weight, moments, scales, tables)
    roots = np.linalg.cholesky(moments).transpose(0, 2, 1)  # d H d' = |R d'|**2
    chosen = decoded(np.ones_like(scales), tables, codes)
    fitted = fit_scales(weight, moments, scales, chosen)
    for group, row in itertools.product(range(sizes[0]), range(sizes[1])):
        design, wanted = roots[group] @ chosen[group, row][:, None], roots[group] @ weight[group, row]
        expected = np.linalg.lstsq(design, wanted, rcond=None)[0][0]
        assert fitted[group, row] == pytest.approx(expected if expected > 0 else scales[group, row], rel=1e-9)
    new_tables, new_codes = fit_tables(weight, moments, scales, tables, codes, keep_zero=False)
    assert (np.diff(new_tables.levels, axis=1) >= 0).all()
    before, found = (
        output_error(weight, moments, decoded(scales, *way)) for way in ((tables, codes), (new_tables, new_codes))
    )
    best = 0.0
    table_of_row = tables.table_of_row.reshape(scales.shape)
    for table in range(len(tables.levels)):
        own = list(zip(*np.nonzero(table_of_row == table), strict=True))
        design = np.vstack([roots[g] @ (np.eye(sizes[3])[codes[g, r]] * scales[g, r]) for g, r in own])
        wanted = np.concatenate([roots[g] @ weight[g, r] for g, r in own])
        best += np.sum(np.square(wanted - design @ np.linalg.lstsq(design, wanted, rcond=None)[0]))
    assert best * (1 - 1e-9) <= found <= best + 1e-3 * (before - best)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_no_small_move_of_fitted_scales_or_levels_lowers_the_error(seed):
    weight, moments, scales, tables = problem(2, 2, 5, 3, seed=seed)
    codes = gptq_codes(weight, moments, scales, tables)
    rng = np.random.default_rng(seed)
    chosen = decoded(np.ones_like(scales), tables, codes)
    fitted = fit_scales(weight, moments, scales, chosen)
    usable = np.sum((chosen @ moments) * weight, axis=2) > 1e-6
    error = output_error(weight, moments, chosen * fitted[:, :, None])
    moved = fitted * np.where(usable, 1 + 0.01 * rng.normal(size=fitted.shape), 1.0)
    assert output_error(weight, moments, chosen * moved[:, :, None]) >= error * (1 - 1e-9)
    new_tables, new_codes = fit_tables(weight, moments, scales, tables, codes, keep_zero=False)
    error = output_error(weight, moments, decoded(scales, new_tables, new_codes))
    levels = new_tables.levels + 0.01 * rng.normal(size=new_tables.levels.shape)
    other = RowTables(levels, new_tables.table_of_row)
    assert output_error(weight, moments, decoded(scales, other, new_codes)) >= error * (1 - 1e-3)


def test_a_level_of_zero_stays_and_one_without_weights_stays():
    weight, moments, scales, _ = problem(1, 3, 6, 4)
    tables = RowTables(np.array([[-1.0, 0.0, 0.5, 50.0]]), np.zeros(3, int))
    codes = nearest(weight, scales, tables)
    assert not (codes == 3).any()
    found, moved = fit_tables(weight, moments, scales, tables, codes, keep_zero=True)
    assert 0.0 in found.levels
    assert 50.0 in found.levels
    assert np.array_equal(decoded(scales, found, moved) == 0.0, codes == 1)


def test_a_scale_without_a_positive_solution_stays():
    scales = np.array([[3.0, 4.0]])
    chosen = np.array([[[0.0, 0.0], [-1.0, -1.0]]])
    assert fit_scales(np.ones((1, 2, 2)), np.eye(2)[None], scales, chosen).tolist() == scales.tolist()


def test_the_target_minimises_its_ridge_problem():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 40, 5))
    z = x + 0.3 * rng.normal(size=x.shape)
    weight = rng.normal(size=(2, 3, 5))
    damping = 0.1
    target = asymmetric_target(weight, moments_of(x, z), damping)
    for group in range(2):
        ridge = damping * np.mean(np.square(x[group])) * 40
        design = np.vstack([x[group], np.sqrt(ridge) * np.eye(5)])
        wanted = np.vstack([z[group] @ weight[group].T, np.sqrt(ridge) * weight[group].T])
        assert np.allclose(target[group], np.linalg.lstsq(design, wanted, rcond=None)[0].T)


def test_the_target_of_equal_inputs_or_none_is_the_weight():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 30, 4))
    x[1] = 0.0
    z = x.copy()
    z[1] = 1.0
    weight = rng.normal(size=(2, 3, 4))
    assert np.allclose(asymmetric_target(weight, moments_of(x, z), 0.03), weight)


def hostile_moments():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(6, 1))
    dead = np.diag([1.0, 0.0, 2.0, 0.0, 0.0, 3.0])
    return {
        "rank_one": one @ one.T,
        "dead_channels": dead,
        "nothing": np.zeros((6, 6)),
        "huge": 1e30 * (one @ one.T),
        "tiny": 1e-30 * (one @ one.T),
        "below_everything": np.full((6, 6), 5e-324),
    }


@pytest.mark.parametrize("name", hostile_moments())
def test_damped_moments_are_positive_definite_and_feedback_over_them_is_finite(name):
    quadratic = damped(np.stack([hostile_moments()[name], np.eye(6)]), 0.03)
    assert np.isfinite(quadratic).all()
    assert (np.linalg.eigvalsh(quadratic) > 0).all()
    factor = inverse_factor(quadratic)
    assert np.allclose(factor.transpose(0, 2, 1) @ factor @ quadratic, np.eye(6), atol=1e-6)
    weight, _, scales, tables = problem(2, 2, 6, 3)
    codes = gptq_codes(weight, quadratic, scales, tables)
    better = descend(weight, quadratic, scales, tables, codes, max_sweeps=2)
    before, after = (output_error(weight, quadratic, decoded(scales, tables, way)) for way in (codes, better))
    assert np.isfinite(before)
    assert after <= before * (1 + 1e-9)


@pytest.mark.parametrize("quadratic", [np.zeros((3, 3)), np.ones((3, 3)), np.ones((3, 3)) - 1e-9 * np.eye(3)])
def test_a_matrix_without_a_factor_is_repaired(quadratic):
    factor = inverse_factor(quadratic[None])[0]
    assert np.isfinite(factor).all()
    assert (np.diag(factor) > 0).all()
    assert np.allclose(factor, np.triu(factor))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 1000))
def test_the_mean_of_parts_is_what_all_vectors_together_give(counts, seed):
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, 2, sum(counts), 3))
    cuts = np.cumsum(counts)[:-1]
    pieces = zip(np.split(x, cuts, axis=1), np.split(z, cuts, axis=1), strict=True)
    found, expected = mean_of([moments_of(*piece) for piece in pieces]), moments_of(x, z)
    assert found.count == expected.count
    for part in ("quadratic", "cross", "quantized_mean", "float_mean"):
        assert np.allclose(getattr(found, part), getattr(expected, part))
    centred = expected.centred()
    x0, z0 = x - x.mean(axis=1, keepdims=True), z - z.mean(axis=1, keepdims=True)
    assert np.allclose(centred.quadratic, moments_of(x0, z0).quadratic)
    assert np.allclose(centred.cross, moments_of(x0, z0).cross)


def test_inputs_that_never_change_have_no_variance():
    x = np.random.default_rng(0).normal(size=(1, 50, 3)).astype(np.float32)
    x[:, :, 1] = 1000.3
    found = moments_of(x, x).centred()
    assert (found.quadratic[0, 1] == 0).all()
    assert (found.quadratic[0, :, 1] == 0).all()
    assert (found.cross[0, :, 1] == 0).all()
    assert np.linalg.eigvalsh(found.quadratic[0])[1] > 0.1
