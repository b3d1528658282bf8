"""The pods of each scraped node: when its kubelet is asked for them, and which scrapes share that.

Knows when a list is asked for, and how many nodes' pods are held. Must not know what a rule makes
of a pod, HTTP, or what is done to an exposition.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import islice

from prometheus_client import CollectorRegistry, Counter, Gauge

from kmproxy.config.pod_labels import PodConfig
from kmproxy.errors import CredentialError, UpstreamError
from kmproxy.kube.nodes import Node
from kmproxy.labels.pods import RETENTION, AnswerPods, PodLabelReader, PodListing, PodMap
from kmproxy.shared import SharedValue
from kmproxy.sources.kubelet import Kubelet
from kmproxy.sources.shared_read import Room

REFRESH = 60.0
"""Seconds after which the pods of a node are listed again, for labels that were edited."""

INTERVAL = 1.0
"""Seconds from the end of a list to the next one of the same node."""

LIST_TIMEOUT = 10.0
"""Seconds that a list may take, with its wait for others. Scrapes that wait do not change it."""

SHARE = 0.5
"""The part of its time that a scrape waits for a list if it may know all its pods already."""

REFRESHES = 4
"""Lists that are fetched at once because the last ones are old."""

MAX_HELD = 32 << 20
"""Bytes of memory for the pods of all nodes together: 1,000 usual nodes."""

_COST = 4096
"""Bytes of memory that a node takes in addition to its pods."""

_log = logging.getLogger(__package__)


class PodMetrics:
    """The metrics of the lists of pods."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.pods = Gauge(
            "kmproxy_pods",
            "Pods whose labels are known, of all nodes.",
            registry=registry,
        )
        self.gone = Gauge(
            "kmproxy_pods_gone",
            "Pods that left their kubelet's list, and keep their labels for 5 minutes.",
            registry=registry,
        )
        self.left_out = Gauge(
            "kmproxy_pod_label_values_left_out",
            "Values of pods that rules ask for and samples do not get now, as they are too long.",
            registry=registry,
        )
        self.unknown = Counter(
            "kmproxy_unknown_pods",
            "Pods in answers of kubelets that are not in their lists, once for each answer.",
            registry=registry,
        )
        self.lists = Counter(
            "kmproxy_pod_lists",
            "Lists of pods for the labels of samples, by how it went: 'ok', 'failed', or 'empty' "
            "where pods were known before.",
            ["result"],
            registry=registry,
        )
        for result in ("ok", "empty", "failed"):
            self.lists.labels(result)
        self.unlisted = Counter(
            "kmproxy_scrapes_without_pod_list",
            "Scrapes whose list of pods failed or was late, so that known pods were used.",
            registry=registry,
        )


class NodePods:
    """The pods of one node, and their lists, each fetched once for all scrapes that wait.

    Their bytes are counted in `room`, until `forget`.
    """

    def __init__(
        self,
        node: Node,
        fetch: Callable[[Node], Awaitable[PodListing]],
        metrics: PodMetrics,
        room: Room,
        clock: Callable[[], float],
    ) -> None:
        self.node = node
        self.map = PodMap()
        self.used = -math.inf
        """When the node was last scraped."""
        self.refresh_at = -math.inf
        self._fetch = fetch
        self._metrics = metrics
        self._room = room
        self._counted = 0
        self._forgotten = False
        self._clock = clock
        self._failing = False
        self._listed = SharedValue(
            self._list, "list of pods", interval=INTERVAL, max_age=math.inf, clock=clock
        )
        self.busy = False
        """Whether a list is being fetched."""
        self._count()

    def __repr__(self) -> str:
        return f"<NodePods of {self.node.name}, {self.map!r}>"

    def expire(self, now: float) -> None:
        """Forget the pods that left the list and whose time of retention is over."""
        self.map.expire(now)
        self._count()

    def forget(self) -> None:
        """Count no bytes any more. A scrape may still use the pods, and have them listed."""
        self._forgotten = True
        self._count()

    def note_unlisted(self) -> None:
        """Count a scrape that goes on with the known pods, because its list failed or is late."""
        self._metrics.unlisted.inc()

    def note_unknown(self) -> None:
        """Count a pod of an answer that the list does not have."""
        self._metrics.unknown.inc()

    async def listed_after(self, moment: float) -> None:
        """Wait until a list was fetched that was asked for at a moment or later.

        Raises UpstreamError with status 502, or CredentialError, if that list cannot be had.
        """
        try:
            await self._listed.get(2 * LIST_TIMEOUT + INTERVAL, asked_after=moment)
        except UpstreamError as error:
            raise UpstreamError(error.reason, str(error)) from error

    async def refresh(self) -> None:
        """Fetch a list, unless one was fetched just now. A failure is logged and counted."""
        with suppress(UpstreamError, CredentialError):  # the known labels stay
            await self._listed.get(2 * LIST_TIMEOUT)

    async def close(self) -> None:
        """Cancel a running fetch. No fetch begins from now on."""
        await self._listed.close()

    async def _list(self) -> None:
        self.busy, asked = True, self._clock()
        result = "failed"
        try:
            listing = await self._fetch(self.node)
            result = "ok" if len(listing) or not len(self.map) else "empty"
            self.map.swap(listing, self._clock(), asked)
            self._count()
            self._failing = False
        except (UpstreamError, CredentialError) as error:
            if not self._failing:
                _log.warning("no list of the pods of %s: %s", self.node.name, error)
            self._failing = True
            raise
        finally:
            self.busy = False
            self.refresh_at = self._clock() + REFRESH
            self._metrics.lists.labels(result).inc()

    def _count(self) -> None:
        size = 0 if self._forgotten else _COST + self.map.size
        self._room.held += size - self._counted
        self._counted = size


class ScrapePods:
    """The pods of the node of one scrape, whose answer `began` at a time of the lists' clock.

    The scrape itself came at the time `now`, which is later if it shares the answer. `deadline` is
    the end of the scrape time, on the event loop's clock.
    """

    def __init__(
        self, pods: NodePods, began: float, now: float, deadline: float, *, keep: bool
    ) -> None:
        self._pods = pods
        self._began = began
        self._now = now
        self._deadline = deadline
        self._answer = AnswerPods(pods.map, began, keep=keep, note=pods.note_unknown)
        self.lookup = self._answer.lookup

    def __repr__(self) -> str:
        return f"<ScrapePods {self._answer!r}>"

    @property
    def longest(self) -> int:
        """Bytes of the longest labels of a pod."""
        return self._pods.map.longest

    async def list(self) -> None:
        """Wait for a list that was asked for after the answer had begun.

        The first call raises no error, and waits for a `SHARE` of the scrape time that is left. If
        the list is not there then, the known pods suffice until another one is looked up. The next
        call is for that one: it waits for the whole time, and raises the UpstreamError.
        """
        if self._answer.asked:
            await self._listed()
            self._answer.use_list()
            return
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(self._deadline - now, 0.0) * SHARE):
                await self._listed()
        except (TimeoutError, UpstreamError, CredentialError):
            self._answer.use_known()
            self._pods.note_unlisted()
        else:
            self._answer.use_list()

    async def _listed(self) -> None:
        """Wait for a list. If it failed for an earlier scrape of the answer, ask again."""
        try:
            await self._pods.listed_after(self._began)
        except (UpstreamError, CredentialError):
            if self._began >= self._now:
                raise
            await self._pods.listed_after(self._now)


class PodLists:
    """The pods of all scraped nodes.

    The pods of a node are forgotten if it was not scraped for `RETENTION`. The nodes that were
    scraped longest ago are forgotten while all together take more than `MAX_HELD` bytes: their next
    scrape waits for a list. A list needs no slot of the scrapes, which hold theirs while they wait
    for it; of lists as many are fetched at once as there are slots (`at_once`), and `REFRESHES`.
    """

    def __init__(
        self,
        config: PodConfig,
        kubelet: Kubelet,
        *,
        max_value: int,
        at_once: int,
        metrics: PodMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._kubelet = kubelet
        self._max_value = max_value
        self._turns = asyncio.Semaphore(at_once + REFRESHES)
        self._room = Room(MAX_HELD)
        self._metrics = metrics
        self._clock = clock
        self._nodes: OrderedDict[tuple[str, str | None], NodePods] = OrderedDict()  # last used last
        self._refreshing: set[asyncio.Task[None]] = set()
        metrics.pods.set_function(lambda: self._sum(len))
        metrics.gone.set_function(lambda: self._sum(lambda pods: pods.gone))
        metrics.left_out.set_function(lambda: self._sum(lambda pods: pods.left_out))

    def __repr__(self) -> str:
        return f"<PodLists of {len(self._nodes)} nodes, {self._room!r}>"

    def scraped(
        self, node: Node, deadline: float = math.inf, began: float | None = None
    ) -> ScrapePods:
        """The pods for a scrape of a node whose answer has `began` then, or just now."""
        now = self._clock()
        pods = self._of(node)
        pods.used = now
        pods.expire(now)
        self._forget(now)
        keep = self._config.unknown_pod == "keep"
        return ScrapePods(pods, now if began is None else began, now, deadline, keep=keep)

    async def run(self) -> None:
        """List the pods of the configured node now, and those of all nodes when they are old."""
        if self._kubelet.has_node:
            self._of(self._kubelet.configured)
        try:
            while True:
                self._refresh()
                await asyncio.sleep(INTERVAL)
        finally:
            for task in self._refreshing:
                task.cancel()
            for pods in self._nodes.values():
                await pods.close()

    def _of(self, node: Node) -> NodePods:
        key = node.name, node.uid
        pods = self._nodes.get(key)
        if pods is None:
            pods = NodePods(node, self._fetch, self._metrics, self._room, self._clock)
            self._nodes[key] = pods
            pods.used = self._clock()
        pods.node = node  # its address may have changed
        self._nodes.move_to_end(key)
        return pods

    def _refresh(self) -> None:
        """Begin the lists that are due, as far as there is room for them."""
        now = self._clock()
        for pods in self._nodes.values():
            pods.expire(now)
            if len(self._refreshing) < REFRESHES and pods.refresh_at <= now and not pods.busy:
                task = asyncio.create_task(pods.refresh())
                self._refreshing.add(task)
                task.add_done_callback(self._refreshing.discard)
        self._forget(now)

    def _forget(self, now: float) -> None:
        """Forget nodes until the limits are met, but none whose list is being fetched.

        The nodes stand in the order of their last scrapes, so the first one to keep ends the loop.
        """
        own = self._kubelet.configured if self._kubelet.has_node else None
        gone = []
        for key, pods in islice(self._nodes.items(), max(len(self._nodes) - 1, 0)):
            idle = pods.used + RETENTION <= now
            if not idle and not self._room.full:
                break
            if not pods.busy and (self._room.full or pods.node != own):
                pods.forget()
                gone.append(key)
        for key in gone:
            del self._nodes[key]

    async def _fetch(self, node: Node) -> PodListing:
        try:
            async with asyncio.timeout(LIST_TIMEOUT), self._turns:
                reader = PodLabelReader(self._config, max_value=self._max_value)
                await self._kubelet.pods(node, reader)
                for _ in reader.end():
                    await asyncio.sleep(0)
                return reader.finish()
        except TimeoutError as error:
            message = f"no whole list of pods from the kubelet within {LIST_TIMEOUT:g} s"
            raise UpstreamError("timeout", message) from error

    def _sum(self, count: Callable[[PodMap], int]) -> float:
        return sum(count(pods.map) for pods in self._nodes.values())
