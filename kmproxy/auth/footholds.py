"""Whether a caller may `get` a resource in any namespace at all.

Knows in which order namespaces are tried, and what is remembered of that. Must
not know requests: what is asked for plays no part in it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import chain

from kmproxy.auth.reviewer import Reviewer
from kmproxy.config.types import Resource
from kmproxy.kube.reviews import DENIED_FOR, Answers, Caller, Question, is_namespace

PARALLEL = 8
"""Namespaces that are reviewed at once for one caller."""

SEARCHES = 2
"""Searches through all namespaces under way at once, each for one caller."""

PACE = 0.1
"""Seconds for which each review of a search in vain keeps the next search away."""

MAX_CALLERS = 4096

MAX_KEPT = 1024
"""Namespaces of a search whose answers are kept each for itself; of more only the outcome."""

_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):[^:]+")


async def in_parallel(names: Iterable[str], ask: Callable[[str], Awaitable[bool]]) -> None:
    """Ask of each name, `PARALLEL` at a time, until an answer is False. Raises as `ask` does."""
    left: Iterator[str] = iter(names)
    going = True

    async def work() -> None:
        nonlocal going
        for name in left:
            if not going:
                return
            going = await ask(name) and going

    tasks = [asyncio.create_task(work()) for _ in range(PARALLEL)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


class Footholds:
    """For each caller a namespace in which it may, once one was found.

    Tried are the last one that was found, the namespace of the caller's own
    service account, and, in a search, all that `likely` and `known` name. A
    caller for whom a search was in vain costs at most `1 / PACE` reviews a
    second on average by searches; within `DENIED_FOR` seconds there is no other
    one in any case. A search goes on when nobody waits for it any more.
    """

    def __init__(
        self,
        reviewer: Reviewer,
        resource: Resource,
        *,
        likely: Callable[[], Iterable[str]],
        known: Callable[[], Iterable[str]],
    ) -> None:
        self._reviewer = reviewer
        self._resource = resource
        self._likely = likely
        self._known = known
        self._found: Answers[str] = Answers(MAX_CALLERS)
        self._nowhere: Answers[bool] = Answers(MAX_CALLERS)
        self._turn = asyncio.Semaphore(SEARCHES)

    def __repr__(self) -> str:
        return f"<Footholds of {len(self._found)} callers, {len(self._nowhere)} without>"

    async def has_any(self, caller: Caller) -> bool:
        """Whether there is such a namespace; True while none is known to search in.

        Raises AccessError.
        """
        key = self._reviewer.key(caller, Question(resource=self._resource))
        for name in (self._found.get(key, 0.0), own_namespace(caller)):
            if name and await self._reviewer.may(caller, self._question(name)):
                self._found.put(key, name, float("inf"))
                return True
        if self._nowhere.get(key, self._reviewer.now()):
            return False
        return await self._reviewer.shared(b"search" + key, lambda: self._search(key, caller))

    async def _search(self, key: bytes, caller: Caller) -> bool:
        async with self._turn:
            names = list(self._names())
            if not names:
                return True
            found: str | None = None
            few = len(names) <= MAX_KEPT

            async def ask(name: str) -> bool:
                nonlocal found
                if await self._reviewer.may(caller, self._question(name), remember=few):
                    found = name
                return found is None

            await in_parallel(names, ask)
        if found is not None:
            self._found.put(key, found, float("inf"))
            return True
        holds = max(DENIED_FOR, PACE * len(names))
        self._nowhere.put(key, True, self._reviewer.now() + holds)
        return False

    def _names(self) -> Iterator[str]:
        known = list(self._known())
        if not known:
            return
        tried = dict.fromkeys(chain(self._likely(), known))
        yield from filter(is_namespace, tried)

    def _question(self, namespace: str) -> Question:
        return Question(resource=self._resource, namespace=namespace)


def own_namespace(caller: Caller) -> str:
    """The namespace of a service account; empty for whom that is not."""
    match = _ACCOUNT.fullmatch(caller.username)
    return match[1] if match and is_namespace(match[1]) else ""
