"""The reviews that a kubelet remembers while the API server is away.

Must not know what is reviewed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")

REVIEW_TTL = 120.0
"""Seconds for which a kubelet remembers a token's user (`authentication.webhook.cacheTTL`)."""

ACCESS_TTL = 300.0
"""Seconds for which a kubelet remembers an allowed request.

The setting of a real kubelet is `authorization.webhook.cacheAuthorizedTTL`.
"""


class Memory:
    """The reviews that a kubelet remembers, each for `ttl` seconds from the first one on.

    While the API server answers, each request is reviewed, so a revoked token is refused at once.
    A real kubelet would accept it as long as it remembers the review. `clock` and `ttl` can be
    replaced.
    """

    def __init__(self, ttl: float) -> None:
        self.ttl = ttl
        self.clock: Callable[[], float] = time.monotonic
        self._held: dict[object, tuple[Any, float]] = {}

    def __repr__(self) -> str:
        return f"<Memory of {len(self._held)} reviews>"

    def review(self, key: object, ask: Callable[[], T]) -> T:
        """The answer of `ask`, or the remembered answer if it raises OSError.

        Raises OSError if there is neither.
        """
        now = self.clock()
        answer, until = self._held.get(key, (None, now))
        try:
            fresh = ask()
        except OSError:
            if now >= until:
                raise
            return cast("T", answer)
        if not fresh:
            self._held.pop(key, None)
        else:
            self._held[key] = (fresh, until if now < until else now + self.ttl)
        return fresh
