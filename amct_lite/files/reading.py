"""Read a whole file, or say what is wrong with its path."""

from pathlib import Path

from amct_lite.errors import FileError

__all__ = ["read_bytes"]


def read_bytes(path: Path, what: str) -> bytes:
    """The contents of a file.

    Args:
        path: The file.
        what: What it shall be, with its article, for the message: "an .onnx file".

    Raises:
        FileError: It is missing, is a folder, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise FileError(f"'{path}' is a folder or a device, not a file.", remedy=f"Pass the path of {what}.")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileError(f"There is no file '{path}'.", remedy="Check the path.") from error
    except FileError:
        raise
    except (OSError, ValueError) as error:
        raise FileError(
            f"The file '{path}' cannot be read: {error}.", remedy="Check the path and your rights."
        ) from error
