"""Real Caffe as the oracle, in a Python 3.9 of its own."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

# Runs under another Python, where Caffe is.
collect_ignore = ["caffe_child.py"]

ROOT = Path(__file__).parents[2]
CHILD = Path(__file__).with_name("caffe_child.py")
# .ci/run makes this environment where it finds a Python 3.9; the variable names another one.
CAFFE_PYTHON = Path(os.environ.get("AMCT_LITE_CAFFE_PYTHON", ROOT / ".venv-caffe" / "bin" / "python"))


@dataclass(frozen=True)
class CaffeRun:
    """What real Caffe made of a network: blobs by name, weights by (layer, index)."""

    blobs: dict[str, np.ndarray]
    params: dict[tuple[str, int], np.ndarray]


@pytest.fixture(scope="session")
def real_caffe(tmp_path_factory):
    """A function (prototxt, inputs, caffemodel=None, params=None, save=None) -> CaffeRun, run by BVLC Caffe 1.0."""
    if not CAFFE_PYTHON.exists():
        pytest.skip(f"no Python with Caffe at {CAFFE_PYTHON}: see .ci/run")

    def run(prototxt, inputs, caffemodel=None, params=None, save=None):
        folder = tmp_path_factory.mktemp("caffe")
        job = {"prototxt": str(prototxt), "caffemodel": str(caffemodel or "")}
        job.update({f"input/{name}": np.asarray(array, np.float32) for name, array in inputs.items()})
        for (layer, index), array in (params or {}).items():
            job[f"param/{layer}/{index}"] = np.asarray(array, np.float32)
        if save is not None:
            job["save"] = str(save)
        np.savez(folder / "job.npz", **job)
        command = [str(CAFFE_PYTHON), str(CHILD), str(folder / "job.npz"), str(folder / "result.npz")]
        environment = {**os.environ, "GLOG_minloglevel": "2"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        blobs, weights = {}, {}
        with np.load(folder / "result.npz") as result:
            for key in result.files:
                kind, _, rest = key.partition("/")
                if kind == "blob":
                    blobs[rest] = result[key]
                else:
                    layer, _, index = rest.rpartition("/")
                    weights[layer, int(index)] = result[key]
        return CaffeRun(blobs, weights)

    return run
