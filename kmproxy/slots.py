"""The slots: how many requests to kubelets may be under way at once.

Knows who holds one and who waits. Must not know what is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kmproxy.errors import UpstreamError
from kmproxy.telemetry import Telemetry


class Slots:
    """`count` slots (`--max-concurrency`), given out in the order of asking."""

    def __init__(self, count: int, telemetry: Telemetry) -> None:
        self._count = count
        self._free = asyncio.Semaphore(count)
        self._in_flight = telemetry.scrapes_in_flight

    def __repr__(self) -> str:
        return f"<Slots {self._count}>"

    @asynccontextmanager
    async def taken(self, deadline: float) -> AsyncIterator[None]:
        """Hold a slot for the length of the block.

        Waits for one until `deadline`, in seconds of the event loop's clock, and
        then raises UpstreamError with status 503. The block itself is not bounded.
        """
        try:
            async with asyncio.timeout_at(deadline):
                await self._free.acquire()
        except TimeoutError as error:
            message = f"no free slot in time: --max-concurrency is {self._count}"
            raise UpstreamError("timeout", message, status=503) from error
        self._in_flight.inc()
        try:
            yield
        finally:
            self._in_flight.dec()
            self._free.release()
