"""A trained network on disk: its numbers back in the graph, and every form of it, as after any other quantization."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from amct_lite.export.save import Saved, save_quantized
from amct_lite.files.config import LayerConfig, QuantConfig
from amct_lite.files.config_file import write_config
from amct_lite.files.record import LayerRecord, write_record
from amct_lite.files.target import Target
from amct_lite.graph.digest import FileDigest
from amct_lite.graph.model import Model
from amct_lite.graph.saving import save_ir
from amct_lite.learn.torch_graph import TorchGraph, with_weights
from amct_lite.quantize.layer_plan import LayerPlan
from amct_lite.quantize.plan import make_plan
from amct_lite.quantize.planned_graph import PlannedGraph

__all__ = ["Learned", "save_trained"]


@dataclass(frozen=True)
class Learned:
    """What training made of a layer.

    Attributes:
        config: How the layer is quantized, for the config file; None for one that stays float in the file.
        record: Its factors or codebook; None for one that stays float.
        reason: Why it is stored in float, as a sentence, where it was trained to be quantized.
    """

    config: LayerConfig | None
    record: LayerRecord | None
    reason: str | None = None


def save_trained(
    model: Model,
    graph: TorchGraph,
    learned: Mapping[str, Learned],
    target: Target,
    save_path: Path,
    save_type: str,
    integer_operators: Sequence[str] = (),
) -> Saved:
    """Write a trained network.

    Args:
        model: The float network that it came from.
        graph: The trained module, in evaluation mode, on the CPU.
        learned: Layer name -> what training made of it.
        target: Decides the deploy form.
        save_path: Folder and file prefix.
        save_type: "Fakequant", "Deploy" or "Both".
        integer_operators: Operators between layers whose inputs were trained quantized, for the config.

    Returns:
        The files of `save_quantized`, and "float_model", "config" and "record". The float model holds the numbers
        that its layers decode to, so that whatever is not in the record, such as the first layer, is in it. Config and
        record are left out where no layer has anything to say in them.
    """
    folder, prefix = os.path.split(save_path)
    start = f"{prefix}_" if prefix else ""
    float_file = Path(folder) / f"{start}float_model.onnx"
    trained = with_weights(model, graph.quantized_numbers())
    save_ir(trained, float_file)
    records = {name: layer.record for name, layer in learned.items() if layer.record is not None}
    configs = {name: layer.config for name, layer in learned.items() if layer.config is not None}
    between = list(integer_operators)
    config = QuantConfig.model_validate(
        {"target": target.name, "batch_num": 1, "integer_operators": between, **configs}
    )
    # A plain Model: what came from a Caffe pair has other numbers now, and goes on as ONNX.
    plain = Model(trained, float_file, FileDigest([float_file]), model.size_bytes, layers=model.layers)
    reasons = {layer.name: "training left it alone" for layer in plain.layers}
    reasons |= {name: layer.reason for name, layer in learned.items() if layer.reason is not None}
    plans = make_plan(plain.layers, config, target) if configs else tuple(LayerPlan(layer) for layer in plain.layers)
    plans = tuple(plan if plan.config else replace(plan, reason=reasons[plan.layer.name]) for plan in plans)
    planned = PlannedGraph(plain, config, target, plans, config_file=None)
    saved = save_quantized(planned, records, save_type, Path(folder), prefix)
    if not records:
        return Saved({**saved.files, "float_model": float_file}, saved.summary)
    config_file, record_file = Path(folder) / f"{start}config.json", Path(folder) / f"{start}record.txt"
    write_config(config, config_file)
    write_record(records, record_file)
    files = {**saved.files, "float_model": float_file, "config": config_file, "record": record_file}
    return Saved(files, saved.summary)
