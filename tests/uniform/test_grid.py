"""uniform/grid.py: AMCT's min-max formulas, and ONNX Runtime's rounding bit for bit."""

import numpy as np
import onnx_ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amct_lite.errors import ParameterError
from amct_lite.types import ClipRange, Grid
from amct_lite.uniform.grid import dequantize, grid_from_range, quantize

finite = st.floats(-1e6, 1e6, width=32)


def test_offset_grid_follows_the_formula():
    grid = grid_from_range(ClipRange(-1.0, 3.0), with_offset=True)
    assert grid.scale == float(np.float32(4.0 / 255))
    assert grid.offset == -128 + 64


def test_symmetric_grid_cuts_off_neither_end():
    assert grid_from_range(ClipRange(-128.0, 127.0), with_offset=False) == Grid(1.0, 0, 8)
    assert grid_from_range(ClipRange(-1.0, 1.0), with_offset=False).scale == float(np.float32(1 / 127))
    assert grid_from_range(ClipRange(-1.0, 0.0), with_offset=False).scale == 1 / 128


@pytest.mark.parametrize("with_offset", [True, False])
@pytest.mark.parametrize("clip", [ClipRange(0.0, 0.0), ClipRange(-1e-12, 1e-11)])
def test_range_without_signal_gets_scale_one(clip, with_offset):
    assert grid_from_range(clip, with_offset=with_offset).scale == 1.0


@pytest.mark.parametrize("high", [np.nan, np.inf, 1e12])
def test_unusable_range_is_refused(high):
    with pytest.raises(ParameterError):
        grid_from_range(ClipRange(0.0, high), with_offset=True)


@pytest.mark.parametrize("num_bits", [1, 17])
def test_unusable_width_is_refused(num_bits):
    with pytest.raises(ParameterError, match="num_bits"):
        grid_from_range(ClipRange(0.0, 1.0), num_bits=num_bits, with_offset=True)


@given(finite, finite, st.sampled_from([4, 8, 16]), st.booleans(), st.floats(0, 1))
def test_error_inside_the_range_is_at_most_half_a_step(a, b, num_bits, with_offset, where):
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    grid = grid_from_range(ClipRange(low, high), num_bits=num_bits, with_offset=with_offset)
    assert grid.q_min <= grid.offset <= grid.q_max
    x = np.float32(low + where * (high - low))
    restored = dequantize(quantize(x, grid), grid)
    # Rounding the offset can push one end of the range beyond the end level, by half a step.
    tolerance = (1.0 if with_offset else 0.5) * grid.scale + 1e-6 * abs(float(x))
    assert abs(float(x) - float(restored)) <= tolerance * (1 + 1e-6)
    lowest, highest = ((q - grid.offset) * grid.scale for q in (grid.q_min, grid.q_max))
    if lowest <= x <= highest:
        assert abs(float(x) - float(restored)) <= 0.5 * grid.scale * (1 + 1e-6) + 1e-6 * abs(float(x))


@given(finite, finite, st.sampled_from([4, 8, 16]), st.booleans())
def test_zero_is_exact(a, b, num_bits, with_offset):
    grid = grid_from_range(ClipRange(min(a, b), max(a, b)), num_bits=num_bits, with_offset=with_offset)
    assert dequantize(quantize(0.0, grid), grid) == 0.0


def test_width_of_levels_sets_their_type():
    assert quantize(np.zeros(2), Grid(1.0, 0, 8)).dtype == np.int8
    assert quantize(np.array([40000.0, np.inf]), Grid(1.0, 5, 16)).tolist() == [32767, 32767]
    assert quantize(np.zeros(2), Grid(1.0, 0, 16)).dtype == np.int16


def test_nan_is_refused():
    with pytest.raises(ParameterError, match="NaN"):
        quantize(np.array([1.0, np.nan]), Grid(1.0))


@pytest.fixture(scope="module")
def runtime():
    """ONNX Runtime's QuantizeLinear to int8, with scale and offset as inputs."""
    model = onnx_ir.from_onnx_text("""
        <ir_version: 8, opset_import: ["" : 13]>
        quantize (float[N] x, float scale, int8 offset) => (int8[N] q) {
            q = QuantizeLinear(x, scale, offset)
        }
    """)
    proto = onnx_ir.to_proto(model)
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("seed", range(20))
def test_quantize_is_that_of_onnx_runtime(runtime, seed):
    rng = np.random.default_rng(seed)
    grid = Grid(float(np.float32(rng.uniform(1e-4, 2.0))), int(rng.integers(-128, 128)))
    # Random values, the halves between levels and their neighbours in float32, and values off the grid.
    halves = ((np.arange(-260, 260) + 0.5) * np.float32(grid.scale)).astype(np.float32)
    x = np.concatenate([
        rng.normal(0, 80 * grid.scale, 20000).astype(np.float32),
        halves,
        np.nextafter(halves, np.float32(np.inf)),
        np.nextafter(halves, np.float32(-np.inf)),
        np.array([0.0, -0.0, 1e30, -1e30, np.inf, -np.inf, 1e-42], dtype=np.float32),
    ])  # fmt: skip
    (expected,) = runtime.run(
        None, {"x": x, "scale": np.array(grid.scale, np.float32), "offset": np.array(grid.offset, np.int8)}
    )
    np.testing.assert_array_equal(quantize(x, grid), expected)
