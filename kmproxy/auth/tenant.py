"""A tenant: which namespaces it sees, and the stream of their lines in a response.

Knows how the namespaces of a response are reviewed, and until when. Must not know HTTP,
nor how a tenant is distinguished from a caller that sees everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from kmproxy.allowances import Allowances
from kmproxy.auth.footholds import in_parallel
from kmproxy.auth.reviewer import Reviewer
from kmproxy.auth.tenant_filter import Recent, TenantFilter
from kmproxy.config.types import Resource
from kmproxy.errors import AccessError
from kmproxy.exposition.engine import Engine, named
from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.kube.reviews import Caller, Question, is_namespace

MARGIN = 0.05
"""Seconds before the deadline of a scrape at which waiting for reviews ends."""


INVENTED = 256
"""Names that are no namespaces which a tenant may have reviewed at once, and later in each
`INVENTED_IN` seconds.

The exporters that a tenant scrapes may invent any number of names.
"""

INVENTED_IN = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class NamespaceNames:
    """Decides which names are reviewed: those that `exist`, and few others for each tenant.

    A name that does not exist may be that of a namespace which kmproxy does not know yet.
    """

    exist: Callable[[str], bool] = lambda _: True
    _others: Allowances = field(
        init=False,
        default_factory=lambda: Allowances(burst=INVENTED, interval=INVENTED_IN / INVENTED),
    )

    def may_be_reviewed(self, caller: Caller, name: str, now: float) -> bool:
        """Whether a name is reviewed if no answer is remembered. If not, the tenant is denied."""
        return self.exist(name) or self._others.has_left(caller.username, now)

    def reviewed(self, caller: Caller, name: str, now: float) -> None:
        """Count a review of a name."""
        if not self.exist(name):
            self._others.take(caller.username, now)


class Tenant:
    """A caller that sees some namespaces only: those in which it may `get` a resource.

    `path` is the path of its request. `wanted` tells whether the request asks for a namespace. It
    is applied only to namespaces that the tenant sees, so nothing depends on a question about the
    others. All tenants share `recent` and `names`.
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
        names: NamespaceNames,
    ) -> None:
        self._names = names
        self._reviewer = reviewer
        self._caller = caller
        self._resource = resource
        self._path = path
        self._wanted = wanted
        self._recent = recent

    def __repr__(self) -> str:
        return f"<Tenant {self._caller.username!r}>"

    async def sees(self, namespaces: Collection[str], *, deadline: float) -> dict[str, bool]:
        """For each namespace, whether the tenant sees it. Raises AccessError.

        Namespaces without a remembered answer are reviewed, `PARALLEL` at a time. A tenant sees no
        name that may not be reviewed, and cannot tell by the time that it was not. `deadline` is
        the end of the scrape time, on the event loop's clock.
        """
        now, since = self._reviewer.now(), asyncio.get_running_loop().time()
        verdicts: dict[str, bool] = {}
        left, invented = [], 0
        for name in namespaces:
            known: bool | None = False
            if is_namespace(name):
                if self._names.may_be_reviewed(self._caller, name, now):
                    known = self._reviewer.remembered(self._caller, self._question(name))
                else:
                    invented += 1
            if known is None:
                self._names.reviewed(self._caller, name, now)
                left.append(name)
            else:
                verdicts[name] = known
        if left or invented:
            try:
                async with asyncio.timeout_at(deadline - MARGIN):
                    if left:
                        verdicts |= await self._review(left)
                    if invented:
                        await self._reviewer.deny_unasked(invented, since)
            except TimeoutError as error:
                message = (
                    "the scrape time was over before your access to every namespace was reviewed"
                )
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
        """Review the namespaces of the path's last response, before anything is fetched."""
        await self._review(self._recent.of(self._path))

    def stream(
        self, *, max_line: int, deadline: float, namespace_labels: NamespaceLabels | None = None
    ) -> TenantStream:
        """The stream that narrows one exposition to wanted namespaces that the tenant sees."""
        narrowed = tenant_filter(self._wanted, max_line=max_line, namespace_labels=namespace_labels)
        return TenantStream(self, narrowed, deadline, self._names.exist, self._note)

    def _note(self, namespaces: set[str]) -> None:
        self._recent.note(self._path, namespaces)


def tenant_filter(
    wanted: Callable[[str], bool],
    *,
    max_line: int,
    namespace_labels: NamespaceLabels | None = None,
    engine: Engine | None = None,
) -> TenantFilter:
    """Returns a filter on an engine, by default on the one in use. Raises EngineError."""
    made = TenantFilter
    if named(engine) == "compiled":
        from kmproxy.auth.compiled_filter import (  # noqa: PLC0415 - it imports the compiled engine
            CompiledTenantFilter as made,  # noqa: N813 - it is a TenantFilter
        )
    return made(wanted, max_line=max_line, namespace_labels=namespace_labels)


class TenantStream:
    """Narrows one exposition while it streams through. No line passes undecided.

    `dropped` counts the lines that were left out. `deadline` is the end of the scrape time, on the
    event loop's clock. At the end `note` gets the namespaces that were asked for and `exist`.
    `feed` and `finish` raise AccessError.
    """

    def __init__(
        self,
        tenant: Tenant,
        narrowed: TenantFilter,
        deadline: float,
        exist: Callable[[str], bool],
        note: Callable[[set[str]], None],
    ) -> None:
        self._tenant = tenant
        self._filter = narrowed
        self._deadline = deadline
        self._exist = exist
        self._note = note
        self._asked: set[str] = set()

    @property
    def dropped(self) -> Mapping[str, int]:
        """Lines left out, by reason."""
        return self._filter.dropped

    async def feed(self, data: bytes) -> bytes:
        """Take the next piece. Returns the lines that can be passed on already."""
        return await self._decided(self._filter.feed(data))

    async def finish(self) -> bytes:
        """End the input. Returns the rest of the lines that pass."""
        rest = await self._decided(self._filter.finish())
        self._note(self._asked)
        return rest

    async def _decided(self, namespaces: Collection[str]) -> bytes:
        if namespaces:
            self._asked.update(filter(self._exist, namespaces))
            self._filter.decide(await self._tenant.sees(namespaces, deadline=self._deadline))
        return self._filter.take()
