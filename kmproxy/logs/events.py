"""Reads Kubernetes events from the API server, and hands them on as lines.

Knows when to list and when to watch. Must not know which process may do so, or where positions are
kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from kmproxy.errors import ApiError, CredentialError, UpstreamError
from kmproxy.kube.apiserver import REQUEST_TIMEOUT, ApiServer
from kmproxy.kube.backoff import Backoff
from kmproxy.kube.object_list import ListReader
from kmproxy.kube.permissions import EVENTS, advice
from kmproxy.kube.reviews import LogThrottle
from kmproxy.kube.watch import SILENCE, Next
from kmproxy.logs.batches import Batches
from kmproxy.logs.event_progress import EventMark, EventPosition, EventProgress
from kmproxy.logs.event_text import Event, read_event, version_of
from kmproxy.logs.event_watch import (
    EventChange,
    EventWatch,
    event_namespaces,
    event_path,
    is_gone,
)
from kmproxy.logs.lines import NO_INSTANCE, Container, Line
from kmproxy.logs.pods import LogSelection
from kmproxy.logs.progress import Tally
from kmproxy.telemetry import UpstreamErrors, bounded

STREAM: Final = "event"
"""The value of the label `stream` of events."""

SLICE: Final = 100
"""Events of a list that are read in one turn of the event loop."""

PAUSE: Final = 300.0
"""Seconds between two log lines with one reason."""

_ACCEPT: Final = "application/json"

_log = logging.getLogger(__package__)


class EventMetrics:
    """Counts events, and shows how far they are behind, and which process sends them."""

    def __init__(
        self, registry: CollectorRegistry, lost: Counter, cut: Counter, errors: UpstreamErrors
    ) -> None:
        self.errors = errors
        self._lost = lost
        self._cut = cut
        self._lines = Counter(
            "kmproxy_log_event_lines_read",
            "Lines of Kubernetes events that were read, with --events.",
            registry=registry,
        )
        self._leading = Gauge(
            "kmproxy_log_events_leader",
            "1 in the process that sends events (it holds the Lease), else 0.",
            registry=registry,
        )
        self._lag = Gauge(
            "kmproxy_log_events_lag_seconds",
            "Time since an event was read that the endpoint has not taken yet, or since the API "
            "server could not be asked; 0 if neither is so, and in other processes than the "
            "leader.",
            registry=registry,
        )
        self.terms = Counter(
            "kmproxy_log_events_terms",
            "Times that this process took the Lease: 'released', from a process that ended in "
            "order, or 'expired', from one that may have sent lines after its last position.",
            ["how"],
            registry=registry,
        )
        for reason in ("history", "unreadable"):
            lost.labels(reason)
        for how in ("released", "expired"):
            self.terms.labels(how)

    def take(self, tally: Tally) -> None:
        """Count what a tally has, and empty it."""
        self._lines.inc(tally.lines)
        self._cut.inc(tally.cut)
        for reason, number in tally.lost.items():
            self._lost.labels(reason).inc(number)
        tally.lines = tally.cut = 0
        tally.lost.clear()

    def follow(self, leads: Callable[[], bool], lag: Callable[[], float]) -> None:
        """Show the state of the process whenever the metrics are read."""
        self._leading.set_function(leads)
        self._lag.set_function(lag)


@dataclass(slots=True, eq=False, kw_only=True)
class EventOptions:
    """The parameters of all readers of events. They stay over all terms of the process.

    `max_age` is in seconds, `wall` gives seconds since 1970.
    """

    api: ApiServer
    namespaces: tuple[str, ...]
    selection: LogSelection
    metrics: EventMetrics
    max_line: int
    max_age: float
    clock: Callable[[], float]
    wall: Callable[[], float]
    uniform: Callable[[float, float], float]
    _troubles: dict[str, str] = field(init=False, default_factory=dict)
    _throttle: LogThrottle = field(init=False, default_factory=lambda: LogThrottle(PAUSE))

    @property
    def trouble(self) -> str | None:
        """Why events cannot be read or sent, or None."""
        return next(iter(self._troubles.values()), None)

    def failed(self, part: str, error: UpstreamError | CredentialError, message: str) -> None:
        """Count and say a failure of the API server. A part has one trouble until it is well."""
        reason = error.reason if isinstance(error, UpstreamError) else "credential"
        self.metrics.errors.count("apiserver", reason)
        self.refused(part, bounded(reason), message)

    def refused(self, part: str, reason: str, message: str) -> None:
        """Say why a part cannot go on, unless a line with this reason was written lately."""
        self._troubles[part] = message
        if (unsaid := self._throttle.lets(reason, self.clock())) is not None:
            more = f" ({unsaid} more of such lines were left out)" if unsaid else ""
            _log.warning("%s%s", message, more)

    def well(self, part: str) -> None:
        """Record that a part goes on."""
        self._troubles.pop(part, None)


@dataclass(slots=True, eq=False)
class EventReader:
    """Reads the events of one namespace, or of all (""), from a position on.

    `room` returns when lines may be added.
    """

    options: EventOptions
    namespace: str
    progress: EventProgress
    batches: Batches
    room: Callable[[], Awaitable[int]]
    stale_since: float | None = field(init=False, default=None)
    """When the API server could be asked no more, or None while it can be."""
    _: KW_ONLY
    _watch_state: EventWatch = field(init=False)
    _backoff: Backoff = field(init=False)
    _seen_at: float = field(init=False)

    def __post_init__(self) -> None:
        options = self.options
        self._watch_state = EventWatch(uniform=options.uniform)
        self._backoff = Backoff(uniform=options.uniform)
        self._seen_at = options.clock()

    async def run(self) -> None:
        """List and watch until cancelled. After a failure, wait and try again."""
        options, clock = self.options, self.options.clock
        step = Next.WATCH if self.progress.version else Next.LIST
        is_gone_now = False
        while True:
            listing = step.lists
            try:
                if listing:
                    step = await self._list(is_gap=is_gone_now)
                    is_gone_now = False
                else:
                    step = await self._watch()
                continue
            except (UpstreamError, CredentialError) as error:
                step = self._failed(error, listing=listing)
                if not listing:
                    is_gone_now = step is Next.LIST
                if not step.at_once:
                    least = getattr(error, "retry_after", None) or 0.0
                    await asyncio.sleep(self._backoff.delay(clock(), at_least=least))
            finally:
                options.metrics.take(self.progress.tally)

    def leave(self) -> None:
        """Forget the trouble: another process has the events now."""
        self._is_well()

    async def _list(self, *, is_gap: bool) -> Next:
        """List all events, and hand on those that are new. Count a gap if there may be one."""
        progress = self.progress
        was_read = progress.was_read
        # The first page has one event only. Then the version of the list is known before the
        # others come, and all further pages are of this version.
        first: list[bytes] = []
        token, number = await self._page(self._watch_state.list_params(limit=1), first.append)
        self._seen_at = self.options.clock()
        is_gap = progress.begin_list(number) or is_gap
        for each in first:
            await self._list_one(each)
        while token:
            token, _ = await self._page(self._watch_state.list_params(token), self._list_one)
        if was_read and (is_gap or progress.found):
            progress.tally.lost["history"] += 1
        progress.end_list()
        self._is_well()
        return Next.WATCH_AT_ONCE

    async def _page(
        self, params: Mapping[str, str], take: Callable[[bytes], Awaitable[None] | None]
    ) -> tuple[str, int]:
        """Hand the objects of one page on. Return the token of the next one, and the version."""
        page, number = ListReader(), 0
        async with self.options.api.stream(
            event_path(self.namespace), params, accept=_ACCEPT, silence=REQUEST_TIMEOUT
        ) as pieces:
            async for piece in pieces:
                for each in page.raw(piece):
                    if (waits := take(each)) is not None:
                        await waits
                    number += 1
                    if number % SLICE == 0:
                        await asyncio.sleep(0)
        end = page.finish()
        version = version_of(end.resource_version)
        if version is None:
            raise ApiError(200, "garbage", "the resource version of events is not a number")
        return end.continue_, version

    async def _list_one(self, data: bytes) -> None:
        options = self.options
        event = read_event(data, options.max_line)
        if event is None:
            self.progress.tally.lost["unreadable"] += 1
        elif options.selection.wants_namespace(event.namespace):
            await self.room()
            made = self.progress.list_event(event, options.clock(), self._wall())
            self._add(event, made)

    async def _watch(self) -> Next:
        options, progress, state = self.options, self.progress, self._watch_state
        # A watch from a version of the future is silent. So it would not show that the API server
        # was restored from a backup, until its versions have passed ours.
        _, version = await self._page(state.list_params(limit=1), lambda _: None)
        if version < progress.version:
            raise ApiError(410, "Expired", "the API server was restored from a backup")
        began = options.clock()
        async with options.api.stream(
            event_path(self.namespace), state.watch_params(progress.version),
            accept=_ACCEPT, silence=SILENCE,
        ) as pieces:  # fmt: skip
            state.opened()
            self._is_well()
            async for piece in pieces:
                for change in state.feed(piece):
                    self._seen_at = options.clock()
                    await self._take(change)
                options.metrics.take(progress.tally)
        now = options.clock()
        return state.ended(now - began, now - self._seen_at)

    async def _take(self, change: EventChange) -> None:
        """Take one change of a watch."""
        options = self.options
        event = read_event(change.event, options.max_line) if change.event else None
        if change.event and event is None:
            raise ApiError(200, "garbage", "an event cannot be read")
        if event is None or not options.selection.wants_namespace(event.namespace):
            self.progress.reach(change.version)
            return
        await self.room()
        made = self.progress.change(event, options.clock(), self._wall())
        self._add(event, made)

    def _add(self, event: Event, made: tuple[Container, EventMark] | None) -> None:
        """Hand a line on, unless the event makes none."""
        if made is None:
            return
        queue, mark = made
        time = self._wall() if event.time is None else event.time
        line = Line(queue, NO_INSTANCE, STREAM, time, event.text)
        self.batches.add(line, mark, self.progress.acknowledge)

    def _wall(self) -> int:
        return int(self.options.wall() * 1e9)

    def _is_well(self) -> None:
        self.stale_since = None
        self.options.well(event_path(self.namespace))

    def _failed(self, error: UpstreamError | CredentialError, *, listing: bool) -> Next:
        """Record a failure, and return the next step."""
        options = self.options
        now = options.clock()
        step = Next.LIST if listing else Next.WATCH
        if isinstance(error, UpstreamError):
            step = self._watch_state.failed(error, listing=listing, age=now - self._seen_at)
            if step.at_once:
                return step  # the watch was silent, as it is if nothing happens
        verb = "list" if listing else "watch"
        message = str(error)
        if isinstance(error, ApiError):
            message = error.summary
            if error.code == 403:
                message = f"the API server forbids to {verb} events: {advice(*EVENTS)}"
            elif is_gone(error):
                message = "the API server has no history since the last event"
        options.failed(event_path(self.namespace), error, f"cannot {verb} events: {message}")
        if self.stale_since is None:
            self.stale_since = now
        return step


def event_readers(
    options: EventOptions,
    positions: Mapping[str, EventPosition],
    batches: Batches,
    room: Callable[[], Awaitable[int]],
) -> list[EventReader]:
    """Return a reader for each namespace to watch, from its position on."""
    oldest = int((options.wall() - options.max_age) * 1e9)
    readers = []
    for namespace in event_namespaces(options.namespaces):
        known = positions.get(namespace) or positions.get("") or EventPosition()
        progress = EventProgress(known, Tally(), oldest)
        readers.append(EventReader(options, namespace, progress, batches, room))
    return readers
