"""Commands for those who come from AMCT: what it needs other tools for."""

from pathlib import Path
from typing import Annotated

import typer

from amct_lite.cli_options import WeightsOption
from amct_lite.cli_output import print_table

__all__ = ["add_amct_commands"]


def add_amct_commands(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example: `amct-lite candidates net.onnx --soc Ascend310P3`")(candidates)


def candidates(
    model: Annotated[Path, typer.Argument(help="The float network: an ONNX file, or a prototxt.")],
    weights: WeightsOption = None,
    soc: Annotated[str, typer.Option(help="The chip, by ATC's name.")] = "Ascend310",
    names: Annotated[bool, typer.Option("--names", help="Only the names of the layers that profit.")] = False,
) -> None:
    """Show which layers a chip would run faster with compressed weights: those that NUQ is for."""
    from amct_lite.weight_compression import candidates as find

    found = find(model, weights, soc)
    if names:
        for name in found.names:
            typer.echo(name)
    else:
        print_table(found.table())
