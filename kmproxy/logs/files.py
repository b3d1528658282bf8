"""Polls the kubelet for its pods and for the ends of their log files, and hands the lines on.

Knows when the kubelet is asked, over how many connections, and what happens if it fails. Must not
know files' contents, labels or pushes: a `LogReader` for each container decides what is asked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from typing import Final, Protocol

from kmproxy.errors import CredentialError, UpstreamError
from kmproxy.kube.backoff import Backoff
from kmproxy.labels.pods import PodLabelReader
from kmproxy.logs.exchange import Response
from kmproxy.logs.lines import Container
from kmproxy.logs.pod_labels import NodePodLabels
from kmproxy.logs.pods import Followed, LogPodReader
from kmproxy.logs.positions import FilePosition, Position
from kmproxy.logs.queues import OVERHEAD
from kmproxy.logs.reader import LogReader
from kmproxy.logs.source import HELD, Reading, Source
from kmproxy.sources.kubelet import Reader
from kmproxy.sources.log_answer import LogAnswer

PODS_INTERVAL: Final = 2.0
"""Seconds between two lists of pods."""

PODS_ENDING: Final = 1.0
"""Seconds between two lists while containers run whose pods are deleted. Once a list shows their
end, the end of their files can be believed."""

CONNECTIONS: Final = 4
"""Requests to the kubelet for log files at the same time."""

CHUNK: Final = 256 << 10
"""Bytes of a log file that are asked for at once, at most."""

LEAST_CHUNK: Final = 16 << 10
"""Bytes that are asked for at once, at least."""

GROWTH: Final = OVERHEAD // 40
"""Bytes of memory that a byte of a log file may become: a line has 40 bytes or more."""

TICK: Final = 0.05
"""Seconds between two looks at what is due, at least."""

ENDING: Final = 0.25
"""Seconds between two requests for a file whose pod may be removed soon."""

PODS_PATIENCE: Final = 20.0
"""Seconds for a whole list of pods. A kubelet that hangs is asked again after it."""

FOLDER: Final = "/logs/pods/"

ELSEWHERE: Final = "and its log files cannot be read; see --source=api"

_OF_ONE_FILE: Final = frozenset({"status", "framing", "garbage", "too_large", "cut", "short"})
"""Failures of which other files may be free."""


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
class FileReading(Reading[LogReader]):
    """One container that is read. `is_busy` while a request for it is under way or waits."""

    is_busy: bool = False
    was_named: bool = False

    def is_due(self, now: float) -> bool:
        """Whether a request, or bytes that are already here, wait to be handled."""
        reader = self.reader
        return not reader.finished and (reader.has_backlog or reader.due <= now)


@dataclass(slots=True, eq=False, kw_only=True)
class FileSource(Source[FileReading]):
    """Reads the log files of a node's containers. One that left the list is read to its end."""

    source: LogSource
    labels: NodePodLabels | None = None
    _queue: deque[FileReading] = field(init=False, default_factory=deque)
    _queued: asyncio.Semaphore = field(init=False, default_factory=lambda: asyncio.Semaphore(0))
    _reserved: int = field(init=False, default=0)
    _answers: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    """Cleared by a failure of the kubelet, until it answers: requests wait until `_paused`."""
    _paused: float = field(init=False, default=0.0)
    _pause: Backoff = field(init=False)

    def __post_init__(self) -> None:
        self._pause = Backoff(uniform=self.uniform)
        self._answers.set()
        super(FileSource, self).__post_init__()

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
                self._failed(error, "kubelet", "pods", str(error))
                delay = max(PODS_INTERVAL, backoff.delay(self.clock()))
            else:
                self._say_left_out(reader.left_out)
                if found and not is_proved:
                    is_proved = await self._prove()
                self._update(found)
                ends = any(each.is_ending and not each.is_ended for each in found.values())
                delay = PODS_ENDING if ends else PODS_INTERVAL
                backoff = Backoff(uniform=self.uniform)
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
            self._failed(error, "kubelet", "logs", str(error))
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
            reading.reader.observe(seen.latest, now, is_ended=seen.is_ended, is_final=seen.is_final)
        for reading in self.all():
            if reading.reader.container in found:
                continue
            if reading.reader.finished and reading.is_settled and not reading.is_busy:
                self._drop(reading)
            else:
                latest = reading.seen.latest
                reading.reader.observe(latest, now, is_ended=True, is_deleted=True)
        self._is_listed({each.uid for each in found})
        self._wake.set()

    def _miss(self, container: Container, position: Position | None) -> None:
        if position is None or isinstance(position, FilePosition):
            latest = position.instance if position else 0
            seen = Followed(container, latest, is_ended=True, is_ending=False)
            reading = self._readings[container] = self._begin(seen)
            reading.reader.observe(latest, self.clock(), is_ended=True, is_deleted=True)

    def _begin(self, seen: Followed) -> FileReading:
        container = seen.container
        key = container.uid, container.name
        position = self.book.get(key)
        kept = position if isinstance(position, FilePosition) else None
        oldest = self._oldest()
        reader = LogReader(
            container, kept, self._tally,
            max_line=self.max_line, oldest=oldest, opened=self.opened,
            is_behind=self.book.is_behind(key),
        )  # fmt: skip
        return FileReading(seen, reader)

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

    def _enqueue(self, reading: FileReading) -> None:
        reading.is_busy = True
        self._queue.append(reading)
        self._queued.release()

    async def _work(self) -> None:
        """Handle what is queued, one after the other, over one connection at a time."""
        while True:
            await self._queued.acquire()
            reading = self._queue.popleft()
            try:
                did_ask = await self._read(reading)
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

    async def _read(self, reading: FileReading) -> bool:
        """Ask for the next bytes of one container, and add their lines.

        Bytes that wait for a listing, or to be unpacked, are handled before others are fetched.
        Returns whether there was something to ask for.
        """
        if not self._answers.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._paused - self.clock()):
                    await self._answers.wait()
        reader = reading.reader
        room = await self._reserve()
        try:
            did_ask = await self._step(reading, room)
            while did_ask and reader.has_bytes and self.batches.takes(reader.container):
                await asyncio.sleep(0)
                if reader.has_backlog:  # lines were added for this room already
                    room = await self._reserve(room)
                did_ask = await self._step(reading, room)
        finally:
            self._reserved -= room * GROWTH
        return did_ask

    async def _step(self, reading: FileReading, room: int) -> bool:
        """Ask once, or unpack what was fetched. Returns whether there was something to do."""
        reader = reading.reader
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
            self._add(reading, lines)
        except (UpstreamError, CredentialError) as error:
            reader.retry(self.clock())
            reading.last_error = str(error)
            self._failed(error, "kubelet", "logs", str(error))
            now = self.clock()
            if getattr(error, "reason", "") not in _OF_ONE_FILE and now >= self._paused:
                self._paused = now + self._pause.delay(now, unreached=True)
                self._answers.clear()
        else:
            reading.last_error = None
            self.trouble = None
            if not self._answers.is_set():
                self._paused, self._pause = 0.0, Backoff(uniform=self.uniform)
                self._answers.set()
        finally:
            self.metrics.take(self._tally)
        if reader.is_docker and not reading.was_named:
            reading.was_named = True
            reading.last_error = "its files hold docker's JSON lines, which are not supported"
            self._say("docker", f"a container is not read: {reading.last_error}")
        return True

    async def _reserve(self, before: int = 0) -> int:
        """Wait for room, and take some of it until the lines were added. Give `before` back."""
        self._reserved -= before * GROWTH
        while True:
            room = min((await self.room() - self._reserved) // GROWTH, CHUNK)
            if room >= LEAST_CHUNK or not self._reserved:
                room = max(room, LEAST_CHUNK)
                self._reserved += room * GROWTH
                return room
            await asyncio.sleep(TICK)
