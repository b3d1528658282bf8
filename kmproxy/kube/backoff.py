"""The delays after which the API server is asked again, when it fails or cannot be reached.

Must not know what failed. Time and randomness are passed in.
"""

from __future__ import annotations

from collections.abc import Callable

BACKOFF_FIRST = 0.8

BACKOFF_LIMIT = 30.0
"""Seconds within which the API server is asked again if it answers, but with an error."""

PROBE_LIMIT = 8.0
"""Seconds within which the API server is asked again if it could not be reached.

A refused attempt costs next to nothing, so it can be repeated soon. For one process, a change shows
within these 8 seconds after the return of the API server, plus the time of the list. If packets are
lost instead of refused, a connection attempt sends its last SYN 1 s before its end, so the time is
9 seconds.

While the API server is away, 5,000 processes make 1,250 attempts a second: in the mean, 4 s lie
between two attempts of one process. When the API server is back, 1,170 processes come in the first
second, then 1,020, 860, 700, 550, 390, 230 and 80. Their wait is the rest of a delay with full
jitter, 2.7 s in the mean. Each process makes one handshake and one watch, or one list if the watch
is answered with 410.
"""

BACKOFF_RESET = 120.0


class _Bound:
    """The upper bound of random delays. It doubles with each failure, up to a limit."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._next = BACKOFF_FIRST
        self._failed_at: float | None = None

    def after(self, now: float) -> float:
        """Return the bound after a failure at `now`.

        The bound starts again from `BACKOFF_FIRST` if the last failure was more than
        `BACKOFF_RESET` seconds ago.
        """
        if self._failed_at is not None and now - self._failed_at > BACKOFF_RESET:
            self._next = BACKOFF_FIRST
        self._failed_at = now
        bound = self._next
        self._next = min(bound * 2, self._limit)
        return bound


class Backoff:
    """Draws the delays of the back-off, with full jitter: from 0 to a bound that doubles.

    It has two bounds. One is for an API server that is not reached, up to `PROBE_LIMIT`. The other
    is for an API server that answers, up to `BACKOFF_LIMIT`. Each starts again after
    `BACKOFF_RESET` seconds without such a failure. The jitter spreads the requests of thousands of
    pods that lost the same API server in the same second.
    """

    def __init__(self, *, uniform: Callable[[float, float], float]) -> None:
        self._uniform = uniform
        self._answered = _Bound(BACKOFF_LIMIT)
        self._unreached = _Bound(PROBE_LIMIT)

    def delay(self, now: float, *, at_least: float = 0.0, unreached: bool = False) -> float:
        """Return the seconds to wait after a failure at `now`, never less than `at_least`."""
        bound = (self._unreached if unreached else self._answered).after(now)
        return at_least + self._uniform(0.0, bound)
