"""Keeps lines of one stream apart that have the same nanosecond and the same text.

Knows that Loki keeps one of two such lines that follow one another. Must not know batches or
containers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MAX_LAST: Final = 1000
"""Streams of one tenant whose last line is remembered."""


@dataclass(frozen=True, slots=True)
class LastLine:
    """The last line of a stream: its own nanosecond, the next free one, and its text's hash."""

    time: int
    free: int
    text: int


class StreamNanoseconds:
    """Gives each line of a stream a nanosecond at which the stream has no line of the same text.

    Loki keeps only one of two such lines. The second one gets the next free nanosecond. `last` is
    the last line of the stream in the batches before.
    """

    __slots__ = ("_end", "_free", "_last")

    def __init__(self, last: LastLine | None) -> None:
        self._last = last
        self._free: dict[tuple[int, bytes], int] = {}
        self._end: tuple[int, bytes] | None = None

    def place(self, time: int, text: bytes) -> int:
        """The nanosecond of the next line."""
        self._end = key = time, text
        if key in self._free or (self._last is not None and self._is_last(time, text)):
            return self._moved(key)
        self._free[key] = time + 1
        return time

    def end(self) -> LastLine | None:
        """The last line of the stream, in this batch or before."""
        if self._end is None:
            return self._last
        time, text = self._end
        return LastLine(time, self._free[self._end], hash(text))

    def _is_last(self, time: int, text: bytes) -> bool:
        last = self._last
        return last is not None and last.time <= time < last.free and last.text == hash(text)

    def _moved(self, key: tuple[int, bytes]) -> int:
        text = key[1]
        placed = self._free.get(key)
        if placed is None:
            placed = self._last.free if self._last else key[0]
        passed = [key]
        while (placed, text) in self._free:
            passed.append((placed, text))
            placed = self._free[placed, text]
        for each in passed:  # so that many equal lines cost no more than others
            self._free[each] = placed + 1
        self._free[placed, text] = placed + 1
        return placed


class Nanoseconds:
    """The nanoseconds of one batch of a tenant, by the labels of the stream."""

    def __init__(self, last: Mapping[bytes, LastLine]) -> None:
        self._last = last
        self._streams: dict[bytes, StreamNanoseconds] = {}

    def of(self, labels: bytes) -> StreamNanoseconds:
        """Those of one stream."""
        stream = self._streams.get(labels)
        if stream is None:
            stream = self._streams[labels] = StreamNanoseconds(self._last.get(labels))
        return stream

    def ends(self) -> dict[bytes, LastLine]:
        """The last line of each stream, of at most `MAX_LAST` streams, the latest ones."""
        found = {labels: end for labels, end in self._last.items() if labels not in self._streams}
        for labels, stream in self._streams.items():
            if end := stream.end():
                found[labels] = end
        return dict([*found.items()][-MAX_LAST:])
