"""The lines of a container that wait, a tenant's containers, and a batch while it is filled.

Knows the size of a line in memory and in a push. Must not know when a batch is due, or requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from kmproxy.logs.lines import Container, Line, Mark
from kmproxy.logs.loki import BODY_BYTES, STREAM_BYTES, Entry, entry_value
from kmproxy.logs.nanoseconds import LastLine, Nanoseconds
from kmproxy.logs.streams import Rendering, Stream, StreamLabels

OVERHEAD: Final = 640
"""Bytes of memory that a line takes in addition to its text."""

JSON_OVERHEAD: Final = 64
"""Bytes that a line takes in a push in addition to its text, approximately."""

Acknowledge = Callable[[Mark], None]
Count = Callable[[str, int], None]
"""Counts lines: `too_old`, `not_utf8` or `moved` (by nanoseconds)."""


@dataclass(slots=True, eq=False)
class Queue:
    """The lines of one container, in their order.

    `size` is the number of bytes that they take in pushes, approximately. `since` is the time at
    which the first of them came. `tenant` is None while lines of the container are in a batch
    under way, and while its labels are not known. `later` acknowledges lines that were left out
    after those of the batch under way.
    """

    container: Container
    waiting: deque[tuple[Line, Mark, Acknowledge]] = field(default_factory=deque)
    size: int = 0
    since: float = 0.0
    tenant: Tenant | None = None
    under_way: bool = False
    unknown_since: float | None = None
    later: tuple[Mark, Acknowledge] | None = None
    _rendering: Rendering | None = None
    _streams: dict[tuple[int, str], Stream] = field(default_factory=dict)

    def stream(self, line: Line, rendering: Rendering, labels: StreamLabels) -> Stream:
        """The stream of a line, made once for each rendering."""
        if rendering != self._rendering or len(self._streams) > 16:
            self._rendering = rendering
            self._streams.clear()
        key = line.instance, line.stream
        if (stream := self._streams.get(key)) is None:
            stream = labels.stream(line.container, *key, rendering)
            self._streams[key] = stream
        return stream


@dataclass(slots=True, eq=False)
class Tenant:
    """The containers whose next lines are sent as one tenant."""

    name: str | None
    queues: dict[Queue, None] = field(default_factory=dict)
    size: int = 0
    batch: Batch | None = None
    last: dict[bytes, LastLine] = field(default_factory=dict)

    def add(self, queue: Queue) -> None:
        """Add a container with lines."""
        queue.tenant = self
        self.queues[queue] = None
        self.size += queue.size

    def remove(self, queue: Queue) -> None:
        """Remove a container: it has no more lines, waits for labels, or has a batch under way."""
        queue.tenant = None
        del self.queues[queue]
        self.size -= queue.size

    @property
    def since(self) -> float:
        """The time at which the first of the lines came."""
        return min(queue.since for queue in self.queues)


@dataclass(slots=True, eq=False)
class Batch:
    """Lines of one tenant on their way. The entries of a container are in their order.

    `oldest` is the time of the oldest line, in ns. The other fields are for `Batches`.
    """

    home: Tenant
    entries: list[Entry] = field(default_factory=list)
    queues: dict[Queue, None] = field(default_factory=dict)
    oldest: int = 0
    cost: int = 0
    extra: int = 0
    settled: int = 0

    def __repr__(self) -> str:
        return f"<Batch {len(self.entries)} lines for {self.tenant or 'no tenant'}>"

    @property
    def tenant(self) -> str | None:
        """The tenant of all lines."""
        return self.home.name


@dataclass(slots=True, eq=False)
class Filling:
    """A batch while it is filled. `grown` are bytes of memory that the entries take more."""

    batch: Batch
    limit: int
    nanoseconds: Nanoseconds
    count: Count
    size: int = BODY_BYTES
    grown: int = 0
    streams: set[bytes] = field(default_factory=set)

    def fill(self, queue: Queue, rendering: Rendering, labels: StreamLabels) -> bool:
        """Take the next lines of a container. Return whether the batch is full.

        A line of another tenant ends them. At least one line fits.
        """
        batch, waiting = self.batch, queue.waiting
        entries, tenant = batch.entries, batch.tenant
        known: tuple[int, str] | None = None
        full = False
        while waiting:
            line, mark, acknowledge = waiting[0]
            text, written = line.text, line.time
            if (line.instance, line.stream) != known:
                stream = queue.stream(line, rendering, labels)
                if stream.tenant != tenant:
                    break
                known = line.instance, line.stream
                name, metadata = stream.labels, stream.metadata
                place = self.nanoseconds.of(name).place
            value, replaced = entry_value(written, text, metadata)
            more = len(value) + 1
            if name not in self.streams:
                more += len(name) + STREAM_BYTES
            if entries and self.size + more > self.limit:
                full = True
                break
            time = place(written, text)
            if time != written:
                value, _ = entry_value(time, text, metadata)
                self.count("moved", 1)
            if replaced:
                self.count("not_utf8", 1)
            waiting.popleft()
            entries.append(Entry(name, value, len(text), written, queue, mark, acknowledge))
            queue.size -= len(text) + JSON_OVERHEAD
            batch.cost += len(value) + OVERHEAD
            self.grown += len(value) - len(text)
            self.size += more
            self.streams.add(name)
        return full
