"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["BatchSizeOption", "ConfigOption", "ModelOption", "RecordOption", "WeightsOption"]

ModelOption = Annotated[Path, typer.Option("--model", help="The float network: an ONNX file, or a prototxt.")]
WeightsOption = Annotated[Path | None, typer.Option("--weights", help="The caffemodel, for a Caffe network.")]
ConfigOption = Annotated[Path, typer.Option("--config", help="The quantization config, JSON.")]
RecordOption = Annotated[Path, typer.Option("--record", help="The scale/offset record.")]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Samples per batch.")]
