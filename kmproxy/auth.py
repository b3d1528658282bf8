"""Who asks, and may they: the gates of the modes of authorization.

Knows which question each mode asks about a caller, and what a tenant sees. Must
not know HTTP requests and answers, nor how a review is made.
"""

from __future__ import annotations

import asyncio
import ipaddress
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from kmproxy.config import AuthorizationConfig
from kmproxy.errors import AccessError
from kmproxy.reviewer import Reviewer
from kmproxy.reviews import Caller, Question, bearer_token, is_namespace
from kmproxy.tenancy import Recent, TenantFilter
from kmproxy.values import Resource

PARALLEL = 8
"""Namespaces that are reviewed at once for one scrape."""

MARGIN = 0.05
"""Seconds before a scrape's end at which it is given up to wait for reviews."""

NODE_METRICS = Resource("nodes", "metrics")


@dataclass(frozen=True, slots=True)
class Place:
    """What a request wants to see.

    `path` is as it was sent, `node` the node's name where that is known.
    `wanted` says of a namespace whether it is asked for at all, where what is
    served can be narrowed to namespaces; else it is None.
    """

    path: str
    node: str = ""
    wanted: Callable[[str], bool] | None = None


class Tenant:
    """A caller who sees some namespaces: those in which it may `get` a resource.

    `path` is what it has asked for, `wanted` what of it. `recent` is shared by
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

        What has to be reviewed is so `PARALLEL` at a time. `deadline` is the
        event loop's time at which the scrape's own is up.
        """
        try:
            async with asyncio.timeout_at(deadline - MARGIN):
                return await self._review(namespaces)
        except TimeoutError as error:
            message = "your access to every namespace was not reviewed in the scrape's time"
            raise AccessError(500, "review", message) from error

    async def _review(self, namespaces: Collection[str]) -> dict[str, bool]:
        verdicts = {name: False for name in namespaces if not is_namespace(name)}
        left = iter([name for name in namespaces if name not in verdicts])

        async def ask() -> None:
            for namespace in left:
                question = Question(resource=self._resource, namespace=namespace)
                verdicts[namespace] = await self._reviewer.may(self._caller, question)

        tasks = [asyncio.create_task(ask()) for _ in range(min(PARALLEL, len(namespaces)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return verdicts

    async def foresee(self) -> None:
        """Have reviewed what the last answers held, before anything is fetched."""
        await self._review(self._recent.of(self._path, self._wanted))

    def narrowing(self, *, max_line: int, deadline: float) -> Narrowing:
        """What narrows one exposition to what the tenant sees of what it wants."""
        narrowed = TenantFilter(self._wanted, max_line=max_line)
        return Narrowing(self, narrowed, deadline, self._note)

    def _note(self, namespaces: set[str]) -> None:
        self._recent.note(self._path, self._wanted, namespaces)


class Narrowing:
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


class Gate(ABC):
    """Lets callers in, in one of the modes of `--authorization`."""

    def __init__(self, reviewer: Reviewer) -> None:
        self._reviewer = reviewer

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._reviewer!r}>"

    async def identify(self, authorization: Sequence[str]) -> Caller:
        """Who asks, by the values of the Authorization headers. Raises AccessError."""
        token = bearer_token(authorization)
        if token is None:
            raise AccessError(401, "no_token", "a bearer token is needed, and only one")
        caller = await self._reviewer.authenticate(token)
        if caller is None:
            message = "the API server does not accept the bearer token: is it of this cluster, "
            message += "still valid, and for one of --authorization-audience if that is given?"
            raise AccessError(401, "bad_token", message)
        return caller

    @abstractmethod
    async def admit(self, caller: Caller, place: Place) -> Tenant | None:
        """Let a caller see a place, whole (None) or as a tenant. Raises AccessError."""

    async def _require(self, caller: Caller, question: Question, where: str = "") -> None:
        if not await self._reviewer.may(caller, question):
            message = f"user {caller.username[:200]!r} may not {question}{where}"
            raise AccessError(403, "denied", message)


class KubernetesGate(Gate):
    """Asks whether a caller may get the path itself, or `nodes/metrics`."""

    def __init__(self, reviewer: Reviewer, *, by_path: bool) -> None:
        super().__init__(reviewer)
        self._by_path = by_path

    async def admit(self, caller: Caller, place: Place) -> None:
        """Let a caller see a place, or raise AccessError."""
        if self._by_path:
            question = Question(path=place.path)
        else:
            question = Question(resource=NODE_METRICS, name=place.node)
        await self._require(caller, question)


class TenantGate(Gate):
    """Asks in which namespaces a caller may `get` a resource.

    Who may in all of them at once sees everything. Who may not is a tenant,
    and let in only where what is served can be narrowed.
    """

    def __init__(self, reviewer: Reviewer, resource: Resource) -> None:
        super().__init__(reviewer)
        self._resource = resource
        self._recent = Recent()

    async def admit(self, caller: Caller, place: Place) -> Tenant | None:
        """Let a caller see a place, whole (None) or as a tenant. Raises AccessError."""
        everywhere = Question(resource=self._resource)
        if place.wanted is not None and not await self._reviewer.may(caller, everywhere):
            tenant = Tenant(
                self._reviewer, caller, self._resource,
                path=place.path, wanted=place.wanted, recent=self._recent,
            )  # fmt: skip
            await tenant.foresee()
            return tenant
        await self._require(caller, everywhere, " in every namespace")
        return None


def open_gate(config: AuthorizationConfig, reviewer: Reviewer) -> Gate:
    """The gate of a mode of authorization other than none."""
    if config.mode == "tenant":
        return TenantGate(reviewer, config.tenant_resource)
    return KubernetesGate(reviewer, by_path=config.attributes == "path")


def node_name(host: str) -> str:
    """The node's name that `--node-name-or-ip` gives, empty if it gives none."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "" if host == "localhost" else host
    return ""
