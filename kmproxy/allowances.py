"""How much each of many askers may have: a burst, and then so much in a second.

Knows names of askers and counts. Must not know what is counted, nor clocks: times
are seconds and passed in. Askers are bounded in number and in bytes.
"""

from __future__ import annotations

from collections import OrderedDict

MAX_NAME = 256
"""Characters of an asker's name that count: two askers with longer names may share."""


class Allowances:
    """Each asker has `burst` at once, and gets one back each `interval` seconds.

    An asker that takes more than it has owes the rest, `burst` at most. With more
    than `size` askers the one unused longest is forgotten: it starts with a full burst.
    """

    def __init__(self, *, burst: int, interval: float, size: int = 4096) -> None:
        self._burst = float(burst)
        self._interval = interval
        self._size = size
        self._held: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, when

    def __repr__(self) -> str:
        return f"<Allowances of {len(self._held)} askers>"

    def has_left(self, asker: str, now: float) -> bool:
        """Whether the asker has one left."""
        return self._left(asker[:MAX_NAME], now) >= 1

    def take(self, asker: str, now: float) -> None:
        """Count one of the asker's."""
        name = asker[:MAX_NAME]
        self._held[name] = (max(self._left(name, now) - 1, -self._burst), now)
        self._held.move_to_end(name)
        if len(self._held) > self._size:
            self._held.popitem(last=False)

    def _left(self, name: str, now: float) -> float:
        left, at = self._held.get(name, (self._burst, now))
        return min(left + (now - at) / self._interval, self._burst)
