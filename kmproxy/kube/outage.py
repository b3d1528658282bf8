"""The outage: since when the API server has been away, as the watch of namespaces notices.

Knows which failures mean that no client reaches the API server. Must not know what follows from an
outage. Code that explains another failure by the outage reads its length here.
"""

from __future__ import annotations

from collections.abc import Callable

from kmproxy.errors import ApiError, UpstreamError

_NO_ANSWER = frozenset(
    {"disconnected", "refused", "timeout", "truncated", "unreachable", "unresolved"}
)
_NO_SERVER = frozenset({502, 503, 504})
"""Statuses that a proxy or load balancer sends while the API server behind it is away, or that the
API server sends while it starts or stops."""

TOO_LARGE = "Too large resource version"
"""The words of a 504 for a resource version that the API server has not reached yet. It is not
away."""


def is_outage(error: UpstreamError) -> bool:
    """Tell whether a request failed as requests of all clients do while the API server is away."""
    if isinstance(error, ApiError):
        return error.code in _NO_SERVER and TOO_LARGE not in str(error)
    return error.reason in _NO_ANSWER


class Outage:
    """The present outage of the API server, if any.

    The watch of namespaces is its only writer. The watch notices a lost connection within 80 s,
    before a kubelet forgets its last review.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None

    def __repr__(self) -> str:
        return "<Outage none>" if self.seconds is None else f"<Outage of {self.seconds:.0f}s>"

    @property
    def seconds(self) -> float | None:
        """The seconds for which the API server has been away, or None if it is not."""
        return None if self._since is None else self._clock() - self._since

    def failed(self, error: UpstreamError) -> None:
        """Record a failed request to the API server.

        The failure may begin an outage. An error that the API server itself answered ends it.
        """
        if not is_outage(error):
            if isinstance(error, ApiError):
                self._since = None
        elif self._since is None:
            self._since = self._clock()

    def over(self) -> None:
        """End the outage: the API server has answered."""
        self._since = None
