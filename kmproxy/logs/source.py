"""What is alike for the sources of logs: what they show of a container, and what they count.

Must not know how a log is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from kmproxy.logs.lines import Container
from kmproxy.logs.pods import Followed
from kmproxy.logs.positions import Position
from kmproxy.logs.progress import Tally
from kmproxy.telemetry import UpstreamErrors


class Measured(Protocol):
    """A reader, as the metrics and the page show it."""

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


class Shown(Protocol):
    """A container that is read."""

    @property
    def seen(self) -> Followed:
        """The pod's status."""

    @property
    def reader(self) -> Measured:
        """Its reader."""

    @property
    def last_error(self) -> str | None:
        """The failure of the last request, if it failed."""


class Source(Protocol):
    """Reads logs, of files or from the API server. `trouble` says why it cannot, or is None."""

    listed: asyncio.Event
    trouble: str | None

    def __len__(self) -> int:
        """The number of containers."""

    @property
    def wall(self) -> Callable[[], float]:
        """The clock, in seconds since 1970."""

    def all(self) -> Iterator[Shown]:
        """Yield what is read."""

    def collect(self) -> None:
        """Bring the book of positions up to date."""

    async def run(self) -> None:
        """Read until it is cancelled."""


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
        self._cut = Counter(
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
        for reason in ("not_cri", "too_old", "rotated", "truncated", "deleted", "damaged", "clock"):
            lost.labels(reason)

    def take(self, tally: Tally) -> None:
        """Count what a tally has, and empty it."""
        self._lines.inc(tally.lines)
        self._bytes.inc(tally.bytes)
        self._cut.inc(tally.cut)
        self._unfinished.inc(tally.unfinished)
        for reason, number in tally.lost.items():
            self._lost.labels(reason).inc(number)
        tally.lines = tally.bytes = tally.cut = tally.unfinished = 0
        tally.lost.clear()

    def follow(self, source: Source) -> None:
        """Show the state of the source whenever the metrics are read."""
        self._containers.set_function(lambda: len(source))
        self._lag.set_function(lambda: sum(each.reader.lag for each in source.all()))
        self._unsupported.set_function(lambda: sum(each.reader.is_docker for each in source.all()))
