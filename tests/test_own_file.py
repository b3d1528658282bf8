"""kmproxy's own files: which are trusted, and how they are written."""

from __future__ import annotations

import os
import stat

import pytest

from kmproxy.errors import OwnFileError
from kmproxy.own_file import aside, clear_leftovers, read_own, replace_own


def test_written_and_read(tmp_path):
    """Only its owner may use the file, and it is complete."""
    path = tmp_path / "f"
    for data in (b"one", b""):
        replace_own(path, [data])
        assert read_own(path, 3) == data
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o777])
def test_a_file_that_others_can_write(tmp_path, mode):
    """It is refused with its mode."""
    path = tmp_path / "f"
    path.write_bytes(b"x")
    path.chmod(mode)
    with pytest.raises(OwnFileError, match=f"{mode:04o}"):
        read_own(path, 10)
    path.chmod(0o644)
    assert read_own(path, 10) == b"x"


def test_a_file_of_another_user(tmp_path, monkeypatch):
    """It is refused for every mode."""
    path = tmp_path / "f"
    replace_own(path, [b"x"])
    if os.geteuid() == 0:
        os.chown(path, 65532, 65532)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(OwnFileError, match="belongs to another user"):
        read_own(path, 10)


def test_what_is_no_regular_file(tmp_path):
    """A link is not followed, a FIFO is not waited for, a folder is refused."""
    replace_own(tmp_path / "good", [b"x"])
    (tmp_path / "link").symlink_to(tmp_path / "good")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name, says in (("link", "symbolic"), ("lost", "symbolic"), ("fifo", "not a regular"),
                       ("folder", "not a regular")):  # fmt: skip
        with pytest.raises(OwnFileError, match=says):
            read_own(tmp_path / name, 10)
    with pytest.raises(FileNotFoundError):
        read_own(tmp_path / "nowhere", 10)
    replace_own(tmp_path / "link", [b"y"])
    assert read_own(tmp_path / "link", 10) == b"y"
    assert read_own(tmp_path / "good", 10) == b"x"


def test_a_file_that_is_too_long(tmp_path):
    """At most the bound is read."""
    replace_own(tmp_path / "f", [b"x" * 11])
    with pytest.raises(OwnFileError, match="over 10 bytes"):
        read_own(tmp_path / "f", 10)
    assert len(read_own(tmp_path / "f", 11)) == 11


def test_a_write_that_fails(tmp_path):
    """The old file stays, and no other file is left."""
    (tmp_path / "f").mkdir()
    with pytest.raises(OSError):
        replace_own(tmp_path / "f", [b"x"])
    assert [each.name for each in tmp_path.iterdir()] == ["f"]


def test_leftovers(tmp_path):
    """Old files of killed writers are removed. Young and foreign ones stay."""
    for name in ("f.new-old", "f.new-young", "g.new-old", "f"):
        (tmp_path / name).write_bytes(b"")
    os.utime(tmp_path / "f.new-old", (100, 100))
    os.utime(tmp_path / "g.new-old", (100, 100))
    clear_leftovers(tmp_path / "f", 1000.0)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["f", "f.new-young", "g.new-old"]


async def test_aside():
    """The result or error of a thread is passed on."""
    assert await aside(lambda: 7, "x") == 7
    with pytest.raises(ZeroDivisionError):
        await aside(lambda: 1 // 0, "x")
