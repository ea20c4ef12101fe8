"""One contract for every codebook that a specification can ask for."""

import dataclasses
import itertools

import numpy as np
import pytest

from amct_lite.codebook.cluster_rows import cluster_rows
from amct_lite.codebook.least_squares import output_error
from amct_lite.codebook.level_type import LevelType
from amct_lite.codebook.scale_format import scale_dtype
from amct_lite.codebook.second_moments import damped
from amct_lite.codebook.specification import CodebookSpec, Refine
from amct_lite.errors import ParameterError

ROWS = 6
SHAPES = {"one_group": (1, 20), "depthwise": (ROWS, 9)}
"""groups, columns."""

SPECS = [
    CodebookSpec(
        num_levels=levels,
        rows_per_table=per_table,
        channel_scales=scales,
        reserve_zero=zero,
        level_type=level_type,
        refine=refine,
    )
    for levels, per_table, scales, zero, level_type, refine in itertools.product(
        (2, 3, 16, 256),
        (0, 1, 4),
        (True, False),
        (False, True),
        LevelType,
        (Refine.NONE, Refine.GPTQ, Refine.LNQ),
    )
]


def weights(columns, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(ROWS, columns)) * rng.uniform(0.1, 3.0, (ROWS, 1))).astype(np.float32)


def moments(groups, columns, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(groups, 60, columns)) @ (np.eye(columns) + 0.3 * rng.normal(size=(groups, columns, columns)))
    return damped(x.transpose(0, 2, 1) @ x / 60, 0.03)


def error_of(book, rows, quadratic):
    shape = (len(quadratic), -1, rows.shape[1])
    return output_error(rows.astype(float).reshape(shape), quadratic, book.decode().astype(float).reshape(shape))


def check_contract(book, spec, rows):
    """Whatever was clustered."""
    assert book.decode().shape == rows.shape
    assert np.isfinite(book.decode()).all()
    assert book.tables.shape == (spec.num_tables(len(rows)), spec.num_levels, spec.vector_size)
    assert book.scales.shape == ((len(rows),) if spec.channel_scales else (1,))
    # float16 gives way to float32 where it cannot hold the numbers.
    gives_way = [LevelType.FLOAT32] if spec.level_type is LevelType.FLOAT16 else []
    assert book.level_type in (spec.level_type, *gives_way)
    assert book.rows_per_table == (spec.rows_per_table or len(book.codes))
    if spec.channel_scales:
        short = np.uint8 if spec.bits_per_weight <= 4 else np.float16
        # Nor are scales stored in less where they are so small that their common power of two is hardly a number.
        shortens = book.level_type is not LevelType.FLOAT32 and book.scales.max() > 1e-27
        assert book.scale_format.dtype == (short if shortens else np.float32)
    if book.scale_format.dtype == scale_dtype(spec.level_type, spec.bits_per_weight) or not spec.channel_scales:
        assert book.stored_bytes == spec.stored_bytes(*rows.shape)
    assert book.code_bits == spec.code_bits
    stored = book.tables.astype(spec.level_type.value)
    assert np.array_equal(stored.astype(np.float32), book.tables)
    if spec.level_type is LevelType.INT8:
        assert np.abs(book.tables).max() <= 127
    if spec.reserve_zero:
        assert (book.tables == 0.0).all(axis=2).any(axis=1).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_every_specification_holds_its_contract(shape):
    groups, columns = SHAPES[shape]
    rows, quadratic = weights(columns), moments(groups, columns)
    for spec in SPECS:
        check_contract(cluster_rows(rows, spec, quadratic=quadratic), spec, rows)


def test_the_same_weight_gives_the_same_codebook():
    rows, quadratic = weights(20), moments(1, 20)
    for spec in SPECS[::7]:
        first, second = (cluster_rows(rows, spec, quadratic=quadratic) for _ in range(2))
        assert np.array_equal(first.codes, second.codes), spec
        assert np.array_equal(first.decode(), second.decode()), spec


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("level_type", [LevelType.FLOAT32, LevelType.FLOAT16])
def test_the_output_error_falls_from_step_to_step(shape, level_type):
    groups, columns = SHAPES[shape]
    for seed, num_levels in itertools.product(range(4), (2, 3, 8)):
        rows, quadratic = weights(columns, seed), moments(groups, columns, seed)
        spec = CodebookSpec(num_levels=num_levels, level_type=level_type)
        none, gptq, lnq = (
            error_of(cluster_rows(rows, dataclasses.replace(spec, refine=step), quadratic=quadratic), rows, quadratic)
            for step in (Refine.NONE, Refine.GPTQ, Refine.LNQ)
        )
        assert lnq <= gptq * (1 + 1e-3)
        assert lnq < none


def test_more_levels_make_a_smaller_error():
    rows, quadratic = weights(20), moments(1, 20)
    for refine in (Refine.NONE, Refine.LNQ):
        books = [
            cluster_rows(rows, CodebookSpec(num_levels=n, refine=refine), quadratic=quadratic) for n in (2, 4, 16, 64)
        ]
        measure = np.eye(20)[None] if refine is Refine.NONE else quadratic
        errors = [error_of(book, rows, measure) for book in books]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < errors[0] / 50


@pytest.mark.parametrize("num_rows", [ROWS, ROWS - 1, 2])
@pytest.mark.parametrize("vector_size", [2, 4])
def test_vectors_hold_the_same_contract(vector_size, num_rows):
    rows, quadratic = weights(11)[:num_rows], moments(1, 11)
    for per_table, scales, zero, level_type, refine in itertools.product(
        (0, 2), (True, False), (False, True), LevelType, (Refine.NONE, Refine.GPTQ, Refine.LNQ)
    ):
        spec = CodebookSpec(4, per_table, scales, vector_size, zero, level_type, refine)
        book = cluster_rows(rows, spec, quadratic=quadratic)
        check_contract(book, spec, rows)
        assert np.array_equal(book.decode(), cluster_rows(rows, spec, quadratic=quadratic).decode())


def test_the_output_error_of_vectors_falls_from_step_to_step():
    for seed, (groups, columns) in itertools.product(range(4), SHAPES.values()):
        rows, quadratic = weights(columns, seed), moments(groups, columns, seed)
        none, gptq, lnq = (
            error_of(
                cluster_rows(rows, CodebookSpec(8, vector_size=2, refine=step), quadratic=quadratic), rows, quadratic
            )
            for step in (Refine.NONE, Refine.GPTQ, Refine.LNQ)
        )
        assert lnq <= gptq * (1 + 1e-3)
        assert lnq < none


def test_vectors_make_less_error_than_single_weights_in_as_many_bits():
    rng = np.random.default_rng(0)
    rows, quadratic = rng.normal(size=(32, 200)).astype(np.float32), moments(1, 200)
    single, pairs, fours = (
        error_of(
            cluster_rows(rows, CodebookSpec(4**size, vector_size=size, refine=Refine.LNQ), quadratic=quadratic),
            rows,
            quadratic,
        )
        for size in (1, 2, 4)
    )
    assert pairs < 0.95 * single
    assert fours < 0.95 * pairs


@pytest.mark.parametrize("vector_size", [1, 2])
@pytest.mark.parametrize("refine", [Refine.NONE, Refine.GPTQ, Refine.LNQ])
@pytest.mark.parametrize("level_type", LevelType)
def test_odd_weights_come_back_near_to_what_they_are(level_type, refine, vector_size):
    rng = np.random.default_rng(0)
    signs = np.sign(rng.normal(size=(ROWS, 10))).astype(np.float32)
    zero_row = signs.copy()
    zero_row[2] = 0.0
    odd = {
        "zeros": np.zeros((ROWS, 10), np.float32),
        "constant": np.full((ROWS, 10), 0.7, np.float32),
        "zero_row": zero_row,
        "tiny": signs * np.float32(1e-30),
        "huge": signs * np.float32(1e30),
        "mixed": signs * np.float32(10.0) ** np.arange(-3, 3, dtype=np.float32)[:, None],
    }
    spec = CodebookSpec(num_levels=4**vector_size, vector_size=vector_size, level_type=level_type, refine=refine)
    for name, rows in odd.items():
        book = cluster_rows(rows, spec, quadratic=moments(1, 10))
        check_contract(book, spec, rows)
        scale = np.abs(rows).max(axis=1, keepdims=True)
        # Where rows differ by 10**5, bytes keep the least scale to within 15 %.
        near = 0.15 if name == "mixed" else 0.02
        assert np.allclose(book.decode() / np.where(scale, scale, 1), rows / np.where(scale, scale, 1), atol=near), name


@pytest.mark.parametrize("per_table", [0, 1, 4])
@pytest.mark.parametrize("channel_scales", [True, False])
def test_weights_of_no_more_values_than_levels_come_back_as_they_were(per_table, channel_scales):
    rng = np.random.default_rng(0)
    rows = rng.choice(np.array([-1.5, -0.25, 0.0, 0.5, 2.0], np.float32), (ROWS, 30))
    spec = CodebookSpec(num_levels=5 if not channel_scales or per_table == 1 else 30, rows_per_table=per_table)
    spec = dataclasses.replace(spec, channel_scales=channel_scales)
    found = cluster_rows(rows, spec).decode()
    if channel_scales:
        assert np.allclose(found, rows, rtol=1e-6)
    else:
        assert np.array_equal(found, rows)


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros(3), np.array([[np.nan, 1.0]]), np.array([[np.inf, 1.0]])])
def test_what_cannot_be_clustered_is_refused(bad):
    with pytest.raises(ParameterError, match="finite"):
        cluster_rows(bad.astype(np.float32), CodebookSpec())


def test_more_levels_than_are_fitted_are_still_refined():
    """Beyond MAX_FITTED_LEVELS the table stays; scales and codes are refined all the same."""
    rows, quadratic = weights(40), moments(1, 40)
    gptq, lnq = (
        error_of(cluster_rows(rows, CodebookSpec(128, refine=r), quadratic=quadratic), rows, quadratic)
        for r in (Refine.GPTQ, Refine.LNQ)
    )
    assert lnq <= gptq
