"""The journal: what was appended is there again, what a crash tore is dropped, and other searches are refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amct_lite.errors import FileError, SearchError
from amct_lite.files.journal import Journal, read_journal

KEYS = {"model": "abc", "config": "def", "version": "1"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def trials(count: int) -> list[dict[str, object]]:
    return [{"trial": n, "metric": 0.1 * n, "name": "größe\r\n"} for n in range(count)]


def filled(path: Path, count: int = 3) -> Journal:
    journal = Journal(path, KEYS)
    for trial in trials(count):
        journal.append(trial)
    return journal


def test_what_was_appended_is_there_when_opened_again(path: Path) -> None:
    assert filled(path).entries == trials(3)
    again = Journal(path, KEYS)
    assert again.entries == trials(3)
    again.append({"trial": 3})
    assert Journal(path, KEYS).entries == [*trials(3), {"trial": 3}]


def test_opening_a_whole_journal_does_not_change_it(path: Path) -> None:
    filled(path)
    before = path.read_bytes()
    Journal(path, KEYS)
    assert path.read_bytes() == before
    assert len(before.splitlines()) == 4


def test_numbers_that_are_not_finite_survive(path: Path) -> None:
    Journal(path, KEYS).append({"metric": float("-inf")})
    assert Journal(path, KEYS).entries == [{"metric": float("-inf")}]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_crash_at_any_byte_loses_at_most_the_line_being_written(tmp_path_factory, data) -> None:
    path = tmp_path_factory.mktemp("torn") / "journal.jsonl"
    filled(path)
    whole = path.read_bytes()
    size = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:size])
    expected = trials(3)[: max(whole[:size].count(b"\n") - 1, 0)]
    journal = Journal(path, KEYS)
    assert journal.entries == expected
    journal.append({"next": 1})
    assert Journal(path, KEYS).entries == [*expected, {"next": 1}]
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_another_search_is_refused_and_each_difference_named(path: Path) -> None:
    filled(path)
    with pytest.raises(SearchError, match=r"another search: model, version differ\.") as caught:
        Journal(path, {**KEYS, "model": "x", "version": "2"})
    assert str(path) in str(caught.value)
    assert "save_dir" in str(caught.value.remedy)
    with pytest.raises(SearchError, match=r"another search: data differs\."):
        Journal(path, {**KEYS, "data": "new"})
    with pytest.raises(SearchError, match=r"another search: version differs\."):
        Journal(path, {name: KEYS[name] for name in ("model", "config")})


def test_another_searchs_file_is_not_changed_by_the_refusal(path: Path) -> None:
    filled(path)
    path.write_bytes(path.read_bytes() + b'{"torn')
    before = path.read_bytes()
    with pytest.raises(SearchError):
        Journal(path, {})
    assert path.read_bytes() == before


@pytest.mark.parametrize("line", [b'{"trial":1', b"garbage", b"\xff\xfe", b"3", b"[]", b"", b"[" * 100_000])
def test_a_damaged_line_in_the_middle_is_named(path: Path, line: bytes) -> None:
    filled(path)
    lines = path.read_bytes().splitlines()
    lines[2] = line
    path.write_bytes(b"\n".join(lines) + b"\n")
    before = path.read_bytes()
    with pytest.raises(SearchError, match="damaged at line 3") as caught:
        Journal(path, KEYS)
    assert "Delete it" in str(caught.value.remedy)
    assert path.read_bytes() == before


@pytest.mark.parametrize("head", [b"{}", b'{"trial":1}', b'{"keys":3}'])
def test_a_file_that_does_not_start_with_keys_is_damaged(path: Path, head: bytes) -> None:
    path.write_bytes(head + b"\n")
    with pytest.raises(SearchError, match="damaged at line 1"):
        Journal(path, KEYS)


def test_a_folder_that_is_missing_or_none_is_refused_with_path_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "missing" / "j", tmp_path / "file" / "j", tmp_path):
        with pytest.raises(FileError) as caught:
            Journal(path, KEYS)
        assert str(path) in str(caught.value)
        assert caught.value.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match="Permission denied"):
        Journal(tmp_path / "j", KEYS)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit on a file's size")
def test_a_write_that_stops_halfway_is_told_and_the_trial_does_not_count(path: Path) -> None:
    import resource

    journal = filled(path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, limits[1]))
    try:
        with pytest.raises(FileError, match="File too large") as caught:
            journal.append({"trial": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "goes on where it stopped" in str(caught.value.remedy)
    assert journal.entries == trials(1)
    assert not path.read_bytes().endswith(b"\n"), "the line is torn"
    assert Journal(path, KEYS).entries == trials(1)


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", f"from pathlib import Path\nfrom amct_lite.files.journal import Journal\n{code}"]
        + [str(argument) for argument in arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_append_at_once_lose_nothing_and_see_each_other(path: Path) -> None:
    code = (
        "import sys\n"
        f"journal = Journal(Path(sys.argv[1]), {KEYS!r})\n"
        "for number in range(100): journal.append({'by': sys.argv[2], 'number': number, 'long': 'x' * 5000})\n"
    )
    journal = Journal(path, KEYS)
    writers = [run_python(code, path, name) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    journal.refresh()
    assert len(journal.entries) == 200
    for name in "ab":
        assert [entry["number"] for entry in journal.entries if entry["by"] == name] == list(range(100))


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_a_claim_holds_against_other_processes_and_ends_with_a_kill(path: Path) -> None:
    code = (
        "import sys\n"
        f"journal = Journal(Path(sys.argv[1]), {KEYS!r})\n"
        "print(journal.claim('t'), flush=True); sys.stdin.read()\n"
    )
    journal = Journal(path, KEYS)
    other = run_python(code, path)
    assert other.stdout is not None
    assert other.stdout.readline() == "True\n"
    assert not journal.claim("t")
    assert journal.claim("u")
    other.kill()
    other.wait()
    assert journal.claim("t")


def test_a_journal_is_read_without_being_changed(path: Path) -> None:
    filled(path)
    with path.open("ab") as file:
        file.write(b'{"torn')
    before = path.read_bytes()
    assert read_journal(path) == (KEYS, trials(3))
    assert path.read_bytes() == before
