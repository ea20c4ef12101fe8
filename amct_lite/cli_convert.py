"""The command that quantizes with factors found elsewhere: `amct_onnx convert`, and the same with a record."""

from pathlib import Path
from typing import Annotated

import typer

from amct_lite.cli_options import ModelOption, WeightsOption
from amct_lite.cli_output import show

__all__ = ["add_convert_commands"]


def add_convert_commands(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(
        epilog="Examples: `amct-lite convert --model qat.onnx --save_path out/net` for a QDQ model, `amct-lite convert"
        " --model net.onnx --record_file record.txt --save_path out/net` for a float model and its record"
    )(convert)


def convert(
    model: ModelOption,
    save_path: Annotated[
        str, typer.Option("--save_path", "--save-path", help="Folder and prefix of the models to write.")
    ],
    record_file: Annotated[
        Path | None,
        typer.Option("--record_file", "--record-file", help="The record with the factors of a float model."),
    ] = None,
    weights: WeightsOption = None,
    record: Annotated[
        Path | None, typer.Option("--record", help="Where to write the factors of a QDQ model as a record.")
    ] = None,
    target: Annotated[str, typer.Option(help="ascend, ascend-rank4, onnxruntime, or a target's JSON file.")] = "ascend",
) -> None:
    """Quantize a float model with a record's factors, or a QDQ model (from QAT, say) with its own: no calibration."""
    from amct_lite.conversion import convert_model, convert_qat_model
    from amct_lite.graph.opening import is_caffe

    if record_file is None and (weights is not None or is_caffe(model)):
        raise typer.BadParameter("A Caffe network is converted with its --record_file and --weights.")
    if record_file is not None and record is not None:
        raise typer.BadParameter("--record is written for a QDQ model; with --record_file there is a record already.")
    if record_file is None:
        saved = convert_qat_model(model, save_path, record, target=target)
    elif weights is None:
        saved = convert_model(model, record_file, save_path, target=target)
    else:
        saved = convert_model(model, weights, record_file, save_path, target=target)
    show(saved.summary)
    for kind, path in saved.files.items():
        typer.echo(f"{kind}: {path}")
    if record is not None:
        typer.echo(f"The record is written to {record}.")
