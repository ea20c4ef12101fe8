"""The commands that search, and the one that shows what a search has done: parts of `amct-lite --help`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amct_lite.cli_inputs import load_evaluator, read_batches
from amct_lite.cli_options import BatchSizeOption, ConfigOption, ModelOption, RecordOption, WeightsOption
from amct_lite.cli_output import print_table, show

if TYPE_CHECKING:
    from amct_lite.search.result import SearchResult

__all__ = ["add_search_commands"]

NOT_SATISFIED = 3

SaveDirOption = Annotated[Path, typer.Option(help="Folder for the results and the journal.")]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="Calibration data, an .npz file; without it the evaluator's own run calibrates."),
]
MaxEvaluationsOption = Annotated[int | None, typer.Option(min=2, help="Evaluations at most.")]
MaxSecondsOption = Annotated[float | None, typer.Option(help="No evaluation starts after this time.")]
StrategyOption = Annotated[
    str | None, typer.Option(help='How to search: "frontier", the default, or another one, such as "BinarySearch".')
]
JobsOption = Annotated[
    int | None, typer.Option("--n-jobs", help="Evaluations at once; -1 for all processors or workers.")
]
BackendOption = Annotated[str | None, typer.Option(help="Where evaluations run: loky, threading, dask or ray.")]


def add_search_commands(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(
        epilog="Example: `amct-lite auto-nuq --model net.onnx --config config.json --record record.txt"
        " --evaluator my_test.py:MyEvaluator --save-dir out --data images.npz`"
    )(auto_nuq)
    app.command(
        epilog="Example: `amct-lite auto-calibration --model net.onnx --config config.json --record record.txt"
        " --evaluator my_test.py:MyEvaluator --save-dir out`"
    )(auto_calibration)
    app.command(epilog="Example: `amct-lite history out/net_auto_nuq_journal.jsonl`")(history)


def auto_nuq(
    model: ModelOption,
    config: ConfigOption,
    record: RecordOption,
    evaluator: Annotated[
        str, typer.Option(help="file.py:Name of a subclass of AutoNuqEvaluatorBase, or of an object of one.")
    ],
    save_dir: SaveDirOption,
    weights: WeightsOption = None,
    data: DataOption = None,
    batch_size: BatchSizeOption = 16,
    max_evaluations: MaxEvaluationsOption = None,
    max_seconds: MaxSecondsOption = None,
    objective: Annotated[
        str, typer.Option(help="smallest that satisfies, best within --max-bytes or --equivalent-bits, or front.")
    ] = "smallest",
    max_bytes: Annotated[int | None, typer.Option(min=1, help="What the best model may take.")] = None,
    equivalent_bits: Annotated[float | None, typer.Option(help="The same, as a mean of bits per weight.")] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="The metric is a loss; smallest need not know.")
    ] = False,
    strategy: StrategyOption = None,
    n_jobs: JobsOption = None,
    backend: BackendOption = None,
) -> None:
    """Search the smallest NUQ config that the evaluator accepts; started again, it goes on where it stopped."""
    from amct_lite.auto_nuq import auto_nuq as search

    result = search(
        model,
        weights,
        load_evaluator(evaluator),
        config,
        record,
        save_dir,
        calibration_data=None if data is None else read_batches(data, batch_size),
        max_evaluations=max_evaluations,
        max_seconds=max_seconds,
        objective=objective,
        max_bytes=max_bytes,
        equivalent_bits=equivalent_bits,
        greater_is_better=not lower_is_better,
        strategy=strategy,
        n_jobs=n_jobs,
        backend=backend,
    )
    _tell(result)


def auto_calibration(
    model: ModelOption,
    config: ConfigOption,
    record: RecordOption,
    evaluator: Annotated[
        str, typer.Option(help="file.py:Name of a subclass of AutoCalibrationEvaluatorBase, or of an object of one.")
    ],
    save_dir: SaveDirOption,
    weights: WeightsOption = None,
    data: DataOption = None,
    batch_size: BatchSizeOption = 16,
    max_evaluations: MaxEvaluationsOption = None,
    max_seconds: MaxSecondsOption = None,
    strategy: StrategyOption = None,
    sensitivity: Annotated[
        str | None, typer.Option(help='What layers are ranked by: "CosineSimilarity" or "MSE"; by default ours.')
    ] = None,
    n_jobs: JobsOption = None,
    backend: BackendOption = None,
) -> None:
    """Quantize all that the config enables, and roll layers back to float until the evaluator accepts."""
    from amct_lite.auto_calibration import accuracy_based_auto_calibration

    result = accuracy_based_auto_calibration(
        model,
        weights,
        load_evaluator(evaluator),
        config,
        record,
        save_dir,
        strategy,
        sensitivity,
        calibration_data=None if data is None else read_batches(data, batch_size),
        max_evaluations=max_evaluations,
        max_seconds=max_seconds,
        n_jobs=n_jobs,
        backend=backend,
    )
    _tell(result)


def history(
    journal: Annotated[Path, typer.Argument(help="The journal of a search, {...}_journal.jsonl.")],
) -> None:
    """Show what a search has evaluated so far, also while it runs."""
    from amct_lite.files.journal import read_journal
    from amct_lite.search.history import history_table

    keys, entries = read_journal(journal)
    for name, value in keys.items():
        typer.echo(f"{name}: {value}")
    print_table(history_table(entries))


def _tell(result: "SearchResult") -> None:
    show(result.summary)
    typer.echo(result.message)
    for kind, path in result.files.items():
        typer.echo(f"{kind}: {path}")
    if not result.satisfied:
        raise typer.Exit(NOT_SATISFIED)
