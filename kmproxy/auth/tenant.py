"""A tenant: which namespaces it sees, and the stream of these in an answer.

Knows how reviews are made for the namespaces of an answer, and until when. Must not know HTTP,
nor how a tenant is told from a caller who sees everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

from kmproxy.auth.footholds import in_parallel
from kmproxy.auth.reviewer import Reviewer
from kmproxy.auth.tenant_filter import Recent, TenantFilter
from kmproxy.config.types import Resource
from kmproxy.errors import AccessError
from kmproxy.kube.reviews import Caller, Question, is_namespace

MARGIN = 0.05
"""Seconds before a scrape's end at which it is given up to wait for reviews."""


class Tenant:
    """A caller who sees some namespaces: those in which it may `get` a resource.

    `path` is what it has asked for, `wanted` what of it: applied only to namespaces that the
    tenant sees, so that nothing depends on a question about the others. `recent` is shared by
    all tenants.
    """

    def __init__(
        self,
        reviewer: Reviewer,
        caller: Caller,
        resource: Resource,
        *,
        path: str,
        wanted: Callable[[str], bool],
        recent: Recent,
    ) -> None:
        self._reviewer = reviewer
        self._caller = caller
        self._resource = resource
        self._path = path
        self._wanted = wanted
        self._recent = recent

    def __repr__(self) -> str:
        return f"<Tenant {self._caller.username!r}>"

    async def sees(self, namespaces: Collection[str], *, deadline: float) -> dict[str, bool]:
        """Of each namespace, whether the tenant sees it. Raises AccessError.

        What is not remembered is reviewed, `PARALLEL` at a time. `deadline` is
        the event loop's time at which the scrape's own is up.
        """
        verdicts: dict[str, bool] = {}
        left = []
        for name in namespaces:
            known: bool | None = False
            if is_namespace(name):
                known = self._reviewer.remembered(self._caller, self._question(name))
            if known is None:
                left.append(name)
            else:
                verdicts[name] = known
        if left:
            try:
                async with asyncio.timeout_at(deadline - MARGIN):
                    verdicts |= await self._review(left)
            except TimeoutError as error:
                message = "your access to every namespace was not reviewed in the scrape's time"
                raise AccessError(500, "review", message) from error
        return verdicts

    async def _review(self, namespaces: Collection[str]) -> dict[str, bool]:
        verdicts: dict[str, bool] = {}

        async def ask(namespace: str) -> bool:
            verdicts[namespace] = await self._reviewer.may(self._caller, self._question(namespace))
            return True

        await in_parallel(namespaces, ask)
        return verdicts

    def _question(self, namespace: str) -> Question:
        return Question(resource=self._resource, namespace=namespace)

    async def prefetch(self) -> None:
        """Have reviewed what the last answers held, before anything is fetched."""
        await self._review(self._recent.of(self._path))

    def stream(self, *, max_line: int, deadline: float) -> TenantStream:
        """What narrows one exposition to what the tenant sees of what it wants."""
        narrowed = TenantFilter(self._wanted, max_line=max_line)
        return TenantStream(self, narrowed, deadline, self._note)

    def _note(self, namespaces: set[str]) -> None:
        self._recent.note(self._path, namespaces)


class TenantStream:
    """Narrows one exposition as it streams through; nothing passes undecided.

    `dropped` counts what was left out. `deadline` is the event loop's time
    until which reviews are waited for; `note` is told at the end which
    namespaces were asked for. `feed` and `finish` raise AccessError.
    """

    def __init__(
        self,
        tenant: Tenant,
        narrowed: TenantFilter,
        deadline: float,
        note: Callable[[set[str]], None],
    ) -> None:
        self._tenant = tenant
        self._filter = narrowed
        self._deadline = deadline
        self._note = note
        self._asked: set[str] = set()

    @property
    def dropped(self) -> Mapping[str, int]:
        """Lines left out, by reason."""
        return self._filter.dropped

    async def feed(self, data: bytes) -> bytes:
        """Take the next piece; return what of it can be passed on already."""
        return await self._decided(self._filter.feed(data))

    async def finish(self) -> bytes:
        """The input is complete: return the rest."""
        rest = await self._decided(self._filter.finish())
        self._note(self._asked)
        return rest

    async def _decided(self, namespaces: Collection[str]) -> bytes:
        if namespaces:
            self._asked.update(namespaces)
            self._filter.decide(await self._tenant.sees(namespaces, deadline=self._deadline))
        return self._filter.take()
