"""Lists of a node's pods and of the cluster's nodes, as scrape targets, with their age.

Knows when to fetch a list again, which requests share a fetch, and how long the last
good list replaces one that failed. Must not know HTTP, or the content of a list.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge

from kmproxy.config.sections import DiscoveryConfig
from kmproxy.discovery.documents import LIMITS, TargetList
from kmproxy.discovery.nodes import ListedNode, NodeList
from kmproxy.discovery.pods import PodReader
from kmproxy.errors import CredentialError, UpstreamError
from kmproxy.exposition.selection import Globs
from kmproxy.kube.nodes import NodeDirectory
from kmproxy.shared import Found, SharedValue
from kmproxy.sources.kubelet import Kubelet
from kmproxy.sources.slots import ConcurrencyLimit, Slot
from kmproxy.telemetry import UpstreamErrors

FETCH_TIMEOUT = 10.0
"""Seconds that a fetch may take, with the wait for a slot. Requests that wait do not change it."""

MAX_HELD = 16 << 20
"""Bytes of pods' targets that are held for all nodes together, at most."""

MAX_LISTS = 5000
"""Nodes for which pods' targets are held, at most."""

DISCOVERY = "discovery"
"""The asker of node look-ups by name. All requests share it, as they share a list."""

Role = Literal["pod", "node"]

_T = TypeVar("_T")

_log = logging.getLogger(__package__)


class DiscoveryMetrics:
    """Counts requests for targets and the fetches of lists, and shows what is held."""

    def __init__(self, registry: CollectorRegistry, errors: UpstreamErrors) -> None:
        self.errors = errors
        self.requests = Counter(
            "kmproxy_discovery_requests",
            "Requests for scrape targets, by path and HTTP status.",
            ["path", "code"],
            registry=registry,
        )
        self.fetches = Counter(
            "kmproxy_discovery_fetches",
            "Requests for lists of pods or nodes for scrape targets, by result: 'ok' or 'failed'.",
            ["role", "result"],
            registry=registry,
        )
        self.targets = Gauge(
            "kmproxy_discovery_targets",
            "Scrape targets of all nodes whose targets were requested.",
            ["role"],
            registry=registry,
        )
        self.left_out = Gauge(
            "kmproxy_discovery_left_out",
            "Parts left out of lists of targets, by the limit in bytes that they exceed: values "
            "over the limit of a 'value' or of a 'pod', 'targets' of a pod, pods of a 'list', and "
            "pods of the last 'document'.",
            ["limit"],
            registry=registry,
        )
        self.age = Gauge(
            "kmproxy_discovery_age_seconds",
            "Age of the list in the last answer; greater than the refresh interval if kmproxy "
            "cannot fetch lists.",
            ["role"],
            registry=registry,
        )


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class TargetService:
    """Finds the pods of the configured node. With `directory`, also nodes, and pods of any node.

    With `workloads` the targets of pods have their workload as labels.
    """

    config: DiscoveryConfig
    workloads: bool = False
    kubelet: Kubelet
    directory: NodeDirectory | None
    slots: ConcurrencyLimit
    metrics: DiscoveryMetrics
    clock: Callable[[], float]
    _wanted: Callable[[str], bool] = field(init=False)
    _configured: SharedValue[TargetList] = field(init=False)
    _named: OrderedDict[str, SharedValue[TargetList]] = field(
        init=False, default_factory=OrderedDict
    )
    _listed: SharedValue[list[ListedNode]] = field(init=False)

    def __post_init__(self) -> None:
        self._wanted = Globs(self.config.namespace or ("*",)).match
        self._configured = self._of(None)
        self._listed = self._shared("node", self._fetch_nodes)
        self.metrics.targets.labels("pod").set_function(self._pod_targets)
        for limit in LIMITS:
            self.metrics.left_out.labels(limit).set_function(partial(self._left_out, limit))

    def __repr__(self) -> str:
        return f"<TargetService {self._configured!r}, {len(self._named)} nodes by name>"

    async def pods(self, node: str | None, patience: float) -> Found[TargetList]:
        """The targets of the pods of a node. None is the configured node.

        Raises UpstreamError, with status 404 for a node that does not exist.
        """
        if node is None:
            if not self.kubelet.has_node:
                message = "no node is configured: name a node, as in /sd/pods?node=NAME"
                raise UpstreamError("no_node", message, status=404)
            try:
                return self._answered("pod", await self._configured.get(patience))
            finally:
                self._forget()
        self._directory()
        shared = self._named.get(node)
        if shared is None:
            shared = self._named[node] = self._of(node)
        self._named.move_to_end(node)
        try:
            found = await shared.get(patience)
        except UpstreamError as error:
            if error.status == 404 and self._named.get(node) is shared:
                del self._named[node]
            raise
        finally:
            self._forget()
        return self._answered("pod", found)

    async def nodes(self, patience: float) -> Found[list[ListedNode]]:
        """All nodes of the cluster. Raises UpstreamError."""
        self._directory()
        return self._answered("node", await self._listed.get(patience))

    @asynccontextmanager
    async def slot(self, patience: float, asker: str) -> AsyncIterator[Slot]:
        """Hold one of the slots of scrapes while a response is sent. Raises UpstreamError."""
        deadline = asyncio.get_running_loop().time() + patience
        async with self.slots.taken(deadline, asker) as slot:
            yield slot

    async def close(self) -> None:
        """Cancel all running fetches."""
        await self._listed.close()
        for shared in (self._configured, *self._named.values()):
            await shared.close()

    def _of(self, node: str | None) -> SharedValue[TargetList]:
        return self._shared("pod", lambda: self._fetch_pods(node))

    def _shared(self, role: Role, fetch: Callable[[], Awaitable[_T]]) -> SharedValue[_T]:
        return SharedValue(
            lambda: self._counted(role, fetch()),
            "list",
            interval=self.config.refresh_interval,
            max_age=self.config.max_age,
            clock=self.clock,
        )

    def _answered(self, role: Role, found: Found[_T]) -> Found[_T]:
        self.metrics.age.labels(role).set(found.age)
        return found

    def _forget(self) -> None:
        """Remove the least recently requested lists of nodes by name until the limits are met.

        The list of the configured node counts, and stays.
        """
        held = sum(each.size for each in self._held())
        while len(self._named) > MAX_LISTS or (held > MAX_HELD and len(self._named) > 1):
            _, shared = self._named.popitem(last=False)
            held -= shared.held.size if shared.held else 0

    async def _counted(self, role: Role, fetch: Awaitable[_T]) -> _T:
        result = "failed"
        try:
            fetched = await fetch
            result = "ok"
        except UpstreamError as error:
            _log.warning("no %ss for discovery: %s", role, error)
            raise
        else:
            return fetched
        finally:
            self.metrics.fetches.labels(role, result).inc()

    async def _fetch_pods(self, name: str | None) -> TargetList:
        deadline = asyncio.get_running_loop().time() + FETCH_TIMEOUT
        node = self.kubelet.configured
        if name is not None:
            async with self._asking("apiserver", deadline):
                node = await self._directory().find(name, asker=DISCOVERY)
        async with self.slots.taken(deadline), self._asking("kubelet", deadline):
            reader = PodReader(self._wanted, workloads=self.workloads)
            await self.kubelet.pods(node, reader)
            return reader.finish()

    async def _fetch_nodes(self) -> list[ListedNode]:
        deadline = asyncio.get_running_loop().time() + FETCH_TIMEOUT
        listed = NodeList()
        async with (
            self._asking("apiserver", deadline),
            aclosing(self._directory().list_all()) as found,
        ):
            async for some in found:
                for each in some:
                    listed.add(ListedNode.of(each.name, each.labels, each.annotations))
        nodes = listed.finish()
        self.metrics.targets.labels("node").set(len(nodes))
        return nodes

    def _directory(self) -> NodeDirectory:
        if self.directory is None:
            raise UpstreamError(
                "no_node", "kmproxy serves nodes by name only with --all-nodes", status=404
            )
        return self.directory

    def _held(self) -> Iterator[TargetList]:
        for shared in (self._configured, *self._named.values()):
            if shared.held is not None:
                yield shared.held

    def _pod_targets(self) -> float:
        return sum(each.count for each in self._held())

    def _left_out(self, limit: str) -> float:
        return sum(each.left_out.get(limit, 0) for each in self._held())

    @asynccontextmanager
    async def _asking(self, upstream: str, deadline: float) -> AsyncIterator[None]:
        """Limit the block by the deadline, and count a failure of the upstream."""
        try:
            async with asyncio.timeout_at(deadline):
                yield
        except TimeoutError as error:
            self.metrics.errors.count(upstream, "timeout")
            message = f"no whole answer from the {upstream} within {FETCH_TIMEOUT:g} s"
            raise UpstreamError("timeout", message, status=504) from error
        except UpstreamError as error:
            self.metrics.errors.count(upstream, error.reason)
            raise
        except CredentialError as error:
            raise UpstreamError("credential", str(error)) from error
