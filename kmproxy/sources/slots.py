"""The slots: how many requests to kubelets may be under way at once, and for whom.

Knows who holds one, who waits, and for how long a holder's client has not taken its
answer. Must not know what is asked for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

from kmproxy.errors import SlowClientError, UpstreamError
from kmproxy.telemetry import Telemetry

PATIENCE = 5.0
"""Seconds that a client may keep its slot waiting, beside those that its reading earns."""

RATE = 64 << 10
"""Bytes of an answer that earn a second, once it had to wait for the client at all."""

SHORT_PATIENCE = 2.0
SHORT_RATE = 1 << 20
"""The same where an address has more than its share of the slots and another one waits."""


class Slot:
    """One that is held, for a client of an address."""

    def __init__(self, slots: ConcurrencyLimit, asker: str) -> None:
        self.asker = asker
        self._slots = slots
        self._waited = 0.0
        self._taken = 0
        self._full = False  # whether the client was waited for
        self._since = 0.0
        self._limit: asyncio.Timeout | None = None

    def __repr__(self) -> str:
        return f"<Slot of {self.asker or 'our own'}, waited {self._waited:.1f} s for its client>"

    async def sent(self, size: int, sending: Awaitable[None]) -> None:
        """Wait for a client to take `size` bytes.

        Raises SlowClientError if it has taken too little for too long, in all the
        time that the slot was held for it. What went before the first wait only
        filled the system's buffers: it earns nothing.
        """
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        noting = loop.call_soon(self._note_wait)  # which is too late if there is none
        try:
            async with asyncio.timeout_at(self._since + self._left()) as self._limit:
                await sending
        except TimeoutError as error:
            if self._limit is None or not self._limit.expired():
                raise
            self._slots.count_slow()
            message = f"the client has kept its answer waiting for {self._waiting():.1f} s"
            raise SlowClientError(message) from error
        finally:
            self._limit = None
            noting.cancel()
        if self._full:
            self._waited += loop.time() - self._since
            self._taken += size

    def hurry(self) -> None:
        """Others have come or gone: the time that is left may be another."""
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(self._since + self._left())

    def _note_wait(self) -> None:
        self._full = True

    def _left(self) -> float:
        pressed = self._slots.presses(self.asker)
        patience, rate = (SHORT_PATIENCE, SHORT_RATE) if pressed else (PATIENCE, RATE)
        return patience + self._taken / rate - self._waited

    def _waiting(self) -> float:
        return self._waited + asyncio.get_running_loop().time() - self._since


class ConcurrencyLimit:
    """`count` slots (`--max-concurrency`), shared out by address.

    A free slot goes to the address that holds the fewest, and of equal ones to
    who asked first. An address may hold all while no other waits.
    """

    def __init__(self, count: int, telemetry: Telemetry) -> None:
        self._count = count
        self._held: dict[Slot, None] = {}
        self._waiting: dict[asyncio.Future[Slot], str] = {}  # in the order of asking
        self._telemetry = telemetry

    def __repr__(self) -> str:
        return f"<ConcurrencyLimit {len(self._held)} of {self._count}, {len(self._waiting)} wait>"

    @asynccontextmanager
    async def taken(self, deadline: float, asker: str = "") -> AsyncIterator[Slot]:
        """Hold a slot for the length of the block, for a client at the address `asker`.

        Waits for one until `deadline`, in seconds of the event loop's clock, and
        then raises UpstreamError with status 503. The block itself is bounded by
        `Slot.sent` alone.
        """
        try:
            slot = await self._take(deadline, asker)
        except TimeoutError as error:
            message = f"no free slot in time: --max-concurrency is {self._count}"
            raise UpstreamError("timeout", message, status=503) from error
        self._telemetry.scrapes_in_flight.inc()
        try:
            yield slot
        finally:
            self._telemetry.scrapes_in_flight.dec()
            self._release(slot)

    def presses(self, asker: str) -> bool:
        """Whether another address waits while this one holds more than its equal share."""
        others = {each for each in self._waiting.values() if each != asker}
        if not others:
            return False
        addresses = others | {slot.asker for slot in self._held}
        held = sum(slot.asker == asker for slot in self._held)
        return held > max(1, self._count // len(addresses))

    def count_slow(self) -> None:
        """Count a client that was cut for its slowness."""
        self._telemetry.refused.labels("slow").inc()

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
            if turn.done() and not turn.cancelled():  # it came too late for who waited
                self._release(turn.result())
            raise
        finally:
            if self._waiting.pop(turn, None) is not None:
                self._hurry()

    def _share_out(self) -> None:
        """Give free slots to those who wait; who holds one may have to hurry for the others."""
        while self._waiting and len(self._held) < self._count:
            held = Counter(slot.asker for slot in self._held)
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
