"""Keeps as many items as fit into a number of bytes.

Knows sizes and keys. Must not know what an item is.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Fitting(Generic[_T]):
    """Keeps items that together take at most `budget` bytes. The largest are left out.

    Of items of equal size, the first one by key is left out. The order of `add` has
    no effect on the result.
    """

    def __init__(self, budget: int) -> None:
        self._left = budget
        # A heap: the largest item is first. The count tells items of one size and key apart.
        self._held: list[tuple[int, tuple[str, ...], int, _T]] = []
        self._count = 0
        self.left_out = 0

    def add(self, key: tuple[str, ...], size: int, item: _T) -> _T | None:
        """Add an item. Returns the last item that was removed for it, or None."""
        self._count += 1
        heapq.heappush(self._held, (-size, key, self._count, item))
        self._left -= size
        gone = None
        while self._left < 0:
            negative, _, _, gone = heapq.heappop(self._held)
            self._left -= negative
            self.left_out += 1
        return gone

    def in_order(self) -> list[_T]:
        """The items that fit, in the order of their keys."""
        return [item for *_, item in sorted(self._held, key=lambda held: held[1:3])]
