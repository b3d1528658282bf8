"""The series that expositions remember while labels are removed: their digests and their bound.

Knows what identifies a series. Must not know a selection or lines.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Protocol

from kmproxy.exposition.errors import ExpositionError
from kmproxy.exposition.grammar import unquote

Label = tuple[bytes, re.Match[bytes]]
"""The unquoted name of a pair, and its match with the groups `name` and `value`."""

MAX_SERIES = 32 << 20
"""Bytes of the series that all running expositions together remember while labels are removed:
168,000 series. A node of 100 pods has about 15,000. The limit is for five expositions at once."""

_DIGEST = 15  # bytes: with the 33 of an object they fill a unit of 48; one byte more needs 64

_SERIES_SIZE = 200  # bytes for a series: two digests and a dictionary entry, approximately


class SeriesError(ExpositionError):
    """An exposition has more series than can be kept apart."""

    reason = "series"


class Holder(Protocol):
    """Remembers the series of one exposition, `series` in number."""

    series: int

    def forget(self) -> None:
        """Forgets all series: the exposition has to end."""


class SeriesRoom:
    """Limits the memory for the series of all running expositions together.

    The limit is `MAX_SERIES` bytes, or in proportion more where more than five
    expositions may run at once. Above it, the exposition with the most series has to
    end.
    """

    def __init__(self, expositions: int = 5) -> None:
        self._most = MAX_SERIES * max(expositions, 5) // 5
        self._holders: list[Holder] = []
        self._count = 0

    def __repr__(self) -> str:
        return f"<SeriesRoom {self._count} series of {len(self._holders)} expositions>"

    def enter(self, holder: Holder) -> None:
        """Registers an exposition that begins."""
        self._holders.append(holder)

    def leave(self, holder: Holder, count: int) -> None:
        """Removes an exposition with `count` series, which has ended or has lost its series."""
        if holder in self._holders:
            self._holders.remove(holder)
            self._count -= count

    @property
    def left(self) -> int:
        """The number of series for which there is room."""
        return max(self._most // _SERIES_SIZE - self._count, 0)

    def take(self, series: int = 1) -> None:
        """Counts more series. Above the limit, the one with the most forgets its own."""
        self._count += series
        if self._count * _SERIES_SIZE > self._most:
            max(self._holders, key=lambda each: each.series).forget()


def digest(name: bytes, labels: Iterable[Label]) -> bytes:
    """Returns a digest that identifies a series. An empty label value equals an absent label."""
    values = [(name, b"")]
    values += sorted((n, text) for n, pair in labels if (text := unquote(pair["value"])))
    found = hashlib.blake2b(digest_size=_DIGEST)
    for at in range(0, len(values), 1000):
        parts = [part for both in values[at : at + 1000] for part in both]
        found.update(b"".join([b"%d:%b" % (len(part), part) for part in parts]))
    return found.digest()
