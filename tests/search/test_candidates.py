"""Candidates: the deploy model's own numbers, written once a layer, run from the first layer that changed."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import amct_lite as amct
from amct_lite.errors import FileError, ModelError
from amct_lite.export.save import save_quantized
from amct_lite.files.record import LayerRecord
from amct_lite.quantize.planned_graph import PlannedGraph
from amct_lite.reuse import offers, segment_runner
from amct_lite.reuse.segment_runner import SegmentRunner
from amct_lite.reuse.segmented_session import SegmentedSession
from amct_lite.samples.digits.data import MODEL_FILE, load_split
from amct_lite.search.candidates import CandidateWriter

IMAGES = load_split().calibration.images
FEED = {"image": IMAGES[:32]}

Quantize = Callable[..., Any]


def run_plainly(path: Path, feed: dict[str, np.ndarray] = FEED) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    result: np.ndarray = onnxruntime.InferenceSession(str(path), options).run(None, feed)[0]
    return result


@pytest.fixture
def graph(quantize: Quantize) -> PlannedGraph:
    flow = quantize(MODEL_FILE, [IMAGES[:50], IMAGES[50:100]], batch_num=2)
    planned: PlannedGraph = flow.graph
    return planned


@pytest.fixture
def records(graph: PlannedGraph) -> dict[str, LayerRecord]:
    return graph.read_records()


def with_levels(records: dict[str, LayerRecord], name: str, levels: tuple[int, ...]) -> dict[str, LayerRecord]:
    import dataclasses

    return {**records, name: dataclasses.replace(records[name], cluster=levels)}


LEVELS = (-100, -60, -30, -10, 0, 10, 30, 60, 100)
WEIGHTED = ("conv1", "conv2", "conv3", "fc1", "fc2")


def write(writer: CandidateWriter, records: dict[str, LayerRecord], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return writer.write(writer.layers(records), folder).model


@pytest.mark.parametrize("target", ["onnxruntime", "ascend"])
@pytest.mark.parametrize("weights", ["int8", "nuq", "codebook", "int8 codebook"])
def test_a_candidate_gives_what_the_saved_model_gives(
    tmp_path: Path, quantize: Quantize, weights: str, target: str
) -> None:
    params: dict[str, dict[str, Any]] = {
        "nuq": {"wts_algo": "nuq_quantize", "num_steps": 16},
        "codebook": {"wts_algo": "codebook_quantize", "num_bits": 4},
        "int8 codebook": {"wts_algo": "codebook_quantize", "num_bits": 4, "level_type": "int8"},
    }
    if target == "ascend" and "codebook" in weights:
        pytest.skip("no codebooks on this target")

    def edit(document: dict[str, Any]) -> None:
        if weights in params:
            for name in ("conv2", "fc1") if target == "onnxruntime" else ("fc1",):
                document[name]["weight_quant_params"] = params[weights]
        document["conv3"]["quant_enable"] = False
        if target == "onnxruntime":
            document["fc2"]["activation_quant_params"]["nuq"] = {"target_compression_ratio": 0.25}

    flow = quantize(MODEL_FILE, [IMAGES[:50], IMAGES[50:100]], batch_num=2, target=target, edit=edit)
    records = flow.graph.read_records()
    kind = "deploy" if target == "onnxruntime" else "fake_quant"
    expected = run_plainly(flow.saved.files[f"{kind}_model"])
    with CandidateWriter(flow.graph) as writer:
        path = write(writer, records, tmp_path / "candidate")
        assert path.name == f"candidate_{kind}_model.onnx"
        np.testing.assert_array_equal(run_plainly(path), expected)
        np.testing.assert_array_equal(amct.InferenceSession(path).run(None, FEED)[0], expected)


@pytest.mark.parametrize("changed", WEIGHTED)
def test_behind_a_changed_layer_everything_is_run_again_and_before_it_nothing(
    tmp_path: Path, graph: PlannedGraph, records: dict[str, LayerRecord], changed: str
) -> None:
    with CandidateWriter(graph) as writer:
        runner = writer.runner
        assert runner is not None
        first = amct.InferenceSession(write(writer, records, tmp_path / "first"))
        first.run(None, FEED)
        count = runner.sessions_made
        assert runner.segments_run == count > 2
        # The layers are chained: a segment a layer with weights, in their order.
        place = WEIGHTED.index(changed)
        path = write(writer, with_levels(records, changed, LEVELS), tmp_path / "second")
        found = amct.InferenceSession(path).run(None, FEED)[0]
        assert runner.sessions_made == count + 1, "the segment of the changed layer alone is made again"
        assert runner.segments_run - count == count - place
        np.testing.assert_array_equal(found, run_plainly(path))
        # Other inputs have nothing in common with those before.
        other = {"image": IMAGES[32:64]}
        before = runner.segments_run
        np.testing.assert_array_equal(amct.InferenceSession(path).run(None, other)[0], run_plainly(path, other))
        assert runner.segments_run - before == count
        assert runner.sessions_made == count + 1


def test_a_candidate_that_is_run_again_is_not_run_and_its_outputs_are_the_callers_own(
    tmp_path: Path, graph: PlannedGraph, records: dict[str, LayerRecord]
) -> None:
    with CandidateWriter(graph) as writer:
        session = amct.InferenceSession(write(writer, records, tmp_path / "one"))
        first = session.run(None, FEED)[0]
        expected = first.copy()
        first[:] = 0
        assert writer.runner is not None
        before = writer.runner.segments_run
        np.testing.assert_array_equal(session.run(None, FEED)[0], expected)
        assert writer.runner.segments_run == before


def test_each_layer_is_quantized_once_for_each_of_its_records(
    tmp_path: Path, graph: PlannedGraph, records: dict[str, LayerRecord]
) -> None:
    writer = CandidateWriter(graph)
    other = with_levels(records, "conv2", LEVELS)
    first = {layer.layer.name: layer for layer in writer.layers(records)}
    second = {layer.layer.name: layer for layer in writer.layers(other)}
    again = {layer.layer.name: layer for layer in writer.layers(records)}
    assert {name for name in first if first[name] is not second[name]} == {"conv2"}
    assert all(first[name] is again[name] for name in first)


def test_kept_layers_are_bounded(graph: PlannedGraph, records: dict[str, LayerRecord]) -> None:
    writer = CandidateWriter(graph, max_layer_bytes=1000)
    one, two = writer.layers(records), writer.layers(records)
    assert any(a is not b for a, b in zip(one, two, strict=True))


def test_what_a_session_is_asked_for_beyond_outputs_is_answered_as_onnxruntime_does(
    tmp_path: Path, graph: PlannedGraph, records: dict[str, LayerRecord]
) -> None:
    with CandidateWriter(graph) as writer:
        path = write(writer, records, tmp_path / "one")
        session, plain = amct.InferenceSession(path), onnxruntime.InferenceSession(str(path))
        assert isinstance(session._session, SegmentedSession)
        for ports in ("get_inputs", "get_outputs"):
            ours, theirs = getattr(session, ports)(), getattr(plain, ports)()
            assert [(p.name, p.type, p.shape) for p in ours] == [(p.name, p.type, p.shape) for p in theirs]
        assert session.get_providers() == plain.get_providers()
        assert session.get_modelmeta().graph_name == plain.get_modelmeta().graph_name
        for names, feed in ((["no such output"], FEED), (None, {"no such input": IMAGES[:2]}), (None, {})):
            with pytest.raises(Exception) as expected:
                plain.run(names, feed)
            with pytest.raises(type(expected.value)):
                session.run(names, feed)
        listed = session.run(None, {"image": IMAGES[:2].tolist()})
        np.testing.assert_array_equal(listed[0], plain.run(None, {"image": IMAGES[:2]})[0])
        options = onnxruntime.RunOptions()
        np.testing.assert_array_equal(session.run(None, FEED, options)[0], plain.run(None, FEED)[0])


@pytest.mark.parametrize("how", ["options", "providers", "keyword"])
def test_what_the_user_sets_for_a_session_is_for_a_plain_one(
    tmp_path: Path, graph: PlannedGraph, records: dict[str, LayerRecord], how: str
) -> None:
    with CandidateWriter(graph) as writer:
        path = write(writer, records, tmp_path / "one")
        session = {
            "options": lambda: amct.InferenceSession(path, onnxruntime.SessionOptions()),
            "providers": lambda: amct.InferenceSession(path, providers=["CPUExecutionProvider"]),
            "keyword": lambda: amct.InferenceSession(path, disabled_optimizers=[]),
        }[how]()
        assert not isinstance(session._session, SegmentedSession)


def test_outside_a_search_and_for_copies_and_changed_files_a_session_is_a_plain_one(
    tmp_path: Path, graph: PlannedGraph, records: dict[str, LayerRecord]
) -> None:
    with CandidateWriter(graph) as writer:
        path = write(writer, records, tmp_path / "one")
        other = write(writer, with_levels(records, "conv1", LEVELS), tmp_path / "two")
        copied = shutil.copy(path, tmp_path / "copied.onnx")
        assert not isinstance(amct.InferenceSession(copied)._session, SegmentedSession)
        expected = run_plainly(other)
        path.write_bytes(other.read_bytes())
        session = amct.InferenceSession(path)
        assert not isinstance(session._session, SegmentedSession)
        np.testing.assert_array_equal(session.run(None, FEED)[0], expected)
        kept = amct.InferenceSession(other)
        assert isinstance(kept._session, SegmentedSession)
        runner = writer.runner
    assert runner is not None and runner.size_bytes == 0
    assert not offers._offers
    assert not isinstance(amct.InferenceSession(other)._session, SegmentedSession)
    np.testing.assert_array_equal(kept.run(None, FEED)[0], expected)


def test_candidates_whose_files_are_gone_are_forgotten(
    tmp_path: Path, graph: PlannedGraph, records: dict[str, LayerRecord]
) -> None:
    with CandidateWriter(graph) as writer:
        path = write(writer, records, tmp_path / "one")
        path.unlink()
        write(writer, records, tmp_path / "two")
        assert len(offers._offers) == 1
        with pytest.raises(ModelError, match="There is no model"):
            amct.InferenceSession(path)


@pytest.mark.parametrize("bound", [0, 40_000, 2_000_000])
def test_memory_stays_within_its_bounds_whatever_they_are(
    tmp_path: Path, graph: PlannedGraph, records: dict[str, LayerRecord], bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amct_lite.search.candidates.SegmentRunner", lambda: limited)
    limited = SegmentRunner(max_session_bytes=bound, max_output_bytes=bound)
    with CandidateWriter(graph) as writer:
        for number, name in enumerate([*WEIGHTED, *WEIGHTED]):
            path = write(writer, with_levels(records, name, LEVELS[number % 3 :]), tmp_path / str(number))
            session = amct.InferenceSession(path)
            for start in range(0, 64, 16):
                feed = {"image": IMAGES[start : start + 16]}
                np.testing.assert_array_equal(session.run(None, feed)[0], run_plainly(path, feed))
                assert limited._sessions.size_bytes <= bound
                assert limited._outputs.size_bytes <= bound


def test_outputs_are_no_longer_kept_where_that_does_not_pay(
    tmp_path: Path, graph: PlannedGraph, records: dict[str, LayerRecord]
) -> None:
    with CandidateWriter(graph) as writer:
        runner = writer.runner
        assert runner is not None
        # The first layer changes each time, so there is nothing to find.
        for number in range(segment_runner._TRIED_ROUNDS + 2):
            path = write(writer, with_levels(records, "conv1", (*LEVELS, 101 + number)), tmp_path / str(number))
            found = amct.InferenceSession(path).run(None, FEED)[0]
            np.testing.assert_array_equal(found, run_plainly(path))
        assert not runner.keeps_outputs
        assert runner._outputs.size_bytes == 0


def test_threads_may_run_candidates_at_a_time(
    tmp_path: Path, graph: PlannedGraph, records: dict[str, LayerRecord]
) -> None:
    with CandidateWriter(graph) as writer:
        paths = [
            write(writer, with_levels(records, name, LEVELS), tmp_path / name) for name in WEIGHTED for _ in range(1)
        ]
        found: dict[Path, np.ndarray] = {}

        def evaluate(path: Path) -> None:
            for _ in range(3):
                found[path] = amct.InferenceSession(path).run(None, FEED)[0]

        threads = [threading.Thread(target=evaluate, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for path in paths:
            np.testing.assert_array_equal(found[path], run_plainly(path))


def test_a_disk_that_is_full_is_told(graph: PlannedGraph, records: dict[str, LayerRecord], tmp_path: Path) -> None:
    writer = CandidateWriter(graph)
    with pytest.raises(FileError, match="Cannot write the candidate"):
        writer.write(writer.layers(records), tmp_path / "not there")


def test_a_model_too_big_for_one_file_has_its_weights_beside_it(
    tmp_path: Path, graph: PlannedGraph, records: dict[str, LayerRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amct_lite.search.candidates.DEFAULT_EXTERNAL_THRESHOLD_BYTES", 1000)
    monkeypatch.setattr("amct_lite.graph.saving.save_ir.__kwdefaults__", {"external_threshold_bytes": 1000})
    with CandidateWriter(graph) as writer:
        layers = writer.layers(records)
        (tmp_path / "candidate").mkdir()
        files = writer.write(layers, tmp_path / "candidate")
        assert len(files.external) == 1
        assert not isinstance(amct.InferenceSession(files.model)._session, SegmentedSession)
    saved = save_quantized(graph, records, "Deploy", tmp_path / "saved", "net").files["deploy_model"]
    np.testing.assert_array_equal(run_plainly(files.model), run_plainly(saved))
