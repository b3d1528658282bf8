"""Reads containers' logs from the API server: one request that stays open for each container.

Knows how many requests are open, when they are read on, and what happens if one fails. Must not
know labels or pushes: an `ApiReader` for each container decides what is asked.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from kmproxy.errors import ApiError, CredentialError, UpstreamError
from kmproxy.kube.apiserver import REQUEST_TIMEOUT, ApiServer
from kmproxy.kube.backoff import Backoff
from kmproxy.kube.permissions import POD_LOG, advice
from kmproxy.logs.api_pods import Found, PodWatcher, places
from kmproxy.logs.api_reader import ApiReader, ApiRequest
from kmproxy.logs.lines import Container
from kmproxy.logs.pod_labels import WatchedPodLabels
from kmproxy.logs.pods import Followed
from kmproxy.logs.positions import ApiPosition, Position
from kmproxy.logs.source import HELD, Reading, Source

MAX_FOLLOWERS: Final = 200
"""Containers that are followed at the same time. Each has a connection of its own."""

MAX_READS: Final = 8
"""Requests at the same time that do not stay open: of ended instances."""

TICK: Final = 0.2
"""Seconds between two looks at what is due."""

QUIET: Final = 5.0
"""Seconds without a byte after which the log of an instance that has ended counts as read."""

SILENCE: Final = (600.0, 900.0)
"""Seconds without a byte after which a log is asked for again: the connection may be dead. The
answer for a container that writes nothing does not even begin."""


class FollowMetrics:
    """Shows how many logs are followed, and how many containers wait for a place."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._followers = Gauge(
            "kmproxy_log_followers",
            "Requests for logs that stay open, with --source=api.",
            registry=registry,
        )
        self._waiting = Gauge(
            "kmproxy_log_containers_waiting",
            "Containers that wait until another one is followed no more, with --source=api.",
            registry=registry,
        )

    def follow(self, source: ApiSource) -> None:
        """Show the state of the source whenever the metrics are read."""
        self._followers.set_function(lambda: source.followers)
        self._waiting.set_function(lambda: source.waiting)


@dataclass(slots=True, eq=False)
class ApiReading(Reading[ApiReader]):
    """One container that is read. `task` reads the answer of a request under way."""

    task: asyncio.Task[None] | None = None
    is_following: bool = False
    is_dismissed: bool = False
    heard: float = 0.0


@dataclass(slots=True, eq=False, kw_only=True)
class ApiSource(Source[ApiReading]):
    """Reads the logs of the pods that the API server lists.

    `node` is the name of the only node, or None. A container of a pod that was deleted is read to
    the end of its open answer.
    """

    api: ApiServer
    node: str | None
    namespaces: tuple[str, ...]
    follow_metrics: FollowMetrics
    labels: WatchedPodLabels | None = None
    followers: int = field(init=False, default=0)
    waiting: int = field(init=False, default=0)
    _watchers: list[PodWatcher] = field(init=False, default_factory=list)
    _known: dict[str, dict[str, tuple[Followed, ...]]] = field(init=False, default_factory=dict)
    _reads: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._watchers = [
            PodWatcher(
                self.api, path, self.node, self.selection, self,
                clock=self.clock, uniform=self.uniform, labels=self.labels,
            )
            for path in places(self.namespaces)
        ]  # fmt: skip
        super(ApiSource, self).__post_init__()
        self.follow_metrics.follow(self)

    async def run(self) -> None:
        """Read until it is cancelled. What was added to the batches stays there."""
        async with asyncio.TaskGroup() as group:
            for watcher in self._watchers:
                group.create_task(watcher.run())
            group.create_task(self._dispatch(group))

    def replace(self, path: str, found: Found) -> None:
        """Replace all pods of a list."""
        before = self._known.get(path, {})
        self._known[path] = dict(found)
        for uid in before.keys() - found.keys():
            self._delete(before[uid])
        for containers in found.values():
            self._observe(containers)
        self._say_left_out(sum(each.left_out for each in self._watchers))
        if len(self._known) == len(self._watchers):
            self._is_listed({uid for each in self._known.values() for uid in each})
        if self.trouble is not None and all(each.is_live for each in self._watchers):
            self.trouble = None

    def change(self, path: str, uid: str, found: tuple[Followed, ...] | None) -> None:
        """Replace a pod. None: it was deleted."""
        known = self._known.setdefault(path, {})
        if found is None:
            self._delete(known.pop(uid, ()))
            return
        if found:
            known[uid] = found
        self._observe(found)

    def note_failure(self, error: UpstreamError | CredentialError, what: str, message: str) -> None:
        """Count and say a failure."""
        self._failed(error, "apiserver", what, message)

    def _miss(self, container: Container, position: Position | None) -> None:
        """Count a gap: nothing is left to read of a pod that the API server does not have."""
        is_ours = position is None or isinstance(position, ApiPosition)
        if is_ours and self.node in {None, container.node}:
            is_behind = self.book.is_behind((container.uid, container.name))
            self._tally.lost["deleted" if is_behind else "unseen"] += 1
            self.metrics.take(self._tally)
            self.book.keep(container, position, self.wall(), is_over=True, is_behind=is_behind)

    def _observe(self, containers: tuple[Followed, ...]) -> None:
        now = self.clock()
        for seen in containers:
            reading = self._readings.get(seen.container)
            if reading is None:
                reading = self._readings[seen.container] = self._begin(seen)
            reading.seen = seen
            reading.reader.observe(seen.latest, now, is_ended=seen.is_ended)
        self._wake.set()

    def _delete(self, containers: tuple[Followed, ...]) -> None:
        now = self.clock()
        for seen in containers:
            if (reading := self._readings.get(seen.container)) is not None:
                reading.reader.observe(reading.seen.latest, now, is_ended=True, is_deleted=True)
        self._wake.set()

    def _begin(self, seen: Followed) -> ApiReading:
        container = seen.container
        position = self.book.get((container.uid, container.name))
        reader = ApiReader(
            container,
            position if isinstance(position, ApiPosition) else None,
            self._tally,
            max_line=self.max_line,
            oldest=self._oldest(),
            backoff=Backoff(uniform=self.uniform),
            opened=self.opened,
        )
        return ApiReading(seen, reader, heard=self.clock())

    async def _dispatch(self, group: asyncio.TaskGroup) -> None:
        """Begin requests that are due, as long as there are places for them."""
        while True:
            self._wake.clear()
            now = self.clock()
            is_live = all(each.is_live for each in self._watchers)
            due = []
            for each in self.all():
                if each.task is not None:
                    self._dismiss(each, now)
                elif each.reader.finished and each.is_settled:
                    self._drop(each)
                elif each.reader.due <= now and is_live:
                    due.append(each)
            self.waiting = 0
            for each in sorted(due, key=lambda each: each.reader.due):
                follows = each.reader.follows
                if follows and self.followers >= MAX_FOLLOWERS:
                    self.waiting += 1
                elif follows or self._reads < MAX_READS:
                    self._ask(group, each, now)
            if self.waiting:
                what = f"{self.waiting} containers wait: {MAX_FOLLOWERS} logs are followed at most"
                self._say("waiting", f"{what}; share the pods among processes with --shard")
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK):
                    await self._wake.wait()
            await asyncio.sleep(TICK / 4)

    def _dismiss(self, reading: ApiReading, now: float) -> None:
        """End a request for an instance that has ended, and of which no more bytes come."""
        if reading.is_following and reading.reader.is_over and now - reading.heard > QUIET:
            reading.is_dismissed = True
            if reading.task is not None:
                reading.task.cancel()

    def _ask(self, group: asyncio.TaskGroup, reading: ApiReading, now: float) -> None:
        request = reading.reader.request(now)
        if request is None:
            return
        reading.heard, reading.is_following = now, request.follow
        reading.is_dismissed = False
        self.followers += request.follow
        self._reads += not request.follow
        self.metrics.requests.inc()
        reading.task = group.create_task(self._read(reading, request))

    async def _read(self, reading: ApiReading, request: ApiRequest) -> None:
        """Read one answer to its end."""
        reader = reading.reader
        try:
            await self._take(reading, request)
        except asyncio.CancelledError:
            if not reading.is_dismissed:
                raise
            reader.fail(self.clock(), is_quiet=True)
        except ApiError as error:
            self._refused(reading, error)
        except (UpstreamError, CredentialError) as error:
            is_quiet = request.follow and getattr(error, "reason", "") == "timeout"
            reader.fail(self.clock(), is_quiet=is_quiet)
            if not is_quiet:
                reading.last_error = str(error)
                self.note_failure(error, "logs", str(error))
        finally:
            reading.task = None
            self.followers -= request.follow
            self._reads -= not request.follow
            self.metrics.take(self._tally)
            self._wake.set()

    async def _take(self, reading: ApiReading, request: ApiRequest) -> None:
        reader, container = reading.reader, reading.reader.container
        path = f"/api/v1/namespaces/{container.namespace}/pods/{container.pod}/log"
        params = {"container": container.name, "timestamps": "true"}
        if request.follow:
            params["follow"] = "true"
        if request.previous:
            params["previous"] = "true"
        if request.since is not None:
            params["sinceTime"] = f"{datetime.fromtimestamp(request.since, UTC):%Y-%m-%dT%H:%M:%SZ}"
        silence = self.uniform(*SILENCE) if request.follow else REQUEST_TIMEOUT
        await self._admit(reading)
        async with self.api.stream(path, params, accept="*/*", silence=silence) as pieces:
            self._answered(reading)
            async for piece in pieces:
                await self._admit(reading)
                reading.heard = self.clock()
                self._add(reading, reader.feed(piece))
                self.metrics.take(self._tally)
                if reader.is_doubtful:
                    reader.fail(self.clock())
                    return
                await self._admit(reading)  # the socket is not read before there is room
        self._add(reading, reader.end(self.clock()))

    async def _admit(self, reading: ApiReading) -> None:
        """Wait until lines of this container may be added."""
        while await self.room() <= 0 or not self.batches.takes(reading.reader.container):
            reading.heard = self.clock()
            await asyncio.sleep(HELD)

    def _answered(self, reading: ApiReading) -> None:
        reading.last_error = None
        if all(each.is_live for each in self._watchers):
            self.trouble = None

    def _refused(self, reading: ApiReading, error: ApiError) -> None:
        """Take an answer with an error status."""
        reader, now = reading.reader, self.clock()
        if error.code in {400, 404}:  # not begun, no instance before, or the pod is gone
            reading.last_error = error.summary
            reader.refuse(now)
            return
        reader.fail(now, at_least=error.retry_after or 0.0)
        message = error.summary
        if error.code == 403:
            message = f"the API server forbids to read logs: {advice(POD_LOG)}"
        reading.last_error = message
        self.note_failure(error, "logs", message)
