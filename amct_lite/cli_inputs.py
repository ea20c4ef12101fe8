"""What the command line takes from files of the user's: batches of data, and evaluators."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from amct_lite.errors import EvaluatorError, ParameterError

__all__ = ["load_evaluator", "load_evaluator_file", "read_batches"]


def read_batches(data: Path, batch_size: int) -> Iterable[Any]:
    """Batches of an .npz file, or of a folder of .npy files.

    Raises:
        AmctError: They cannot be read.
    """
    from amct_lite.evaluators import ArrayData, Batches

    if data.is_dir():
        return _samples(data, batch_size)
    return Batches(ArrayData.from_npz(data), batch_size=batch_size)  # type: ignore[no-any-return, unused-ignore]


def _samples(folder: Path, batch_size: int) -> list[Any]:
    """Batches of the .npy files of a folder, in the order of their names."""
    import numpy as np

    files = sorted(folder.glob("*.npy"))
    if not files:
        raise ParameterError(
            f"The folder {folder} has no .npy files.",
            remedy="Put a sample into each, or give an .npz file.",
        )
    try:
        samples = [np.load(file, allow_pickle=False) for file in files]
        return [np.stack(samples[start : start + batch_size]) for start in range(0, len(samples), batch_size)]
    except (OSError, ValueError, EOFError) as error:
        raise ParameterError(
            f"The samples in {folder} cannot be read: {error}.", remedy="Give arrays of one shape, saved by numpy."
        ) from error


def load_evaluator(text: str) -> Any:
    """Load `file.py:Name`; a class is called without arguments.

    Raises:
        AmctError: There is no such file, or it does not define that name.
    """
    file, _, name = text.rpartition(":")
    if not file or not name:
        raise ParameterError(f"--evaluator must be file.py:Name. Got {text!r} instead.")
    module = _load_module(file)
    found = getattr(module, name, None)
    if found is None:
        raise EvaluatorError(f"{file} does not define {name!r}.", remedy="Check the name behind the colon.")
    return found() if inspect.isclass(found) else found


def load_evaluator_file(file: str, method: str) -> Any:
    """The evaluator object that a file defines, as AMCT's command line takes it.

    Args:
        file: A Python file that has one object with the method among its names.
        method: "calibration".

    Raises:
        AmctError: There is no such file, or it defines no or several such objects.
    """
    module = _load_module(file)
    objects = {
        name: value
        for name, value in vars(module).items()
        if not inspect.isclass(value) and not inspect.ismodule(value) and callable(getattr(value, method, None))
    }
    if len({id(value) for value in objects.values()}) != 1:
        found = ", ".join(objects) or "none"
        raise EvaluatorError(
            f"{file} must define one evaluator, an object with the method {method}. Found: {found}.",
            remedy=f"Add a line such as evaluator = MyEvaluator(), or name the one meant: {file}:Name.",
        )
    return next(iter(objects.values()))


def _load_module(file: str) -> Any:
    path = Path(file)
    if not path.is_file():
        raise ParameterError(f"There is no evaluator file {file}.", remedy="Check the path.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ParameterError(f"{file} is not a Python file.", remedy="Give a file that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    # The evaluator's file may import its neighbours, as it could when run as a script.
    sys.path.insert(0, str(path.resolve().parent))
    spec.loader.exec_module(module)
    return module
