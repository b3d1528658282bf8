"""A cache that is bounded in number and in bytes, with a lifetime for each entry.

Must not know keys, values or clocks: the user weighs entries and passes times, in seconds.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

ENTRY = 300
"""Bytes that an entry takes with a key of 32 bytes and a small value, approximately."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """Values by key: at most `number`, which together weigh at most `size`.

    `weigh` returns the bytes that a key and a value take. Without it, every entry takes `ENTRY`,
    and `size` may be left out. If the cache is full, it drops the entries that were not used
    for the longest time. A value that is heavier than `size` is not kept.

    An entry whose lifetime has ended stays until it is dropped, so `in` tells whether it was once
    put. `put` and `get` use an entry; `in`, `items` and `values` do not.
    """

    def __init__(
        self,
        number: int,
        *,
        size: int | None = None,
        weigh: Callable[[K, V], int] = lambda _key, _value: ENTRY,
    ) -> None:
        self._number = number
        self._size = number * ENTRY if size is None else size
        self._weigh = weigh
        self._entries: OrderedDict[K, tuple[V, float, int]] = OrderedDict()
        self.weight = 0
        """The bytes of all entries."""

    def __repr__(self) -> str:
        return f"<BoundedCache {len(self)} of at most {self._number}>"

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def get(self, key: K, now: float = -math.inf) -> V | None:
        """The value, or None if there is none whose lifetime lasts at the time `now`.

        Without `now`, lifetimes do not matter.
        """
        found = self._entries.get(key)
        if found is None or now >= found[1]:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, until: float = math.inf) -> None:
        """Keep a value, in the place of an earlier one. Its lifetime ends at the time `until`."""
        self.drop(key)
        weight = self._weigh(key, value)
        if weight > self._size:
            return
        self._entries[key] = (value, until, weight)
        self.weight += weight
        while len(self._entries) > self._number or self.weight > self._size:
            self.weight -= self._entries.popitem(last=False)[1][2]

    def drop(self, key: K) -> None:
        """Drop the value of a key, if there is one."""
        if (gone := self._entries.pop(key, None)) is not None:
            self.weight -= gone[2]

    def expire(self, now: float) -> None:
        """Drop entries whose lifetime has ended. Stops at the first entry that lasts.

        The entry that was not used for the longest time comes first. If all lifetimes are equal
        and no entry is used again, every ended entry is dropped.
        """
        while self._entries and next(iter(self._entries.values()))[1] <= now:
            self.weight -= self._entries.popitem(last=False)[1][2]

    def items(self) -> Iterator[tuple[K, V]]:
        """All keys and values. The one that was not used for the longest time comes first."""
        return ((key, entry[0]) for key, entry in self._entries.items())

    def values(self) -> list[V]:
        """All values, in the order of `items`."""
        return [entry[0] for entry in self._entries.values()]
