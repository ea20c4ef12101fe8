"""The verbs whose arguments differ between AMCT's two editions, each callable in both forms."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from amct_lite import api
from amct_lite.calibration.modified_model import read_task
from amct_lite.call_forms import with_onnx_form
from amct_lite.errors import ParameterError
from amct_lite.export.save import Saved
from amct_lite.graph.opening import is_caffe
from amct_lite.observing_operators import calibration_failure

__all__ = ["create_quant_config", "quantize_model", "save_model"]

StrPath = str | PathLike[str]


def _create_quant_config(
    config_file: StrPath,
    model_file: StrPath,
    skip_layers: Sequence[str] | None = None,
    batch_num: int = 1,
    activation_offset: bool = True,
    config_defination: StrPath | None = None,
    *,
    target: str = "ascend",
) -> None:
    if is_caffe(model_file):
        raise ParameterError(
            f"create_quant_config was called as for ONNX, but {model_file} is a Caffe network.",
            remedy="Give its caffemodel as weights_file, behind model_file.",
        )
    api.create_quant_config(
        config_file, model_file, None, skip_layers, batch_num, activation_offset, config_defination, target=target
    )


def _is_config_call(caffe: dict[str, Any], onnx: dict[str, Any]) -> bool:
    batch_num = onnx.get("batch_num")
    has_number = isinstance(batch_num, int) and not isinstance(batch_num, bool)
    has_weights = isinstance(caffe.get("weights_file"), str | PathLike)
    return not has_weights and (isinstance(onnx.get("skip_layers"), list | tuple | set) or has_number)


def _quantize_model(
    config_file: StrPath, model_file: StrPath, modified_onnx_file: StrPath, record_file: StrPath
) -> None:
    if not isinstance(config_file, str | PathLike) or is_caffe(model_file):
        raise ParameterError(
            "quantize_model was called as for ONNX, with a config file first and then an ONNX file. Got"
            f" {config_file!r} and {model_file!r} instead.",
            remedy="For a Caffe network call init(config_file, model_file, weights_file, record_file) and give its"
            " graph: quantize_model(graph, modified_model_file, modified_weights_file).",
        )
    api.quantize_model(api.init(config_file, model_file, None, record_file), modified_onnx_file)


def _save_model(
    modified_onnx_file: StrPath, record_file: StrPath, save_path: StrPath, *, storage: str | None = None
) -> Saved:
    path = Path(modified_onnx_file)
    task = None if is_caffe(path) else read_task(path)
    if task is None:
        raise ParameterError(
            f"save_model was called as for ONNX, but {path} is no calibration model of an ONNX network.",
            remedy="Give the file that quantize_model wrote; or call init and save_model(graph, save_type, save_path).",
        )
    failure = calibration_failure(path)
    if failure is not None:
        raise failure
    graph = api.init(task.config_file, task.model_file, None, record_file)
    if graph.model.digest != task.model_digest:
        raise ParameterError(
            f"The float model {task.model_file} has changed since the calibration model was written.",
            remedy="Run quantize_model again.",
        )
    return api.save_model(graph, "Both", save_path, storage=storage)


create_quant_config = with_onnx_form(_create_quant_config, _is_config_call)(api.create_quant_config)
quantize_model = with_onnx_form(_quantize_model, lambda _, onnx: isinstance(onnx["config_file"], str | PathLike))(
    api.quantize_model
)
save_model = with_onnx_form(_save_model, lambda _, onnx: isinstance(onnx["modified_onnx_file"], str | PathLike))(
    api.save_model
)
