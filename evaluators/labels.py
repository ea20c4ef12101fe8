"""Labels of a folder of images, from a `labels.csv` or from the names of sub-folders.

`labels.csv` has one line per image: its path relative to the folder, and its class index. Several indices
joined by `|` mean that each of them is right. A header is optional; with one, the columns are found by their
names (`file`, and `label` or `class_index`), without one they are the first two. Other columns are ignored.
"""

import csv
import io
from pathlib import Path

from amct_lite.errors import FileError

__all__ = ["find_labelled_images", "read_labels"]

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
LABEL_COLUMNS = ("label", "class_index")
LABELS_FILE_NAME = "labels.csv"


def find_labelled_images(
    folder: Path, labels_file: Path | None = None
) -> tuple[list[Path], list[tuple[int, ...]] | None]:
    """List the images of a folder with their labels.

    Args:
        folder: Holds images and `labels.csv`, or one sub-folder of images per class, or only images.
        labels_file: The labels' file, None for `labels.csv` in the folder where there is one.

    Returns:
        The files, and the classes accepted for each, or None without labels. Classes of sub-folders are
        counted in the order of their sorted names, except where every name is a whole number: then the number
        is the class.

    Raises:
        FileError: Something is missing or not as it should be.
    """
    if not folder.is_dir():
        raise FileError(f"There is no folder {folder}.")
    if labels_file is None and (folder / LABELS_FILE_NAME).is_file():
        labels_file = folder / LABELS_FILE_NAME
    if labels_file is not None:
        listed = read_labels(labels_file)
        files = [path_inside(folder, name, labels_file) for name, _ in listed]
        return files, [classes for _, classes in listed]
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and images_in(path))
    if folders:
        labelled = list(zip(folders, class_numbers([path.name for path in folders]), strict=True))
        pairs = [(file, (number,)) for path, number in labelled for file in images_in(path)]
        return [file for file, _ in pairs], [classes for _, classes in pairs]
    if not (files := images_in(folder)):
        raise FileError(
            f"There are no images in {folder}.",
            remedy=f"Known suffixes are {', '.join(sorted(IMAGE_SUFFIXES))}.",
        )
    return files, None


def read_labels(labels_file: Path) -> list[tuple[str, tuple[int, ...]]]:
    """Read a `labels.csv`.

    Args:
        labels_file: The file.

    Returns:
        Per line, the image's relative path and the classes accepted.

    Raises:
        FileError: The file is missing, empty, or a line has no file and class.
    """
    try:
        text = labels_file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"The labels' file {labels_file} cannot be read: {error}") from error
    reader = csv.reader(io.StringIO(text))
    rows = [(reader.line_num, [field.strip() for field in row]) for row in reader if any(row)]
    file_column, label_column = 0, 1
    if rows and (columns := header_columns(rows[0][1])) is not None:
        file_column, label_column = columns
        rows = rows[1:]
    if not rows:
        raise FileError(f"The labels' file {labels_file} names no image.")
    labelled = []
    for line, row in rows:
        classes = parse_classes(row[label_column]) if len(row) > max(file_column, label_column) else None
        if not classes or not row[file_column]:
            raise FileError(
                f"Line {line} of {labels_file} has no file and class index: {','.join(row)!r}.",
                remedy="A line reads 'cat.png,281', or 'cat.png,281|282' where several classes are right."
                " A header must name the columns 'file' and 'label'.",
            )
        labelled.append((row[file_column], classes))
    return labelled


def header_columns(row: list[str]) -> tuple[int, int] | None:
    """Return the columns of file and label where the row is a header, None where it is not."""
    names = [name.lower() for name in row]
    label = next((name for name in LABEL_COLUMNS if name in names), None)
    return (names.index("file"), names.index(label)) if label is not None and "file" in names else None


def parse_classes(text: str) -> tuple[int, ...] | None:
    """Read class indices joined by `|`; None where the text is something else.

    Example:
        >>> parse_classes("30|31"), parse_classes("frog")
        ((30, 31), None)
    """
    parts = [part.strip() for part in text.split("|")]
    return tuple(map(int, parts)) if all(part.isascii() and part.isdigit() for part in parts) else None


def class_numbers(names: list[str]) -> list[int]:
    """Number classes by their sorted names, or take the names as numbers where all of them are.

    Example:
        >>> class_numbers(["cat", "dog"]), class_numbers(["10", "2"])
        ([0, 1], [10, 2])
    """
    if all(name.isascii() and name.isdigit() for name in names):
        return [int(name) for name in names]
    return list(range(len(names)))


def images_in(folder: Path) -> list[Path]:
    """Return the images that lie directly in a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def path_inside(folder: Path, name: str, labels_file: Path) -> Path:
    """Return the path of an image that a labels' file names, which must lie inside the folder."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise FileError(f"{labels_file} names {name!r}, which does not lie inside {folder}.")
    if not path.is_file():
        raise FileError(f"{labels_file} names {name!r}, but there is no file {path}.")
    return path
