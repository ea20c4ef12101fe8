"""Imports go down the floors, as docs/architecture.md draws them."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "amct_lite"

FLOORS = [
    {"version", "types", "errors", "progress", "workers", "call_forms", "logs", "caffe_layers"},
    {"files", "uniform", "codebook"},
    {"graph", "caffe"},
    {"calibration"},
    {"quantize"},
    {"export"},
    {"refine", "diagnosis", "tensor_decompose"},
    {"running_calibration", "observing_operators", "reuse"},
    {"session", "pycaffe", "search", "auto_nuq", "auto_calibration"},
    {"learn"},
    {
        *("api", "other_verbs", "common", "compression", "comparison", "conversion", "weight_compression"),
        *("cli_inputs", "cli_options", "cli_output"),
    },
    {"editions"},
    {"cli_search", "cli_calibration", "cli_convert", "cli_amct"},
    {"cli"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
NUMPY_ONLY = {"uniform", "codebook", "tensor_decompose/low_rank.py"}

# The room that learns, what only it may import, and the one module that imports it, when a strategy's name asks for it.
LEARN = "learn"
LEARNING = {"torch", "stable_baselines3", "gymnasium"}
LEARN_IMPORTER = "search/strategies/registry.py"


def room_of(module):
    return module.split(".")[1] if module.startswith("amct_lite.") else None


def imports_of(path, *, on_loading=False):
    tree = ast.parse(path.read_text())
    for node in tree.body if on_loading else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


FILES = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_own_or_lower_floors(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports_of(path):
        other = room_of(module)
        if other == LEARN and path.relative_to(PACKAGE).as_posix() == LEARN_IMPORTER:
            continue
        if other in FLOOR:
            assert FLOOR[other] <= FLOOR[room], f"{room} (floor {FLOOR[room]}) imports {module}"


@pytest.mark.parametrize("room", sorted(NUMPY_ONLY))
def test_the_numerics_know_numpy_and_nothing_of_onnx(room):
    whole = PACKAGE / room
    for path in whole.rglob("*.py") if whole.is_dir() else [whole]:
        for module in imports_of(path):
            assert module.split(".")[0] not in {"onnx", "onnx_ir", "onnxruntime", "pydantic", "google"}, path
            assert room_of(module) in {None, room, "types", "errors"}, f"{path} imports {module}"


def test_what_learns_is_imported_by_its_room_alone_and_that_by_the_registry_when_it_is_asked_for():
    for path in FILES:
        relative = path.relative_to(PACKAGE)
        modules = set(imports_of(path))
        if relative.parts[0] == LEARN:
            continue
        assert not {module.split(".")[0] for module in modules} & LEARNING, relative
        if relative.as_posix() != LEARN_IMPORTER:
            assert LEARN not in {room_of(module) for module in modules}, relative
        assert LEARN not in {room_of(module) for module in imports_of(path, on_loading=True)}, relative


def test_every_room_of_the_package_has_a_floor():
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert rooms <= set(FLOOR), rooms - set(FLOOR)
