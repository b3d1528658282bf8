"""Ships the logs of a node: reads files, sends lines and keeps positions, and stops in order.

Knows the order of start and end. Must not know how each part works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from kmproxy.logs.batches import Batches
from kmproxy.logs.page import Target, by_name
from kmproxy.logs.position_file import PositionFile
from kmproxy.logs.sender import Sender
from kmproxy.logs.source import Reading, Source

RETRY: Final = 1.0
"""Seconds after positions could not be written, until that is tried again. A push waits for it."""

GRACE: Final = 10.0
"""Seconds at the end in which lines that were read are still sent. A pod has 30."""

LAST_WRITE: Final = 5.0
"""Seconds for the last write of the positions, as the disk may hang."""


class PositionMetrics(Collector):
    """Shows the failures of the positions file."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._failures: Mapping[str, int] = {}
        registry.register(self)

    def follow(self, positions: PositionFile) -> None:
        """Show the failures of this file whenever the metrics are read."""
        self._failures = positions.failures

    def collect(self) -> Iterator[Metric]:
        """Yield the counter."""
        counter = CounterMetricFamily(
            "kmproxy_log_positions_errors",
            "Failures to read or write the positions file. Until it can be written, a tenant that "
            "has sent lines sends no more.",
            labels=["operation"],
        )
        for operation in ("read", "write"):
            counter.add_metric([operation], self._failures.get(operation, 0))
        yield counter


async def saved(positions: PositionFile) -> None:
    """Return when the acknowledged positions are on disk. Tries again for ever.

    Otherwise a restart could repeat more than the last push of a tenant.
    """
    while True:
        if await positions.flush():
            return
        await asyncio.sleep(RETRY)


@dataclass(slots=True, eq=False)
class Shipper:
    """The parts of `kmproxy logs`. `run` must be called once."""

    source: Source[Any]
    batches: Batches
    sender: Sender
    positions: PositionFile
    _reading: asyncio.Task[None] | None = field(init=False, default=None)
    _tasks: list[asyncio.Task[None]] = field(init=False, default_factory=list)

    def start(self) -> None:
        """Begin to read and to send."""
        self._reading = asyncio.create_task(self.source.run())
        sending = asyncio.create_task(self.sender.run())
        self._tasks = [self._reading, sending, asyncio.create_task(self.positions.run())]

    async def wait(self) -> None:
        """Wait until a part ends, which only a fault of our own does, and raise its error."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task

    async def stop(self) -> None:
        """Read no more, send what was read for `GRACE` seconds, and write the positions.

        Lines that were not taken by then are read again by the next process.
        """
        if self._reading is None:
            return
        self._reading.cancel()
        await asyncio.wait({self._reading})
        with suppress(asyncio.CancelledError):
            await self.sender.close(GRACE)
        for task in self._tasks[1:]:
            task.cancel()
        await asyncio.wait(self._tasks)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITE):
                await self.positions.flush()

    def unlisted(self) -> str | None:
        """Return why nothing is read yet, or None."""
        if self.source.listed.is_set():
            return None
        why = f": {self.source.trouble}" if self.source.trouble else ""
        return f"the pods are not listed yet{why}"

    def targets(self) -> list[Target]:
        """Return what is read, in the order of names."""
        return by_name(self.target(each) for each in self.source.all())

    def target(self, reading: Reading[Any]) -> Target:
        """Return one container that is read, with the labels of its next line."""
        reader, container = reading.reader, reading.reader.container
        labels: dict[str, str] = {}
        tenant = None
        if (rendering := self.batches.labels.find(container)) is not None:
            latest = reading.seen.latest
            stream = self.batches.labels.stream(container, latest, "stdout", rendering)
            labels, tenant = msgspec.json.decode(stream.labels, type=dict[str, str]), stream.tenant
            labels.pop("stream", None)
        return Target(
            namespace=container.namespace,
            pod=container.pod,
            uid=container.uid,
            container=container.name,
            instance=reading.seen.latest,
            labels=labels,
            tenant=tenant,
            position=reader.position,
            lag_bytes=reader.lag,
            last_line=reader.newest / 1e9 or None,
            last_error=reading.last_error,
        )
