import os
import stat
from pathlib import Path

import pytest

from amct_lite.errors import FileError
from amct_lite.files.atomic import replacing, write_bytes_atomically, write_text_atomically


def test_contents_and_missing_folders_are_written(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "a" / "b" / "c.txt", "größe\n")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "größe\n".encode()
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["c.txt"]


def test_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    write_bytes_atomically(path, b"old")
    with pytest.raises(KeyError), replacing(path) as temporary:
        temporary.write_bytes(b"new")
        raise KeyError("mine")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_os_error_becomes_file_error_with_path_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    with pytest.raises(FileError, match="No space") as caught, replacing(path):
        raise OSError(28, "No space left on device")
    assert str(path) in str(caught.value) and caught.value.remedy
    assert isinstance(caught.value.__cause__, OSError)
    assert not list(tmp_path.iterdir())


def test_folder_as_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="folder"):
        write_bytes_atomically(tmp_path, b"")


def test_file_as_parent_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError):
        write_bytes_atomically(tmp_path / "file" / "x", b"")


def test_new_file_has_the_permissions_of_any_other_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_bytes_atomically(tmp_path / "atomic", b"")
    assert (tmp_path / "plain").stat().st_mode == (tmp_path / "atomic").stat().st_mode


def test_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"")
    path.chmod(0o640)
    write_bytes_atomically(path, b"1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links here")
def test_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"0")
    (tmp_path / "link").symlink_to("real")
    write_bytes_atomically(tmp_path / "link", b"1")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"1"
