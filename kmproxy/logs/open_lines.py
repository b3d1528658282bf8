"""Bounds the memory for lines that have begun and not ended yet, of all readers together.

Knows numbers of bytes. Must not know lines or files.
"""

from __future__ import annotations

import sys
from typing import Final

ALL: Final = 8 << 20
"""Bytes of all open lines that are held without a further bound for each reader."""

LEAST: Final = 3 << 10
"""Bytes of open lines that each reader may hold at any time."""


class OpenLines:
    """The bytes of open lines that readers hold.

    While all of them together hold at most `limit` bytes, only the longest line bounds a reader.
    Beyond that, a reader may hold its share of `limit`, and its longer lines are cut. So n readers
    hold at most `limit * (1 + log(n))` bytes, and no reader can take the share of another one.
    """

    __slots__ = ("_held", "_limit", "_readers")

    def __init__(self, max_line: int, limit: int = ALL) -> None:
        self._limit = max(limit, 2 * max_line)
        self._held = self._readers = 0

    def __repr__(self) -> str:
        return f"<OpenLines {self._held} bytes of {self._readers} readers>"

    @property
    def held(self) -> int:
        """The bytes that all readers hold."""
        return self._held

    @property
    def allowed(self) -> int:
        """The bytes that one reader may hold now."""
        if self._held <= self._limit:
            return sys.maxsize
        return max(LEAST, self._limit // max(self._readers, 1))

    def change(self, before: int, now: int) -> None:
        """Take the bytes that one reader has held before, and holds now."""
        self._held += now - before
        self._readers += bool(now) - bool(before)
