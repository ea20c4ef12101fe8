"""Damaged, forged and mistaken files: an AmctError in under a second, no crash, no large allocation."""

import os
import subprocess
import sys
import time
import tracemalloc
import warnings
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from amct_lite.caffe.network import CaffeNetwork
from amct_lite.caffe.reading import read_network
from amct_lite.errors import AmctError, FileError, ModelError
from amct_lite.files.protos import message_class

MODELS = Path(__file__).parents[3] / "shared" / "models"
LENET = MODELS / "lenet_fashion" / "deploy.prototxt", MODELS / "lenet_fashion" / "lenet_fashion.caffemodel"
DET2 = MODELS / "mtcnn" / "det2.prototxt", MODELS / "mtcnn" / "det2.caffemodel"

SMALL = (
    'input: "data" input_shape { dim: 1 dim: 3 }\n'
    'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }\n'
    'layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" }\n'
)


def varint(number):
    """An unsigned number as protobuf writes it."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def small_weights(**blob):
    weights = message_class("caffe", "caffe.NetParameter")(name="n")
    layer = weights.layer.add(name="ip")
    layer.blobs.add(data=range(6)).shape.dim.extend([2, 3])
    layer.blobs.add(data=range(2)).shape.dim.append(2)
    for name, value in blob.items():
        setattr(layer.blobs[0], name, value)
    return weights


@contextmanager
def within_limits(seconds=1.0, megabytes=64):
    start = time.perf_counter()
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start < seconds
    assert peak < megabytes << 20


def refused(folder, text, weights=None, match=None):
    """Write a pair, and check that reading it is refused in time."""
    prototxt, caffemodel = folder / "bad.prototxt", folder / "bad.caffemodel"
    prototxt.write_bytes(text if isinstance(text, bytes) else text.encode())
    if weights is not None:
        caffemodel.write_bytes(weights if isinstance(weights, bytes) else weights.SerializeToString())
    with within_limits(), pytest.raises(AmctError, match=match) as caught:
        read_network(prototxt, caffemodel if weights is not None else None)
    assert caught.value.remedy
    assert len(str(caught.value)) < 1500
    return caught.value


def real(pair):
    if not pair[0].exists():
        pytest.skip(f"no files at {pair[0].parent}")
    return pair[0].read_bytes(), pair[1].read_bytes()


# ---- the files themselves


@pytest.mark.parametrize("which", [0, 1], ids=["prototxt", "caffemodel"])
@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "nul in the path", "name too long"])
def test_a_file_that_is_none_is_named(tmp_path, which, kind) -> None:
    prototxt, caffemodel = tmp_path / "a.prototxt", tmp_path / "a.caffemodel"
    prototxt.write_text(SMALL)
    caffemodel.write_bytes(small_weights().SerializeToString())
    bad = tmp_path / "bad"
    if kind == "folder":
        bad.mkdir()
    elif kind == "empty":
        bad.touch()
    elif kind == "nul in the path":
        bad = f"{bad}\0"
    elif kind == "name too long":
        bad = tmp_path / ("x" * 5000)
    files = [prototxt, caffemodel]
    files[which] = bad
    with within_limits(), pytest.raises(ModelError if kind == "empty" else FileError, match=r"bad|xxx"):
        read_network(*files)


def test_exchanged_files_are_recognised(tmp_path) -> None:
    with within_limits(), pytest.raises(ModelError, match=r"is a caffemodel \(weights\), not a prototxt.*first"):
        read_network(LENET[1] if LENET[1].exists() else pytest.skip("no model"))
    refused(tmp_path, SMALL, SMALL.encode(), match="is text, probably a prototxt, not a caffemodel")


def test_a_solver_an_hdf5_file_and_another_format_are_recognised(tmp_path) -> None:
    refused(tmp_path, 'net: "train_val.prototxt"\nbase_lr: 0.01\n', match="is a solver, not a network")
    refused(tmp_path, SMALL, b"\x89HDF\r\n\x1a\n" + bytes(100), match="HDF5")
    refused(tmp_path, b"\x89PNG\r\n\x1a\n" + bytes(100), match="another format")
    refused(tmp_path, SMALL, b"PK\x03\x04" + bytes(100), match="no complete caffemodel|no caffemodel")


def test_text_without_layers_and_bytes_that_are_no_text_are_refused(tmp_path) -> None:
    refused(tmp_path, "# nothing but a comment\n", match="has no layers")
    refused(tmp_path, SMALL.encode() + b'name: "caf\xe9"\n', match=r"bad\.prototxt:4: byte 0xe9 is not UTF-8")
    refused(tmp_path, SMALL.encode("utf-16"), match="not a prototxt")


def test_foreign_bytes_in_a_name_are_a_warning_when_not_strict(tmp_path) -> None:
    prototxt = tmp_path / "latin.prototxt"
    prototxt.write_bytes(SMALL.encode() + b'name: "caf\xe9"\n')
    with pytest.warns(UserWarning, match=r"latin\.prototxt:4: byte 0xe9"):
        assert len(read_network(prototxt, strict=False).layers) == 2


# ---- a prototxt that is damaged


def test_a_prototxt_cut_in_half_is_refused_with_its_line(tmp_path) -> None:
    text, weights = real(LENET)
    error = refused(tmp_path, text[: len(text) // 2], weights, match=r"bad\.prototxt:\d+")
    assert "Expected" in str(error) or "no field" in str(error)


@hypothesis.settings(deadline=None)
@hypothesis.given(st.data())
def test_a_prototxt_cut_anywhere_is_a_network_or_refused(tmp_path_factory, data) -> None:
    text, _ = real(DET2)
    prototxt = tmp_path_factory.mktemp("cut") / "cut.prototxt"
    prototxt.write_bytes(text[: data.draw(st.integers(0, len(text)))])
    try:
        assert isinstance(read_network(prototxt, DET2[1]), CaffeNetwork)
    except AmctError as error:
        assert error.remedy


@hypothesis.settings(deadline=None)
@hypothesis.given(
    st.integers(0, 10**6), st.text(st.sampled_from("{}<>[]:;,\"'#\\-layer 0.1\n"), max_size=5), st.booleans()
)
def test_a_prototxt_edited_anywhere_is_a_network_or_refused(tmp_path_factory, place, insert, strict) -> None:
    place %= len(SMALL)
    prototxt = tmp_path_factory.mktemp("edit") / "edit.prototxt"
    prototxt.write_text(SMALL[:place] + insert + SMALL[place:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert isinstance(read_network(prototxt, strict=strict), CaffeNetwork)
        except AmctError as error:
            assert error.remedy


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("opening", ["layer {", "x {", "x <", "layer { a { ", "x: [", "x: [{ y: "])
def test_a_recursion_bomb_in_text_is_refused(tmp_path, opening, strict) -> None:
    prototxt = tmp_path / "bomb.prototxt"
    prototxt.write_text(SMALL + opening * 50_000)
    with warnings.catch_warnings(), within_limits(), pytest.raises(ModelError):
        warnings.simplefilter("ignore")
        read_network(prototxt, strict=strict)


def test_many_unknown_fields_do_not_take_long(tmp_path) -> None:
    text = SMALL + "".join(f"unknown_{number}: 1\n" for number in range(5000))
    refused(tmp_path, text, match="no field 'unknown_0'")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (SMALL.replace("dim: 3", "dim: -3"), "impossible shape"),
        (SMALL.replace("dim: 3", "dim: 0"), "impossible shape"),
        (SMALL.replace("dim: 3", "dim: 2147483647 dim: 2147483647"), "impossible shape"),
        (SMALL.replace("dim: 3", "dim: 99999999999999999999999"), r"bad\.prototxt:1:\d+: "),
        (SMALL.replace("dim: 3", "dim: 1 " * 40), "impossible shape of 42 axes|impossible shape of 41 axes"),
        (SMALL.replace("num_output: 2", "num_output: -2"), r"bad\.prototxt:2:\d+"),
        (SMALL.replace("input_shape { dim: 1 dim: 3 }", ""), "1 inputs and 0 input_dim"),
        (SMALL.replace("input_shape { dim: 1 dim: 3 }", "input_dim: 1"), "1 inputs and 1 input_dim"),
        ('input: "data" ' + SMALL.replace("input_shape", "input_shape { dim: 1 } input_shape"), "'data' twice"),
        (SMALL.split("\n", 1)[1], "no input"),
        (SMALL + 'layer { type: "Input" name: "i" top: "z" }', "1 tops and 0 shapes"),
        (SMALL + 'layer { type: "Input" name: "i" top: "data" input_param { shape { dim: 1 } } }', "several layers"),
        (SMALL.replace('"relu"', '"ip"'), "lines 2 and 3: two layers have this name"),
        (SMALL.replace('type: "ReLU"', ""), "line 3: the layer has no type"),
        (SMALL.replace('name: "relu"', ""), "line 3: a layer of type ReLU has no name"),
        (
            SMALL.replace('bottom: "ip"', 'bottom: "iq"'),
            r"line 3: Unknown bottom blob 'iq' \(layer 'relu', bottom index 0\)",
        ),
        (
            SMALL.replace('bottom: "ip" top: "ip"', 'bottom: "data" top: "ip"'),
            "line 3: its top blob 'ip' is made by sev",
        ),
        (
            SMALL.replace('top: "ip" inner', 'top: "data" inner').replace('bottom: "data"', 'bottom: "no"'),
            "bottom blob",
        ),
        (SMALL + "layers { type: NO_SUCH_TYPE }", "NO_SUCH_TYPE"),
        (SMALL + 'layers { name: "x" type: RELU }', "both `layer` and `layers`"),
        (SMALL.replace('"relu"', '"relu'), r"bad\.prototxt:3"),
        (SMALL + "}" * 10, r"bad\.prototxt:4"),
        (SMALL.replace('type: "ReLU"', 'type: "ReLU" type: "ELU"'), r"bad\.prototxt:3"),
    ],
)
def test_a_network_that_cannot_be_is_refused_with_its_place(tmp_path, text, match) -> None:
    refused(tmp_path, text, match=match)


# ---- a caffemodel that is damaged, forged, or of another network


def test_a_caffemodel_of_another_network_is_refused(tmp_path) -> None:
    text, _ = real(LENET)
    _, other = real(DET2)
    refused(tmp_path, text, other, match=r"'ip1': InnerProduct, line \d+: has no weights; 2 of 4")
    refused(tmp_path, SMALL, other, match="has weights for none of the 1 layers")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_caffemodel_is_refused(tmp_path, part) -> None:
    text, weights = real(LENET)
    refused(tmp_path, text, weights[: int(len(weights) * part)])


@hypothesis.settings(deadline=None)
@hypothesis.given(st.data())
def test_a_caffemodel_with_any_byte_changed_or_cut_is_a_network_or_refused(tmp_path_factory, data) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    (folder / "a.prototxt").write_text(SMALL)
    good = bytearray(small_weights().SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    (folder / "a.caffemodel").write_bytes(good[: data.draw(st.integers(0, len(good)))])
    try:
        assert isinstance(read_network(folder / "a.prototxt", folder / "a.caffemodel"), CaffeNetwork)
    except AmctError as error:
        assert error.remedy


@hypothesis.settings(deadline=None)
@hypothesis.given(st.binary(max_size=300))
def test_garbage_is_refused_as_either_file(tmp_path_factory, garbage) -> None:
    folder = tmp_path_factory.mktemp("garbage")
    (folder / "a.prototxt").write_text(SMALL)
    (folder / "garbage").write_bytes(garbage)
    with pytest.raises(AmctError):
        read_network(folder / "garbage")
    with pytest.raises(AmctError):
        read_network(folder / "a.prototxt", folder / "garbage")


@pytest.mark.parametrize(
    "field", [b"\xa2\x06", b"\x12", b"\x0a", b"\x22"], ids=["layer", "layers", "name", "input_dim"]
)
@pytest.mark.parametrize("length", [2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1])
def test_a_forged_length_is_refused(tmp_path, field, length) -> None:
    refused(tmp_path, SMALL, field + varint(length) + b"\x00\x01\x02", match="no complete caffemodel")


def test_a_forged_length_inside_a_blob_is_refused(tmp_path) -> None:
    blob = b"\x2a" + varint(2**31 - 1) + b"\x00" * 8  # `data`, 2 GB
    body = b"\x0a\x02ip" + b"\x3a" + varint(len(blob)) + blob
    refused(tmp_path, SMALL, b"\xa2\x06" + varint(len(body)) + body, match="no complete caffemodel")


@pytest.mark.parametrize("byte", [b"\x0b", b"\xa3\x06", b"\x3b"], ids=["group 1", "group 100", "group 7"])
def test_a_recursion_bomb_in_binary_is_refused(tmp_path, byte) -> None:
    refused(tmp_path, SMALL, b"\x0a\x01n" + byte * 200_000, match="no complete caffemodel")
    nested = b""
    for _ in range(300):
        nested = b"\xa2\x06" + varint(len(nested)) + nested
    refused(tmp_path, SMALL, nested)


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ([3, 3], r"'ip': blob 0 .* holds 6 values, but its shape \(3, 3\) asks for 9"),
        ([], r"shape \(\) asks for 1"),
        ([-2, -3], r"impossible shape \(-2, -3\)"),
        ([2**31, 2**31, 2**31], "asks for 9903520314283042199192993792"),
        ([2**62, 4], "asks for 18446744073709551616"),
        ([2**63 - 1] * 32, "asks for "),
        ([1] * 33, "impossible shape"),
        ([1] * 100_000, "impossible shape"),
        ([0, 3], "asks for 0"),
    ],
)
def test_a_forged_shape_is_refused_with_both_sizes(tmp_path, shape, match) -> None:
    weights = small_weights()
    weights.layer[0].blobs[0].shape.SetInParent()
    del weights.layer[0].blobs[0].shape.dim[:]
    weights.layer[0].blobs[0].shape.dim.extend(shape)
    refused(tmp_path, SMALL, weights, match=match)


@pytest.mark.parametrize(
    ("axes", "match"),
    [
        ({"num": 1, "channels": 1, "height": 2, "width": 4}, "holds 6 values, but its shape .1, 1, 2, 4. asks for 8"),
        ({"num": -1, "channels": 1, "height": 2, "width": -3}, "impossible shape"),
        ({"num": 2**31 - 1, "channels": 2**31 - 1, "height": 2**31 - 1, "width": 2**31 - 1}, "asks for 212676"),
        ({"width": 6}, "asks for 0"),
    ],
)
def test_forged_legacy_axes_are_refused(tmp_path, axes, match) -> None:
    refused(tmp_path, SMALL, small_weights(**axes), match=match)


def test_a_blob_without_values_is_refused(tmp_path) -> None:
    weights = small_weights()
    weights.layer[0].blobs[0].ClearField("data")
    refused(tmp_path, SMALL, weights, match="holds 0 values")


def test_blobs_that_the_layer_does_not_ask_for_are_refused(tmp_path) -> None:
    weights = small_weights()
    weights.layer[0].blobs[1].data.append(1)
    weights.layer[0].blobs[1].shape.dim[0] = 3
    refused(tmp_path, SMALL, weights, match=r"InnerProduct, line 2: asks for 2 values in blob 1, the caffemodel has 3")


def test_forged_files_do_not_make_the_process_grow(tmp_path) -> None:
    """tracemalloc does not see what protobuf's C code allocates: a child's peak does."""
    prototxt, caffemodel = tmp_path / "a.prototxt", tmp_path / "a.caffemodel"
    prototxt.write_text(SMALL)
    body = b"\x0a\x02ip" + b"\x3a" + varint(2**31 - 1) + b"\x2a" + varint(2**31 - 20)
    caffemodel.write_bytes(b"\xa2\x06" + varint(2**31 - 1) + body)
    script = (
        "import resource, sys; from amct_lite.caffe.reading import read_network\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_network(*sys.argv[1:])\n"
        "except ValueError as error: print(type(error).__name__)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", script, str(prototxt), str(caffemodel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-1000:]
    name, grown = done.stdout.split()
    assert name == "ModelError" and int(grown) < 50_000
