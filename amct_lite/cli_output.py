"""What the command line prints: tables, summaries, errors."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from amct_lite.export.summary import Summary

__all__ = ["print_error", "print_table", "show"]


def show(summary: "Summary") -> None:
    """A summary, and its notes below."""
    console = print_table(summary.table())
    for note in summary.notes():
        console.print(note, markup=False, highlight=False)


def print_table(table: "Table") -> "Console":
    """A table; returns the console, for what goes below."""
    from rich.console import Console

    console = Console()
    # A pipe has no width of its own; wide enough, no figure is folded.
    console = console if console.is_terminal else Console(width=140)
    console.print(table)
    return console


def print_error(text: str) -> None:
    """An error, in red."""
    from rich.console import Console

    Console(stderr=True).print(text, style="red", markup=False, highlight=False, soft_wrap=True)
