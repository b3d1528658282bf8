"""Finds out whether a caller may `get` a resource in at least one namespace.

Knows the order in which namespaces are tried, and which results are remembered. Must
not know requests: the result does not depend on what a request asks for.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import chain

from kmproxy.auth.reviewer import Reviewer
from kmproxy.bounded_cache import BoundedCache
from kmproxy.config.types import Resource
from kmproxy.kube.reviews import DENIED_FOR, Caller, Question, is_namespace

PARALLEL = 8
"""Namespaces that are reviewed at the same time for one caller."""

SEARCHES = 2
"""Searches through all namespaces that run at the same time. Each search is for one caller."""

PACE = 0.1
"""Seconds that each review of an unsuccessful search delays the next search for that caller."""

MAX_CALLERS = 4096
"""Callers that are remembered, 1.2 MiB, and as many without the right."""

MAX_KEPT = 1024
"""Namespaces in a search up to which each negative answer is remembered.

After a search of more namespaces, only the result of the whole search is remembered.
"""

_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):[^:]+")


async def in_parallel(names: Iterable[str], ask: Callable[[str], Awaitable[bool]]) -> None:
    """Call `ask` for each name, `PARALLEL` at a time, until one call returns False.

    Raises the errors of `ask`.
    """
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
    """Remembers for each caller one namespace in which the caller has the right, once found.

    The namespaces are tried in this order: the namespace that was found last, the namespace of
    the caller's own service account, and then, in a search, all namespaces of `likely` and
    `known`. After an unsuccessful search, the searches for this caller cost at most `1 / PACE`
    reviews per second on average. In any case no new search starts within `DENIED_FOR` seconds.
    A search continues when no request waits for it any longer.
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
        self._found: BoundedCache[bytes, str] = BoundedCache(MAX_CALLERS)
        self._nowhere: BoundedCache[bytes, bool] = BoundedCache(MAX_CALLERS)
        self._turn = asyncio.Semaphore(SEARCHES)

    def __repr__(self) -> str:
        return f"<Footholds of {len(self._found)} callers, {len(self._nowhere)} without>"

    async def has_any(self, caller: Caller) -> bool:
        """Whether the caller has the right in a namespace. Raises AccessError.

        True also while no namespace is known in which to search.
        """
        key = self._reviewer.key(caller, Question(resource=self._resource))
        for name in (self._found.get(key), own_namespace(caller)):
            if name and await self._reviewer.may(caller, self._question(name)):
                self._found.put(key, name)
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
            self._found.put(key, found)
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
    """The namespace of the caller's service account. Empty if the caller is no service account."""
    match = _ACCOUNT.fullmatch(caller.username)
    return match[1] if match and is_namespace(match[1]) else ""
