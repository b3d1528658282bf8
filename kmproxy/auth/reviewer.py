"""Reviews by the API server. All requests that wait for the same review share it.

Knows how long to wait, which results to remember and what a failure means. Must not know which
caller is reviewed, nor which question is asked. A token is held only while it is reviewed. No
error, log line, metric or `repr` contains a token.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter

from kmproxy.bounded_cache import ENTRY, BoundedCache
from kmproxy.errors import AccessError, ApiError, CredentialError, UpstreamError
from kmproxy.kube import permissions
from kmproxy.kube.apiserver import ApiServer
from kmproxy.kube.reviews import (
    ACCESS_REVIEWS,
    ALLOWED_FOR,
    DENIED_FOR,
    MAX_REVIEW,
    TOKEN_REVIEWS,
    Caller,
    Question,
    access_key,
    access_review,
    read_access_review,
    read_token_review,
    token_key,
    token_review,
)
from kmproxy.shared import SharedCalls
from kmproxy.telemetry import UpstreamErrors

TIMEOUT = 5.0
"""Seconds that a review may take. A caller waits no longer than its scrape time."""

STRANGERS = 16
"""Reviews that may run at the same time for tokens that were never accepted.

Invalid tokens are limited separately, so a flood of them cannot delay the review of tokens that
were accepted before.
"""

LAST = 32
"""Access reviews whose durations are remembered."""

MAX_CALLERS = 4096
MAX_CALLERS_BYTES = 8 << 20
"""Bytes that all remembered callers may take together."""

MAX_UNDER_WAY = 64
"""Access reviews that may run at the same time. Each holds all groups of its caller in memory."""

MAX_REJECTED = 4096
MAX_ANSWERS = 1 << 14
"""Results of access reviews that may be remembered, 4.7 MiB."""

T = TypeVar("T")


class ReviewMetrics:
    """Counts reviews of tokens and of access, by result."""

    def __init__(self, registry: CollectorRegistry, errors: UpstreamErrors) -> None:
        self._errors = errors
        self._reviews = Counter(
            "kmproxy_reviews",
            "Reviews of a token or of access, by result. A request for an unknown node counts one "
            "review, too, so that the metric does not show which nodes exist.",
            ["kind", "result"],
            registry=registry,
        )

    def reviewed(self, kind: str, *, allowed: bool, count: int = 1) -> None:
        """Count reviews of a `token` or of `access` with the same result."""
        self._reviews.labels(kind, "allowed" if allowed else "denied").inc(count)

    def failed(self, kind: str, reason: str) -> None:
        """Count a review that failed. This is a failure of the API server too."""
        self._reviews.labels(kind, "failed").inc()
        self._errors.count("apiserver", reason)


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class Reviewer:
    """Asks the API server for reviews, one at a time for each kind and key.

    A request for a review that is under way waits for that review. When one request stops waiting,
    the others still get the result. `secret` makes the keys: 16 to 64 random bytes.
    """

    api: ApiServer
    audiences: Sequence[str]
    secret: bytes
    clock: Callable[[], float]
    metrics: ReviewMetrics
    _callers: BoundedCache[bytes, Caller] = field(
        init=False,
        default_factory=lambda: BoundedCache(
            MAX_CALLERS, size=MAX_CALLERS_BYTES, weigh=lambda _, caller: ENTRY + caller.size
        ),
    )
    _rejected: BoundedCache[bytes, bool] = field(
        init=False, default_factory=lambda: BoundedCache(MAX_REJECTED)
    )
    _allowed: BoundedCache[bytes, bool] = field(
        init=False, default_factory=lambda: BoundedCache(MAX_ANSWERS)
    )
    _under_way: SharedCalls[bytes] = field(init=False, default_factory=SharedCalls)
    _strangers: asyncio.Semaphore = field(
        init=False, default_factory=lambda: asyncio.Semaphore(STRANGERS)
    )
    _asking: asyncio.Semaphore = field(
        init=False, default_factory=lambda: asyncio.Semaphore(MAX_UNDER_WAY)
    )
    _took: deque[float] = field(  # seconds of the last reviews of access
        init=False, default_factory=lambda: deque(maxlen=LAST)
    )

    def __repr__(self) -> str:
        return (
            f"<Reviewer {len(self._callers)} callers, {len(self._allowed)} answers, "
            f"{len(self._under_way)} under way>"
        )

    async def close(self) -> None:
        """Cancel the reviews that are under way."""
        await self._under_way.close()

    async def authenticate(self, token: str) -> Caller | None:
        """The caller of a token, or None if the API server rejects it. Raises AccessError."""
        key, now = token_key(self.secret, token), self.clock()
        if (caller := self._callers.get(key, now)) is not None:
            return caller
        if self._rejected.get(key, now):
            return None
        return await self.shared(key, lambda: self._review_token(key, token))

    def now(self) -> float:
        """The time in seconds, on the clock that decides how long answers are remembered."""
        return self.clock()

    def key(self, caller: Caller, question: Question) -> bytes:
        """The key of a caller's question. Without the secret, a key reveals nothing about it."""
        return access_key(self.secret, caller, question)

    def remembered(self, caller: Caller, question: Question) -> bool | None:
        """Whether the caller is allowed, by a remembered answer. None if no answer is valid."""
        return self._allowed.get(self.key(caller, question), self.clock())

    def was_allowed(self, caller: Caller, question: Question) -> bool:
        """Whether the last remembered answer was yes, also if it has expired."""
        return bool(self._allowed.get(self.key(caller, question)))

    async def deny(self, caller: Caller, question: Question, since: float) -> bool:
        """Remember a denial that another answer implies, and count it as if it was reviewed.

        Returns False. The call takes as long as one of the last reviews, measured from `since` on
        the event loop's clock, so a caller cannot distinguish it from a review.
        """
        if self.remembered(caller, question) is None:
            self.metrics.reviewed("access", allowed=False)
            self._allowed.put(self.key(caller, question), False, self.clock() + DENIED_FOR)
            await self._as_long_as_a_review(since)
        return False

    async def deny_unasked(self, count: int, since: float) -> None:
        """Count denials without a review, and take as long as `deny`. They are not remembered."""
        self.metrics.reviewed("access", allowed=False, count=count)
        await self._as_long_as_a_review(since)

    async def _as_long_as_a_review(self, since: float) -> None:
        if self._took:
            self._took.rotate()
            await asyncio.sleep(since + self._took[0] - asyncio.get_running_loop().time())

    async def may(self, caller: Caller, question: Question, *, remember: bool = True) -> bool:
        """Whether the caller is allowed, by a remembered answer or a review. Raises AccessError.

        Without `remember`, a denial is not remembered. Thousands of denials that are needed only
        once would displace other answers.
        """
        key = self.key(caller, question)
        if (allowed := self._allowed.get(key, self.clock())) is not None:
            return allowed
        return await self.shared(key, lambda: self._review_access(key, caller, question, remember))

    async def shared(self, key: bytes, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of `ask`, which runs once for all that wait under the same key.

        It continues when a waiting task is cancelled. `close` cancels it.
        """
        return await self._under_way.result(key, ask)

    async def _review_token(self, key: bytes, token: str) -> Caller | None:
        known = key in self._callers
        review = token_review(token, self.audiences)
        verdict, asked = await self._review(
            TOKEN_REVIEWS,
            review,
            lambda body: read_token_review(body, self.audiences),
            nullcontext() if known else self._strangers,
        )
        self.metrics.reviewed("token", allowed=verdict.caller is not None)
        if verdict.caller is not None:
            self._callers.put(key, verdict.caller, asked + verdict.holds)
        elif verdict.holds:
            self._rejected.put(key, True, asked + verdict.holds)
        return verdict.caller

    async def _review_access(
        self, key: bytes, caller: Caller, question: Question, remember: bool
    ) -> bool:
        review = access_review(caller, question)
        began = asyncio.get_running_loop().time()
        allowed, asked = await self._review(
            ACCESS_REVIEWS, review, read_access_review, self._asking
        )
        self._took.append(asyncio.get_running_loop().time() - began)
        self.metrics.reviewed("access", allowed=allowed)
        if allowed or remember:
            self._allowed.put(key, allowed, asked + (ALLOWED_FOR if allowed else DENIED_FOR))
        return allowed

    async def _review(
        self,
        path: str,
        document: Mapping[str, Any],
        read: Callable[[bytearray], T],
        turn: asyncio.Semaphore | nullcontext[None],
    ) -> tuple[T, float]:
        """Returns the verdict and the time at which it was asked for. Raises AccessError."""
        try:
            async with asyncio.timeout(TIMEOUT), turn:
                asked = self.clock()
                return read(await self.api.post(path, document, most=MAX_REVIEW)), asked
        except (TimeoutError, UpstreamError, CredentialError) as error:
            reason, message = _explained(error, path)
            self.metrics.failed("token" if path == TOKEN_REVIEWS else "access", reason)
            message = f"kmproxy cannot review your access: {message}"
            raise AccessError(500, "review", message) from error


def _explained(error: Exception, path: str) -> tuple[str, str]:
    """Why a review failed: a reason, and a message for a person."""
    match error:
        case TimeoutError():
            return "timeout", f"the API server has not answered within {TIMEOUT:g} s"
        case ApiError(code=403, reason=reason):
            needed = permissions.TOKEN_REVIEWS
            if path == ACCESS_REVIEWS:
                needed = permissions.ACCESS_REVIEWS
            hint = permissions.advice(needed)
            return reason, f"the API server forbids kmproxy to create {needed.resource}: {hint}"
        case ApiError(code=200, reason=reason):
            return reason, error.summary
        case ApiError(code=code, reason=reason):
            return reason, f"the API server answered {code}"
        case UpstreamError(reason=reason):
            return reason, str(error)
        case _:
            return "credential", str(error)
