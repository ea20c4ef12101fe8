"""An evaluator on its way to workers in other processes, which may know nothing of the file it was written in."""

import functools
import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from amct_lite.errors import EvaluatorError

__all__ = ["SentObject", "send", "sendable_error"]


@dataclass(frozen=True)
class SentObject:
    """An object as bytes; equal to others by their digest.

    Attributes:
        key: The digest.
        data: The bytes, as an array, which joblib maps into the memory of workers on this machine.
    """

    key: str
    data: npt.NDArray[np.uint8] = field(compare=False, repr=False)

    def received(self) -> Any:
        """The object; a worker unpacks it once, however many tasks it gets."""
        return _unpack(self)


def send(value: Any) -> SentObject:
    """Pack an object, with the code of its classes where they are not of an installed package.

    Raises:
        EvaluatorError: It cannot be pickled.
    """
    import cloudpickle

    try:
        with _by_value(_own_modules(value)):
            content: bytes = cloudpickle.dumps(value)
    except Exception as error:  # whatever the user's attributes raise
        raise EvaluatorError(
            f"The evaluator cannot be sent to other processes: {type(error).__name__}: {error}",
            remedy="Open files, sessions and the like inside eval_model instead of keeping them as attributes, or use"
            ' backend="threading".',
        ) from error
    return SentObject(hashlib.sha256(content).hexdigest(), np.frombuffer(content, np.uint8))


def sendable_error(error: Exception) -> Exception:
    """The exception itself where it survives the way back, else its name and text in one of ours."""
    import cloudpickle

    try:
        cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:  # an exception's own pickling may fail in any way
        return EvaluatorError(f"The evaluator raised {type(error).__name__}: {error}")
    return error


@functools.lru_cache(maxsize=1)
def _unpack(sent: SentObject) -> Any:
    import cloudpickle

    return cloudpickle.loads(sent.data.tobytes())


def _own_modules(value: Any) -> list[ModuleType]:
    """The modules of an object's attributes' classes that a worker could not import."""
    owned = (value, *vars(value).values()) if hasattr(value, "__dict__") else (value,)
    names = {kind.__module__ for each in owned for kind in type(each).__mro__}
    modules = [sys.modules[name] for name in sorted(names) if name in sys.modules]
    return [module for module in modules if not _is_installed(module)]


def _is_installed(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if file is None or module.__name__ == "__main__" or module.__name__.split(".")[0] == "amct_lite":
        return True  # built in, sent by value anyway, or ours
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(Path(file).is_relative_to(folder) for folder in folders)


@contextmanager
def _by_value(modules: list[ModuleType]) -> Iterator[None]:
    import cloudpickle

    registered = []
    try:
        for module in modules:
            if module.__name__ not in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.register_pickle_by_value(module)
                registered.append(module)
        yield
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)
