"""Calibrated weights in files: the same come back, the same bytes each time, and nothing else is taken for one."""

import base64
import json

import numpy as np
import pytest

from amct_lite.codebook.codebook import Codebook
from amct_lite.codebook.level_type import LevelType
from amct_lite.codebook.packing import unpack_codes
from amct_lite.codebook.scale_format import scale_format
from amct_lite.errors import FileError, RecordError
from amct_lite.files.npz import json_array, json_of, npz_arrays
from amct_lite.files.weights_file import CalibratedWeight, codebooks_json, read_weights, write_weights


def books():
    rng = np.random.default_rng(0)
    found = {}
    for level_type in LevelType:
        for vector_size in (1, 4):
            tables = rng.integers(-100, 100, (2, 7, vector_size)).astype(np.float32)
            codes = rng.integers(0, 7, (-(-5 // vector_size), 11)).astype(np.uint8)
            random = rng.random(5 if vector_size == 1 else 1)
            scales = scale_format(level_type, 3, random).rounded(random).astype(np.float32)
            bias = rng.random(5).astype(np.float32) if vector_size == 1 else None
            found[f"{level_type}/{vector_size}"] = CalibratedWeight(
                Codebook(tables, codes, scales, 5, len(codes) - 1, level_type), bias=bias
            )
    found["fitted"] = CalibratedWeight(weight=rng.random((5, 3, 1, 1)).astype(np.float32))
    return found


def test_weights_come_back_and_bytes_repeat(tmp_path):
    written = books()
    write_weights(tmp_path / "a.npz", written, {"model": "1"})
    write_weights(tmp_path / "b.npz", books(), {"model": "1"})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    read = read_weights(tmp_path / "a.npz", {"model": "1"})
    assert list(read) == list(written)
    for name, layer in written.items():
        found = read[name]
        for part in ("weight", "bias"):
            given, back = getattr(layer, part), getattr(found, part)
            assert (given is None and back is None) or np.array_equal(back, given)
        if layer.codebook is None:
            assert found.codebook is None
            continue
        assert found.codebook.level_type is layer.codebook.level_type
        for attribute in ("tables", "codes", "scales"):
            assert np.array_equal(getattr(found.codebook, attribute), getattr(layer.codebook, attribute))
        assert np.array_equal(found.codebook.decode(), layer.codebook.decode())


def test_what_belongs_to_something_else_is_refused_by_name(tmp_path):
    write_weights(tmp_path / "a.npz", books(), {"model": "1", "config": "2"})
    with pytest.raises(RecordError, match="another config"):
        read_weights(tmp_path / "a.npz", {"model": "1", "config": "3"})
    with pytest.raises(RecordError, match="another data"):
        read_weights(tmp_path / "a.npz", {"data": "1"})


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    write_weights(path, books(), {})
    whole = path.read_bytes()
    for damaged in (b"", b"no archive", whole[: len(whole) // 2], whole[:200] + b"\0" * 50 + whole[250:]):
        path.write_bytes(damaged)
        with pytest.raises(FileError, match="cannot be read"):
            read_weights(path, {})
    with pytest.raises(FileError, match="cannot be read"):
        read_weights(tmp_path / "none.npz", {})


def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    write_weights(path, books(), {})
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    for change in ({"0.scales": np.ones(4, np.float32)}, {"0.codes": arrays["0.codes"][:, 1:]}):
        np.savez(path, **(arrays | change))
        with pytest.raises(FileError):
            read_weights(path, {})
    del arrays["0.bias"]
    np.savez(path, **arrays)
    with pytest.raises(FileError, match="missing"):
        read_weights(path, {})


def test_older_files_are_read_but_for_vectors_of_another_form(tmp_path):
    for kept, readable in (("/1", True), ("/4", False)):
        path = tmp_path / "old.npz"
        write_weights(path, {name: layer for name, layer in books().items() if name.endswith(kept)}, {})
        arrays = npz_arrays(path)
        head = json_of(arrays["head"])
        np.savez(path, **(arrays | {"head": json_array(head | {"format": 3})}))
        if readable:
            assert len(read_weights(path, {})) == len(LevelType)
            continue
        with pytest.raises(FileError, match="older form"):
            read_weights(path, {})


def test_json_has_all_that_decoding_takes():
    kept = [layer.codebook for layer in books().values() if layer.codebook is not None]
    for layer, book in zip(json.loads(codebooks_json(books()))["layers"], kept, strict=True):
        groups = np.frombuffer(base64.b64decode(layer["codes"]), np.uint8).reshape(3, -1)
        codes = unpack_codes(groups, layer["code_bits"], book.codes.size)
        assert np.array_equal(codes, book.codes.reshape(-1))
        assert np.array_equal(np.array(layer["levels"], np.float32), book.tables.reshape(-1))
        assert np.array_equal(np.array(layer["scales"], np.float32), book.scales)
