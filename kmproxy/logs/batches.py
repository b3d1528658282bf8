"""Collects lines into batches, one under way for each tenant, within a bound of memory.

Knows when a batch is due, how large it is, and which lines have to wait. Must not know requests,
files or answers. It reads no clock: callers pass one in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from typing import Final

from kmproxy.logs.lines import Container, Line, Mark
from kmproxy.logs.loki import Entry
from kmproxy.logs.nanoseconds import Nanoseconds
from kmproxy.logs.queues import (
    JSON_OVERHEAD,
    OVERHEAD,
    Acknowledge,
    Batch,
    Count,
    Filling,
    Queue,
    Tenant,
)
from kmproxy.logs.streams import Rendering, StreamLabels

QUEUE_OVERHEAD: Final = 2048
"""Bytes of memory that a container with lines takes in addition to them."""

HOLD: Final = 60.0
"""Seconds for which lines wait for the labels of their namespace or pod while namespaces are
watched. After that the namespace does not exist, and the lines get the defaults."""

RECHECK: Final = 0.5
"""Seconds after which the labels of lines that wait are looked up again."""

MAX_TENANTS: Final = 1000
"""Tenants in memory. The lines of further ones wait until a tenant has no lines."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """A batch is due at `size` bytes of JSON, or `wait` seconds after its first line.

    All lines together take at most `buffer` bytes of memory, besides those of the last read.
    """

    size: int = 1 << 20
    wait: float = 1.0
    buffer: int = 16 << 20


@dataclass(slots=True, eq=False)
class Batches:
    """All lines in memory, from the read until the endpoint took them.

    Lines are added while `room` is above 0. `notify` is called when a batch may be due earlier than
    `wait` said before, `freed` when there is more room. `watched` returns whether namespaces are
    watched at the moment, so that a namespace which is not known does not exist.
    """

    limits: BatchLimits
    labels: StreamLabels
    _: KW_ONLY
    clock: Callable[[], float]
    count: Count
    watched: Callable[[], bool] = lambda: True
    notify: Callable[[], None] = lambda: None
    freed: Callable[[], None] = lambda: None
    flushing: bool = False
    """Whether a batch is due as soon as there is a line."""
    _queues: dict[Container, Queue] = field(init=False, default_factory=dict)
    _tenants: dict[str | None, Tenant] = field(init=False, default_factory=dict)
    _latest: Queue | None = field(init=False, default=None)
    _unplaced: dict[Queue, None] = field(init=False, default_factory=dict)
    _held: int = field(init=False, default=0)
    _lines: int = field(init=False, default=0)

    def __repr__(self) -> str:
        return f"<Batches {self._lines} lines, {self._held} of {self.limits.buffer} bytes>"

    def __len__(self) -> int:
        """The number of lines in memory."""
        return self._lines

    @property
    def held(self) -> int:
        """The bytes of memory that the lines take."""
        return self._held

    @property
    def room(self) -> int:
        """The bytes of memory that further lines may take. Reading waits while it is 0."""
        return max(0, self.limits.buffer - self._held)

    @property
    def unlabelled(self) -> int:
        """The number of lines that wait for the labels of their namespace or pod, or a tenant."""
        return sum(len(queue.waiting) for queue in self._unplaced)

    @property
    def tenants(self) -> int:
        """The number of tenants with lines."""
        return sum(bool(each.queues or each.batch) for each in self._tenants.values())

    @property
    def sendable(self) -> bool:
        """Whether there are lines besides those that wait for labels."""
        return self.tenants > 0

    def takes(self, container: Container) -> bool:
        """Whether to read on in the log of a container: not while its labels are waited for."""
        queue = self._queues.get(container)
        return queue is None or queue not in self._unplaced

    def oldest(self) -> int | None:
        """The time of the oldest line in memory, of the first lines of all containers, in ns."""
        times = [queue.waiting[0][0].time for queue in self._queues.values() if queue.waiting]
        times += [each.batch.oldest for each in self._tenants.values() if each.batch]
        return min(times, default=None)

    def add(self, line: Line, mark: Mark, acknowledge: Acknowledge, *, oldest: int = 0) -> None:
        """Add the next line of a container, of any size.

        A line from before `oldest`, in ns, is left out and counted. `acknowledge` is called in the
        order of the container's lines, once the line was taken or left out.
        """
        queue = self._latest  # most lines come after one of the same container
        if queue is None or queue.container is not line.container:
            queue = self._latest = self._queues.get(line.container)
        if line.time < oldest:
            self.count("too_old", 1)
            self._skip(queue, mark, acknowledge)
            return
        if queue is None:
            queue = self._latest = self._queues[line.container] = Queue(line.container)
            self._held += QUEUE_OVERHEAD
        size = len(line.text) + JSON_OVERHEAD
        first = not queue.waiting
        queue.waiting.append((line, mark, acknowledge))
        queue.size += size
        self._held += len(line.text) + OVERHEAD
        self._lines += 1
        if first:
            queue.since = self.clock()
            if not queue.under_way:
                self._place(queue)
        elif queue.tenant is not None:
            queue.tenant.size += size
        tenant = queue.tenant
        if first or (tenant is not None and tenant.batch is None and self._is_full(tenant)):
            self.notify()

    def ready(self) -> Iterator[Batch]:
        """Yield the batches that are due, at most one for each tenant without one under way."""
        now = self.clock()
        for queue in [*self._unplaced]:
            del self._unplaced[queue]
            self._place(queue)
        for tenant in [*self._tenants.values()]:
            if tenant.batch is None and tenant.queues and now >= self._due(tenant):
                batch = self._take(tenant)
                if batch.entries:
                    yield batch

    def wait(self) -> float | None:
        """The seconds until a batch may be due, or None without such a time."""
        times = [
            self._due(tenant)
            for tenant in self._tenants.values()
            if tenant.queues and tenant.batch is None
        ]
        now = self.clock()
        if self._unplaced:
            times.append(now + RECHECK)
        return max(0.0, min(times) - now) if times else None

    def weigh(self, batch: Batch, size: int) -> None:
        """Account for the bytes that the pushes of a batch take besides it."""
        self._held += size - batch.extra
        batch.extra = size

    def settle(self, batch: Batch, entries: Iterable[Entry]) -> None:
        """Acknowledge the next entries of a batch: they were taken, or left out and counted."""
        last = {}
        for entry in entries:
            last[entry.owner] = entry
            batch.settled += 1
            self._lines -= 1
        for entry in last.values():
            entry.acknowledge(entry.mark)

    def done(self, batch: Batch) -> None:
        """End a batch whose entries were all settled. Its tenant may get the next one."""
        if batch.settled != len(batch.entries):
            raise ValueError(f"{batch!r}: only {batch.settled} lines were settled")
        self.weigh(batch, 0)
        self._held -= batch.cost
        batch.home.batch = None
        for queue in batch.queues:
            queue.under_way = False
            if queue.later is not None:
                mark, acknowledge = queue.later
                queue.later = None
                acknowledge(mark)
            if queue.waiting:
                self._place(queue)
            else:
                self._forget(queue)
        self.freed()
        self.notify()

    def _is_full(self, tenant: Tenant) -> bool:
        return tenant.size >= self.limits.size

    def _due(self, tenant: Tenant) -> float:
        if self.flushing or self._is_full(tenant):
            return float("-inf")
        return tenant.since + self.limits.wait

    def _skip(self, queue: Queue | None, mark: Mark, acknowledge: Acknowledge) -> None:
        """Acknowledge a line that is left out, together with the line before it."""
        if queue is None:
            acknowledge(mark)
        elif queue.waiting:
            line, _, _ = queue.waiting[-1]
            queue.waiting[-1] = line, mark, acknowledge
        else:
            queue.later = mark, acknowledge

    def _forget(self, queue: Queue) -> None:
        self._latest = None
        del self._queues[queue.container]
        self._held -= QUEUE_OVERHEAD

    def _rendering(self, queue: Queue) -> Rendering | None:
        """The labels of a container, or None while its lines are held."""
        found = self.labels.find(queue.container)
        if found is not None:
            queue.unknown_since = None
            return found
        now = self.clock()
        if not self.watched():
            queue.unknown_since = None
            return None
        if queue.unknown_since is None:
            queue.unknown_since = now
        if now - queue.unknown_since < HOLD:
            return None
        return self.labels.assumed(queue.container)

    def _place(self, queue: Queue) -> None:
        """Put a container with lines to its tenant, or let it wait for its labels."""
        rendering = self._rendering(queue)
        if rendering is not None:
            name = queue.stream(queue.waiting[0][0], rendering, self.labels).tenant
            tenant = self._tenants.get(name) or self._new_tenant(name)
            if tenant is not None:
                tenant.add(queue)
                return
        self._unplaced[queue] = None

    def _new_tenant(self, name: str | None) -> Tenant | None:
        if len(self._tenants) >= MAX_TENANTS:
            idle = [each for each in self._tenants.values() if not (each.queues or each.batch)]
            if not idle:
                return None
            for each in idle[: MAX_TENANTS // 16]:
                del self._tenants[each.name]
        return self._tenants.setdefault(name, Tenant(name))

    def _take(self, tenant: Tenant) -> Batch:
        """Make a batch of the first lines of the tenant's containers, in turn.

        The labels are looked up now. A container that gets other labels goes to its new tenant.
        """
        batch = Batch(tenant)
        filling = Filling(batch, self.limits.size, Nanoseconds(tenant.last), self.count)
        for queue in [*tenant.queues]:
            rendering = self._rendering(queue)
            if rendering is None:
                tenant.remove(queue)
                self._unplaced[queue] = None
                continue
            before, size = len(batch.entries), queue.size
            full = filling.fill(queue, rendering, self.labels)
            tenant.size -= size - queue.size
            if len(batch.entries) > before:
                tenant.remove(queue)
                queue.under_way = True
                batch.queues[queue] = None
            elif not full:
                tenant.remove(queue)
                self._place(queue)
            if full:
                break
        if batch.entries:
            batch.oldest = min(entry.time for entry in batch.entries)
            tenant.last = filling.nanoseconds.ends()
            tenant.batch = batch
        self._held += filling.grown
        return batch
