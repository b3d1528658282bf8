"""The authentication and authorization of requests to a kubelet.

Knows which permissions a path needs, and which reviews a kubelet remembers while the API server is
away. Must not know what is served.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from aiohttp import web

from kmproxy.simulator.wire import VERBS, identify

T = TypeVar("T")

_SUBRESOURCES = {
    "/metrics": ("metrics",),
    "/stats": ("stats",),
    "/logs": ("log",),
    "/pods": ("pods", "proxy"),
    "/runningpods": ("pods", "proxy"),
    "/healthz": ("healthz", "proxy"),
    "/configz": ("configz", "proxy"),
}
FINE_GRAINED = (1, 33)
"""The Kubernetes version from which `/pods`, `/healthz` and others have their own permissions."""

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


@dataclass(slots=True, eq=False)
class KubeletAccess:
    """Authenticates and authorizes requests, and remembers the reviews.

    `authenticate` maps a bearer token to a user, or None. `authorize` tells whether a user may
    do a verb (`get`) on a resource (`nodes/metrics`). Both raise `OSError` while the API server
    cannot be reached. A request that was allowed before is then allowed as long as `users` and
    `rights` remember it.
    """

    authenticate: Callable[[str], str | None]
    authorize: Callable[[str, str, str], bool]
    users: Memory = field(default_factory=lambda: Memory(REVIEW_TTL))
    rights: Memory = field(default_factory=lambda: Memory(ACCESS_TTL))

    def refusal(
        self, request: web.Request, path: str, version: tuple[int, int]
    ) -> tuple[int, str] | None:
        """The status and the text for a request that is refused, or None.

        `version` is the version of Kubernetes.
        """
        try:
            user = identify(request, self._user)
        except OSError:
            user = None
        if user is None:
            return 401, "Unauthorized"
        verb = VERBS.get(request.method, "")
        names = _SUBRESOURCES.get("/" + path.split("/")[1], ("proxy",))
        if version < FINE_GRAINED:
            names = names[-1:]
        for name in names:
            try:
                if self._may(user, verb, f"nodes/{name}"):
                    return None
            except OSError:
                what = f"user={user}, verb={verb}, resource=nodes, subresource={name}"
                return 500, f"Authorization error ({what})"
        what = f"user={user}, verb={verb}, resource=nodes, subresource(s)=[{' '.join(names)}]"
        return 403, f"Forbidden ({what})\n"

    def _user(self, token: str) -> str | None:
        return self.users.review(token, lambda: self.authenticate(token))

    def _may(self, user: str, verb: str, resource: str) -> bool:
        return self.rights.review(
            (user, verb, resource), lambda: self.authorize(user, verb, resource)
        )
