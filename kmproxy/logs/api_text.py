"""Reads the text of the API server's pods/log with `timestamps=true`: `TIME TEXT`.

Knows the format of a line. Must not know requests, instances or positions.

Invariants:
- Any cut of the bytes gives the same lines, as long as `OpenLines` has room.
- Memory is bounded by the bytes fed at once and one line of `max_line` bytes. Readers that share
  `OpenLines` hold less, if there are many.
"""

from __future__ import annotations

import re
from zlib import crc32

import msgspec

from kmproxy.logs.cri import seconds_of
from kmproxy.logs.open_lines import OpenLines
from kmproxy.logs.positions import END_OF_TIME

_HEADER = 64
"""Bytes that are more than any time has, by the pattern below."""

_TIME = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ", re.DOTALL
)


class TimedLine(msgspec.Struct, frozen=True, gc=False):
    """A line. Without a time it is the rest of a line, or a message of the kubelet."""

    time: int | None
    """Nanoseconds since 1970."""
    text: bytes
    """Without the newline, at most `max_line` bytes."""
    crc: int
    """The CRC-32 of the whole line with its time, also of what was cut."""
    is_cut: bool


class TextReader:
    """Makes lines of the bytes of one response."""

    def __init__(self, max_line: int, opened: OpenLines | None = None) -> None:
        self._max_line = max_line
        self._opened = opened or OpenLines(max_line)
        self._allowed = self._held = 0  # bytes of the open line
        self._rest = bytearray()
        self._crc = 0
        self._size = 0

    def feed(self, data: bytes) -> list[TimedLine]:
        """Read further bytes, and return the lines that end in them."""
        self._allowed = self._opened.allowed
        first, *others = data.split(b"\n")
        self._extend(first)
        if not others:
            self._account()
            return []
        lines = [self._take()]
        last = others.pop()
        lines += [self._made(each, crc32(each), is_cut=False) for each in others]
        self._extend(last)
        self._account()
        return lines

    def close(self) -> None:
        """Say that the response has ended, and forget an open line."""
        self._rest.clear()
        self._account()

    def _account(self) -> None:
        self._opened.change(self._held, len(self._rest))
        self._held = len(self._rest)

    def finish(self) -> TimedLine | None:
        """Return the last line if it has no newline."""
        return self._take() if self._size else None

    def _extend(self, piece: bytes) -> None:
        if not piece:
            return
        self._crc = crc32(piece, self._crc)
        self._size += len(piece)
        longest = min(self._max_line, self._allowed) + _HEADER
        self._rest += piece[: max(0, longest - len(self._rest))]

    def _take(self) -> TimedLine:
        raw, crc, is_cut = bytes(self._rest), self._crc, self._size > len(self._rest)
        self._rest.clear()
        self._crc = self._size = 0
        return self._made(raw, crc, is_cut=is_cut)

    def _made(self, raw: bytes, crc: int, *, is_cut: bool) -> TimedLine:
        found = _TIME.match(raw)
        seconds = seconds_of(found[1], found[3]) if found else None
        if found is None or seconds is None or not 0 <= seconds < END_OF_TIME:
            return TimedLine(None, raw[: self._max_line], crc, is_cut)
        time = seconds * 1_000_000_000 + int((found[2] or b"0").ljust(9, b"0"))
        text = raw[found.end() :]
        return TimedLine(time, text[: self._max_line], crc, is_cut or len(text) > self._max_line)


class Window:
    """Counts the lines of the last seconds, so that a request for whole seconds can leave them out.

    The window begins one second before that of the newest line, so a line that is up to a second
    older than the line before it is in the window of both. It never begins before `floor`, the
    second from which on lines were asked for.
    """

    __slots__ = ("_all", "_floor", "_last", "_top", "behind", "since")

    def __init__(self, floor: int) -> None:
        self._floor = floor
        self._top: int | None = None  # the second of the newest line
        self.since = floor
        self._all = (0, 0)  # lines from `since` on, and their checksum
        self._last = (0, 0)  # those of the newest second
        self.behind = False

    @property
    def lines(self) -> int:
        """The number of lines from `since` on."""
        return self._all[0]

    @property
    def crc(self) -> int:
        """Their checksum, in their order."""
        return self._all[1]

    def add(self, line: TimedLine) -> None:
        """Count a line, which has a time."""
        second = (line.time or 0) // 1_000_000_000
        if self._top is None or second > self._top:
            since = max(second - 1, self._floor)
            self._all = self._last if since == self._top else (0, 0)
            self._last = (0, 0)
            self._top, self.since, self.behind = second, since, False
        if second >= self._top:
            self._last = add_line(self._last, line.crc)
        if second >= self.since:
            self._all = add_line(self._all, line.crc)
        else:
            self.behind = True


def add_line(lines: tuple[int, int], crc: int) -> tuple[int, int]:
    """Return the number and the checksum of lines with one line more."""
    return lines[0] + 1, crc32(crc.to_bytes(4), lines[1])
