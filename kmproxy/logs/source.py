"""What is alike for the sources of logs: the containers that are read, and what is counted.

Knows positions, batches and log lines about failures. Must not know how a log is read.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge

from kmproxy.errors import CredentialError, UpstreamError
from kmproxy.kube.reviews import LogThrottle
from kmproxy.logs.batches import Batches
from kmproxy.logs.lines import Container, Line, Mark
from kmproxy.logs.open_lines import OpenLines
from kmproxy.logs.pods import Followed, LogSelection
from kmproxy.logs.positions import Position, PositionBook
from kmproxy.logs.progress import Tally
from kmproxy.telemetry import UpstreamErrors, bounded

HELD: Final = 0.5
"""Seconds after which a wait is looked at again: for labels or for room."""

PAUSE: Final = 300.0
"""Seconds between two log lines with one reason."""

_LOST: Final = (
    "not_cri", "too_old", "rotated", "truncated", "deleted", "unseen", "damaged", "clock",
)  # fmt: skip

_log = logging.getLogger(__package__)


class ContainerReader(Protocol):
    """Reads one container's log."""

    @property
    def container(self) -> Container:
        """Whose log it reads."""

    @property
    def position(self) -> Position | None:
        """The position of the acknowledged lines."""

    @property
    def lag(self) -> int:
        """Bytes that are not read yet, as far as known."""

    @property
    def newest(self) -> int:
        """The time of the last line, in nanoseconds since 1970."""

    @property
    def is_docker(self) -> bool:
        """Whether the log is in docker's format, which is not read."""

    @property
    def finished(self) -> bool:
        """Whether nothing more is read, because the pod is gone."""

    @property
    def is_read(self) -> bool:
        """Whether the last instance was read to its end."""

    @property
    def is_behind(self) -> bool:
        """Whether bytes are known that were not read at the last look."""

    def acknowledge(self, mark: Mark) -> None:
        """Move the position behind a line."""


class ReadMetrics:
    """Counts what is read, and shows how far reading is behind."""

    def __init__(self, registry: CollectorRegistry, lost: Counter, errors: UpstreamErrors) -> None:
        self.errors = errors
        self._lost = lost
        self._lines = Counter(
            "kmproxy_log_lines_read", "Lines read from log files.", registry=registry
        )
        self._bytes = Counter(
            "kmproxy_log_bytes_read", "Bytes of the lines that were read.", registry=registry
        )
        self.cut = Counter(
            "kmproxy_log_lines_cut", "Lines cut at --max-line-bytes.", registry=registry
        )
        self._unfinished = Counter(
            "kmproxy_log_lines_unfinished",
            "Lines that their container never ended, sent as they are.",
            registry=registry,
        )
        self.requests = Counter(
            "kmproxy_log_requests", "Requests for log files and folders.", registry=registry
        )
        self._containers = Gauge(
            "kmproxy_log_containers", "Containers whose logs are read.", registry=registry
        )
        self._lag = Gauge(
            "kmproxy_log_lag_bytes",
            "Bytes of log files that were there at the last look and are not read yet.",
            registry=registry,
        )
        self._unsupported = Gauge(
            "kmproxy_log_containers_unsupported",
            "Containers whose log files hold docker's JSON lines, which are not read.",
            registry=registry,
        )
        for reason in _LOST:
            lost.labels(reason)

    def take(self, tally: Tally) -> None:
        """Count what a tally has, and empty it."""
        self._lines.inc(tally.lines)
        self._bytes.inc(tally.bytes)
        self.cut.inc(tally.cut)
        self._unfinished.inc(tally.unfinished)
        for reason, number in tally.lost.items():
            self._lost.labels(reason).inc(number)
        tally.lines = tally.bytes = tally.cut = tally.unfinished = 0
        tally.lost.clear()

    def follow(self, source: Source[Any]) -> None:
        """Show the state of the source whenever the metrics are read."""
        self._containers.set_function(lambda: len(source))
        self._lag.set_function(lambda: sum(each.reader.lag for each in source.all()))
        self._unsupported.set_function(lambda: sum(each.reader.is_docker for each in source.all()))


R = TypeVar("R", bound="ContainerReader")


@dataclass(slots=True, eq=False)
class Reading(Generic[R]):
    """One container that is read. `seen` is its status, `last_error` the last request's failure."""

    seen: Followed
    reader: R
    last_error: str | None = None
    added: int = 0
    taken: int = 0

    @property
    def is_settled(self) -> bool:
        """Whether every line that was handed on has been acknowledged."""
        return self.added == self.taken

    def acknowledge(self, mark: Mark) -> None:
        """Move the container's position."""
        self.taken = max(self.taken, mark.number)
        self.reader.acknowledge(mark)


G = TypeVar("G", bound="Reading[Any]")


@dataclass(slots=True, eq=False, kw_only=True)
class Source(ABC, Generic[G]):
    """Reads logs, of files or from the API server.

    `room` returns when lines may be added, and the bytes that may be fetched. `max_age` is in
    seconds, `wall` gives seconds since 1970.
    """

    selection: LogSelection
    batches: Batches
    book: PositionBook
    metrics: ReadMetrics
    room: Callable[[], Awaitable[int]]
    max_line: int
    max_age: float
    clock: Callable[[], float]
    wall: Callable[[], float]
    uniform: Callable[[float, float], float]
    listed: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    """Set once the pods were listed."""
    trouble: str | None = field(init=False, default=None)
    """Why the pods cannot be listed or the logs not be read, or None."""
    opened: OpenLines = field(init=False)
    _readings: dict[Container, G] = field(init=False, default_factory=dict)
    _tally: Tally = field(init=False, default_factory=Tally)
    _wake: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _throttle: LogThrottle = field(init=False, default_factory=lambda: LogThrottle(PAUSE))

    def __post_init__(self) -> None:
        self.opened = OpenLines(self.max_line)
        self.metrics.follow(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self)} containers>"

    def __len__(self) -> int:
        return len(self._readings)

    def all(self) -> Iterator[G]:
        """Yield what is read."""
        yield from tuple(self._readings.values())

    def collect(self) -> None:
        """Bring the book of positions up to date."""
        now = self.wall()
        for each in self.all():
            self._keep(each, now)

    @abstractmethod
    async def run(self) -> None:
        """Read until it is cancelled. What was added to the batches stays there."""

    def _keep(self, reading: G, now: float) -> None:
        """Put a container's position into the book."""
        reader = reading.reader
        is_over = reader.finished or (reader.is_read and reading.seen.is_final)
        self.book.keep(
            reader.container, reader.position, now,
            is_over=is_over and reading.is_settled,
            is_behind=reader.is_behind or not reading.is_settled,
        )  # fmt: skip

    def _drop(self, reading: G) -> None:
        """Forget a container. Its position stays for a while, as it may be listed again."""
        self._keep(reading, self.wall())
        del self._readings[reading.reader.container]

    def _oldest(self) -> int:
        """Return the time from which lines of a new container are sent, in nanoseconds."""
        return int((self.wall() - self.max_age) * 1e9)

    def _add(self, reading: G, lines: Iterable[tuple[Line, Mark]]) -> None:
        """Hand lines on."""
        for line, mark in lines:
            reading.added = mark.number
            self.batches.add(line, mark, reading.acknowledge)

    def _is_listed(self, known: Collection[str]) -> None:
        """Say once that the pods with these UIDs were listed, and look after those that are gone.

        Nobody read what they wrote at last, while no process of ours ran.
        """
        if self.listed.is_set():
            return
        for container, position in self.book.gone(known, self.wall()):
            if self.selection.wants_pod(
                container.namespace, container.uid
            ) and self.selection.wants_container(container.name):
                self._miss(container, position)
        self.listed.set()
        _log.info("%d containers to read", len(self))

    @abstractmethod
    def _miss(self, container: Container, position: Position | None) -> None:
        """Read what is left of a container whose pod went while no process of ours ran."""

    def _failed(
        self, error: UpstreamError | CredentialError, upstream: str, what: str, message: str
    ) -> None:
        """Count and say a failure."""
        reason = error.reason if isinstance(error, UpstreamError) else "credential"
        self.metrics.errors.count(upstream, reason)
        self.trouble = message
        self._say(f"{what} {bounded(reason)}", message)

    def _say_left_out(self, number: int) -> None:
        if number:
            self._say("left_out", f"{number} containers are not read: too many, or no names")

    def _say(self, reason: str, message: str) -> None:
        if (unsaid := self._throttle.lets(reason, self.clock())) is not None:
            more = f" ({unsaid} more of such lines were left out)" if unsaid else ""
            _log.warning("%s%s", message, more)


@dataclass(slots=True, eq=False, kw_only=True)
class NoSource(Source[Reading[Any]]):
    """Reads no container's log."""

    def __post_init__(self) -> None:
        self.listed.set()
        super(NoSource, self).__post_init__()

    async def run(self) -> None:
        """Wait until it is cancelled."""
        await asyncio.Event().wait()

    def _miss(self, container: Container, position: Position | None) -> None:
        """Read nothing."""
