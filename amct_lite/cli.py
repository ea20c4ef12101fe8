"""The verbs on the command line: `amct-lite --help`.

Exit codes: 0 done; 1 an error, told in a sentence (with a traceback under --debug); 2 wrong usage; 3 the search is done
but nothing satisfied, and the best effort is saved.
"""

import importlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from amct_lite.cli_amct import add_amct_commands
from amct_lite.cli_calibration import add_calibration_command
from amct_lite.cli_convert import add_convert_commands
from amct_lite.cli_inputs import read_batches
from amct_lite.cli_options import BatchSizeOption, ConfigOption, ModelOption, RecordOption, WeightsOption
from amct_lite.cli_output import print_error, print_table, show
from amct_lite.cli_search import add_search_commands
from amct_lite.errors import AmctError
from amct_lite.version import VERSION

__all__ = ["app", "main"]

app = typer.Typer(
    name="amct-lite",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "--h"]},  # AMCT's commands know both
    rich_markup_mode="markdown",
    help="Calibrate, quantize, cluster (NUQ) and search the smallest network that your own accuracy test accepts.",
    epilog="Start with `amct-lite demo`.",
)


def main() -> None:
    """Run the command line; the console script."""
    try:
        app()
    except AmctError as error:
        if "--debug" in sys.argv:
            raise
        print_error(f"error: {error}")
        sys.exit(1)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(VERSION)
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and leave.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    del debug, version  # main reads --debug itself, for errors that are raised before this runs


@app.command(epilog="Example: `amct-lite demo --out demo_out`")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("amct_lite_demo"),
) -> None:
    """Run the whole job on an embedded network: configure, calibrate, search with NUQ, save."""
    importlib.import_module("amct_lite.samples.digits.demo").run(out)


@app.command(epilog="Example: `amct-lite config --model net.onnx --config config.json --target onnxruntime`")
def config(
    model: ModelOption,
    config: ConfigOption,
    weights: WeightsOption = None,
    target: Annotated[str, typer.Option(help="ascend, ascend-rank4, onnxruntime, or a target's JSON file.")] = "ascend",
    batch_num: Annotated[int, typer.Option(min=1, help="Batches that calibration will read.")] = 1,
    skip: Annotated[list[str] | None, typer.Option(help="A layer to leave float; may be repeated.")] = None,
    activation_offset: Annotated[bool, typer.Option(help="Whether activation grids have an offset.")] = True,
) -> None:
    """Write a config in which every layer that the target can quantize is quantized uniformly."""
    from amct_lite.api import create_quant_config

    create_quant_config(config, model, weights, skip or [], batch_num, activation_offset, target=target)
    typer.echo(f"Generate config file:{config} success!")


@app.command(epilog="Example: `amct-lite inspect net.onnx --compare out/net_fake_quant_model.onnx --data images.npz`")
def inspect(
    network: Annotated[Path | None, typer.Argument(metavar="MODEL", help="The same as --model.")] = None,
    model: Annotated[Path | None, typer.Option(help="The float network: an ONNX file, or a prototxt.")] = None,
    weights: WeightsOption = None,
    config: Annotated[Path | None, typer.Option("--config", help="A config; without one the default plan.")] = None,
    target: Annotated[str, typer.Option(help="The target of the default plan.")] = "ascend",
    compare: Annotated[
        Path | None, typer.Option(help="A quantized ONNX file of this network: show what each layer loses on --data.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="The same for what this record and --config say, without a quantized file.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Samples to compare on: .npz file, or folder of .npy files.")
    ] = None,
    batch_size: BatchSizeOption = 16,
) -> None:
    """Show every layer: what is planned, what each technique may do, and why not; or what each one loses."""
    import tempfile

    from amct_lite.api import create_quant_config, init

    if (network is None) == (model is None):
        raise typer.BadParameter("Give the float network once, as MODEL or as --model.")
    model = network or model
    assert model is not None
    if compare is not None or record is not None:
        _compare(model, weights, config, compare, record, data, batch_size)
        return
    if config is not None:
        typer.echo(str(init(config, model, weights)))
        return
    with tempfile.TemporaryDirectory(prefix="amct_lite_inspect_") as folder:
        default = Path(folder) / "config.json"
        create_quant_config(
            default, model, weights, target=str(Path(target).resolve()) if Path(target).is_file() else target
        )
        typer.echo(str(init(default, model, weights)))


@app.command(
    epilog="Example: `amct-lite calibrate --model net.onnx --config config.json --record record.txt"
    " --data images.npz --save out/net`"
)
def calibrate(
    model: ModelOption,
    config: ConfigOption,
    record: RecordOption,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="An .npz file: each array is a model input by its name, 'labels' is left out. Not needed with an"
            " existing statistics file.",
        ),
    ] = None,
    weights: WeightsOption = None,
    batch_size: BatchSizeOption = 16,
    save: Annotated[
        Path | None,
        typer.Option(help="Folder and prefix; writes the fake-quant and deploy models there too."),
    ] = None,
    statistics: Annotated[
        Path | None,
        typer.Option(help="Keeps what the batches gave; where it exists they are not run again."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Shards of batches observed at once; -1 for all processors or workers.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="Where the shards run: loky, threading, dask or ray.")] = None,
) -> None:
    """Run batch_num batches through the float network and write the record."""
    from amct_lite.api import calibrate as run_calibration
    from amct_lite.api import init, save_model
    from amct_lite.progress import sweep_progress

    graph = init(config, model, weights, record)
    with sweep_progress(graph.config.batch_num) as progress:
        run_calibration(
            graph,
            None if data is None else read_batches(data, batch_size),
            progress=progress,
            n_jobs=jobs,
            backend=backend,
            statistics_file=statistics,
        )
    typer.echo(f"The record is written to {record}.")
    if save is not None:
        show(save_model(graph, "Both", save).summary)


@app.command(epilog="Example: `amct-lite explain-ranges --model net.onnx --config config.json --record record.txt`")
def explain_ranges(
    model: ModelOption,
    config: ConfigOption,
    record: RecordOption,
    weights: WeightsOption = None,
) -> None:
    """Show for each tensor with act_algo "auto" which ranges were measured, and which one won."""
    from amct_lite.api import explain_ranges as explain
    from amct_lite.api import init

    choices = explain(init(config, model, weights, record))
    for text in dict.fromkeys(map(str, choices.values())):
        typer.echo(text)
    if not choices:
        typer.echo(f'No range in {record} was chosen by act_algo "auto".')


add_calibration_command(app)
add_search_commands(app)
add_convert_commands(app)
add_amct_commands(app)


@app.command(epilog="Example: `amct-lite nuq net.onnx --bits 4 --data images.npz -o out`")
def nuq(
    model: Annotated[Path, typer.Argument(help="The float network: an ONNX file, or a prototxt.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the small model, its config and its summary.")],
    weights: WeightsOption = None,
    bits: Annotated[
        float,
        typer.Option(min=1, max=8, help="Bits of an index; a fraction such as 3.5 is an average."),
    ] = 4,
    data: Annotated[
        Path | None,
        typer.Option(help="Calibration data: an .npz file, or a folder of .npy files, a sample each."),
    ] = None,
    batch_size: BatchSizeOption = 16,
    refine: Annotated[str | None, typer.Option(help="none, bias, gptq or lnq.")] = None,
    activation_bits: Annotated[int | None, typer.Option(help="8: quantize the layers' inputs as well.")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="A layer to leave float; may be repeated.")] = None,
    storage: Annotated[str | None, typer.Option(help="packed, int8 or dense.")] = None,
) -> None:
    """Make a network small: the weights become packed indices into a few levels, in stock operators."""
    from amct_lite.compression import compress
    from amct_lite.progress import step_progress

    with step_progress() as progress:
        compressed = compress(
            model,
            weights,
            int(bits) if bits.is_integer() else bits,
            None if data is None else read_batches(data, batch_size),
            refine=refine,
            activation_bits=activation_bits,
            skip_layers=skip or [],
            progress=progress,
        )
    saved = compressed.save(out, storage=storage)
    show(saved.summary)
    if data is None:
        typer.echo("No data was given, so nothing is refined: with --data the same size is far more accurate.")
    for kind, path in saved.files.items():
        typer.echo(f"{kind}: {path}")


def _compare(
    model: Path,
    weights: Path | None,
    config: Path | None,
    quantized: Path | None,
    record: Path | None,
    data: Path | None,
    batch_size: int,
) -> None:
    from amct_lite.api import init
    from amct_lite.comparison import compare

    if data is None:
        raise typer.BadParameter("A comparison needs --data.")
    if record is not None and config is None:
        raise typer.BadParameter("--record needs the --config that it was made with.")
    source = model if config is None else init(config, model, weights, record)
    print_table(compare(source, read_batches(data, batch_size), quantized, weights_file=weights).table())
