"""Checkpoints: one file, whole or absent, that says what it belongs to and from which training goes on exactly."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from amct_lite.errors import FileError, ParameterError
from amct_lite.files.atomic import replacing

__all__ = ["load_checkpoint", "save_checkpoint"]

FORMAT = 1
_OTHER_FILE = "Give another file, or delete this one to begin anew."


def save_checkpoint(path: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        path: The file.
        identity: What it belongs to: name -> a number, a string or the like.
        state: What is to come back: tensors, numbers, strings, and lists, tuples and dicts of them.

    Raises:
        FileError: It cannot be written; the one before it is still there then.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save({"format": FORMAT, "identity": dict(identity), "state": dict(state)}, file)


def load_checkpoint(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a checkpoint holds; None where there is no file.

    Args:
        path: The file.
        identity: What it has to belong to.

    Raises:
        FileError: It is no checkpoint, or cannot be read.
        ParameterError: It belongs to something else; each difference is named.
    """
    if not path.exists():
        return None
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)  # never a pickle that runs code
        version, known, state = document["format"], document["identity"], document["state"]
    except Exception as error:  # torch raises many kinds on files that are none of its own
        raise FileError(f"The file {path} is no checkpoint of amct_lite: {error}.", remedy=_OTHER_FILE) from error
    if version != FORMAT:
        raise FileError(f"The checkpoint {path} has format {version}, this is {FORMAT}.", remedy=_OTHER_FILE)
    differing = [name for name in sorted({*known, *identity}) if known.get(name) != identity.get(name)]
    if differing:
        listed = "; ".join(f"{name} was {known.get(name)!r} and is {identity.get(name)!r}" for name in differing)
        raise ParameterError(f"The checkpoint {path} is of another training: {listed}.", remedy=_OTHER_FILE)
    return dict(state)
