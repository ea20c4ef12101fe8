"""`amct-lite calibration`: the twin of `amct_caffe calibration` and `amct_onnx calibration`, with the same options."""

import inspect
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amct_lite.cli_inputs import load_evaluator, load_evaluator_file
from amct_lite.cli_output import show
from amct_lite.errors import ParameterError

if TYPE_CHECKING:
    from amct_lite.quantize.planned_graph import PlannedGraph

__all__ = ["add_calibration_command"]


def add_calibration_command(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(
        epilog='Example: `amct-lite calibration --model net.onnx --save_path out/net --input_shape "image:16,3,224,224"'
        " --data_dir bins --data_types float32 --batch_num 2`"
    )(calibration)


def calibration(
    model: Annotated[Path, typer.Option(help="The float network: an ONNX file, or a prototxt.")],
    save_path: Annotated[str, typer.Option("--save_path", "--save-path", help="Folder and prefix of the results.")],
    weights: Annotated[Path | None, typer.Option(help="The caffemodel, for a Caffe network.")] = None,
    input_shape: Annotated[
        str | None,
        typer.Option("--input_shape", "--input-shape", help='Batch of each input: "name:n,c,h,w;name2:n".'),
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option("--data_dir", "--data-dir", help='Folder of each input, "dir1;dir2": a .bin file is a batch.'),
    ] = None,
    data_types: Annotated[
        str | None,
        typer.Option("--data_types", "--data_type", "--data-types", help='A type for each input, "float32;int64".'),
    ] = None,
    evaluator: Annotated[
        str | None,
        typer.Option(help="Instead of the data: file.py that defines an evaluator, or file.py:Name; it calibrates."),
    ] = None,
    calibration_config: Annotated[
        Path | None, typer.Option("--calibration_config", "--calibration-config", help="A simplified config.")
    ] = None,
    batch_num: Annotated[int, typer.Option("--batch_num", "--batch-num", min=1, help="Batches to calibrate on.")] = 1,
    gpu_id: Annotated[
        int | None,
        typer.Option("--gpu_id", "--gpu-id", help="Accepted for AMCT's scripts; the CPU calibrates."),
    ] = None,
    target: Annotated[str, typer.Option(help="ascend, ascend-rank4, onnxruntime, or a target's JSON file.")] = "ascend",
) -> None:
    """Quantize in one step: config, calibration, fake-quant and deploy model, as AMCT's command does."""
    from amct_lite.api import create_quant_config, init, save_model
    from amct_lite.files.save_path import folder_and_prefix

    del gpu_id
    given = {"--input_shape": input_shape, "--data_dir": data_dir, "--data_types": data_types}
    _check_source(evaluator, given)
    folder, prefix = folder_and_prefix(save_path, "calibration")
    folder.mkdir(parents=True, exist_ok=True)
    start = f"{prefix}_" if prefix else ""
    config_file, record_file = folder / f"{start}config.json", folder / f"{start}scale_offset_record.txt"
    create_quant_config(
        config_file, model, weights, batch_num=batch_num, config_defination=calibration_config, target=target
    )
    graph = init(config_file, model, weights, record_file)
    if evaluator is None:
        _calibrate_on_files(graph, *map(str, given.values()))
    else:
        _let_calibrate(graph, evaluator)
    saved = save_model(graph, "Both", save_path)
    show(saved.summary)
    for path in (config_file, record_file, *saved.files.values()):
        typer.echo(str(path))


def _check_source(evaluator: str | None, given: dict[str, str | None]) -> None:
    """Hold that there is either an evaluator or all that describes the data."""
    named = [option for option, value in given.items() if value is not None]
    if evaluator is not None and named:
        raise ParameterError(
            f"--evaluator calibrates on data of its own, so {', '.join(named)} cannot be given beside it.",
            remedy="Leave one of them out.",
        )
    missing = [option for option, value in given.items() if value is None]
    if evaluator is None and missing:
        raise ParameterError(
            f"{', '.join(missing)} missing: calibration needs --input_shape, --data_dir and --data_types, or an"
            " --evaluator.",
            remedy='For example --input_shape "image:16,3,224,224" --data_dir bins --data_types float32.',
        )


def _calibrate_on_files(graph: "PlannedGraph", input_shape: str, data_dir: str, data_types: str) -> None:
    from amct_lite.api import calibrate
    from amct_lite.files.bin_batches import BinBatches
    from amct_lite.progress import sweep_progress

    batches = BinBatches.from_texts(input_shape, data_dir, data_types, graph.config.batch_num)
    with sweep_progress(graph.config.batch_num) as progress:
        calibrate(graph, batches, progress=progress)


def _let_calibrate(graph: "PlannedGraph", evaluator: str) -> None:
    """Have the evaluator run a calibration model."""
    from amct_lite.api import quantize_model
    from amct_lite.observing_operators import calibration_failure

    found = load_evaluator(evaluator) if evaluator.rpartition(":")[0] else load_evaluator_file(evaluator, "calibration")
    with tempfile.TemporaryDirectory(prefix="amct_lite_calibration_") as scratch:
        model = Path(scratch) / f"modified_model{graph.model.path.suffix}"
        weights = graph.model.weights_path
        modified_weights = None if weights is None else model.with_suffix(weights.suffix)
        quantize_model(graph, model, modified_weights)
        files = [str(path) for path in (model, modified_weights) if path is not None]
        found.calibration(*files, *_batch_num(found.calibration, len(files), graph.config.batch_num))
        failure = calibration_failure(model)
    if failure is not None:
        raise failure


def _batch_num(calibration: Any, files: int, batch_num: int) -> tuple[int, ...]:
    """AMCT's own evaluators take the number of batches last, its users' often do not."""
    try:
        inspect.signature(calibration).bind(*range(files))
    except TypeError:
        return (batch_num,)
    return ()
