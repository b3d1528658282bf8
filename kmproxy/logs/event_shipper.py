"""Ships Kubernetes events from one process of several: the one that holds the Lease.

Knows the order of a term: take the Lease, go on from the position in its annotation, read and send,
and stop before another process may begin. Must not know how each part works.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from kmproxy.errors import PositionsError
from kmproxy.kube.lease_holder import LeaseHolder
from kmproxy.logs.batches import Batches
from kmproxy.logs.event_progress import EventPosition, decode_positions, encode_positions
from kmproxy.logs.events import EventOptions, EventReader, event_readers
from kmproxy.logs.sender import Sender

ANNOTATION: Final = "kmproxy/events-positions"
"""The annotation of the Lease with the positions."""

_log = logging.getLogger(__package__)


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """The parts that live as long as this process holds the Lease."""

    batches: Batches
    sender: Sender
    readers: list[EventReader]

    def text(self) -> str:
        """Return the positions as text."""
        return encode_positions({each.namespace: each.progress.position for each in self.readers})

    def behind_since(self) -> float | None:
        """Return since when events are behind, or None."""
        times = [
            since
            for each in self.readers
            for since in (each.progress.waiting_since, each.stale_since)
            if since is not None
        ]
        return min(times, default=None)


@dataclass(slots=True, eq=False)
class EventShipper:
    """Reads and sends events while it holds the Lease. `run` must be called once.

    `begin` makes the batches and the sender of a term; the sender waits for the second argument
    after a push, and for the first one before it. With `begins_anew`, positions that cannot be
    read are left; else no process sends events until they are repaired.
    """

    holder: LeaseHolder
    options: EventOptions
    begin: Callable[
        [Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]], tuple[Batches, Sender]
    ]
    begins_anew: bool
    term: Term | None = field(init=False, default=None)
    _reading: asyncio.Task[None] | None = field(init=False, default=None)
    _holding: asyncio.Task[None] | None = field(init=False, default=None)
    _running: asyncio.Task[None] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.options.metrics.follow(lambda: self.term is not None, self.lag)

    def __repr__(self) -> str:
        return f"<EventShipper {'leading' if self.term else 'waiting'}, {self.holder!r}>"

    @property
    def state(self) -> str:
        """The state, for the status page."""
        if self.term is not None:
            return "sent by this process"
        holder = self.holder.election.holder
        return f"sent by {holder}" if holder else "sent by no process yet"

    @property
    def all_batches(self) -> Iterable[Batches]:
        """The batches of the present term, if there is one."""
        return () if self.term is None else (self.term.batches,)

    def lag(self) -> float:
        """Seconds for which events are behind."""
        since = None if self.term is None else self.term.behind_since()
        return 0.0 if since is None else max(0.0, self.options.clock() - since)

    def start(self) -> None:
        """Begin to ask for the Lease."""
        self._running = asyncio.create_task(self._run())

    async def wait(self) -> None:
        """Wait until a part ends, which only a fault of our own does, and raise its error."""
        if self._running is not None:
            await asyncio.wait({self._running})
            if not self._running.cancelled():
                self._running.result()

    async def stop(self, grace: float) -> None:
        """Read no more, send what was read for `grace` seconds, write the positions, let go."""
        running, term = self._running, self.term
        if running is None:
            return
        if term is not None and self._reading is not None and self._holding is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
            closing = asyncio.create_task(term.sender.close(grace))
            # If the Lease is lost meanwhile, nothing more may be sent.
            await asyncio.wait({closing, self._holding}, return_when=asyncio.FIRST_COMPLETED)
            closing.cancel()
        running.cancel()
        await asyncio.wait({running})
        if term is not None:
            await self.holder.release(term.text)

    async def _run(self) -> None:
        while True:
            await self.holder.acquire()
            positions = self._positions()
            if positions is None:
                # Without `hold` the Lease runs out, and it may be taken again then.
                await self.holder.sleep(self.holder.election.times.retry)
                continue
            self.options.well("positions")
            how = "released" if self.holder.was_released else "expired"
            self.options.metrics.terms.labels(how).inc()
            _log.info("this process sends events: it has the Lease %s", self.holder.election.name)
            try:
                await self._lead(positions)
            finally:
                for each in self.term.readers if self.term else ():
                    each.leave()
                self.term = None
            _log.warning("another process may send events: the Lease was not renewed in time")

    def _positions(self) -> dict[str, EventPosition] | None:
        """The positions in the Lease. None if they cannot be read."""
        text = self.holder.election.text
        if text is None:
            return {}
        try:
            return decode_positions(text)
        except PositionsError as error:
            where = f"the annotation {ANNOTATION} of the Lease {self.holder.election.name}: {error}"
            if self.begins_anew:
                _log.warning("%s; reading begins anew", where)
                return {}
            advice = "remove it to begin anew, or set --positions-damaged=begin"
            self.options.refused("positions", "positions", f"no event is sent: {where}; {advice}")
            return None

    async def _lead(self, positions: dict[str, EventPosition]) -> None:
        """Read and send until the Lease is lost."""
        batches, sender = self.begin(self.holder.admitted, self.holder.saved)
        term = Term(batches, sender, event_readers(self.options, positions, batches, sender.room))
        reading = self._reading = asyncio.create_task(_all(term.readers))
        holding = self._holding = asyncio.create_task(self.holder.hold(term.text))
        sending = asyncio.create_task(sender.run())
        self.term = term
        tasks = {reading, holding, sending}
        try:
            await _until_lost(holding, reading, sending)
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.wait(tasks)


async def _all(readers: list[EventReader]) -> None:
    async with asyncio.TaskGroup() as group:
        for each in readers:
            group.create_task(each.run())


async def _until_lost(
    holding: asyncio.Task[None], reading: asyncio.Task[None], sending: asyncio.Task[None]
) -> None:
    """Wait until the Lease is lost. Raises an error of the other tasks, which do not end else."""
    pending = {holding, reading, sending}
    while holding in pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not task.cancelled():
                task.result()
