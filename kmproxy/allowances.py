"""Limits the rate of many askers: each may have a burst at once, and then a constant rate.

Knows names of askers and counts. Must not know what is counted. Must not know clocks:
the caller passes times, in seconds. Askers are bounded in number and in bytes.
"""

from __future__ import annotations

from collections import OrderedDict

MAX_NAME = 256
"""Characters of an asker's name that count. Askers with longer names may share an allowance."""


class Allowances:
    """Gives each asker `burst` units at once, and one unit back each `interval` seconds.

    An asker that takes more than it has owes the rest, at most `burst`. With more than
    `size` askers, the asker that was unused longest is forgotten. It starts again with
    a full burst.
    """

    def __init__(self, *, burst: int, interval: float, size: int = 4096) -> None:
        self._burst = float(burst)
        self._interval = interval
        self._size = size
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()  # units left, at a time

    def __repr__(self) -> str:
        return f"<Allowances of {len(self._held)} askers>"

    def has_left(self, asker: str, now: float) -> bool:
        """Whether the asker has a unit left."""
        return self._left(asker[:MAX_NAME], now) >= 1

    def take(self, asker: str, now: float) -> None:
        """Takes one unit from the asker."""
        name = asker[:MAX_NAME]
        self._held[name] = (max(self._left(name, now) - 1, -self._burst), now)
        self._held.move_to_end(name)
        if len(self._held) > self._size:
            self._held.popitem(last=False)

    def _left(self, name: str, now: float) -> float:
        left, at = self._held.get(name, (self._burst, now))
        return min(left + (now - at) / self._interval, self._burst)
