"""What `init` returns: a model, its config and its plan, with the files that they came from."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from io import StringIO
from os import PathLike
from pathlib import Path

from amct_lite.caffe.model import CaffeModel
from amct_lite.errors import ConfigError, ParameterError, RecordError
from amct_lite.files.config import (
    FORCE_FP16_QUANT,
    CodebookParams,
    FloatActivationParams,
    FloatWeightParams,
    NuqParams,
    QuantConfig,
)
from amct_lite.files.config_file import read_config
from amct_lite.files.record import LayerRecord, read_record, weights_file
from amct_lite.files.target import Target, load_target
from amct_lite.graph.model import Model
from amct_lite.graph.opening import open_model
from amct_lite.quantize.equalization import equalized_model
from amct_lite.quantize.joint import joined_plans
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.plan import make_plan
from amct_lite.quantize.requested_tensors import merge_tensor_plans, requested_tensors
from amct_lite.quantize.tensor_plan import plan_tensors
from amct_lite.types import Layer, Technique

__all__ = ["PlannedGraph", "open_graph"]

StrPath = str | PathLike[str]


@dataclass(frozen=True)
class PlannedGraph:
    """A parsed model with the plan for each of its layers; `print` it to see what can be done and why not.

    Attributes:
        model: The normalised float model, equalized where the config asks for it.
        config: The config, validated against the model.
        target: The target that the config names.
        plans: What is done to each layer, in graph order.
        config_file: Where the config came from; None for one that was made in memory.
        record_file: Where calibration writes the record; None where the user gave none.
    """

    model: Model
    config: QuantConfig
    target: Target
    plans: tuple[LayerPlan, ...] = field(repr=False)
    config_file: Path | None
    record_file: Path | None = None

    @cached_property
    def tensor_plans(self) -> tuple[LayerPlan, ...]:
        """What is quantized between the layers, each as the plan of a layer without weights."""
        requested = requested_tensors(self.model, self.config, self.target)
        if self.model.weights_path is not None:
            return requested
        wanted = self.config.integer_operators
        chosen = plan_tensors(self.model, self.plans, self.target.integer_operators if wanted is None else wanted)
        return merge_tensor_plans(self.model, requested, chosen)

    @property
    def all_plans(self) -> tuple[LayerPlan, ...]:
        """The plans of the layers, then those of what is between them, with the grids that `joint_quant` joins."""
        plans = (*self.plans, *self.tensor_plans)
        return joined_plans(self.model, plans) if self.config.joint_quant else plans

    @property
    def observed_layers(self) -> tuple[Layer, ...]:
        """The layers whose inputs calibration observes; where two read one tensor, the last one says its axis."""
        return tuple(plan.layer for plan in (*self.tensor_plans, *self.plans) if plan.quantizes_input)

    @property
    def quantized_layers(self) -> tuple[Layer, ...]:
        """The layers that are quantized, in graph order."""
        return tuple(plan.layer for plan in self.plans if plan.config is not None)

    def require_record_file(self) -> Path:
        """The record's path.

        Raises:
            RecordError: The graph was opened without one.
        """
        if self.record_file is None:
            raise RecordError("The graph has no record file.", remedy="Give scale_offset_record_file to init.")
        return self.record_file

    def read_records(self) -> dict[str, LayerRecord]:
        """The factors that calibration found.

        Raises:
            RecordError: There is no record, or it lacks a layer that the config quantizes.
        """
        path = self.require_record_file()
        if not path.exists():
            raise RecordError(
                f"There is no record at {path}.",
                remedy=f"Calibrate first: at least batch_num = {self.config.batch_num} batches.",
            )
        # AMCT also writes entries that only say skip_fusion.
        records = {name: record for name, record in read_record(path).items() if record.has_factors}
        named = [layer.name for layer in self.quantized_layers] + [entry.key for entry in self.config.tensor_quantize]
        for name in named:
            if name not in records:
                raise RecordError(
                    f"The record {path} lacks this layer, which the config quantizes.",
                    layer=name,
                    remedy="Calibrate again with this config.",
                )
        for plan in self.plans:
            if plan.quantizes_input and records[plan.layer.name].scale_d is None:
                raise RecordError(
                    f"cannot find scale_d of layer {plan.layer.name} in the record {path}.",
                    layer=plan.layer.name,
                    remedy="Calibrate again with this config.",
                )
            if plan.codebook is not None and records[plan.layer.name].codebook is None:
                raise RecordError(
                    f"There is no codebook of this layer beside the record, in {weights_file(path).name}.",
                    layer=plan.layer.name,
                    remedy="Put the two files together again, or calibrate again with this config.",
                )
        wanted = {plan.layer.name for plan in self.all_plans if plan.config is not None}
        extra = [name for name in records if name not in wanted]
        if extra:
            raise RecordError(
                f"The record {path} has this layer, which the config does not quantize.",
                layer=extra[0],
                remedy="Calibrate again with this config.",
            )
        # How the fake-quant form rounds is no result of calibration: the config says it anew.
        mode = self.config.fakequant_precision_mode
        return {name: replace(record, fakequant_precision_mode=mode) for name, record in records.items()}

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"{self.model.path.name}, target {self.target.name}")
        for heading in ("layer", "type", "weights", "plan", "NUQ here"):
            table.add_column(heading, justify="right" if heading == "weights" else "left", overflow="fold")
        for plan in self.plans:
            layer = plan.layer
            shape = "x".join(map(str, layer.weight_shape)) or "-"
            refusal = self.target.refusal(layer, Technique.NUQ)
            table.add_row(layer.name, layer.op_type, shape, _describe(plan), f"no: {refusal}" if refusal else "yes")
        for plan in self.tensor_plans:
            table.add_row(plan.layer.name, plan.layer.op_type, "-", _describe(plan), "-")
        text = StringIO()
        # Names come from the model: "[conv]" is no markup, ":0:" no emoji.
        Console(file=text, width=140, color_system=None, markup=False, emoji=False).print(table)
        return text.getvalue().rstrip("\n")


def open_graph(
    config_file: StrPath,
    model_file: StrPath,
    weights_file: StrPath | None = None,
    record_file: StrPath | None = None,
) -> PlannedGraph:
    """Load a model and its config and plan every layer; `amct_lite.init` without its documentation.

    Raises:
        AmctError: A file cannot be read, or the config does not fit the model or the target.
    """
    config_path = Path(config_file)
    config = read_config(config_path)
    target = load_target(config.target, config_path.parent)
    try:
        model = open_model(
            model_file,
            weights_file,
            fold_batch_norm=config.do_fusion,
            skip_fusion_layers=config.skip_fusion_layers,
        )
    except ParameterError as error:
        raise ConfigError(
            f"The config file {config_file} does not fit {model_file}: $.skip_fusion_layers: {error.cause}",
            remedy="Correct the names there, or create the config again.",
        ) from error
    if isinstance(model, CaffeModel):
        _refuse_scaling(config, config_path)
    if config.cross_layer_equalization:
        model = equalized_model(model)
    try:
        plans = make_plan(model.layers, config, target)
        requested_tensors(model, config, target)
        _check_precision(config, target)
    except ConfigError as error:
        raise ConfigError(
            f"The config file {config_file} does not fit {model_file}: {error.cause}",
            layer=error.layer,
            remedy=error.remedy,
        ) from error
    record_path = None if record_file is None else Path(record_file)
    return PlannedGraph(model, config, target, plans, config_path, record_path)


def _check_precision(config: QuantConfig, target: Target) -> None:
    if config.fakequant_precision_mode == FORCE_FP16_QUANT and target.deploy_form != "ascend":
        raise ConfigError(
            f"fakequant_precision_mode {FORCE_FP16_QUANT!r} simulates Ascend devices, and the target {target.name!r}"
            " quantizes in float32.",
            remedy='Set it to "DEFAULT", or "target" to "ascend".',
        )


def _refuse_scaling(config: QuantConfig, path: Path) -> None:
    """A pair's blobs are written with the record's factors alone, from the caffemodel's own weights."""
    balanced = [name for name, layer in config.layers.items() if layer.dmq_balancer_param is not None]
    if config.cross_layer_equalization or balanced:
        key = "cross_layer_equalization" if config.cross_layer_equalization else "dmq_balancer_param"
        raise ConfigError(
            f"The config file {path} has {key} for a Caffe network: what it makes of weights is in the graph, not in"
            " the pair's blobs.",
            layer=None if config.cross_layer_equalization else balanced[0],
            remedy="Delete the key, or convert the network to ONNX.",
        )


def _describe(plan: LayerPlan) -> str:
    if plan.config is None:
        return f"float: {plan.reason}"
    params = plan.config.activation_quant_params
    if isinstance(params, FloatActivationParams):
        activation = "activation float"
    else:
        activation = f"activation int{params.num_bits} {params.act_algo}"
    if params.nuq is not None:
        activation += f" NUQ {params.nuq.target_compression_ratio:g}"
    if plan.config.dmq_balancer_param is not None:
        activation += f" balanced {plan.config.dmq_balancer_param:g}"
    weights = plan.weight_params
    if weights is None:
        return activation
    if isinstance(weights, FloatWeightParams):
        return f"weight float, {activation}"
    if isinstance(weights, CodebookParams) and plan.codebook is not None:
        spec = plan.codebook
        vectors = f" of {spec.vector_size}" if spec.vector_size > 1 else ""
        tables = f", a table per {spec.rows_per_table * spec.vector_size} channels" if spec.rows_per_table else ""
        return f"weight codebook {spec.num_levels} levels{vectors}{tables}, refine {spec.refine}, {activation}"
    kind = f"NUQ {weights.num_steps} levels" if isinstance(weights, NuqParams) else f"int{weights.num_bits}"
    return f"weight {kind}{' per channel' if plan.channel_wise else ''}, {activation}"
