"""Reads the lines of a CRI log file, `TIME STREAM TAG TEXT`, and joins the parts of a line.

Knows the format of the file and the offsets in it. Must not know names of files, rotations,
requests or containers.

Invariants:
- Any cut of the bytes that are fed gives the same entries, as long as `OpenLines` has room.
- Memory is bounded: the bytes fed at once, one line of the file up to `max_line` and a header, and
  for each of the two streams one open line of at most `max_line` bytes. Readers that share
  `OpenLines` hold less, if there are many.
- The time is linear in the bytes fed, if these are not fewer at a time than a line has.
- What is not a CRI line is never given out as one.
"""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zlib import crc32

import msgspec

from kmproxy.logs.open_lines import OpenLines
from kmproxy.logs.positions import MAX_BACK, Open, Point

_HEADER = 128
"""Bytes that are more than any header has, by the pattern below."""

_TAIL = 1024
_LINE = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) (stdout|stderr) "
    rb"([PF])(?::[^ \n]{0,16})? ([^\n]*+)\n"
)
_DOCKER = b'{"log":'
_STREAMS = {b"stdout": "stdout", b"stderr": "stderr"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_CLOSED = Open()


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A joined line, or a line that is not CRI: then `stream` is empty."""

    stream: str
    time: int
    """Nanoseconds since 1970, of the first part."""
    text: bytes
    fault: str
    """`cut` if the line was longer, `unfinished` if its last part never came, else empty."""
    end: int
    """The offset behind the line's last part, in its file. `back` and `crc` are the evidence."""
    back: int
    crc: int
    open: Open
    """The open lines behind this one."""


@lru_cache(256)
def seconds_of(text: bytes, zone: bytes) -> int | None:
    """Return seconds since 1970, or None for a day or an hour that does not exist."""
    try:
        return (datetime.fromisoformat((text + zone).decode()) - _EPOCH) // _SECOND
    except ValueError:
        return None


class _Parts:
    """An open line: its parts so far."""

    __slots__ = ("begin", "text", "time")

    def __init__(self, begin: Point, time: int) -> None:
        self.begin = begin
        self.time = time
        self.text = bytearray()


class CriReader:
    """Makes entries of the bytes of one instance's files, file after file."""

    def __init__(self, max_line: int, opened: OpenLines | None = None) -> None:
        self._max_line = max_line
        self._opened = opened or OpenLines(max_line)
        self._allowed = 0  # bytes of each: an open line of either stream, and a line of the file
        self._held = 0  # bytes of open lines, as `_opened` knows them
        self._parts: dict[str, _Parts] = {}
        self._skipping: set[str] = set()
        self._open = _CLOSED
        self._after = ""
        self._line = Point()  # where the line begins that is read now; behind the last whole line
        self._rest = b""  # of that line
        self._tail: bytes | None = None  # the newest bytes, if the line is too long to be kept
        self._offset = 0
        self.is_docker = False
        """Whether a line looked like one of docker's JSON lines, which are not supported."""

    @property
    def after(self) -> str:
        """The rotated file before the one that is read."""
        return self._after

    @property
    def offset(self) -> int:
        """The offset behind the bytes that were fed."""
        return self._offset

    @property
    def point(self) -> Point:
        """The point behind the bytes that were fed. Its evidence contains a time, if any can."""
        line, rest = self._line, self._rest if self._tail is None else self._tail
        if self._tail is None and line.back + len(rest) <= MAX_BACK:
            return Point(self._after, self._offset, line.back + len(rest), crc32(rest, line.crc))
        rest = rest[-MAX_BACK:]
        return Point(self._after, self._offset, len(rest), crc32(rest))

    @property
    def place(self) -> Point:
        """The point behind the last whole line of the file."""
        return self._line

    @property
    def open(self) -> Open:
        """The open lines at `place`."""
        return self._open

    def begin(self, point: Point) -> None:
        """Say that the next bytes stand at a point, which must be behind a whole line.

        Open lines stay open: a line may have parts in two files.
        """
        self._after, self._offset, self._line = point.after, point.offset, point
        self._rest, self._tail = b"", None
        self._account()

    def restore(self, skipping: tuple[str, ...]) -> None:
        """Say which streams leave out the rest of a line, at a point that was saved."""
        self._skipping = set(skipping)
        for stream in skipping:
            self._parts.pop(stream, None)
        self._set_open()
        self._account()

    def feed(self, data: bytes, *, is_again: bool = False) -> list[Entry]:
        """Read further bytes of the file, and return the lines that end in them.

        If they were read before a restart, `is_again`, no line is cut because of other readers: the
        lines that are open at the end must be those of the saved position.
        """
        entries: list[Entry] = []
        self._allowed = sys.maxsize if is_again else self._opened.allowed // 3
        if self._tail is not None:
            data = self._feed_long(self._tail, data, entries)
        base = self._offset - len(self._rest)
        self._offset += len(data)
        if self._rest:
            data = self._rest + data
        stop = data.rfind(b"\n") + 1
        if stop:
            self._read(data, base, stop, entries)
        self._rest = data[stop:]
        longest = min(self._max_line, self._allowed) + _HEADER
        if len(self._rest) > longest and self._tail is None:
            self._tail = self._rest[-_TAIL:]
            self._rest = self._rest[:longest]
        self._account()
        return entries

    def _account(self) -> None:
        """Tell how many bytes of open lines are held."""
        now = len(self._rest) + sum(len(each.text) for each in self._parts.values())
        if now != self._held:
            self._opened.change(self._held, now)
            self._held = now

    def end_file(self) -> list[Entry]:
        """Say that the file has ended. A last line without newline is taken as it is.

        Such a line counts as unfinished: its writer was stopped while it wrote.
        """
        if not self._rest:
            return []
        entries: list[Entry] = []
        point, is_cut = self.point, self._tail is not None
        self._one(self._rest + b"\n", 0, point.offset, point.crc, point.back, entries,
                  torn=True, is_cut=is_cut)  # fmt: skip
        self._rest, self._tail = b"", None
        self._account()
        return entries

    def end(self) -> list[Entry]:
        """Say that no further part comes, and return the open lines as unfinished ones.

        It stands at the end of an instance, and before a gap. Call `end_file` before it.
        """
        entries: list[Entry] = []
        at = self._line
        for stream, part in sorted(self._parts.items(), key=lambda item: item[1].begin.order):
            self.restore((stream,))  # a reader that begins here again leaves this line out
            opened = self._open if self._parts else _CLOSED
            entries.append(
                Entry(stream, part.time, bytes(part.text), "unfinished", at.offset, at.back, at.crc,
                      opened)
            )  # fmt: skip
        self.restore(())
        return entries

    def _feed_long(self, tail: bytes, data: bytes, entries: list[Entry]) -> bytes:
        """Pass over the rest of a line that is too long, and return the bytes behind it."""
        end = data.find(b"\n") + 1
        tail = (tail + (data[:end] if end else data))[-_TAIL:]
        if not end:
            self._offset += len(data)
            self._tail = tail
            return b""
        self._offset += end
        line, self._rest, self._tail = self._rest + b"\n", b"", None
        self._one(line, 0, self._offset, crc32(tail), len(tail), entries, is_cut=True)
        return data[end:]

    def _read(self, data: bytes, base: int, stop: int, entries: list[Entry]) -> None:
        """Read the whole lines that stand before `stop`."""
        match, view, add = _LINE.match, memoryview(data), entries.append
        at, longest = 0, self._max_line
        back, crc = self._line.back, self._line.crc
        while at < stop:
            seconds = None
            if (found := match(data, at)) is None:  # it has no time: the evidence grows
                end = data.index(b"\n", at) + 1
                if back + end - at <= MAX_BACK:
                    back_here, crc_here = back + end - at, crc32(view[at:end], crc)
                else:
                    back_here = min(end, MAX_BACK)
                    crc_here = crc32(view[end - back_here : end])
            else:
                end = found.end()
                back_here = min(end - at, MAX_BACK)
                crc_here = crc32(view[end - back_here : end])
            if found and not self._parts and not self._skipping:
                text, fraction, zone, stream, tag, rest = found.groups()
                if tag == b"F" and len(rest) <= longest:
                    seconds = seconds_of(text, zone)
            if seconds is None:
                if at:
                    self._line = Point(self._after, base + at, back, crc)
                self._one(data, at, base + end, crc_here, back_here, entries)
            else:
                time = seconds * 1_000_000_000
                if fraction:
                    time += int(fraction if len(fraction) == 9 else fraction.ljust(9, b"0"))
                add(Entry(_STREAMS[stream], time, rest, "", base + end, back_here, crc_here,
                          _CLOSED))  # fmt: skip
            at, back, crc = end, back_here, crc_here
        self._line = Point(self._after, base + at, back, crc)

    def _one(
        self, data: bytes, at: int, end: int, crc: int, back: int, entries: list[Entry],
        *, torn: bool = False, is_cut: bool = False,
    ) -> None:  # fmt: skip
        """Read the line at `at`, whose offset behind it is `end`, by the rules for parts."""
        begin, self._line = self._line, Point(self._after, end, back, crc)
        found = _LINE.match(data, at)
        seconds = seconds_of(found[1], found[3]) if found else None
        if found is None or seconds is None:
            self.is_docker |= data.startswith(_DOCKER, at)
            entries.append(Entry("", 0, b"", "", end, back, crc, self._open))
            return
        time = seconds * 1_000_000_000 + int((found[2] or b"0").ljust(9, b"0"))
        stream, is_last, text = _STREAMS[found[4]], found[5] == b"F", found[6]
        if stream in self._skipping:
            if is_last:
                self._skipping.discard(stream)
                self._set_open()
            return
        part = self._parts.get(stream) or _Parts(begin, time)
        fault = "unfinished" if torn and is_last else ""
        size = len(part.text) + len(text)
        if is_cut or size > self._max_line or (not is_last and size > self._allowed):
            fault = "cut"
            if not is_last:
                self._skipping.add(stream)
        elif not is_last:
            part.text += text
            if stream not in self._parts:
                self._parts[stream] = part
                self._set_open()
            return
        if stream in self._parts or self._skipping:
            self._parts.pop(stream, None)
            self._set_open()
        whole = bytes(part.text) + text if part.text else text
        entries.append(
            Entry(stream, part.time, whole[: self._max_line], fault, end, back, crc, self._open)
        )

    def _set_open(self) -> None:
        points = [each.begin for each in self._parts.values()]
        start = min(points, key=lambda point: point.order, default=None)
        self._open = (
            Open(start, tuple(sorted(self._skipping))) if start or self._skipping else _CLOSED
        )
