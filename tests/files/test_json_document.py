"""Files that are no JSON object: what is wrong is said with its place, and no input breaks the reader."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.errors import AmctError, ConfigError, FileError
from amct_lite.files.json_document import dump_json, json_path, read_json_object


def refusal(path: Path, contents: bytes) -> str:
    path.write_bytes(contents)
    with pytest.raises(ConfigError) as caught:
        read_json_object(path, "config file")
    assert str(path) in str(caught.value)
    assert caught.value.remedy
    return str(caught.value)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "not valid JSON: line 1, column 1: Expecting value."),
        (b"  \n", "not valid JSON: line 2, column 1"),
        (b'{"a":1,\n  "b":}', "not valid JSON: line 2, column 7: Expecting value."),
        (b'{"a":1', "not valid JSON: line 1, column 7"),
        (b'{"a":1} x', "not valid JSON: line 1, column 9: Extra data."),
        (b"// comment\n{}", "not valid JSON: line 1, column 1"),
        (b"[]", "must hold a JSON object."),
        (b"3", "must hold a JSON object."),
        (b"null", "must hold a JSON object."),
        (b'{"a":NaN}', "holds NaN. JSON has finite numbers only."),
        (b'{"a":[-Infinity]}', "holds -Infinity."),
        (b'{"a":' + b"9" * 5000 + b"}", "not valid JSON: Exceeds the limit"),
    ],
)
def test_what_is_no_json_object_is_refused_with_its_place(tmp_path: Path, contents: bytes, message: str) -> None:
    assert message in refusal(tmp_path / "x.json", contents)


@pytest.mark.parametrize("depth", [600, 3_000, 30_000, 300_000])
@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]")])
def test_a_nesting_bomb_ends_in_a_value_or_an_error_of_ours(tmp_path: Path, depth, opening, closing) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a":' + opening * depth + "1" + closing * depth + "}")
    try:
        assert read_json_object(path, "config file")
    except ConfigError as error:
        assert "nested too deeply" in str(error)


def test_an_unclosed_bomb_ends_in_an_error_of_ours(tmp_path: Path) -> None:
    assert "config file" in refusal(tmp_path / "x.json", b'{"a":' * 200_000)


def test_every_duplicate_key_is_named_with_its_path(tmp_path: Path) -> None:
    text = b'{"v":1,"v":2,"c":{"q":[{"x":1,"y":2,"x":3}]},"a b":{"k":1,"k":1}}'
    message = refusal(tmp_path / "x.json", text)
    for place in ("$.v", "$.c.q[0].x", "$['a b'].k"):
        assert place in message
    assert "$.c.q[0].y" not in message
    assert "Please delete repeated items" in message


def test_many_keys_with_one_duplicate_are_read_in_linear_time(tmp_path: Path) -> None:
    keys = ",".join(f'"{n}":0' for n in range(100_000))
    assert "$['7']" in refusal(tmp_path / "x.json", f'{{{keys},"7":0}}'.encode())


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes('{"größe":1}'.encode("latin-1"))
    with pytest.raises(FileError, match="not UTF-8 text") as caught:
        read_json_object(tmp_path / "x.json", "config file")
    assert str(tmp_path / "x.json") in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused_with_path_and_remedy(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.json", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(FileError, match=reason) as caught:
            read_json_object(path, "config file")
        assert str(path) in str(caught.value)
        assert caught.value.remedy


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80) | st.text('{}[]",:01eE.-+ntfaN\\u \n', max_size=60).map(str.encode))
def test_no_contents_end_in_an_error_that_is_not_ours(tmp_path_factory, contents: bytes) -> None:
    path = tmp_path_factory.mktemp("junk") / "x.json"
    path.write_bytes(contents)
    try:
        read_json_object(path, "config file")
    except AmctError as error:
        assert str(path) in str(error)


def test_names_that_are_no_identifiers_stand_in_brackets() -> None:
    assert json_path([]) == "$"
    assert json_path(["größe", 3, "a.b", "it's"]) == "$.größe[3]['a.b'][\"it's\"]"


def test_text_is_written_as_it_is_and_no_number_that_json_lacks() -> None:
    assert dump_json({"größe": [1]}) == '{\n    "größe":[\n        1\n    ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_json({"x": float("nan")})
