"""The loop that keeps the label map up to date: list, watch, and begin again.

Knows the order of the requests, and the name of each failure. Must not know how requests are sent
or how labels are rendered. The loop ends only by cancellation.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import KW_ONLY, InitVar, dataclass, field
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

from kmproxy.errors import ApiError, CredentialError, KmproxyError, UpstreamError
from kmproxy.kube.apiserver import ApiServer
from kmproxy.kube.backoff import Backoff
from kmproxy.kube.object_list import ListReader
from kmproxy.kube.objects import ObjectMeta
from kmproxy.kube.outage import Outage
from kmproxy.kube.permissions import NAMESPACES, advice
from kmproxy.kube.watch import SILENCE, WATCH_ACCEPT, Change, Next, WatchState
from kmproxy.labels.label_map import LIMITS, LabelMap, Restored
from kmproxy.telemetry import UpstreamErrors, bounded

PATH = "/api/v1/namespaces"

_log = logging.getLogger(__package__)


async def list_namespaces(
    api: ApiServer, state: WatchState
) -> AsyncGenerator[list[ObjectMeta], None]:
    """List every namespace, in portions; at the end give the resource version to `state`.

    No portion is kept, so a list may have any length. Other tasks can run between two portions.
    Raises UpstreamError.
    """
    token = ""
    while True:
        reader = ListReader()
        async with aclosing(api.objects(PATH, state.list_params(token), reader)) as objects:
            async for namespaces in objects:
                yield namespaces
        page = reader.finish()
        token = page.continue_
        if not token:
            state.listed(page.resource_version)
            return


def explained(error: ApiError, verb: str) -> str:
    """Explain why namespaces cannot be listed or watched, and tell the remedy."""
    if error.code == 403:
        return f"the API server forbids to {verb} namespaces: {advice(*NAMESPACES)}"
    return error.summary


class WatchMetrics:
    """Shows the size and the age of the label map, and counts the watches that began again."""

    def __init__(self, registry: CollectorRegistry, errors: UpstreamErrors) -> None:
        self.errors = errors
        self._namespaces = Gauge(
            "kmproxy_namespaces", "Namespaces in the label map.", registry=registry
        )
        self._without_label = Gauge(
            "kmproxy_namespaces_without_label",
            "Namespaces without a value of their own for a label of the rules.",
            ["label"],
            registry=registry,
        )
        self._left_out = Gauge(
            "kmproxy_label_values_left_out",
            "Values that the rules select and samples do not get, by the limit in bytes that they "
            "exceed: of a 'value' (--max-label-value-bytes), of a 'namespace', or of the whole "
            "'map'.",
            ["limit"],
            registry=registry,
        )
        self._sync_age = Gauge(
            "kmproxy_namespaces_sync_age_seconds",
            "Time since the API server last confirmed the label map, by a list, an event or "
            "a bookmark; +Inf before the first list. Bookmarks come once a minute.",
            registry=registry,
        )
        self._restored = Gauge(
            "kmproxy_labels_restored",
            "1 while the labels come from the snapshot, 0 after the first list.",
            registry=registry,
        )
        self.restarts = Counter(
            "kmproxy_watch_restarts",
            "Restarts of the watch of namespaces, by reason.",
            ["reason"],
            registry=registry,
        )

    def follow(self, labels: LabelMap, watcher: NamespaceWatcher) -> None:
        """Let the gauges ask the label map and its watcher at each scrape."""
        self._namespaces.set_function(lambda: len(labels))
        for name in labels.names:
            self._without_label.labels(name).set_function(partial(labels.lacking, name))
        for limit in LIMITS:
            self._left_out.labels(limit).set_function(partial(labels.left_out, limit))
        self._sync_age.set_function(lambda: watcher.sync_age)
        self._restored.set_function(lambda: watcher.restored)

    def restarted(self, reason: str) -> None:
        """Count the end of a watch."""
        self.restarts.labels(bounded(reason)).inc()


@dataclass(slots=True, eq=False)
class NamespaceWatcher:
    """Keeps label maps up to date from the API server. It is their only writer.

    `also` are further maps, which render the same namespaces for another use. The watcher records
    in `outage` whether the API server is away.
    """

    api: ApiServer
    labels: LabelMap
    also: tuple[LabelMap, ...] = ()
    _: KW_ONLY
    metrics: WatchMetrics
    clock: Callable[[], float]
    uniform: InitVar[Callable[[float, float], float]]
    outage: Outage
    _maps: tuple[LabelMap, ...] = field(init=False)
    _state: WatchState = field(init=False)
    _backoff: Backoff = field(init=False)
    _listed_at: str | None = field(init=False, default=None)  # the listed API server, by its URL
    _synced_at: float | None = field(init=False, default=None)
    _loaded: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _trouble: str | None = field(init=False, default=None)
    _away: bool = field(init=False, default=False)
    _restored: bool = field(init=False, default=False)

    def __post_init__(self, uniform: Callable[[float, float], float]) -> None:
        self._maps = (self.labels, *self.also)
        self._state = WatchState(uniform=uniform)
        self._backoff = Backoff(uniform=uniform)
        self.metrics.follow(self.labels, self)

    def __repr__(self) -> str:
        if self._synced_at is None:
            return f"<NamespaceWatcher not loaded, {self._trouble or 'no trouble yet'}>"
        return f"<NamespaceWatcher {self.labels!r}, synced {self.sync_age:.0f}s ago>"

    @property
    def loaded(self) -> bool:
        """Whether kmproxy has labels to serve, listed or restored. Once true, it stays true."""
        return self._loaded.is_set()

    @property
    def restored(self) -> bool:
        """Whether the labels come from a snapshot, and no list has replaced them yet."""
        return self._restored

    @property
    def away(self) -> bool:
        """Whether the API server itself failed last. False if it answered and refused us."""
        return self._away

    @property
    def sync_age(self) -> float:
        """Seconds since the API server last confirmed the map; infinite before the first list."""
        return math.inf if self._synced_at is None else self.clock() - self._synced_at

    @property
    def trouble(self) -> str | None:
        """The message of the last failure, or None if the API server has answered since."""
        return self._trouble

    def unloaded(self) -> str | None:
        """Explain why kmproxy has no labels to serve yet, or return None if it has."""
        if self.loaded:
            return None
        return f"namespaces are not loaded yet{f': {self._trouble}' if self._trouble else ''}"

    async def wait_loaded(self) -> None:
        """Wait until `loaded`."""
        await self._loaded.wait()

    def restore(self, restored: Restored, age: float) -> bool:
        """Serve labels that are `age` seconds old, until the first list replaces them.

        Returns whether they are served. If labels are loaded already, they stay, and it returns
        False.
        """
        if self.loaded:
            return False
        self.labels.restore(restored, self.clock())
        self._synced_at = self.clock() - age
        self._restored = True
        self._loaded.set()
        return True

    async def run(self) -> None:
        """List and watch until cancelled. After a failure, wait and try again."""
        sweeper = asyncio.create_task(self._sweep())
        try:
            await self._run()
        finally:
            sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await sweeper

    async def _run(self) -> None:
        step = Next.LIST
        while True:
            listing, began = step.lists, self.clock()
            try:
                step = await (self._list() if listing else self._watch())
            except (UpstreamError, CredentialError) as error:
                step = self._failed(error, listing=listing, lasted=self.clock() - began)
                if step.at_once:
                    continue
                await asyncio.sleep(self._delay(error, listing=listing))

    def _delay(self, error: UpstreamError | CredentialError, *, listing: bool) -> float:
        """Return the seconds to wait after a failure."""
        at_least = getattr(error, "retry_after", None) or 0.0
        unreached = isinstance(error, UpstreamError) and self._state.unreached(
            error, listing=listing
        )
        return self._backoff.delay(self.clock(), at_least=at_least, unreached=unreached)

    async def _list(self) -> Next:
        server = self.api.server
        listings = [labels.listing() for labels in self._maps]
        async for some in list_namespaces(self.api, self._state):
            for labels, listing in zip(self._maps, listings, strict=True):
                labels.collect(listing, some)
        for labels, listing in zip(self._maps, listings, strict=True):
            labels.swap(listing, self.clock())
        self._listed_at = server
        self._confirmed()
        if self._restored or not self.loaded:
            _log.info("namespaces loaded: %d", len(self.labels))
        self._restored = False
        self._loaded.set()
        return Next.WATCH_AT_ONCE

    async def _watch(self) -> Next:
        began = self.clock()
        params = self._state.watch_params()
        async with self.api.stream(PATH, params, accept=WATCH_ACCEPT, silence=SILENCE) as pieces:
            self._require_same()
            self._state.opened()
            self._well_again()
            async for piece in pieces:
                self._require_same()
                for change in self._state.feed(piece):
                    if change is not None:
                        self._apply(change)
                    self._confirmed()
        step = self._state.ended(self.clock() - began)
        self.metrics.restarted("ended")
        return step

    def _require_same(self) -> None:
        """Raise ApiError if the API server has changed since the list: the cluster may differ."""
        if self.api.server != self._listed_at:
            raise ApiError(200, "moved", "the API server's address has changed since the list")

    def _apply(self, change: Change) -> None:
        for labels in self._maps:
            if change.kind == "DELETED":
                labels.delete(change.meta.name, self.clock())
            else:
                labels.put(change.meta)

    def _confirmed(self) -> None:
        self._synced_at = self.clock()
        self._well_again()

    def _well_again(self) -> None:
        self.outage.over()
        if self._trouble:
            _log.info("the API server answers again")
            self._trouble = None
            self._away = False

    def _failed(self, error: KmproxyError, *, listing: bool, lasted: float) -> Next:
        """Record a failure after `lasted` seconds; return the next step."""
        verb = "list" if listing else "watch"
        reason, message = "credential", str(error)
        step = Next.LIST if listing else Next.WATCH
        self._away = isinstance(error, UpstreamError)
        if isinstance(error, ApiError):
            self._away = error.code == 429 or error.code >= 500
            message = explained(error, verb)
        if isinstance(error, UpstreamError):
            self.outage.failed(error)
            step = self._state.failed(error, listing=listing, lasted=lasted)
            reason = error.reason
            self.metrics.errors.count("apiserver", reason)
        if not listing:
            self.metrics.restarted(reason)
        level = logging.INFO if reason in {"Expired", "Gone", "short"} else logging.WARNING
        _log.log(level, "cannot %s namespaces: %s", verb, message)
        self._trouble = message
        return step

    async def _sweep(self) -> None:
        """Once a second, forget the deleted namespaces whose time of retention is over."""
        while True:
            await asyncio.sleep(1.0)
            for labels in self._maps:
                labels.expire(self.clock())
