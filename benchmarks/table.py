"""Prints a small table as Markdown, as it stands in `docs/benchmarks.md`."""

from collections.abc import Sequence

__all__ = ["print_table"]


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table whose columns line up: the first to the left, the others to the right.

    Example:
        >>> print_table(["net", "top-1"], [["float", 61.4], ["int8", "9"]])
        | net   | top-1 |
        |-------|------:|
        | float |  61.4 |
        | int8  |     9 |
        <BLANKLINE>
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    rule = [f"-{'-' * width}{'-' if number == 0 else ':'}" for number, width in enumerate(widths)]
    print(_line(headings, widths))
    print(f"|{'|'.join(rule)}|")
    for row in cells:
        print(_line(row, widths))
    print(flush=True)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join([first.strip().ljust(widths[0]), *others])} |"
