"""Codes of several rows: the nearest vectors by brute force, sums and decoding, and what moves codes and levels."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amct_lite.codebook.coordinate_descent import descend
from amct_lite.codebook.gptq import gptq_codes
from amct_lite.codebook.least_squares import fit_tables, output_error
from amct_lite.codebook.second_moments import damped
from amct_lite.codebook.specification import VECTOR_LEVEL_TYPE, CodebookSpec, CodeForm
from amct_lite.codebook.vector_tables import VectorTables, learn_vectors

SIZES = [(1, 6, 9, 2), (1, 7, 70, 2), (3, 2, 5, 4), (7, 1, 9, 2)]
"""groups, rows, K, vector size."""


def tables_of(num_rows, size, num_tables=1, num_levels=8, seed=0):
    rng = np.random.default_rng(seed)
    code_rows = -(-num_rows // size)
    per_table = -(-code_rows // num_tables)
    table_of_row = np.arange(code_rows) // per_table
    return VectorTables(rng.normal(size=(table_of_row[-1] + 1, num_levels, size)), table_of_row, num_rows)


def problem(groups, rows, columns, size, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(groups, columns + 4, columns)) @ rng.normal(size=(groups, columns, columns))
    moments = damped(x.transpose(0, 2, 1) @ x / (columns + 4), 0.03)
    scales = rng.uniform(0.5, 2.0, (groups, rows))
    return rng.normal(size=(groups, rows, columns)), moments, scales, tables_of(groups * rows, size, seed=seed)


def error_of(weight, moments, scales, tables, codes):
    decoded = tables.decode(codes.reshape(-1, codes.shape[2])).reshape(weight.shape)
    return output_error(weight, moments, decoded * scales[:, :, None])


def test_the_rows_of_a_vector_lie_as_far_apart_as_there_are_rows_of_codes():
    levels = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    tables = VectorTables(levels, np.zeros(2, int), 3)
    assert tables.decode(np.array([[0, 1], [1, 1]])).tolist() == [[1.0, 3.0], [3.0, 3.0], [2.0, 4.0]]
    assert tables.decode(np.array([0, 1])).tolist() == [1.0, 3.0, 2.0]


@given(st.integers(1, 9), st.sampled_from([2, 4]), st.integers(1, 3), st.integers(0, 5), st.integers(0, 10**6))
def test_a_code_is_that_of_the_nearest_vector(num_rows, size, num_tables, columns, seed):
    tables = tables_of(num_rows, size, num_tables, seed=seed)
    rng = np.random.default_rng(seed)
    shape = (num_rows, columns) if columns else (num_rows,)
    values, importance = rng.normal(size=shape), rng.uniform(size=shape)
    found = tables.nearest(values, importance)
    flat, counted = values.reshape(num_rows, -1), importance.reshape(num_rows, -1)
    code_rows = len(tables.table_of_row)
    for row, column in itertools.product(range(code_rows), range(flat.shape[1])):
        own = range(row, num_rows, code_rows)
        levels = tables.levels[tables.table_of_row[row]][:, : len(own)]
        costs = np.sum(counted[own, column] * np.square(flat[own, column] - levels), axis=1)
        assert costs[found.reshape(code_rows, -1)[row, column]] == pytest.approx(costs.min(), abs=1e-12)


@given(st.integers(1, 9), st.sampled_from([2, 4]), st.integers(1, 3), st.integers(0, 10**6))
def test_sums_are_the_transpose_of_decoding(num_rows, size, num_tables, seed):
    tables = tables_of(num_rows, size, num_tables, seed=seed)
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 8, (len(tables.table_of_row), 3))
    values, levels = rng.normal(size=(num_rows, 3)), rng.normal(size=tables.levels.shape)
    assert np.sum(tables.decode(codes, levels) * values) == pytest.approx(np.sum(levels * tables.sums(codes, values)))


@pytest.mark.parametrize("sizes", SIZES)
def test_neither_descent_nor_fitting_raises_the_error(sizes):
    weight, moments, scales, tables = problem(*sizes)
    codes = gptq_codes(weight, moments, scales, tables)
    rounded = tables.nearest((weight / scales[:, :, None]).reshape(-1, sizes[2]))[None]
    error = error_of(weight, moments, scales, tables, codes)
    assert error < error_of(weight, moments, scales, tables, rounded)
    for _ in range(4):
        better = descend(weight, moments, scales, tables, codes, max_sweeps=1)
        new_error = error_of(weight, moments, scales, tables, better)
        assert new_error <= error * (1 + 1e-12)
        tables, codes = fit_tables(weight, moments, scales, tables, better, keep_zero=False)
        error = error_of(weight, moments, scales, tables, codes)
        assert error <= new_error * (1 + 1e-12)


@pytest.mark.parametrize("sizes", SIZES)
def test_descent_ends_where_no_single_code_can_lower_the_error(sizes):
    weight, moments, scales, tables = problem(*sizes)
    codes = gptq_codes(weight, moments, scales, tables)
    for _ in range(50):
        better = descend(weight, moments, scales, tables, codes, max_sweeps=1)
        if np.array_equal(better, codes):
            break
        codes = better
    assert np.array_equal(better, codes)
    error = error_of(weight, moments, scales, tables, codes)
    for row, column, level in itertools.product(range(codes.shape[1]), range(0, sizes[2], 7), range(8)):
        changed = codes.copy()
        changed[0, row, column] = level
        assert error_of(weight, moments, scales, tables, changed) >= error * (1 - 1e-9)


def test_no_small_move_of_fitted_vectors_lowers_the_error():
    weight, moments, scales, tables = problem(1, 8, 20, 2)
    codes = gptq_codes(weight, moments, scales, tables)
    fitted, codes = fit_tables(weight, moments, scales, tables, codes, keep_zero=False)
    error = error_of(weight, moments, scales, fitted, codes)
    rng = np.random.default_rng(0)
    for _ in range(20):
        levels = fitted.levels + 0.02 * rng.normal(size=fitted.levels.shape)
        moved = VectorTables(levels, fitted.table_of_row, fitted.num_rows)
        assert error_of(weight, moments, scales, moved, codes) > error


def test_a_vector_of_zeros_stays_and_one_with_a_zero_in_it_moves():
    weight, moments, scales, _ = problem(1, 8, 20, 2)
    tables = VectorTables(np.array([[[0.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [9.0, 9.0]]]), np.zeros(4, int), 8)
    codes = gptq_codes(weight, moments, scales, tables)
    fitted, _ = fit_tables(weight, moments, scales, tables, codes, keep_zero=True)
    assert fitted.levels[0, 0].tolist() == [0.0, 0.0]
    assert (fitted.levels[0, 1:3] != 0.0).all()


def test_vectors_are_learnt_from_where_the_weights_are():
    rng = np.random.default_rng(0)
    centres = np.array([[-3.0, 1.0], [0.0, 0.0], [2.0, 2.0], [4.0, -4.0]])
    chosen = rng.integers(0, 4, (5, 300))
    rows = np.concatenate([centres[chosen, 0], centres[chosen, 1]]) + 0.01 * rng.normal(size=(10, 300))
    spec = CodebookSpec(num_levels=4, vector_size=2)
    found = learn_vectors(rows, np.ones(rows.shape), spec, np.zeros(5, int)).levels[0]
    assert np.allclose(found, centres, atol=0.01)


@pytest.mark.parametrize("bits", range(1, 9))
def test_vectors_are_as_long_as_their_table_is_small_beside_the_codes(bits):
    sizes = []
    for num_weights in (10, 1000, 30_000, 100_000, 1_000_000):
        form = CodeForm.for_weight(bits, num_weights)
        assert form.code_bits / form.vector_size == bits
        table = 2**form.code_bits * form.vector_size * VECTOR_LEVEL_TYPE.size_bytes
        assert form.vector_size == 1 or table <= 0.02 * num_weights * bits / 8
        sizes.append(form.vector_size)
    assert sizes == sorted(sizes)
    assert sizes[-1] == {1: 4, 2: 4, 3: 2, 4: 2}.get(bits, 1)
