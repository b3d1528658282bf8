"""The requests of a log reader and their answers.

Knows Range and Content-Range. Must not know sockets or lines.
"""

from __future__ import annotations

import re
from zlib import crc32

import msgspec

from kmproxy.logs.positions import Point

_RANGE = re.compile(r"bytes (?:(\d{1,18})-\d{1,18}|\*)/(\d{1,18})")


class Request(msgspec.Struct, frozen=True):
    """A GET. `first` and `last` are the bytes of its Range; without, it is for a folder's index."""

    path: str
    first: int | None = None
    last: int | None = None


class Response(msgspec.Struct, frozen=True):
    """The answer to a request: its status, its body and the numbers of its Content-Range.

    Only 200, 206, 404 and 416 are answers. After all others the caller calls `LogReader.retry`.
    """

    status: int
    body: bytes = b""
    first: int = 0
    """The offset of the body."""
    size: int | None = None
    """Bytes of the whole file, if the answer tells."""

    @classmethod
    def of(cls, status: int, content_range: str, body: bytes) -> Response:
        """Return a response by its header field, which may be empty."""
        if found := _RANGE.fullmatch(content_range):
            return cls(status, body, int(found[1] or 0), int(found[2]))
        return cls(status, body, 0, len(body) if status == 200 else None)

    def behind(self, point: Point) -> bytes | None:
        """Return the bytes from the point's evidence on. None if the file is another one."""
        start = point.offset - point.back
        if self.status == 416:  # the file ends at or before the start
            return b"" if not point.offset and not self.size else None
        if self.status not in {200, 206} or self.first > start:
            return None
        data = self.body[start - self.first :]
        if len(data) < point.back or crc32(data[: point.back]) != point.crc:
            return None
        return data
