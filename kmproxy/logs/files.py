"""Polls the kubelet for its pods and for the ends of their log files, and hands the lines on.

Knows when the kubelet is asked, over how many connections, and what happens if it fails. Must not
know files' contents, labels or pushes: a `LogReader` for each container decides what is asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from math import isfinite
from typing import Final, Protocol

from kmproxy.errors import CredentialError, UpstreamError
from kmproxy.kube.backoff import Backoff
from kmproxy.kube.reviews import LogThrottle
from kmproxy.labels.pods import PodLabelReader
from kmproxy.logs.batches import Batches
from kmproxy.logs.exchange import Response
from kmproxy.logs.lines import Container, Mark
from kmproxy.logs.pod_labels import NodePodLabels
from kmproxy.logs.pods import Followed, LogPodReader, LogSelection
from kmproxy.logs.positions import FilePosition, PositionBook
from kmproxy.logs.progress import Tally
from kmproxy.logs.reader import LogReader
from kmproxy.logs.source import ReadMetrics
from kmproxy.sources.kubelet import LogAnswer, Reader
from kmproxy.telemetry import bounded

PODS_INTERVAL: Final = 2.0
"""Seconds between two lists of pods."""

CONNECTIONS: Final = 4
"""Requests to the kubelet for log files at the same time."""

CHUNK: Final = 256 << 10
"""Bytes of a log file that are asked for at once, at most."""

TICK: Final = 0.05
"""Seconds between two looks at what is due, at least."""

ENDING: Final = 0.25
"""Seconds between two requests for a file whose pod may be removed soon."""

HELD: Final = 0.5
"""Seconds after which a container is looked at again whose lines wait for their labels."""

PAUSE: Final = 300.0
"""Seconds between two log lines with one reason."""

PODS_PATIENCE: Final = 20.0
"""Seconds for a whole list of pods. A kubelet that hangs is asked again after it."""

FOLDER: Final = "/logs/pods/"

ELSEWHERE: Final = "and its log files cannot be read; see --source=api"

_OF_ONE_FILE: Final = frozenset({"status", "framing", "too_large", "cut", "short"})
"""Failures of which other files may be free."""

_log = logging.getLogger(__package__)


class LogSource(Protocol):
    """A node's kubelet. Both methods raise UpstreamError."""

    async def pods(self, reader: Reader) -> None:
        """Feed the list of pods to a reader."""

    async def log(self, path: str, span: tuple[int, int] | None) -> LogAnswer:
        """Get a part of a file, or a folder's index."""


@dataclass(frozen=True, slots=True)
class _Both:
    """Feeds one list to the reader of containers and to that of labels."""

    containers: LogPodReader
    labels: PodLabelReader | None

    def feed(self, data: bytes) -> None:
        self.containers.feed(data)
        if self.labels is not None:
            self.labels.feed(data)


@dataclass(slots=True, eq=False)
class Reading:
    """One container that is read. `is_busy` while a request for it is under way or waits."""

    seen: Followed
    reader: LogReader
    is_busy: bool = False
    last_error: str | None = None
    added: int = 0
    taken: int = 0
    was_named: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether every line that was handed on has been acknowledged."""
        return self.added == self.taken

    def acknowledge(self, mark: Mark) -> None:
        """Move the container's position."""
        self.taken = max(self.taken, mark.number)
        self.reader.acknowledge(mark)

    def is_due(self, now: float) -> bool:
        """Whether a request, or bytes that are already here, wait to be handled."""
        reader = self.reader
        return not reader.finished and (reader.has_backlog or reader.due <= now)


@dataclass(slots=True, eq=False)
class FileSource:
    """Reads the log files of a node's containers.

    `room` returns when lines may be added, and the bytes that may be fetched. `max_age` is in
    seconds. A container that left the list is read to its end.
    """

    source: LogSource
    selection: LogSelection
    batches: Batches
    book: PositionBook
    metrics: ReadMetrics
    _: KW_ONLY
    room: Callable[[], Awaitable[int]]
    max_line: int
    max_age: float
    clock: Callable[[], float]
    wall: Callable[[], float]
    uniform: Callable[[float, float], float]
    labels: NodePodLabels | None = None
    listed: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    """Set once the pods were listed."""
    trouble: str | None = field(init=False, default=None)
    """Why the pods cannot be listed or the logs not be read, or None."""
    _readings: dict[Container, Reading] = field(init=False, default_factory=dict)
    _tally: Tally = field(init=False, default_factory=Tally)
    _queue: deque[Reading] = field(init=False, default_factory=deque)
    _queued: asyncio.Semaphore = field(init=False, default_factory=lambda: asyncio.Semaphore(0))
    _wake: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _reserved: int = field(init=False, default=0)
    _paused: float = field(init=False, default=0.0)
    _pause: Backoff = field(init=False)
    _throttle: LogThrottle = field(init=False, default_factory=lambda: LogThrottle(PAUSE))

    def __post_init__(self) -> None:
        self._pause = Backoff(uniform=self.uniform)
        self.metrics.follow(self)

    def __repr__(self) -> str:
        return f"<FileSource {len(self)} containers>"

    def __len__(self) -> int:
        return len(self._readings)

    def all(self) -> Iterator[Reading]:
        """Yield what is read."""
        yield from tuple(self._readings.values())

    def collect(self) -> None:
        """Bring the book of positions up to date."""
        now = self.wall()
        for each in self.all():
            if (position := each.reader.position) is not None:
                container = each.reader.container
                self.book.set((container.uid, container.name), position, now)

    async def run(self) -> None:
        """Read until it is cancelled. What was added to the batches stays there."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._dispatch())
            for _ in range(CONNECTIONS):
                group.create_task(self._work())

    async def _follow(self) -> None:
        """List the pods again and again."""
        backoff = Backoff(uniform=self.uniform)
        is_proved = False
        while True:
            reader = LogPodReader(self.selection)
            labels = self.labels.reader() if self.labels else None
            try:
                await self._list(_Both(reader, labels))
                found = reader.finish()
                if self.labels and labels:
                    self.labels.take(labels, self.clock())
            except (UpstreamError, CredentialError) as error:
                self._failed(error, "pods")
                delay = max(PODS_INTERVAL, backoff.delay(self.clock()))
            else:
                if reader.left_out:
                    what = f"{reader.left_out} containers are not read: too many, or no names"
                    self._say("left_out", what)
                if found and not is_proved:
                    is_proved = await self._prove()
                self._update(found)
                delay = PODS_INTERVAL
            await asyncio.sleep(delay)

    async def _list(self, reader: Reader) -> None:
        """Feed the list of pods to a reader. Raises UpstreamError after `PODS_PATIENCE`, too."""
        try:
            async with asyncio.timeout(PODS_PATIENCE):
                await self.source.pods(reader)
        except TimeoutError as error:
            message = f"the kubelet did not list its pods within {PODS_PATIENCE:g} s"
            raise UpstreamError("timeout", message, status=504) from error

    async def _prove(self) -> bool:
        """Look once whether the kubelet serves the folder of all logs, and say if it does not."""
        try:
            answer = await self.source.log(FOLDER, None)
        except (UpstreamError, CredentialError) as error:
            self._failed(error, "logs")
            return False
        if answer.status == 404:
            self.trouble = f"the kubelet has no {FOLDER}: its podLogsDir is elsewhere, {ELSEWHERE}"
            self._say("folder", self.trouble)
            return False
        return True

    def _update(self, found: dict[Container, Followed]) -> None:
        """Follow the containers of a list, and let those that are gone end."""
        now = self.clock()
        for container, seen in found.items():
            reading = self._readings.get(container)
            if reading is not None and reading.reader.finished and reading.is_settled:
                self._drop(reading)  # it was away from the list, as after a restart of the kubelet
                reading = None
            if reading is None:
                reading = self._readings[container] = self._begin(seen)
            reading.seen = seen
            reading.reader.observe(seen.latest, now, is_ended=seen.is_ended)
        for reading in self.all():
            if reading.reader.container in found:
                continue
            if reading.reader.finished and reading.is_settled and not reading.is_busy:
                self._drop(reading)
            else:
                latest = reading.seen.latest
                reading.reader.observe(latest, now, is_ended=True, is_deleted=True)
        if not self.listed.is_set():
            self.listed.set()
            _log.info("%d containers to read", len(self))
        self._wake.set()

    def _begin(self, seen: Followed) -> Reading:
        container = seen.container
        position = self.book.get((container.uid, container.name))
        oldest = int((self.wall() - self.max_age) * 1e9)
        kept = position if isinstance(position, FilePosition) else None
        reader = LogReader(container, kept, self._tally, max_line=self.max_line, oldest=oldest)
        return Reading(seen, reader)

    def _drop(self, reading: Reading) -> None:
        """Forget a container. Its position stays for a while, as it may be listed again."""
        container = reading.reader.container
        if (position := reading.reader.position) is not None:
            self.book.set((container.uid, container.name), position, self.wall())
        del self._readings[container]

    async def _dispatch(self) -> None:
        """Queue what is due."""
        while True:
            self._wake.clear()
            now = self.clock()
            upcoming = now + PODS_INTERVAL
            due = []
            for each in self._readings.values():
                if each.is_busy or each.reader.finished:
                    continue
                if not each.is_due(now):
                    upcoming = min(upcoming, each.reader.due)
                elif not self.batches.takes(each.reader.container):
                    upcoming = min(upcoming, now + HELD)
                else:
                    due.append(each)
            due.sort(key=lambda each: each.reader.due)
            for each in due:
                self._enqueue(each)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(upcoming - now, TICK)):
                    await self._wake.wait()
            await asyncio.sleep(max(0.0, now + TICK - self.clock()))

    def _enqueue(self, reading: Reading) -> None:
        reading.is_busy = True
        self._queue.append(reading)
        self._queued.release()

    async def _work(self) -> None:
        """Handle what is queued, one after the other, over one connection at a time."""
        while True:
            await self._queued.acquire()
            reading = self._queue.popleft()
            try:
                did_ask = await self._step(reading)
            finally:
                reading.is_busy = False
            now = self.clock()
            if not did_ask:  # nothing comes, until `observe` tells of news
                reading.reader.due = max(reading.reader.due, now + PODS_INTERVAL)
            elif reading.is_due(now) and self.batches.takes(reading.reader.container):
                self._enqueue(reading)
            elif reading.seen.is_ending and isfinite(reading.reader.due):
                reading.reader.due = min(reading.reader.due, now + ENDING)
            self._wake.set()
            await asyncio.sleep(0)

    async def _step(self, reading: Reading) -> bool:
        """Ask for the next bytes of one container, and add their lines.

        Returns whether there was something to ask for.
        """
        await asyncio.sleep(max(0.0, self._paused - self.clock()))
        reader = reading.reader
        room = await self._reserve()
        try:
            if reader.has_backlog:
                lines = reader.resume(self.clock(), room)
            else:
                request = reader.request(self.clock(), room)
                if request is None:
                    return False
                span = None
                if request.first is not None and request.last is not None:
                    span = request.first, request.last
                self.metrics.requests.inc()
                answer = await self.source.log(request.path, span)
                response = Response.of(answer.status, answer.content_range, answer.body)
                lines = reader.respond(response, self.clock(), room)
            for line, mark in lines:
                reading.added = mark.number
                self.batches.add(line, mark, reading.acknowledge)
        except (UpstreamError, CredentialError) as error:
            reader.retry(self.clock())
            reading.last_error = str(error)
            self._failed(error, "logs")
            if getattr(error, "reason", "") not in _OF_ONE_FILE:
                now = self.clock()
                self._paused = max(self._paused, now + self._pause.delay(now, unreached=True))
        else:
            reading.last_error = None
            self.trouble = None
        finally:
            self._reserved -= room
            self.metrics.take(self._tally)
        if reader.is_docker and not reading.was_named:
            reading.was_named = True
            reading.last_error = "its files hold docker's JSON lines, which are not supported"
            self._say("docker", f"a container is not read: {reading.last_error}")
        return True

    async def _reserve(self) -> int:
        """Wait for room, and take some of it until the lines were added."""
        while True:
            room = min(await self.room() - self._reserved, CHUNK)
            if room > 0:
                self._reserved += room
                return room
            await asyncio.sleep(TICK)

    def _failed(self, error: UpstreamError | CredentialError, what: str) -> None:
        """Count and say a failure of the kubelet."""
        reason = error.reason if isinstance(error, UpstreamError) else "credential"
        self.metrics.errors.count("kubelet", reason)
        self.trouble = str(error)
        self._say(f"{what} {bounded(reason)}", str(error))

    def _say(self, reason: str, message: str) -> None:
        if (unsaid := self._throttle.lets(reason, self.clock())) is not None:
            more = f" ({unsaid} more of such lines were left out)" if unsaid else ""
            _log.warning("%s%s", message, more)
