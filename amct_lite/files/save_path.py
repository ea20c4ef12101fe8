"""`save_path` of AMCT's verbs: a folder and what the files' names start with."""

import os
from os import PathLike
from pathlib import Path

from amct_lite.errors import ParameterError

__all__ = ["folder_and_prefix"]


def folder_and_prefix(save_path: str | PathLike[str], function: str) -> tuple[Path, str]:
    """Take a save_path apart.

    Args:
        save_path: Folder and file prefix; without a prefix when it ends in "/".
        function: The verb that was given it, for the message.

    Raises:
        ParameterError: It is empty, or no path.

    Example:
        >>> folder_and_prefix("out/resnet", "save_model")[1]
        'resnet'
    """
    if not isinstance(save_path, str | PathLike) or not str(save_path):
        raise ParameterError(
            f"The 'save_path' parameter of {function} must be a folder and a file prefix, such as 'out/resnet'."
            f" Got {save_path!r} instead."
        )
    folder, prefix = os.path.split(save_path)
    return (Path(save_path), "") if prefix in (".", "..") else (Path(folder), prefix)
