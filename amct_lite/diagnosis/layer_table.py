"""Layers and their figures as a small table: rows, columns, a dict, a pandas DataFrame, or text."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from io import StringIO
from typing import TYPE_CHECKING, Any

from amct_lite.errors import OptionalDependencyError, ParameterError

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["LayerLoss", "LayerTable"]


@dataclass(frozen=True)
class LayerLoss:
    """What one layer loses, over all batches.

    Attributes:
        layer: Its name.
        type: Its operator.
        sqnr_db: Signal to noise of its output in the quantized network, dB; inf where they are equal.
        cosine: Cosine of that output with the float one.
        own_sqnr_db: The same where the layer alone is quantized and reads float tensors; None where the quantized
            network computes it with another operator.
        own_cosine: Cosine of that output with the float one; None as above.
        weight_sqnr_db: The same where only its weight and bias are quantized; None as above.
        input_sqnr_db: The same where only its input is quantized; None as above.
        weight_share: Noise by weights / (noise by weights + noise by input), in [0, 1]; None where there is none.
        advice: What to do about it, "" where it needs nothing.
    """

    layer: str
    type: str
    sqnr_db: float
    cosine: float
    own_sqnr_db: float | None
    own_cosine: float | None
    weight_sqnr_db: float | None
    input_sqnr_db: float | None
    weight_share: float | None
    advice: str


class LayerTable(Sequence[LayerLoss]):
    """Rows of layers, the one that loses most first.

    `table["cosine"]` is a column, `table[0]` a row, `table.row("conv1")` a layer's row.
    """

    columns: tuple[str, ...] = tuple(field.name for field in fields(LayerLoss))

    def __init__(self, rows: Sequence[LayerLoss]) -> None:
        self.rows: tuple[LayerLoss, ...] = tuple(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[LayerLoss]:
        return iter(self.rows)

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return self.rows[key]
        if key not in self.columns:
            raise ParameterError(f"The table has no column {key!r}.", remedy=f"It has: {', '.join(self.columns)}.")
        return [getattr(row, key) for row in self.rows]

    def row(self, layer: str) -> LayerLoss:
        """A layer's row.

        Raises:
            ParameterError: The table has no such layer.
        """
        for row in self.rows:
            if row.layer == layer:
                return row
        raise ParameterError(f"The table has no layer {layer!r}.", remedy='table["layer"] lists them.')

    def to_dict(self) -> dict[str, list[Any]]:
        """Column -> values, in the order of the rows."""
        return {column: self[column] for column in self.columns}

    def to_records(self) -> list[dict[str, Any]]:
        """A dict for each row."""
        return [asdict(row) for row in self.rows]

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with the layers' names as its index.

        Raises:
            OptionalDependencyError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise OptionalDependencyError(
                "A DataFrame needs the package pandas.", remedy="Install it (pip install pandas), or use to_dict()."
            ) from error
        return pandas.DataFrame(self.to_dict()).set_index("layer")

    def table(self) -> "Table":
        """The table for a terminal."""
        from rich.table import Table

        table = Table(title="What each layer loses, the worst first")
        table.add_column("layer", overflow="fold", min_width=12)
        table.add_column("type", overflow="fold")
        for heading in ("SQNR dB", "cosine", "own dB", "own cosine", "by weight", "by input"):
            table.add_column(heading, justify="right")
        table.add_column("what to do", overflow="fold", ratio=1)
        for row in self.rows:
            weight = row.weight_share
            table.add_row(
                row.layer,
                row.type,
                _decibels(row.sqnr_db),
                f"{row.cosine:.5f}",
                _decibels(row.own_sqnr_db),
                "-" if row.own_cosine is None else f"{row.own_cosine:.5f}",
                "-" if weight is None else f"{weight:.0%}",
                "-" if weight is None else f"{1 - weight:.0%}",
                row.advice,
            )
        return table

    def __str__(self) -> str:
        from rich.console import Console

        text = StringIO()
        Console(file=text, width=160, color_system=None, markup=False, emoji=False).print(self.table())
        return text.getvalue().rstrip("\n")


def _decibels(value: float | None) -> str:
    if value is None:
        return "-"
    return "exact" if value == math.inf else f"{value:.1f}"
