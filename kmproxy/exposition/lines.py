"""Cuts a stream, in pieces of any size, into whole lines, and estimates the work for them.

Knows newlines and the limit for the length of a line. Must not know what a line says.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

MAX_LINE = 1 << 20
"""Bytes of the longest line that is read, without its newline."""

_LINE_WORK = 64  # about this many bytes of long lines take as much time as a line by itself
_WORK = 1 << 18  # work of one portion at most, in bytes of long lines


GROWN = 1 << 18
"""Bytes of a portion after labels are added to its lines, at most, approximately."""


def portions(data: bytes, growth: int = 0) -> Iterator[bytes]:
    """Cuts a piece into portions that take some milliseconds each, whatever they hold.

    If each line grows by at most `growth` bytes, a portion grows to at most about
    `GROWN` bytes. Mostly the piece is one portion.
    """
    most = (_WORK - len(data)) // _LINE_WORK
    if growth:
        most = min(most, (GROWN - len(data)) // growth)
    if most >= 0 and not _over(data, most):
        yield data
        return
    lines = data.count(b"\n")
    size = len(data) * _WORK // max(len(data) + _LINE_WORK * lines, _WORK)
    if growth:
        size = min(size, len(data) * GROWN // max(len(data) + growth * lines, GROWN))
    size = max(size, 1)
    for start in range(0, len(data), size):
        yield data[start : start + size]


def _over(data: bytes, most: int) -> bool:
    """Whether a piece has more than `most` newlines. `bytes.count` takes ten times as long."""
    return b"\n" in data.replace(b"\n", b" ", most)


class LineFilter(ABC):
    """Takes an exposition in pieces of any size and works on its lines.

    Between calls it holds at most one unfinished line: at most `max_line` bytes and
    one piece. The bytes of a longer line are passed on as they come. Each byte is
    read a bounded number of times, however small the pieces are.
    """

    __slots__ = ("_max_line", "_overlong", "_tail")

    def __init__(self, max_line: int) -> None:
        self._max_line = max_line
        self._tail = bytearray()  # the beginning of a line, without a newline
        self._overlong = False  # inside a line that is passed on unread

    def feed(self, data: bytes) -> bytes:
        """Takes the next piece. Returns the bytes that can be passed on already.

        If the work on a line raises an error, nothing was taken of the piece.
        """
        passed = b""
        if self._overlong:
            start = data.find(b"\n") + 1
            if not start:
                return data
            passed, data = data[:start], data[start:]
        if end := data.rfind(b"\n") + 1:
            passed += self._lines_of(b"".join((self._tail, memoryview(data)[:end])))
            self._tail = bytearray(memoryview(data)[end:])
        else:
            self._tail += data
        self._overlong = False
        if len(self._tail) > self._max_line:
            passed += self._line(bytes(self._tail))
            self._tail = bytearray()
            self._overlong = True
        return passed

    def finish(self) -> bytes:
        """Ends the input. Returns the rest, which may be a line without a newline.

        If the work on the line raises an error, the input did not end.
        """
        passed = self._line(bytes(self._tail)) if self._tail else b""
        self._tail = bytearray()
        self._overlong = False
        return passed

    def _lines_of(self, block: bytes) -> bytes:
        """Works on whole lines of any length, each ending in a newline."""
        limit = self._max_line
        if len(block) <= limit:
            return self._block(block)
        lines = block.split(b"\n")
        long = [at for at, line in enumerate(lines) if len(line) > limit]
        if not long:
            return self._block(block)
        passed, start = [], 0
        for at in long:
            if start < at:
                passed.append(self._block(b"\n".join([*lines[start:at], b""])))
            passed += (self._line(lines[at]), b"\n")
            start = at + 1
        if start < len(lines) - 1:
            passed.append(self._block(b"\n".join(lines[start:])))
        return b"".join(passed)

    @abstractmethod
    def _block(self, block: bytes) -> bytes:
        """Works on one or more whole lines of at most `max_line` bytes, each with its newline."""

    @abstractmethod
    def _line(self, line: bytes) -> bytes:
        """Works on one line without its newline, or on the beginning of a line that is too long."""


class WholeLines(LineFilter):
    """Collects whole lines, and leaves out those over `max_line` bytes.

    `feed` and `finish` return no lines: `take` does.
    """

    __slots__ = ("_blocks", "_too_long", "ended")

    def __init__(self, max_line: int) -> None:
        super().__init__(max_line)
        self._blocks: list[bytes] = []
        self._too_long = 0
        self.ended = True
        """Whether a newline follows the last line."""

    def take(self) -> tuple[list[bytes], int]:
        """Returns blocks of whole lines, and how many were left out, since the last call.

        Each line has its newline. The last line gets one if it has none.
        """
        taken = self._blocks, self._too_long
        self._blocks, self._too_long = [], 0
        return taken

    def _block(self, block: bytes) -> bytes:
        self._blocks.append(block)
        return b""

    def _line(self, line: bytes) -> bytes:
        if len(line) > self._max_line:
            self._too_long += 1
        else:
            self._blocks.append(line + b"\n")
            self.ended = False
        return b""
