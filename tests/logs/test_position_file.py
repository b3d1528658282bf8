"""The positions on disk, with real files."""

import asyncio
import logging
import stat

import pytest

from kmproxy.errors import PositionsError
from kmproxy.logs import position_file
from kmproxy.logs.position_file import PositionFile
from kmproxy.logs.positions import FilePosition, Point, PositionBook
from tests.support.loki import until

KEY = ("uid-1", "web")
HERE = FilePosition(0, Point("", 64, 64, 7))


class Kept:
    """A file and its book."""

    def __init__(self, path):
        self.path = path
        self.book = PositionBook()
        self.file = PositionFile(str(path), self.book, clock=lambda: 1000.0)


@pytest.fixture
def kept(tmp_path):
    """A file that does not exist yet."""
    return Kept(tmp_path / "positions.json")


async def test_written_and_read(kept):
    """By its own user only, and read again by the next process."""
    kept.file.load()
    kept.book.set(KEY, HERE, 1000.0)
    assert await kept.file.flush()
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600
    again = Kept(kept.path)
    again.file.load()
    assert again.book.get(KEY) == HERE


async def test_unchanged_positions_are_not_written(kept):
    """A flush without news costs no write."""
    kept.book.set(KEY, HERE, 1000.0)
    assert await kept.file.flush()
    kept.path.unlink()
    assert await kept.file.flush()
    assert not kept.path.exists()


async def test_those_who_wait_share_a_write(kept):
    """Each finds its position on disk when its flush has returned."""
    writes = []
    kept.file._collect = lambda: writes.append(kept.book.set(KEY, HERE, 1000.0))

    async def move(number):
        kept.book.set((f"uid-{number}", "web"), HERE, 1000.0)
        assert await kept.file.flush()
        assert f'"uid-{number}"' in kept.path.read_text()

    await asyncio.gather(*map(move, range(20)))
    assert len(writes) in {1, 2}


async def test_changed_positions_are_written_by_themselves(kept, monkeypatch):
    """Nobody has to wait for them."""
    monkeypatch.setattr(position_file, "INTERVAL", 0.01)
    running = asyncio.create_task(kept.file.run())
    kept.book.set(KEY, HERE, 1000.0)
    await until(kept.path.exists)
    running.cancel()
    await asyncio.wait({running})
    assert "uid-1" in kept.path.read_text()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes().replace(b"uid-1", b"uid-2")), "checksum"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "checksum"),
        (lambda path: path.write_bytes(b""), "not a positions file"),
        (lambda path: path.write_bytes(b"x" * (5 << 20)), "the file is over 4194304 bytes"),
        (lambda path: path.chmod(0o660), "others can write the file"),
        (
            lambda path: (path.unlink(), path.mkdir()),
            "not a regular file",
        ),
        (lambda path: path.symlink_to(path.rename(path.with_suffix(".b"))), "symbolic link"),
    ],
)
async def test_a_file_that_is_refused(kept, change, reason):
    """The line names the file, the reason and the way out; the failure is counted."""
    kept.book.set(KEY, HERE, 1000.0)
    await kept.file.flush()
    change(kept.path)
    again = Kept(kept.path)
    with pytest.raises(PositionsError, match=reason) as caught:
        again.file.load()
    assert str(kept.path) in str(caught.value)
    assert "remove it to begin anew" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert again.file.failures == {"read": 1}


async def test_the_proof_that_positions_can_be_written(tmp_path, caplog):
    """The file is there. If it cannot be, the error has the reason, and the log says nothing."""
    await Kept(tmp_path / "positions.json").file.prove()
    assert (tmp_path / "positions.json").exists()
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(PositionsError, match="cannot be written: No such file or directory"),
    ):
        await Kept(tmp_path / "gone" / "positions.json").file.prove()
    assert not caplog.records


async def test_a_folder_that_cannot_be_written(tmp_path, caplog):
    """One line and a count of failures; the positions are written when the folder is there."""
    kept = Kept(tmp_path / "gone" / "positions.json")
    kept.book.set(KEY, HERE, 1000.0)
    with caplog.at_level(logging.WARNING):
        assert not await kept.file.flush()
        assert not await kept.file.flush()
    assert len(caplog.records) == 1
    assert "cannot be written: No such file or directory" in caplog.text
    assert kept.file.failures == {"write": 2}
    kept.path.parent.mkdir()
    assert await kept.file.flush()
    assert "uid-1" in kept.path.read_text()
