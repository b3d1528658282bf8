"""Keeps lines of one stream apart that have the same nanosecond and the same text.

Knows that Loki keeps one of two such lines that follow one another. Must not know batches or
containers.
"""

from __future__ import annotations

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


class Nanoseconds:
    """Gives each line of a batch a nanosecond at which its stream has no line of the same text.

    Loki keeps only one of two such lines. The second one gets the next free nanosecond.
    """

    def __init__(self, last: dict[bytes, LastLine]) -> None:
        self._last = last
        self._free: dict[bytes, dict[tuple[int, bytes], int]] = {}
        self._ends: dict[bytes, tuple[int, int, bytes]] = {}

    def place(self, labels: bytes, time: int, text: bytes) -> int:
        """The nanosecond of the next line of a stream."""
        free = self._free.get(labels)
        if free is None:
            free = self._free[labels] = {}
        key = time, text
        placed = free.get(key)
        if placed is None:
            placed = time
            last = self._last.get(labels)
            if last and last.time <= time < last.free and last.text == hash(text):
                placed = last.free
        if placed != time or key in free:
            passed = [key]
            while (placed, text) in free:
                passed.append((placed, text))
                placed = free[placed, text]
            for each in passed:  # so that many equal lines cost no more than others
                free[each] = placed + 1
        free[placed, text] = placed + 1
        self._ends[labels] = time, placed + 1, text
        return placed

    def ends(self) -> dict[bytes, LastLine]:
        """The last line of each stream, of at most `MAX_LAST` streams, the latest ones."""
        found = {labels: end for labels, end in self._last.items() if labels not in self._ends}
        for labels, (time, free, text) in self._ends.items():
            found[labels] = LastLine(time, free, hash(text))
        return dict([*found.items()][-MAX_LAST:])
