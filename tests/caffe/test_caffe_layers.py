"""The Python layers for stock Caffe: the numbers of amct_lite's grid, and no need of amct_lite."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from amct_lite import caffe_layers
from amct_lite.caffe_layers import fake_quantize, write_caffe_layers
from amct_lite.codebook.lookup import nearest_level_table
from amct_lite.types import Grid
from amct_lite.uniform.grid import dequantize, quantize

SOURCE = Path(caffe_layers.__file__)

PROTOTXT = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 7 } } }
layer {
  name: "ip_0_quant_layer" type: "Python" bottom: "data" top: "quant"
  python_param { module: "amct_lite.caffe_layers" layer: "FakeQuantLayer" param_str: '%s' }
}
"""

elements = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
arrays = npst.arrays(np.float32, npst.array_shapes(max_dims=4), elements=elements)
scales = st.floats(2.0**-20, 2.0**10, width=32)
kept_levels = st.none() | st.lists(st.integers(-128, 127), min_size=1, max_size=40, unique=True).map(sorted)


def decoded_by_the_rooms(x: np.ndarray, grid: Grid, levels: list[int] | None) -> np.ndarray:
    q = quantize(x, grid)
    if levels is not None:
        q = nearest_level_table(np.array(levels), grid.q_min, grid.q_max)[q.astype(np.int64) - grid.q_min]
    return dequantize(q, grid)


@given(x=arrays, scale=scales, offset=st.integers(-128, 127), levels=kept_levels)
def test_numbers_are_those_of_the_grid_bit_for_bit(x, scale, offset, levels) -> None:
    expected = decoded_by_the_rooms(x, Grid(scale, offset), levels)
    np.testing.assert_array_equal(fake_quantize(x, scale, offset, 8, levels), expected)


@given(x=arrays, scale=scales, num_bits=st.integers(2, 16))
def test_other_widths_clip_at_their_own_ends(x, scale, num_bits) -> None:
    np.testing.assert_array_equal(
        fake_quantize(x, scale, 0, num_bits), decoded_by_the_rooms(x, Grid(scale, 0, num_bits), None)
    )


def test_module_needs_no_python_newer_than_3_6_and_nothing_but_numpy_and_caffe() -> None:
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 6))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"caffe", "json", "numpy", "pathlib", "shutil", "sys", "typing"}


def test_layout_for_another_python_is_a_package_with_this_file_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "amct_lite.caffe_layers", str(tmp_path / "layers")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert str(tmp_path / "layers") in answer
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.py"))
    assert written == ["layers/amct_lite/__init__.py", "layers/amct_lite/caffe_layers.py"]
    assert (tmp_path / "layers/amct_lite/caffe_layers.py").read_bytes() == SOURCE.read_bytes()


@pytest.mark.parametrize("levels", [None, [-128, -90, -7, 3, 60, 126]])
def test_real_caffe_runs_the_layer_with_the_same_numbers(real_caffe, tmp_path, monkeypatch, levels) -> None:
    monkeypatch.setenv("PYTHONPATH", write_caffe_layers(tmp_path / "layers"))
    grid = Grid(float(np.float32(0.037)), -19)
    prototxt = tmp_path / "net.prototxt"
    parameters = {"scale": grid.scale, "offset": grid.offset, "num_bits": 8, "levels": levels}
    prototxt.write_text(PROTOTXT % json.dumps(parameters))
    x = np.random.default_rng(5).normal(0, 3, (2, 3, 5, 7)).astype(np.float32)
    blobs = real_caffe(prototxt, {"data": x}).blobs
    np.testing.assert_array_equal(blobs["quant"], decoded_by_the_rooms(x, grid, levels))
