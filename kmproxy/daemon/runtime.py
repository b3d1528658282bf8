"""The parameters with which the daemon's objects are made.

Knows clocks, randomness and the stack that closes the objects. Must not know the objects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from kmproxy.config.sections import Config
from kmproxy.daemon.metrics import OwnMetrics


@dataclass(frozen=True, slots=True, eq=False)
class Runtime:
    """The parameters that most objects of the daemon share.

    `stack` closes the objects at the end, the last one first. `clock` gives monotonic seconds,
    `wall` seconds since 1970. `secret` keys the digests of credentials.
    """

    config: Config
    stack: AsyncExitStack
    metrics: OwnMetrics
    clock: Callable[[], float]
    wall: Callable[[], float]
    uniform: Callable[[float, float], float]
    secret: bytes

    def cancel_at_end(self, task: asyncio.Task[None]) -> None:
        """Cancel a task at the end, and wait until it has cleaned up. Its error is dropped."""

        async def cancel() -> None:
            task.cancel()
            await asyncio.wait({task})

        self.stack.push_async_callback(cancel)
