"""The record: AMCT's text, written in its order, read with its checks, exact to the last bit of a float32."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.errors import AmctError, FileError, RecordError
from amct_lite.files.record import LayerRecord, read_record, write_record

SHARED = Path(__file__).resolve().parents[3] / "shared"
AMCT_RECORD = SHARED / "amct-samples" / "tensorflow" / "mobilenet_v2_record.txt"


def entry(value: str = "scale_d: 0.5", key: str = "conv1") -> str:
    return f'record {{ key: "{key}" value {{ {value} }} }}\n'


@pytest.fixture
def read(tmp_path: Path):
    def of(text: str) -> dict[str, LayerRecord]:
        (tmp_path / "record.txt").write_text(text)
        return read_record(tmp_path / "record.txt")

    return of


def test_the_text_has_amcts_spelling_and_order(tmp_path: Path) -> None:
    record = LayerRecord(
        scale_d=0.5,
        offset_d=-14,
        scale_w=(0.25, float(np.float32(0.0045))),
        offset_w=(0, 0),
        cluster=(-128, 0, 127),
        activation_cluster=(-128, 5),
        input_shape=(3, 224, 224),
    )
    write_record({"conv1": record}, tmp_path / "record.txt")
    lines = [line.strip() for line in (tmp_path / "record.txt").read_text().splitlines()]
    assert lines == [
        *("record {", 'key: "conv1"', "value {"),
        *("scale_d: 0.5", "offset_d: -14", "scale_w: 0.25", "scale_w: 0.0045"),
        *("offset_w: 0", "offset_w: 0", "channels: 3", "height: 224", "width: 224"),
        *("cluster: -128", "cluster: 0", "cluster: 127", "activation_cluster: -128", "activation_cluster: 5"),
        *("}", "}"),
    ]


def test_layers_stand_in_the_order_given_and_a_layer_without_weights_has_no_scale_w(tmp_path: Path) -> None:
    write_record({"z": LayerRecord(scale_d=1.0), "a": LayerRecord(scale_d=2.0)}, tmp_path / "record.txt")
    assert list(read_record(tmp_path / "record.txt")) == ["z", "a"]
    assert "scale_w" not in (tmp_path / "record.txt").read_text()


_scale = st.floats(2.0**-51, 2.0**51, width=32)
_levels = st.sets(st.integers(-128, 127), max_size=256).map(lambda levels: tuple(sorted(levels)))


@st.composite
def _records(draw) -> LayerRecord:
    scale_w = tuple(draw(st.lists(_scale, max_size=5)))
    shift = st.sampled_from([(), (0,) * len(scale_w), (1,) * len(scale_w), (16,) * len(scale_w)])
    shapes = st.sampled_from([(), (3,), (2048, 1, 1), (3, 224, 224), (0, 5, 5)])
    cluster = draw(_levels)
    costs = st.tuples(*[st.floats(0, width=32, allow_infinity=False)] * len(cluster))
    return LayerRecord(
        scale_d=draw(st.none() | _scale),
        scale_w=scale_w,
        offset_w=draw(st.sampled_from([(), (0,) * len(scale_w)])),
        shift_bit=draw(shift),
        cluster=cluster,
        cluster_cost=draw(st.just(()) | costs),
        activation_cluster=draw(_levels),
        input_shape=draw(shapes),
        skip_fusion=draw(st.booleans()),
    )


_name = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=15)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(_name, _records(), min_size=1, max_size=3), st.integers(-128, 127))
def test_what_is_written_reads_back_equal_to_the_last_bit(tmp_path_factory, records, offset: int) -> None:
    path = tmp_path_factory.mktemp("record") / "record.txt"
    records = {**records, "last": LayerRecord(scale_d=1.5, offset_d=offset)}
    write_record(records, path)
    first = path.read_bytes()
    assert read_record(path) == records
    write_record(read_record(path), path)
    assert path.read_bytes() == first


def test_every_float32_scale_survives_the_text(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0x26000000, 0x58000000, 2000, dtype=np.uint32)
    scales = tuple(map(float, bits.view(np.float32)))
    write_record({"c": LayerRecord(scale_d=scales[0], scale_w=scales)}, tmp_path / "record.txt")
    found = np.array(read_record(tmp_path / "record.txt")["c"].scale_w, np.float32)
    np.testing.assert_array_equal(found.view(np.uint32), bits)


def _words_but_numbers(path: Path) -> list[str]:
    """AMCT writes nine digits of a float32, we write as many as tell it apart."""
    return [word for word in path.read_text().split() if not word[-1].isdigit()]


@pytest.mark.skipif(not AMCT_RECORD.exists(), reason="AMCT's sample record is not here")
def test_amcts_own_record_is_read_and_keeps_its_numbers(tmp_path: Path) -> None:
    records = read_record(AMCT_RECORD)
    assert len(records) == 54
    depthwise = records["MobilenetV2/expanded_conv_2/depthwise/depthwise"]
    assert (depthwise.scale_d, depthwise.offset_d) == (float(np.float32(0.0235294122)), -128)
    assert depthwise.scale_w[0] == float(np.float32(0.0128474627))
    assert sum(len(record.scale_w) for record in records.values()) == 17057
    write_record(records, tmp_path / "again.txt")
    assert read_record(tmp_path / "again.txt") == records
    assert _words_but_numbers(tmp_path / "again.txt") == _words_but_numbers(AMCT_RECORD)


def test_the_excerpt_of_amcts_caffe_record_is_read(read) -> None:
    text = entry("scale_d: 1.07450986 offset_d: -14 scale_w: 0.25 offset_w: 0 channels: 3 height: 224 width: 224")
    assert read(text)["conv1"].input_shape == (3, 224, 224)
    text = entry('scale_d: 1 skip_fusion: true dst_type: "INT8" act_type: "INT8" fakequant_precision_mode: "DEFAULT"')
    assert read(text)["conv1"].skip_fusion


def test_where_a_key_comes_twice_the_last_one_counts(read) -> None:
    assert read(entry("scale_d: 1") + entry("scale_d: 3", "b") + entry("scale_d: 2"))["conv1"].scale_d == 2.0


@pytest.mark.parametrize("count", [1, 2, 16, 32, 33, 256])
def test_a_cluster_may_have_up_to_256_levels_where_amct_takes_16_or_32(read, count: int) -> None:
    levels = tuple(range(-128, -128 + count))
    text = entry("scale_w: 1 " + " ".join(f"cluster: {level}" for level in levels))
    assert read(text)["conv1"].cluster == levels


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("scale_d: 0", "a scale of 0.0 is not within"),
        ("scale_d: -1", "a scale of -1.0 is not within"),
        ("scale_d: nan", "a scale of nan is not within"),
        ("scale_d: inf", "a scale of inf is not within"),
        ("scale_d: 1e39", "a scale of inf is not within"),
        ("scale_d: 1e-17", "is not within (2.2e-16, 4.5e15)"),
        ("scale_d: 5e15", "is not within (2.2e-16, 4.5e15)"),
        ("scale_d: 1 scale_w: 1 scale_w: 0", "a scale of 0.0 is not within"),
        ("scale_d: 1 offset_d: 128", "offset_d must be in [-128, 127], but is 128."),
        ("scale_d: 1 offset_d: -129", "offset_d must be in [-128, 127], but is -129."),
        ("scale_w: 1 offset_w: 1", "offset_w must be 0, once for each scale_w."),
        ("scale_w: 1 offset_w: 0 offset_w: 0", "offset_w must be 0, once for each scale_w."),
        ("scale_w: 1 scale_w: 1 shift_bit: 1", "shift_bit must be 0 or 1 to 16, once for each scale_w."),
        ("scale_w: 1 shift_bit: 17", "shift_bit must be 0 or 1 to 16, once for each scale_w."),
        ("scale_w: 1 scale_w: 1 shift_bit: 0 shift_bit: 2", "shift_bit must be 0 or 1 to 16"),
        ("cluster: 128", "cluster: Cluster center should between [-128, 127], but is 128."),
        ("cluster: 0 cluster: -129", "cluster: Cluster center should between [-128, 127], but is -129."),
        ("cluster: 2 cluster: 1", "cluster must be ascending and without repetition."),
        ("cluster: 1 cluster_cost: 0 cluster_cost: 0", "cluster_cost must be finite and not negative, once for each"),
        ("cluster_cost: 0", "cluster_cost must be finite and not negative, once for each cluster."),
        ("cluster: 1 cluster_cost: -1", "cluster_cost must be finite and not negative"),
        ("cluster: 1 cluster_cost: nan", "cluster_cost must be finite and not negative"),
        ("cluster: 1 cluster_cost: 1e39", "cluster_cost must be finite and not negative"),
        ("activation_cluster: 1 activation_cluster: 1", "activation_cluster must be ascending"),
        ("scale_d: 1 tensor_balance_factor: 2 tensor_balance_factor: 0", "a scale of 0.0 is not within"),
        ('scale_d: 1 dst_type: "INT4"', "dst_type must be one of INT8, INT16, but is INT4."),
        ('scale_d: 1 act_type: "INT16" offset_d: 40000', "offset_d must be in [-32768, 32767], but is 40000."),
        ('scale_d: 1 act_type: "INT16" activation_cluster: 1', "activation_cluster is for activations of 8 bits."),
        ('scale_w: 1 wts_type: "INT3"', "wts_type must be one of INT4, INT5, INT6, INT7, INT8, FLOAT, but is INT3."),
        ('scale_w: 1 wts_type: "INT4" cluster: 1', "cluster is for weights of 8 bits."),
    ],
)
def test_a_value_out_of_its_range_is_refused_with_file_layer_and_remedy(read, tmp_path, value, message) -> None:
    with pytest.raises(RecordError) as caught:
        read(entry("scale_d: 1", "good") + entry(value))
    assert message in str(caught.value)
    assert str(tmp_path / "record.txt") in str(caught.value)
    assert caught.value.layer == "conv1"
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_an_empty_file_has_no_layers_to_quantize(read, text: str) -> None:
    with pytest.raises(RecordError, match="record_file is empty, no layers to be quantized"):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        'record { key: "a" value { scale_d: 1',
        'record { key: "a" value { scale_d: 1 } ',
        'record { key: "a" value { scale_x: 1 } }',
        'record { key: "a" value { offset_d: 99999999999 } }',
        f'record {{ key: "a" value {{ offset_d: {"9" * 6000} }} }}',
        'record { key: "a" value { channels: -1 } }',
        'record { key: "a" value { skip_fusion: maybe } }',
        'record { key: "\\377" }',
        'record { key: "a\n" }',
        '{"a": 1}',
        "record { [type.googleapis.com/x] { } }",
        "record { " * 5000,
        "record { value { value { " * 5000,
        "\0\1\2",
        "garbage",
    ],
)
def test_what_is_no_record_is_refused_with_file_and_remedy(read, tmp_path: Path, text: str) -> None:
    with pytest.raises(RecordError, match="is not a scale/offset record") as caught:
        read(text)
    assert str(tmp_path / "record.txt") in str(caught.value)
    assert caught.value.remedy


def test_an_entry_without_a_key_is_refused(read) -> None:
    with pytest.raises(RecordError, match="an entry has no key"):
        read("record { value { scale_d: 1 } }")


def test_binary_junk_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(bytes(range(256)) * 10)
    for name, reason in (("junk", "UTF-8"), ("missing", "No such file")):
        with pytest.raises(FileError, match=reason) as caught:
            read_record(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(st.text('record{}key:"value scale_d1.5e- \n[]<>#\\', max_size=80) | st.binary(max_size=60))
def test_no_contents_end_in_an_error_that_is_not_ours(tmp_path_factory, contents: str | bytes) -> None:
    path = tmp_path_factory.mktemp("junk") / "record.txt"
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    try:
        read_record(path)
    except AmctError as error:
        assert str(path) in str(error)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_truncated_record_is_refused_or_holds_only_whole_layers(tmp_path_factory, data) -> None:
    path = tmp_path_factory.mktemp("cut") / "record.txt"
    records = {name: LayerRecord(scale_d=0.5, scale_w=(0.25, 0.5), offset_w=(0, 0)) for name in ("a", "b", "c")}
    write_record(records, path)
    text = path.read_text()
    path.write_text(text[: data.draw(st.integers(0, len(text)))])
    try:
        found = read_record(path)
    except RecordError:
        return
    assert found == {name: records[name] for name in found}


def test_float_weights_are_marked_and_come_back(tmp_path: Path, read) -> None:
    record = LayerRecord(scale_d=0.5, activation_cluster=(-128, 5), float_weights=True)
    write_record({"conv1": record}, tmp_path / "record.txt")
    assert 'wts_type: "FLOAT"' in (tmp_path / "record.txt").read_text()
    assert read_record(tmp_path / "record.txt") == {"conv1": record}
    assert not read(entry('scale_d: 0.5 scale_w: 0.5 wts_type: "INT8"'))["conv1"].float_weights
    with pytest.raises(RecordError, match="wts_type is FLOAT"):
        read(entry('scale_d: 0.5 scale_w: 0.5 wts_type: "FLOAT"'))


@pytest.mark.parametrize(("weight_bits", "activation_bits", "offset"), [(4, 16, -30_000), (7, 8, -128), (8, 16, 5)])
def test_widths_survive_the_file_under_the_names_that_amct_has(tmp_path, weight_bits, activation_bits, offset) -> None:
    record = LayerRecord(
        scale_d=0.5,
        offset_d=offset,
        scale_w=(0.25,),
        offset_w=(0,),
        activation_bits=activation_bits,
        weight_bits=weight_bits,
    )
    write_record({"conv": record}, tmp_path / "record.txt")
    assert read_record(tmp_path / "record.txt") == {"conv": record}
    text = (tmp_path / "record.txt").read_text()
    assert (f'act_type: "INT{activation_bits}"' in text) == (activation_bits != 8)
    assert (f'wts_type: "INT{weight_bits}"' in text) == (weight_bits != 8)


def test_balancing_factors_and_equalization_are_kept(tmp_path):
    records = {"conv": LayerRecord(scale_d=0.5, scale_w=(0.25,), tensor_balance_factor=(0.5, 2.0), equalized=True)}
    write_record(records, tmp_path / "record.txt")
    assert read_record(tmp_path / "record.txt")["conv"].tensor_balance_factor == (0.5, 2.0)
    assert read_record(tmp_path / "record.txt")["conv"].equalized
    amcts = tmp_path / "amct.txt"
    amcts.write_text('record { key: "conv" value { scale_d: 1 tensor_balance_factor: 1.5 } }')
    assert read_record(amcts)["conv"].tensor_balance_factor == (1.5,)
