"""The ways in which a kubelet's response can fail on the wire.

Knows status, headers, framing and compression of each fault. Must not know when a fault happens.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from kmproxy.simulator.metric_formats import PLAIN, PROTOBUF, PROTOBUF_BODY, TEXT
from kmproxy.simulator.wire import pack


class Fault(enum.Enum):
    """The ways in which a response can fail. `Failure` has the values that each of them needs."""

    STATUS = "`status` with `body`"
    HANG_BEFORE_HEADERS = "accepts the request and sends nothing"
    HANG_IN_BODY = "sends nothing more after `after` bytes of a chunked body"
    SLOW = "a whole body, at `rate` bytes a second"
    CUT_CHUNKED = "closes after `after` bytes of a chunked body, without the last chunk"
    CUT_CONTENT_LENGTH = "closes after `after` bytes of a body whose length was announced"
    CUT_GZIP = "a gzip stream without its end, in complete framing"
    GARBAGE_GZIP = "announces gzip, but the body is not gzip"
    GZIP_TRAILING_GARBAGE = "a complete gzip stream, followed by other bytes"
    NO_FRAMING = "neither Content-Length nor chunks: `after` bytes (all), then closes"
    HTML = "200 with a page"
    PROTOBUF = "200 with protobuf, whatever was asked for"
    NO_CONTENT_TYPE = "200 without a Content-Type"
    EMPTY = "200 with no body"
    REDIRECT = "302 to `location`"
    DISCONNECT = "closes before the headers"
    CLOSE_AFTER = "a good answer on a connection that seems to stay open, and is closed at once"
    BOMB = "gzip of `size` bytes of the same line"
    BODY = "200 with `body` as `content_type`"


@dataclass(frozen=True, slots=True)
class Failure:
    """A fault, the only path that it affects (None for all paths), and the values that it needs.

    `after` counts bytes of the body as sent, so after compression. None means half of the body.
    """

    fault: Fault
    path: str | None = None
    status: int = 500
    body: bytes = b"simulated failure\n"
    content_type: str = TEXT
    location: str = "/"
    rate: int = 4096
    after: int | None = None
    size: int = 256 * 1024 * 1024


_Framed = tuple[int, str, bytes, dict[str, str]]
_GZIP = {"Content_Encoding": "gzip"}

FRAMED: dict[Fault, Callable[[Failure, bytes], _Framed]] = {
    Fault.STATUS: lambda how, _: (how.status, how.content_type, how.body, {}),
    Fault.BODY: lambda how, _: (200, how.content_type, how.body, {}),
    Fault.HTML: lambda *_: (200, "text/html; charset=utf-8", b"<html><h1>Log in</h1></html>", {}),
    Fault.PROTOBUF: lambda *_: (200, PROTOBUF, PROTOBUF_BODY, {}),
    Fault.EMPTY: lambda *_: (200, PLAIN, b"", {}),
    Fault.REDIRECT: lambda how, _: (302, TEXT, b"", {"Location": how.location}),
    Fault.CUT_GZIP: lambda _, body: (200, PLAIN, pack(body)[: len(pack(body)) // 2], _GZIP),
    Fault.GARBAGE_GZIP: lambda *_: (200, PLAIN, b"\x1f\x8b\x08\x00garbage" * 100, _GZIP),
    Fault.GZIP_TRAILING_GARBAGE: lambda _, body: (200, PLAIN, pack(body) + b"garbage", _GZIP),
}
"""Faults in a response with complete framing: its status, Content-Type, body and more headers.

Each function gets the failure and the body without the fault.
"""


def chunk(data: bytes) -> bytes:
    """Return one chunk of a body in chunked framing."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def bomb(size: int) -> AsyncIterator[bytes]:
    """Yield a gzip stream of at least `size` bytes: the same line again and again."""
    line = b"zero_bytes 0\n"
    block = line * (1024 * 1024 // len(line))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    yield b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    checksum = length = 0
    while length < size:
        checksum, length = zlib.crc32(block, checksum), length + len(block)
        yield packed
    yield b"\x03\x00" + checksum.to_bytes(4, "little") + (length % 2**32).to_bytes(4, "little")
