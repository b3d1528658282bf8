"""The concurrency limit: how many requests to kubelets run at the same time, and for which client.

Knows which addresses hold slots and which wait, and how long a client has kept its response
waiting. Must not know what is requested.
"""

from __future__ import annotations

import asyncio
import collections
import math
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge

from kmproxy.errors import SlowClientError, UpstreamError

PATIENCE = 5.0
"""Seconds that a client may keep its slot waiting, in addition to the seconds that it earns.

A client earns seconds by reading its response.
"""

RATE = 64 << 10
"""Bytes of a response that earn one second, counted from the first wait for the client on."""

SHORT_PATIENCE = 2.0
SHORT_RATE = 1 << 20
"""`PATIENCE` and `RATE` for an address with more than its share of slots while another waits."""


class SlotMetrics:
    """Counts held slots. A slow client counts in `refused`, the counter of refused connections."""

    def __init__(self, registry: CollectorRegistry, refused: Counter) -> None:
        self.refused = refused
        self.in_flight = Gauge(
            "kmproxy_scrapes_in_flight",
            "Running requests to kubelets and upstreams.",
            registry=registry,
        )


class Slot:
    """A slot that is held for a client at an address."""

    def __init__(self, slots: ConcurrencyLimit, asker: str) -> None:
        self.asker = asker
        self.deadline = math.inf
        """The end of the time of its scrape, on the event loop's clock."""
        self._slots = slots
        self._waited = 0.0
        self._taken = 0
        self._full = False  # whether kmproxy had to wait for the client
        self._since = 0.0
        self._limit: asyncio.Timeout | None = None

    def __repr__(self) -> str:
        return f"<Slot of {self.asker or 'our own'}, waited {self._waited:.1f} s for its client>"

    async def sent(self, size: int, sending: Awaitable[None]) -> None:
        """Wait until the client has taken `size` bytes.

        Raises SlowClientError if the client has taken too little for too long, over all the time
        that it held the slot. Bytes before the first wait earn nothing: they only filled the
        buffers of the operating system.
        """
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        waits = loop.call_soon(self._wait)  # runs only if sending waits
        try:
            async with asyncio.timeout(None) as self._limit:
                await sending
        except TimeoutError as error:
            if self._limit is None or not self._limit.expired():
                raise
            self._slots.count_slow()
            message = f"the client has not read its answer for {self._waiting():.1f} s"
            raise SlowClientError(message) from error
        finally:
            self._limit = None
            waits.cancel()
        if self._full:
            self._waited += loop.time() - self._since
            self._taken += size

    def hurry(self) -> None:
        """Set the time limit, also because requests of other addresses have come or gone."""
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(self._since + self._left())

    def _wait(self) -> None:
        """Record that kmproxy waits for the client, and set the time limit for it."""
        self._full = True
        self.hurry()

    def _left(self) -> float:
        pressed = self._slots.presses(self.asker)
        patience, rate = (SHORT_PATIENCE, SHORT_RATE) if pressed else (PATIENCE, RATE)
        return patience + self._taken / rate - self._waited

    def _waiting(self) -> float:
        return self._waited + asyncio.get_running_loop().time() - self._since


class ConcurrencyLimit:
    """`count` slots (`--max-concurrency`), shared between the addresses of clients.

    A free slot goes to the address that holds the fewest slots. Among equal addresses, the first
    request wins. One address may hold all slots while no other address waits.
    """

    def __init__(self, count: int, metrics: SlotMetrics) -> None:
        self._count = count
        self._held: dict[Slot, None] = {}
        self._waiting: dict[asyncio.Future[Slot], str] = {}  # in the order of asking
        self._metrics = metrics

    def __repr__(self) -> str:
        return f"<ConcurrencyLimit {len(self._held)} of {self._count}, {len(self._waiting)} wait>"

    @asynccontextmanager
    async def taken(self, deadline: float, asker: str = "") -> AsyncIterator[Slot]:
        """Hold a slot for the length of the block, for a client at the address `asker`.

        Waits for a slot until `deadline`, in seconds of the event loop's clock. After it raises
        UpstreamError with status 503. Only `Slot.sent` limits the time of the block itself.
        """
        try:
            slot = await self._take(deadline, asker)
        except TimeoutError as error:
            message = f"no slot became free in time: --max-concurrency is {self._count}"
            raise UpstreamError("timeout", message, status=503) from error
        slot.deadline = deadline
        self._metrics.in_flight.inc()
        try:
            yield slot
        finally:
            self._metrics.in_flight.dec()
            self._release(slot)

    def presses(self, asker: str) -> bool:
        """Whether another address waits while `asker` holds more than its equal share."""
        others = {each for each in self._waiting.values() if each != asker}
        if not others:
            return False
        addresses = others | {slot.asker for slot in self._held}
        held = sum(slot.asker == asker for slot in self._held)
        return held > max(1, self._count // len(addresses))

    def count_slow(self) -> None:
        """Count a client whose response was cut off because it was slow."""
        self._metrics.refused.labels("slow").inc()

    async def _take(self, deadline: float, asker: str) -> Slot:
        turn: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = asker
        self._share_out()
        if turn.done():
            return turn.result()
        try:
            async with asyncio.timeout_at(deadline):
                return await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # the slot came too late for this request
                self._release(turn.result())
            raise
        finally:
            if self._waiting.pop(turn, None) is not None:
                self._hurry()

    def _share_out(self) -> None:
        """Give free slots to waiting requests. Holders of slots may get less time now."""
        while self._waiting and len(self._held) < self._count:
            held = collections.Counter(slot.asker for slot in self._held)
            turn = min(self._waiting, key=lambda each: held[self._waiting[each]])
            slot = Slot(self, self._waiting.pop(turn))
            if not turn.done():
                self._held[slot] = None
                turn.set_result(slot)
        self._hurry()

    def _release(self, slot: Slot) -> None:
        del self._held[slot]
        self._share_out()

    def _hurry(self) -> None:
        for slot in self._held:
            slot.hurry()
