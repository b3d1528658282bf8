"""Whether another replica has newer labels than this one.

Knows where the replicas are and how they are asked. Must not know what follows from
it. Nobody is asked while our own labels are new, and no credential is sent.

A replica that cannot reach the API server cannot tell by itself whether the server is
away, and its old labels are as good as any, or only its own way there is: so it asks
the others. Whoever has new labels never depends on an answer, and whoever has old ones
is unready only as long as another says that it has new ones and is ready: there is
always one that is ready. Nobody proves who he is: who answers under the replicas'
name can take old labels out of the Service, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import socket

import aiohttp

from kmproxy.config.types import Address
from kmproxy.web.health import Readiness

INTERVAL = 5.0
"""Seconds between two rounds of questions."""

TIMEOUT = 4.0
"""Seconds that a round may take, the look-up of the name included."""

MOST = 32
"""Replicas that are asked in a round."""

_log = logging.getLogger(__package__)


class Peers:
    """Asks the replicas at an address, and tells the readiness what they say."""

    def __init__(self, address: Address, readiness: Readiness) -> None:
        self._address = address
        self._readiness = readiness

    def __repr__(self) -> str:
        said = "one has newer labels" if self._readiness.surpassed else "none has newer labels"
        return f"<Peers {self._address}, {said}>"

    async def run(self) -> None:
        """Ask for ever."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session:
            while True:
                await asyncio.sleep(INTERVAL)
                surpassed = self._readiness.aged and await self._any_newer(session)
                if surpassed != self._readiness.surpassed:
                    self._readiness.surpassed = surpassed
                    if problem := self._readiness.unready():
                        _log.warning("not ready: %s", problem)
                    else:
                        _log.info("ready again")

    async def _any_newer(self, session: aiohttp.ClientSession) -> bool:
        """Whether one of the replicas is ready and has new labels; we ourselves say that not."""
        try:
            async with asyncio.timeout(TIMEOUT):
                found = await asyncio.get_running_loop().getaddrinfo(
                    self._address.host, self._address.port, type=socket.SOCK_STREAM
                )
                hosts = sorted({str(entry[4][0]) for entry in found})[:MOST]
                said = await asyncio.gather(*(self._is_newer(session, host) for host in hosts))
        except (OSError, UnicodeError, TimeoutError):  # nobody is known to have newer ones
            return False
        return any(said)

    async def _is_newer(self, session: aiohttp.ClientSession, host: str) -> bool:
        url = f"http://{Address(host, self._address.port)}/freshz"
        try:
            async with session.get(url, allow_redirects=False) as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError, ValueError):
            return False
