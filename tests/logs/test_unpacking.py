"""Unpacking a compressed log file: at any cut, from a point on, in little memory."""

import gzip
import random
import tracemalloc
import zlib

import pytest

from kmproxy.logs.positions import Point
from kmproxy.logs.unpacking import PackedFile, PackedFileError

TEXT = b"".join(b"line %d %d\n" % (number, number * 7919) for number in range(3000))
BACK = 500


def unpacked(data, point, piece, room):
    """All bytes behind a point."""
    packed, found = PackedFile(point), b""
    while not packed.is_whole:
        if packed.has_more:
            pass
        elif packed.offset < len(data):
            packed.feed(data[packed.offset : packed.offset + piece])
        got = packed.unpack(room)
        assert len(got) <= room
        found += got
        if not got and packed.offset == len(data) and not packed.has_more:
            break
    return packed, found


@pytest.mark.parametrize("offset", [0, 500, 501, 20_000, len(TEXT)])
@pytest.mark.parametrize(
    ("piece", "room"), [(1, 10**6), (7, 100), (4096, 1), (10**6, 300), (10**6, 10**6)]
)
def test_from_a_point_on(offset, piece, room):
    """Exactly what stands behind it, however it is cut."""
    back = BACK if offset else 0
    point = Point("", offset, back, zlib.crc32(TEXT[offset - back : offset]))
    packed, found = unpacked(gzip.compress(TEXT), point, piece, room)
    assert found == TEXT[offset:]
    assert packed.is_whole
    assert not packed.is_other


@pytest.mark.parametrize("point", [Point("", 900, BACK, 1), Point("", len(TEXT) + 9, BACK, 1)])
def test_another_file(point):
    """Other bytes before the point, or fewer: nothing may be taken of it."""
    packed, _ = unpacked(gzip.compress(TEXT), point, 10**6, 10**6)
    assert packed.is_other


def test_a_damaged_file():
    """An error, and not the bytes that seem to be in it; what is missing is not whole."""
    packed = PackedFile(Point())
    packed.feed(b"not gzip")
    with pytest.raises(PackedFileError):
        packed.unpack(100)
    packed, found = unpacked(gzip.compress(TEXT)[:-20], Point(), 100, 10**6)
    assert TEXT.startswith(found)
    assert not packed.is_whole


def test_a_bomb():
    """A file of a gigabyte of zeros in a megabyte takes the memory of a piece and of the room."""
    bomb = gzip.compress(bytes(64 << 20), 9)
    rng = random.Random(1)
    tracemalloc.start()
    packed = PackedFile(Point())
    taken = 0
    while not packed.is_whole:
        if not packed.has_more:
            packed.feed(bomb[packed.offset : packed.offset + 16384])
        taken += len(packed.unpack(rng.randrange(1, 65536)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken == 64 << 20
    assert peak < 512 << 10
