"""Resolves names in threads that other sessions do not use.

Knows that the system's resolver blocks its thread, for as long as no name server answers. Must not
know which names are resolved, or which addresses are accepted.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from aiohttp import ThreadedResolver

if TYPE_CHECKING:
    from collections.abc import Callable


class NameThreads:
    """At most `count` threads that resolve names, each begun when it is needed.

    Sessions that share them do not wait for names of other sessions, and the other way round.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, "names")

    def __repr__(self) -> str:
        return "<NameThreads>"

    def resolver(self) -> ThreadedResolver:
        """A resolver of one session."""
        # aiohttp's resolver calls no method of a loop but the two below.
        return ThreadedResolver(cast("asyncio.AbstractEventLoop", self))

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        """Call the function of `socket` with this name in a thread."""
        return await self._call(partial(socket.getaddrinfo, *args, **options))

    async def getnameinfo(self, *args: Any) -> Any:
        """Call the function of `socket` with this name in a thread."""
        return await self._call(partial(socket.getnameinfo, *args))

    async def _call(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    def close(self) -> None:
        """Resolve no more names. A thread that waits for a name server ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)
