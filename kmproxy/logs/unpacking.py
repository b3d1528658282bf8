"""Unpacks a compressed log file piece by piece, from a point on.

Knows gzip. Must not know lines or requests. Memory is bounded by one piece as it was fetched, and
by the bytes that the caller asks for at a time, however small the packed bytes are.
"""

from __future__ import annotations

import zlib

from kmproxy.logs.positions import Point


class PackedFileError(Exception):
    """The file is not gzip, or is damaged."""


class PackedFile:
    """A compressed log file. Bytes up to a point are compared with its evidence and passed over."""

    def __init__(self, point: Point) -> None:
        self._unpacker = zlib.decompressobj(wbits=31)
        self._pending = b""
        self._point = point
        self._skip = point.offset - point.back
        self._evidence = b""
        self._passed = not point.offset
        self.offset = 0
        """Bytes of the packed file that were fed."""
        self.is_other = False
        """Whether the file does not have the evidence of the point."""

    @property
    def is_whole(self) -> bool:
        """Whether the file was unpacked to its end."""
        return self._unpacker.eof

    @property
    def has_more(self) -> bool:
        """Whether `unpack` may give bytes without a further `feed`."""
        return bool(self._pending) and not self._unpacker.eof

    def feed(self, data: bytes) -> None:
        """Take further bytes of the packed file."""
        self.offset += len(data)
        self._pending += data

    def unpack(self, room: int) -> bytes:
        """Return at most `room` bytes behind the point. It may return none before the end.

        Raises PackedFileError.
        """
        try:
            data = self._unpacker.decompress(self._pending, max(room, 1))
        except zlib.error as error:
            raise PackedFileError(str(error)) from error
        self._pending = self._unpacker.unconsumed_tail
        if self._passed:
            return data
        if self._skip:
            passed = min(self._skip, len(data))
            self._skip -= passed
            data = data[passed:]
        missing = self._point.back - len(self._evidence)
        self._evidence += data[:missing]
        data = data[missing:]
        if len(self._evidence) == self._point.back and not self._skip:
            self._passed = True
            self.is_other = zlib.crc32(self._evidence) != self._point.crc
        elif self._unpacker.eof:
            self.is_other = True  # it is shorter
        return data
