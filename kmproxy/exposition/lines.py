"""How a stream falls into lines, whatever pieces it comes in, and how much work they are.

Knows newlines and the limit of a line. Must not know what a line says.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

MAX_LINE = 1 << 20
"""Bytes of the longest line that is looked into, its newline not counted."""

_LINE_WORK = 64  # bytes of long lines that take as much time as a line by itself, about
_WORK = 1 << 18  # bytes of long lines that are worked on at once


GROWN = 1 << 18
"""Bytes that a portion becomes at most, about, when labels are added to its lines."""


def work(data: bytes) -> int:
    """How much there is to do for a piece, in bytes of long lines: tiny lines are more."""
    return len(data) + _LINE_WORK * data.count(b"\n")


def portions(data: bytes, growth: int = 0) -> Iterator[bytes]:
    """A piece in pieces that take some milliseconds each, whatever they hold.

    Where each line grows by `growth` bytes at most, a piece becomes about
    `GROWN` bytes at most.
    """
    size = len(data) * _WORK // max(work(data), _WORK)
    if growth:
        grown = len(data) + growth * data.count(b"\n")
        size = min(size, max(len(data) * GROWN // max(grown, GROWN), 1))
    for start in range(0, len(data), size):
        yield data[start : start + size]


class LineFilter(ABC):
    """Takes an exposition in pieces of any size and works on its lines.

    Between calls at most one unfinished line is held, `max_line` bytes and one
    piece at most: what belongs to a longer line is passed on as it comes. A byte
    is looked at a bounded number of times, however small the pieces are.
    """

    __slots__ = ("_max_line", "_overlong", "_tail")

    def __init__(self, max_line: int) -> None:
        self._max_line = max_line
        self._tail = bytearray()  # the beginning of a line, without a newline
        self._overlong = False  # inside a line that is passed on unread

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; return what can be passed on already."""
        passed = b""
        if self._overlong:
            start = data.find(b"\n") + 1
            if not start:
                return data
            self._overlong = False
            passed, data = data[:start], data[start:]
        if end := data.rfind(b"\n") + 1:
            block = b"".join((self._tail, memoryview(data)[:end]))
            self._tail = bytearray(memoryview(data)[end:])
            passed += self._lines_of(block)
        else:
            self._tail += data
        if len(self._tail) > self._max_line:
            passed += self._line(bytes(self._tail))
            self._tail = bytearray()
            self._overlong = True
        return passed

    def finish(self) -> bytes:
        """The input is complete: return the rest, which may be a line without a newline."""
        tail, self._tail = bytes(self._tail), bytearray()
        self._overlong = False
        return self._line(tail) if tail else b""

    def _lines_of(self, block: bytes) -> bytes:
        """Whole lines of any length, each ending in a newline."""
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
        """Whole lines of at most `max_line` bytes, each ending in a newline; one at least."""

    @abstractmethod
    def _line(self, line: bytes) -> bytes:
        """One line without its newline, or the beginning of one that is too long."""
