"""Reviews by the API server: made once for all who wait for one, and remembered.

Knows how long to wait, what to keep and what a failure means. Must not know who
asks, nor which questions. A token is held only while it is reviewed; no error,
log line, metric or `repr` has it.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

from kmproxy.errors import AccessError, ApiError, CredentialError, UpstreamError
from kmproxy.kube import permissions
from kmproxy.kube.apiserver import ApiServer
from kmproxy.kube.reviews import (
    ACCESS_REVIEWS,
    ALLOWED_FOR,
    DENIED_FOR,
    MAX_REVIEW,
    TOKEN_REVIEWS,
    Answers,
    Caller,
    Question,
    access_key,
    access_review,
    read_access_review,
    read_token_review,
    token_key,
    token_review,
)
from kmproxy.telemetry import Telemetry

TIMEOUT = 5.0
"""Seconds that a review may take; a caller waits no longer than its scrape may last."""

STRANGERS = 16
"""Reviews under way at most of tokens that were never accepted: who has nothing but such
tokens does not keep those from being reviewed again that were."""

LAST = 32
"""Reviews of access of which it is remembered how long they took."""

MAX_CALLERS = 4096
MAX_CALLERS_BYTES = 8 << 20
"""Bytes of all callers that are remembered."""

MAX_UNDER_WAY = 64
"""Reviews of access under way at most: each holds all that its caller's groups take."""

MAX_REJECTED = 4096
MAX_ANSWERS = 1 << 14
"""Answers remembered at most, each of about 300 bytes."""

T = TypeVar("T")


class Reviewer:
    """Asks the API server for reviews, one at a time of each kind and key.

    Who asks for what is under way waits for that; one that waits no longer
    takes nothing from the others. `secret` is what keys are made with: 16 to 64
    random bytes.
    """

    def __init__(
        self,
        api: ApiServer,
        *,
        audiences: Sequence[str],
        secret: bytes,
        clock: Callable[[], float],
        telemetry: Telemetry,
    ) -> None:
        self._api = api
        self._audiences = audiences
        self._secret = secret
        self._clock = clock
        self._telemetry = telemetry
        self._callers: Answers[Caller] = Answers(
            MAX_CALLERS, budget=MAX_CALLERS_BYTES, weigh=lambda caller: caller.size
        )
        self._rejected: Answers[bool] = Answers(MAX_REJECTED)
        self._allowed: Answers[bool] = Answers(MAX_ANSWERS)
        self._under_way: dict[bytes, asyncio.Task[Any]] = {}
        self._strangers = asyncio.Semaphore(STRANGERS)
        self._asking = asyncio.Semaphore(MAX_UNDER_WAY)
        self._took: deque[float] = deque(maxlen=LAST)  # seconds of the last reviews of access

    def __repr__(self) -> str:
        return (
            f"<Reviewer {len(self._callers)} callers, {len(self._allowed)} answers, "
            f"{len(self._under_way)} under way>"
        )

    async def close(self) -> None:
        """End the reviews that are under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def authenticate(self, token: str) -> Caller | None:
        """Whose a token is; None if the API server does not accept it. Raises AccessError."""
        key, now = token_key(self._secret, token), self._clock()
        if (caller := self._callers.get(key, now)) is not None:
            return caller
        if self._rejected.get(key, now):
            return None
        return await self.shared(key, lambda: self._review_token(key, token))

    def now(self) -> float:
        """Seconds on the clock by which answers are remembered."""
        return self._clock()

    def key(self, caller: Caller, question: Question) -> bytes:
        """What stands for a caller's question; nobody else can tell of what it is."""
        return access_key(self._secret, caller, question)

    def remembered(self, caller: Caller, question: Question) -> bool | None:
        """Whether a caller may do it, as far as that is known without a review."""
        return self._allowed.get(self.key(caller, question), self._clock())

    def was_allowed(self, caller: Caller, question: Question) -> bool:
        """Whether the last answer was yes, however old it is."""
        return bool(self._allowed.get(self.key(caller, question), -math.inf))

    async def deny(self, caller: Caller, question: Question, since: float) -> bool:
        """Remember a no that another answer implies: counted and kept as if it was reviewed.

        It takes as long as one of the last reviews did, from `since` on by the
        event loop's time, so that it cannot be told from one.
        """
        if self.remembered(caller, question) is None:
            self._telemetry.reviewed("access", allowed=False)
            self._allowed.put(self.key(caller, question), False, self._clock() + DENIED_FOR)
            if self._took:
                self._took.rotate()
                await asyncio.sleep(since + self._took[0] - asyncio.get_running_loop().time())
        return False

    async def may(self, caller: Caller, question: Question, *, remember: bool = True) -> bool:
        """Whether a caller may do it. Raises AccessError.

        A no is not kept unless it is to be remembered: one of thousands that are
        asked for but once would only push out others.
        """
        key = self.key(caller, question)
        if (allowed := self._allowed.get(key, self._clock())) is not None:
            return allowed
        return await self.shared(key, lambda: self._review_access(key, caller, question, remember))

    async def shared(self, key: bytes, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What is asked for under a key, once for all who wait, who may leave; ended by `close`."""
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(ask())
            task.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(task)

    def _landed(self, key: bytes, task: asyncio.Task[Any]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # whoever waited has it; perhaps nobody does any more

    async def _review_token(self, key: bytes, token: str) -> Caller | None:
        known = key in self._callers
        review = token_review(token, self._audiences)
        verdict, asked = await self._review(
            TOKEN_REVIEWS,
            review,
            lambda body: read_token_review(body, self._audiences),
            nullcontext() if known else self._strangers,
        )
        self._telemetry.reviewed("token", allowed=verdict.caller is not None)
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
        self._telemetry.reviewed("access", allowed=allowed)
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
        """The verdict, and when it was asked for. Raises AccessError."""
        try:
            async with asyncio.timeout(TIMEOUT), turn:
                asked = self._clock()
                return read(await self._api.post(path, document, most=MAX_REVIEW)), asked
        except (TimeoutError, UpstreamError, CredentialError) as error:
            reason, message = _explained(error, path)
            self._telemetry.review_failed("token" if path == TOKEN_REVIEWS else "access", reason)
            message = f"your access cannot be reviewed: {message}"
            raise AccessError(500, "review", message) from error


def _explained(error: Exception, path: str) -> tuple[str, str]:
    """Why a review came to nothing: a reason, and a message for a person."""
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
