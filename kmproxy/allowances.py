"""Limits the rate of many askers: each may have a burst at once, and then a constant rate.

Knows names of askers and counts. Must not know what is counted. Must not know clocks:
the caller passes times, in seconds. Askers are bounded in number and in bytes.
"""

from __future__ import annotations

from kmproxy.bounded_cache import ENTRY, BoundedCache

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
        self._held: BoundedCache[str, tuple[float, float]] = BoundedCache(  # units left, at a time
            size, size=size * (ENTRY + MAX_NAME), weigh=lambda name, _: ENTRY + len(name)
        )

    def __repr__(self) -> str:
        return f"<Allowances of {len(self._held)} askers>"

    def has_left(self, asker: str, now: float) -> bool:
        """Whether the asker has a unit left."""
        return self._left(asker[:MAX_NAME], now) >= 1

    def take(self, asker: str, now: float) -> None:
        """Takes one unit from the asker."""
        name = asker[:MAX_NAME]
        self._held.put(name, (max(self._left(name, now) - 1, -self._burst), now))

    def _left(self, name: str, now: float) -> float:
        left, at = self._held.get(name) or (self._burst, now)
        return min(left + (now - at) / self._interval, self._burst)
