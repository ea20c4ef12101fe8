"""What a stranger installs: light to import, complete from a wheel and from an editable install alike."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

import amct_lite

ROOT = Path(__file__).parents[2]

# Run in the fresh environment: everything that lies beside the package must have come along.
CHECK = """
import importlib.resources as resources, sys, pathlib
import amct_lite, amct_lite.evaluators, amct_lite.samples.digits.demo
import amct_lite.caffe_layers, amct_lite.pycaffe.proto.caffe_pb2, amct_lite.samples.open_nsfw.run
import amct_lite.samples.fashion_lenet_caffe.run, amct_lite.samples.squeezenet_imagenet.run
from amct_lite.caffe.layers import TRANSLATORS
from amct_lite.files.target import load_target, BUILT_IN_TARGETS
from amct_lite.files.protos import message_class
from amct_lite.auto_nuq import AutoNuqEvaluatorBase
from amct_lite.common.auto_calibration import AutoCalibrationEvaluatorBase
assert callable(amct_lite.accuracy_based_auto_calibration)
assert callable(amct_lite.auto_nuq), "the verb hides behind the module of its name"
for name in BUILT_IN_TARGETS:
    load_target(name)
message_class("scale_offset_record", "amct_lite.ScaleOffsetRecord")()
message_class("caffe", "caffe.NetParameter")()
message_class("calibration_config", "amct_lite.AMCTConfig")()
assert callable(amct_lite.tensor_decompose.auto_decomposition), "AMCT's path, without an import of its own"
assert "Convolution" in TRANSLATORS
schemas = {entry.name for entry in resources.files("amct_lite.schemas").iterdir()}
assert {"quant_config.schema.json", "scale_offset_record.proto", "scale_offset_record.binpb"} <= schemas, schemas
amct_lite.samples.digits.demo.run(pathlib.Path(sys.argv[1]))
print(pathlib.Path(amct_lite.__file__).parent)
"""


def run(*command, cwd):
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, amct_lite; print(' '.join(sys.modules))"
    modules = set(run(sys.executable, "-c", code, cwd=ROOT).split())
    assert not modules & {"numpy", "onnx", "onnx_ir", "onnxruntime", "pydantic", "sklearn", "rich", "google.protobuf"}


def test_every_public_name_is_there():
    for name in amct_lite.__all__:
        assert getattr(amct_lite, name) is not None
        assert name in dir(amct_lite)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = amct_lite.nothing


@pytest.mark.slow
@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_an_install_is_complete(tmp_path, editable):
    source = tmp_path / "source"
    tracked = run("git", "ls-files", "-coz", "--exclude-standard", cwd=ROOT).split("\0")
    if not any(tracked):
        pytest.skip("not a git checkout")
    for name in filter(None, tracked):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    environment = tmp_path / "venv"
    # The dependencies are this environment's own, so that only our package is installed anew.
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    (purelib,) = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).split()
    here = Path(pytest.__file__).parents[1]
    # Behind the environment's own packages, so that our fresh install wins over the one under test.
    (Path(purelib) / "dependencies.pth").write_text(f"{here}\n")
    install = (python, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation")
    if editable:
        run(*install, "-e", source, cwd=tmp_path)
    else:
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", cwd=source)
        (wheel,) = (tmp_path / "dist").glob("*.whl")
        run(*install, wheel, cwd=tmp_path)
    printed = run(python, "-c", CHECK, tmp_path / "demo", cwd=tmp_path)
    home = Path(printed.splitlines()[-1])
    assert home == (source / "amct_lite" if editable else Path(purelib) / "amct_lite")
