"""A journal's trials as a table: what was evaluated, when it counts, and what came of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["history_rows", "history_table"]


def history_rows(entries: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """One row for each entry: number, bytes, metric, change against float, verdict, seconds, counts of options.

    Example:
        >>> float_model = {"key": "float", "metric": 0.9, "size_bytes": 4000, "seconds": 1.5, "satisfied": True}
        >>> trial = {"key": "ab", "metric": 0.8, "size_bytes": 1000, "seconds": 2.0, "options": ["int8", "float"]}
        >>> for row in history_rows([float_model, trial]):
        ...     print(row)
        ('1', '4,000', '0.9', '', 'yes', '1.5', 'the float model')
        ('2', '1,000', '0.8', '-0.1', '-', '2.0', '1 x int8, 1 x float')
    """
    original = next((entry.get("metric") for entry in entries if entry.get("key") == "float"), None)
    return [_row(number, entry, original) for number, entry in enumerate(entries, 1)]


def history_table(entries: Sequence[Mapping[str, Any]]) -> "Table":
    """The rows for a terminal; the verdict is the one at that time, and a search that goes on asks again."""
    from rich.table import Table

    table = Table(title=f"{len(entries)} evaluations")
    for heading in ("number", "bytes", "metric", "change", "satisfied then", "seconds"):
        table.add_column(heading, justify="right")
    table.add_column("options", overflow="fold", ratio=1)
    for row in history_rows(entries):
        table.add_row(*row)
    return table


def _row(number: int, entry: Mapping[str, Any], original: float | None) -> tuple[str, ...]:
    metric, size, seconds = entry.get("metric"), entry.get("size_bytes"), entry.get("seconds")
    is_float = entry.get("key") == "float"
    known = metric is not None and original is not None and not is_float
    verdict = {True: "yes", False: "no"}.get(entry.get("satisfied"), "-")  # type: ignore[arg-type]
    counts = Counter(map(str, entry.get("options", ())))
    options = ", ".join(f"{count} x {name}" for name, count in counts.most_common())
    return (
        str(number),
        "-" if size is None else f"{size:,}",
        "-" if metric is None else f"{metric:.6g}",
        f"{metric - original:+.6g}" if known and metric is not None and original is not None else "",
        verdict,
        "-" if seconds is None else f"{seconds:.1f}",
        "the float model" if is_float else options,
    )
