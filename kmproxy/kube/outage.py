"""Since when the API server has been away, as the watch of namespaces finds it.

Knows which failures mean that nobody reaches the API server. Must not know what
follows from that: who explains a failure by it asks for its length.
"""

from __future__ import annotations

from collections.abc import Callable

from kmproxy.errors import ApiError, UpstreamError

_NO_ANSWER = frozenset(
    {"disconnected", "refused", "timeout", "truncated", "unreachable", "unresolved"}
)
_NO_SERVER = frozenset({502, 503, 504})
"""Statuses of what stands before an API server that is away, or of one that starts or ends."""

TOO_LARGE = "Too large resource version"
"""What a 504 says of a version that the API server has not reached; it is not away."""


def is_outage(error: UpstreamError) -> bool:
    """Whether a request to the API server failed as it does for all while that is away."""
    if isinstance(error, ApiError):
        return error.code in _NO_SERVER and TOO_LARGE not in str(error)
    return error.reason in _NO_ANSWER


class Outage:
    """The outage of the API server that is under way, if there is one.

    The watch of namespaces is its one writer. It notices a lost connection
    within 80 s, before a kubelet forgets its last review.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None

    def __repr__(self) -> str:
        return "<Outage none>" if self.seconds is None else f"<Outage of {self.seconds:.0f}s>"

    @property
    def seconds(self) -> float | None:
        """How long the API server has been away, None if it is not."""
        return None if self._since is None else self._clock() - self._since

    def failed(self, error: UpstreamError) -> None:
        """A request to the API server failed; an answer of its own ends the outage."""
        if not is_outage(error):
            if isinstance(error, ApiError):
                self._since = None
        elif self._since is None:
            self._since = self._clock()

    def over(self) -> None:
        """The API server has answered."""
        self._since = None
