"""The sources of scrapes: an endpoint of a node's kubelet, or an upstream.

Knows how a source is found and fetched, and which server it waits for. Must not know requests,
deadlines or statuses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from kmproxy.exposition.pipeline import Recipe
from kmproxy.exposition.series import SeriesRoom
from kmproxy.kube.nodes import Node, NodeDirectory
from kmproxy.scrape.pod_lists import PodLists, ScrapePods
from kmproxy.sources.answer import Exposition
from kmproxy.sources.kubelet import Kubelet, MetricsSource
from kmproxy.sources.slots import ConcurrencyLimit

if TYPE_CHECKING:
    from kmproxy.sources.http import HttpSource


@dataclass(frozen=True, slots=True)
class Server:
    """A server that a scrape waits for.

    `label` is its name in kmproxy's own metrics, `name` its name for a person. `delay` is a reason
    why it may take long, or empty.
    """

    label: str
    name: str
    delay: str = ""


API_SERVER: Final = Server("apiserver", "API server")


class Source(Protocol):
    """A source of one scrape. It has a limit, a room and a recipe that other scrapes share."""

    @property
    def limit(self) -> ConcurrencyLimit:
        """The limit in which the scrape has to find a slot."""

    @property
    def room(self) -> SeriesRoom:
        """The room for the series of the scrape."""

    @property
    def recipe(self) -> Recipe:
        """The steps for its exposition, without those of a query."""

    @property
    def server(self) -> Server:
        """The server that the scrape waits for now."""

    @property
    def named(self) -> str:
        """The name of the node, if the request named it and it was found. Empty otherwise."""

    def pods(self, exposition: Exposition, deadline: float) -> ScrapePods | None:
        """The pods for the labels of an exposition that was fetched, or None.

        `deadline` is the end of the scrape time, on the event loop's clock.
        """

    def fetch(self) -> AbstractAsyncContextManager[Exposition]:
        """Fetch the exposition. Raises UpstreamError of `server`."""


@dataclass(frozen=True, slots=True, eq=False)
class Kubelets:
    """The kubelets of a cluster. All scrapes of them share one limit.

    `metrics` fetches from the kubelets, or shares their answers. `nodes` is None unless every node
    is served. `pods` is None unless samples get labels of pods.
    """

    kubelet: Kubelet
    metrics: MetricsSource
    nodes: NodeDirectory | None
    limit: ConcurrencyLimit
    room: SeriesRoom
    recipe: Recipe
    pods: PodLists | None

    def source(self, endpoint: str, node: str | None, asker: str) -> NodeSource:
        """An endpoint of a node, or of the configured node."""
        return NodeSource(self, endpoint, node, asker)


@dataclass(slots=True, eq=False)
class NodeSource:
    """An endpoint of a node's kubelet. Without a name it is the configured node.

    `asker` is the name of the caller, or empty.
    """

    kubelets: Kubelets
    endpoint: str
    name: str | None
    asker: str
    node: Node | None = None

    @property
    def limit(self) -> ConcurrencyLimit:
        """The limit of all kubelets."""
        return self.kubelets.limit

    @property
    def room(self) -> SeriesRoom:
        """The room of all kubelets."""
        return self.kubelets.room

    @property
    def recipe(self) -> Recipe:
        """The recipe of all kubelets."""
        return self.kubelets.recipe

    @property
    def named(self) -> str:
        """The name of the node, if the request named it and it was found. Empty otherwise."""
        return self.name or "" if self.node is not None else ""

    def pods(self, exposition: Exposition, deadline: float) -> ScrapePods | None:
        """The pods of the node."""
        lists = self.kubelets.pods
        if lists is None or self.node is None:
            return None
        return lists.scraped(self.node, deadline, exposition.began)

    @property
    def server(self) -> Server:
        """The API server until the node is found, then the node's kubelet."""
        if self.node is None:
            return API_SERVER
        away = self.kubelets.kubelet.away
        delay = f"{away}, and the kubelet may still wait for a review" if away else ""
        return Server("kubelet", "kubelet", delay)

    @asynccontextmanager
    async def fetch(self) -> AsyncIterator[Exposition]:
        """Find the node, and fetch its endpoint. Raises UpstreamError."""
        kubelets = self.kubelets
        if self.name is None or kubelets.nodes is None:
            self.node = kubelets.kubelet.configured
        else:
            self.node = await kubelets.nodes.find(self.name, asker=self.asker)
        async with kubelets.metrics.fetch(self.node, self.endpoint) as exposition:
            yield exposition


@dataclass(frozen=True, slots=True, eq=False)
class UpstreamSource:
    """An upstream, with a limit of its own, so that it takes no slot from a kubelet's scrape.

    The room is shared with other upstreams, not with kubelets.
    """

    http: HttpSource
    limit: ConcurrencyLimit
    room: SeriesRoom
    recipe: Recipe

    @property
    def named(self) -> str:
        """Empty: an upstream is no node."""
        return ""

    def pods(self, exposition: Exposition, deadline: float) -> None:  # noqa: ARG002 - as of nodes
        """None: only the samples of kubelets get labels of pods."""
        return

    @property
    def server(self) -> Server:
        """The upstream."""
        return Server(self.http.name, f"upstream {self.http.name}")

    def fetch(self) -> AbstractAsyncContextManager[Exposition]:
        """Fetch the exposition. Raises UpstreamError."""
        return self.http.fetch()
