"""What init returns: the model, its config and its plan together, and the table that tells them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amct_lite.errors import ConfigError, RecordError
from amct_lite.files.record import LayerRecord, write_record
from amct_lite.quantize.planned_graph import PlannedGraph, open_graph

NETWORK = """net (float[1, 4, 9, 9] x) => (float[1, 3, 1, 1] y) {
    [four] a = Conv(x, four_w)
    [three] b = Conv <group = 4> (a, three_w)
    [pool] c = AveragePool <kernel_shape = [2, 2]> (b)
    [last] y = Conv(c, last_w)
}"""
WEIGHTS = {
    "four_w": np.ones((4, 4, 4, 4), np.float32),
    "three_w": np.ones((4, 1, 3, 3), np.float32),
    "last_w": np.ones((3, 4, 3, 3), np.float32),
}


@pytest.fixture
def open_network(tmp_path: Path, write_network) -> Callable[..., PlannedGraph]:
    def opened(text: str = NETWORK, weights: Any = None, record: bool = False, **document: Any) -> PlannedGraph:
        model_file = write_network(text, WEIGHTS if weights is None else weights)
        (tmp_path / "config.json").write_text(json.dumps(document))
        return open_graph(tmp_path / "config.json", model_file, record_file=tmp_path / "record.txt" if record else None)

    return opened


def rows(graph: PlannedGraph) -> dict[str, str]:
    """Layer -> its row of the printed table, with the lines of each cell joined."""
    found: dict[str, list[str]] = {}
    for line in str(graph).splitlines():
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        if cells and cells[0]:
            name = cells[0]
            found[name] = cells
        elif cells:
            found[name] = [" ".join(parts) for parts in zip(found[name], cells, strict=True)]
    return {name: " | ".join(cells) for name, cells in found.items()}


def test_printing_shows_each_layer_with_its_plan_and_the_reasons(open_network) -> None:
    graph = open_network(
        four={"weight_quant_params": {"wts_algo": "nuq_quantize", "num_steps": 16, "channel_wise": True}},
        three={"activation_quant_params": {"act_algo": "minmax"}, "weight_quant_params": {"channel_wise": False}},
        pool={"quant_enable": False},
    )
    lines = rows(graph)
    assert "network.onnx, target ascend" in str(graph)
    assert "weight NUQ 16 levels per channel, activation int8 ifmr" in lines["four"]
    assert "4x4x4x4" in lines["four"]
    assert "yes" in lines["four"]
    assert "weight int8, activation int8 minmax" in lines["three"]
    assert "no: kernel_shape must be [4, 4], found [3, 3]" in lines["three"]
    assert "float: quant_enable is false" in lines["pool"]
    assert "float: it is not in the config" in lines["last"]
    assert [layer.name for layer in graph.quantized_layers] == ["four", "three"]


def test_printing_shows_activation_nuq(open_network) -> None:
    block = {"activation_quant_params": {"nuq": {"target_compression_ratio": 0.125}}}
    assert "activation int8 ifmr NUQ 0.125" in rows(open_network(four=block))["four"]


@pytest.mark.parametrize("name", ["[bold]conv[/bold]", "[/conv]", "a:smile:b"])
def test_a_layers_name_is_printed_as_it_is(open_network, name: str) -> None:
    import onnx_ir as ir

    graph = open_network(four={})
    model = graph.model.clone()
    model.graph[0].name = name
    path = graph.config_file.with_name("renamed.onnx")
    ir.save(model, path)
    graph.config_file.write_text(json.dumps({name: {}}))
    assert name in str(open_graph(graph.config_file, path))


def test_a_config_that_does_not_fit_names_both_files(open_network) -> None:
    with pytest.raises(ConfigError) as caught:
        open_network(fourr={})
    for part in ("config.json", "network.onnx", "Layer fourr does not exist", "Did you mean 'four'?"):
        assert part in str(caught.value)


def test_an_unknown_name_in_skip_fusion_layers_is_refused_with_its_place(open_network) -> None:
    with pytest.raises(ConfigError, match=r"\$\.skip_fusion_layers") as caught:
        open_network(four={}, skip_fusion_layers=["nothing"])
    assert "'nothing'" in str(caught.value)
    assert "config.json" in str(caught.value)


def test_an_unknown_target_is_refused(open_network) -> None:
    with pytest.raises(ConfigError, match="There is no target 'ascnd'"):
        open_network(four={}, target="ascnd")


def test_a_users_target_is_looked_for_beside_the_config(open_network, tmp_path: Path) -> None:
    rules = {"uniform": {"Convolution": {}}, "nuq": {"Convolution": {"group": 4}}}
    (tmp_path / "mine.json").write_text(json.dumps({"name": "mine", "deploy_form": "qdq", "rules": rules}))
    nuq = {"weight_quant_params": {"wts_algo": "nuq_quantize"}}
    assert open_network(three=nuq, target="mine.json").target.name == "mine"
    with pytest.raises(ConfigError, match=r"The target 'mine' does not allow NUQ .* group must be 4, found 1"):
        open_network(four=nuq, target="mine.json")


def test_without_a_record_the_way_to_one_is_named(open_network) -> None:
    with pytest.raises(RecordError, match="scale_offset_record_file"):
        open_network(four={}).read_records()
    with pytest.raises(RecordError, match=r"There is no record .* at least batch_num = 3 batches"):
        open_network(four={}, batch_num=3, record=True).read_records()


def test_a_record_that_lacks_or_adds_a_layer_is_refused_with_its_name(open_network, tmp_path: Path) -> None:
    graph = open_network(four={}, three={}, record=True)
    one = LayerRecord(scale_d=1.0, scale_w=(1.0,), offset_w=(0,))
    write_record({"four": one}, tmp_path / "record.txt")
    with pytest.raises(RecordError, match="lacks this layer") as caught:
        graph.read_records()
    assert caught.value.layer == "three"
    write_record({"four": one, "three": one, "last": one}, tmp_path / "record.txt")
    with pytest.raises(RecordError, match="which the config does not quantize") as caught:
        graph.read_records()
    assert caught.value.layer == "last"
    write_record({"three": one, "four": one}, tmp_path / "record.txt")
    assert set(graph.read_records()) == {"three", "four"}
