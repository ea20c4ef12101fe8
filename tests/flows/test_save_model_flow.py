"""save_model: which files, under which names, whole or absent, byte for byte the same, with true figures."""

import errno
import json
import math
import os
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amct_lite
from amct_lite.codebook.compression import zstd_bytes
from amct_lite.codebook.entropy import entropy_bits
from amct_lite.errors import AmctError, FileError, ParameterError
from amct_lite.export import save
from amct_lite.graph import save_ir
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.samples.digits.data import MODEL_FILE, load_split
from amct_lite.uniform.arq import quantize_weight, weight_scales

IMAGES = load_split().calibration.images

FAKE, DEPLOY, QUANT, SUMMARY = "fake_quant_model.onnx", "deploy_model.onnx", "quant.json", "summary.json"


@pytest.fixture
def planned(tmp_path: Path) -> PlannedGraph:
    """Calibrated; config and record lie in a folder of their own."""
    folder = tmp_path / "config"
    amct_lite.create_quant_config(folder / "config.json", MODEL_FILE)
    graph = amct_lite.init(folder / "config.json", MODEL_FILE, scale_offset_record_file=folder / "record.txt")
    amct_lite.calibrate(graph, [IMAGES])
    return graph


def listed(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("save_type", "endings"),
    [
        ("Fakequant", {FAKE, SUMMARY}),
        ("Deploy", {DEPLOY, QUANT, SUMMARY}),
        ("Both", {FAKE, DEPLOY, QUANT, SUMMARY}),
    ],
)
@pytest.mark.parametrize(
    ("path", "start"),
    [
        ("out/net", "out/net_"),
        ("out/", "out/"),
        ("a/b/c/net", "a/b/c/net_"),
        ("net", "net_"),
        ("./", ""),
        (".", ""),
        ("a/..", ""),
    ],
)
def test_names_are_those_documented(
    save_type: str,
    endings: set[str],
    path: str,
    start: str,
    planned: PlannedGraph,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    before = listed(tmp_path)
    saved = amct_lite.save_model(planned, save_type, path)
    assert listed(cwd) == {start + ending for ending in endings}
    assert listed(tmp_path) - {f"cwd/{name}" for name in listed(cwd)} == before
    assert {os.path.normpath(file) for file in saved.files.values()} == listed(cwd)
    assert {kind: file.name.removeprefix(Path(start + "_").name[:-1]) for kind, file in saved.files.items()} == {
        kind: ending
        for kind, ending in {
            "fake_quant_model": FAKE,
            "deploy_model": DEPLOY,
            "quant_json": QUANT,
            "summary": SUMMARY,
        }.items()
        if ending in endings
    }


def test_path_objects_are_taken(planned: PlannedGraph, tmp_path: Path) -> None:
    amct_lite.save_model(planned, "Fakequant", tmp_path / "out" / "net")
    assert listed(tmp_path / "out") == {f"net_{FAKE}", f"net_{SUMMARY}"}


@pytest.mark.parametrize("save_path", ["", None, 5])
def test_wrong_save_path(save_path: Any, planned: PlannedGraph) -> None:
    with pytest.raises(ParameterError, match=r"'save_path' parameter of save_model must be a folder and a file prefix"):
        amct_lite.save_model(planned, "Both", save_path)


@pytest.mark.parametrize("save_type", ["both", "", None, "Caffe"])
def test_wrong_save_type(save_type: Any, planned: PlannedGraph, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"'save_type' parameter of save_model must be one of.*'Fakequant'"):
        amct_lite.save_model(planned, save_type, tmp_path / "out" / "net")
    assert not (tmp_path / "out").exists()


def test_without_a_record(tmp_path: Path) -> None:
    amct_lite.create_quant_config(tmp_path / "c.json", MODEL_FILE, batch_num=7)
    graph = amct_lite.init(tmp_path / "c.json", MODEL_FILE, scale_offset_record_file=tmp_path / "r.txt")
    with pytest.raises(AmctError, match=r"no record at .*r.txt.*batch_num = 7"):
        amct_lite.save_model(graph, "Both", tmp_path / "out" / "net")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", ["config", "record"])
def test_record_of_another_config(more: str, planned: PlannedGraph, tmp_path: Path) -> None:
    """The one has a layer that the other lacks."""
    amct_lite.create_quant_config(tmp_path / "fewer.json", MODEL_FILE, skip_layers=["fc2"])
    fewer = amct_lite.init(tmp_path / "fewer.json", MODEL_FILE, scale_offset_record_file=tmp_path / "fewer.txt")
    amct_lite.calibrate(fewer, [IMAGES])
    config, record = (planned.config_file, tmp_path / "fewer.txt")
    if more == "record":
        config, record = (tmp_path / "fewer.json", planned.require_record_file())
    graph = amct_lite.init(config, MODEL_FILE, scale_offset_record_file=record)
    with pytest.raises(AmctError, match=r"Layer 'fc2'.*Calibrate again with this config"):
        amct_lite.save_model(graph, "Both", tmp_path / "out" / "net")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", [0, 1, 2, 3])
def test_full_disk_leaves_no_half_file(
    file: int, planned: PlannedGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves, real = [], Path.replace

    def full(self: Path, target: Path) -> Path:
        moves.append(target)
        if len(moves) > file:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(FileError, match=r"cannot be written.*No space left"):
        amct_lite.save_model(planned, "Both", tmp_path / "out" / "net")
    whole = [f"net_{name}" for name in (FAKE, DEPLOY, QUANT, SUMMARY)][:file]
    assert listed(tmp_path / "out") == set(whole)


@pytest.mark.parametrize("folder", ["/proc/amct_lite_test", "a_file/out"])
def test_folder_that_cannot_be_made(folder: str, planned: PlannedGraph, tmp_path: Path) -> None:
    (tmp_path / "a_file").write_text("x")
    with pytest.raises(FileError, match="cannot be written"):
        amct_lite.save_model(planned, "Both", tmp_path / folder / "net")
    assert listed(tmp_path) == {"a_file", "config/config.json", "config/record.txt"}


@pytest.mark.parametrize("target", ["ascend", "onnxruntime"])
def test_two_runs_give_the_same_bytes(
    target: str, quantize: Callable[..., Any], nuq: Callable[..., Any], hashes: Callable[[Path], dict[str, str]]
) -> None:
    first, second = (hashes(quantize(MODEL_FILE, [IMAGES], target=target, edit=nuq()).folder) for _ in range(2))
    assert first == second
    assert set(first) == {"config.json", "record.txt", *(f"out/net_{end}" for end in (FAKE, DEPLOY, QUANT, SUMMARY))}


@pytest.mark.parametrize("with_nuq", [False, True])
def test_summary_tells_the_truth(with_nuq: bool, quantize: Callable[..., Any], nuq: Callable[..., Any]) -> None:
    def by_itself(document):
        for block in document.values():
            if isinstance(block, dict):
                block.get("weight_quant_params", {}).pop("rounding", None)

    edit = nuq() if with_nuq else by_itself
    flow = quantize(MODEL_FILE, [IMAGES], target="onnxruntime", edit=edit, skip_layers=["conv2"])
    document = json.loads(flow.saved.files["summary"].read_text())
    rows = {row["name"]: row for row in document["layers"]}
    assert list(rows) == ["conv1", "conv2", "pool", "conv3", "fc1", "fc2"]
    assert rows["conv2"]["form"] == "float"
    assert rows["conv2"]["reason"]
    assert rows["pool"] | {"activation_levels": 256, "num_weights": 0, "bytes_after": 0} == rows["pool"]
    for name, layer in flow.layers.items():
        if layer.weight is None:
            continue
        weight = flow.graph.model.weight(layer.layer.weight).astype(np.float64)
        counts = Counter(layer.weight.reshape(-1).tolist())
        shares = np.array(list(counts.values())) / weight.size
        entropy = -float((shares * np.log2(shares)).sum())
        noise = ((weight - layer.decode_weight()) ** 2).sum()
        row = rows[name]
        assert row["form"] == ("nuq" if with_nuq else "int8")
        assert row["levels"] == len(counts) == (16 if with_nuq else len(counts))
        assert row["bits_per_weight"] == math.ceil(math.log2(len(counts)))
        assert row["num_weights"] == weight.size
        assert row["bytes_before"] == 4 * weight.size
        assert row["bytes_after"] == weight.size + 4 * layer.scale_w.size
        assert row["entropy_bits"] == pytest.approx(entropy, abs=1e-4)
        assert row["entropy_bytes"] == math.ceil(weight.size * entropy / 8) + 4 * layer.scale_w.size
        assert row["weight_sqnr_db"] == pytest.approx(10 * math.log10((weight**2).sum() / noise), abs=1e-3)
        uniform = quantize_weight(weight.astype(np.float32), layer.scale_w, axis=layer.scale_axis)
        if with_nuq:
            scales = weight_scales(weight.astype(np.float32), axis=layer.scale_axis)
            uniform = quantize_weight(weight.astype(np.float32), scales, axis=layer.scale_axis)
        assert row["int8_entropy_bits"] == pytest.approx(entropy_bits(uniform), abs=1e-4)
        assert row["deflate_bytes"] == len(zlib.compress(layer.weight.tobytes(), 9))
        assert row["int8_deflate_bytes"] == len(zlib.compress(uniform.tobytes(), 9))
        assert (row["zstd_bytes"], row["int8_zstd_bytes"]) == (zstd_bytes(layer.weight), zstd_bytes(uniform))
        assert row["activation_levels"] == (len(layer.activation_levels) if with_nuq else 256)
    totals, quantized = document["totals"], [row for row in rows.values() if row["entropy_bits"] is not None]
    for key in ("num_weights", "bytes_before", "bytes_after", "entropy_bytes"):
        assert totals[key] == sum(row[key] for row in rows.values())
    for key in ("deflate_bytes", "int8_deflate_bytes"):
        assert totals[key] == sum(row[key] for row in quantized)
    count = sum(row["num_weights"] for row in quantized)
    for key in ("entropy_bits", "int8_entropy_bits", "bits_per_weight"):
        mean = sum(row[key] * row["num_weights"] for row in quantized) / count
        assert totals[key] == pytest.approx(mean, abs=1e-3)
    assert document["files"]["float_model"] == MODEL_FILE.stat().st_size
    for kind in ("fake_quant_model", "deploy_model"):
        assert document["files"][kind] == flow.saved.files[kind].stat().st_size
    assert document["target"] == "onnxruntime"


def test_quant_json_is_fusion_info(quantize: Callable[..., Any]) -> None:
    flow = quantize(MODEL_FILE, [IMAGES], target="ascend", save_type="Deploy")
    document = json.loads(flow.saved.files["quant_json"].read_text())
    assert set(document) == {"name", "graph"}
    operators = document["graph"][0]["op"]
    graph = flow.model("deploy_model").graph
    assert [(operator["name"], operator["type"]) for operator in operators] == [(n.name, n.op_type) for n in graph]
    first = ["conv1.quant", "conv1", "conv1.dequant"]
    assert [operator["name"] for operator in operators[:3]] == first
    new = [{"key": "_datadump_original_op_names", "value": {"list": {"val_type": 1, "s": []}}}]
    assert operators[0] == {"name": "conv1.quant", "type": "AscendQuant", "attr": new}
    assert operators[1] | {"name": "conv1.dequant", "type": "AscendDequant"} == operators[2]
    assert operators[1] == {
        "name": "conv1",
        "type": "Conv",
        "attr": [{"key": "_datadump_original_op_names", "value": {"list": {"val_type": 1, "s": ["conv1", "norm1"]}}}],
        "output_desc": [
            {
                "attr": [
                    {"key": "_datadump_origin_format", "value": {"s": "NCHW"}},
                    {"key": "_datadump_data_type", "value": {"s": "DT_FLOAT"}},
                    {"key": "_datadump_origin_output_index", "value": {"i": 0}},
                    {"key": "_datadump_origin_name", "value": {"s": "norm1"}},
                ]
            }
        ],
    }


def test_weights_outside_the_model_file(
    quantize: Callable[..., Any],
    run_network: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with more than 2 GB: the float model comes with a data file, and so do the quantized ones."""
    from amct_lite.graph import load_model

    source = tmp_path / "big.onnx"
    save_ir(load_model(MODEL_FILE).ir, source, external_threshold_bytes=0)
    assert (tmp_path / "big.data").is_file()
    small = quantize(source, [IMAGES])
    monkeypatch.setattr(save, "save_ir", lambda model, path: save_ir(model, path, external_threshold_bytes=0))
    big = quantize(source, [IMAGES])
    for kind in ("fake_quant_model", "deploy_model"):
        assert big.saved.files[kind].with_suffix(".data").is_file()
        expected = run_network(small.saved.files[kind], {"image": IMAGES})["logits"]
        np.testing.assert_array_equal(run_network(big.saved.files[kind], {"image": IMAGES})["logits"], expected)
    sizes = {path.name: path.stat().st_size for path in (source, source.with_suffix(".data"))}
    assert big.saved.summary.files["float_model"] == sum(sizes.values())
    deploy = big.saved.files["deploy_model"]
    total = deploy.stat().st_size + deploy.with_suffix(".data").stat().st_size
    assert big.saved.summary.files["deploy_model"] == total


def test_sizes_of_a_missing_coder_are_null(quantize: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    document = json.loads(quantize(MODEL_FILE, [IMAGES]).saved.files["summary"].read_text())
    assert document["totals"]["zstd_bytes"] is document["layers"][0]["zstd_bytes"] is None
    assert document["totals"]["deflate_bytes"] > 0


@pytest.mark.parametrize("target", ["ascend", "onnxruntime"])
def test_entropy_aware_weights_are_the_same_in_every_form_and_smaller(
    target: str, quantize: Callable[..., Any], nuq: Callable[..., Any]
) -> None:
    def aware(document: dict[str, Any]) -> None:
        nuq()(document)
        for block in document.values():
            if isinstance(block, dict) and "weight_quant_params" in block:
                block["weight_quant_params"]["entropy_weight"] = 6.0

    plain, found = (quantize(MODEL_FILE, [IMAGES], target=target, edit=edit) for edit in (nuq(), aware))

    def stored(kind: str, like: np.ndarray) -> list[list[Any]]:
        """The kind's constants of that type and size, each sorted, because forms differ in layout."""
        constants = [value.const_value.numpy() for value in found.model(kind).graph.initializers.values()]
        fitting = [each for each in constants if each.dtype == like.dtype and each.size == like.size]
        return [np.sort(each, axis=None).tolist() for each in fitting]

    for layer in found.layers.values():
        if layer.weight is None:
            continue
        assert set(np.unique(layer.weight)) == set(layer.weight_levels)
        for kind, values in (("deploy_model", layer.weight), ("fake_quant_model", layer.decode_weight())):
            assert np.sort(values, axis=None).tolist() in stored(kind, values)
    for key in ("entropy_bits", "entropy_bytes"):
        assert found.saved.summary.totals[key] < 0.9 * plain.saved.summary.totals[key]
    coded = found.saved.summary.coded_bytes
    assert coded["deflate_bytes"] < 0.9 * plain.saved.summary.coded_bytes["deflate_bytes"]
    assert coded["int8_deflate_bytes"] == plain.saved.summary.coded_bytes["int8_deflate_bytes"]
