"""Asks the other replicas whether one of them has newer labels than this replica.

Knows where the replicas are and how they are asked. Must not know what follows from the answer.
While its own labels are new, a replica asks nobody. No credential is sent.

A replica that cannot reach the API server cannot tell the reason by itself. Either the API server
is away, and the old labels are as good as those of any replica; or only this replica's way to the
API server is broken. So it asks the others. A replica with new labels does not depend on any
answer. A replica with old labels is unready only while another one says that it has new labels and
is ready. So at least one replica is always ready. The answers are not authenticated: a server that
answers under the replicas' name can take replicas with old labels out of the Service, and can do
nothing else.
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
"""Seconds that a round may take, including the look-up of the name."""

MOST = 32
"""The largest number of replicas that are asked in a round."""

_log = logging.getLogger(__package__)


class Peers:
    """Asks the replicas at an address, and sets `surpassed` of the readiness by their answers."""

    def __init__(self, address: Address, readiness: Readiness) -> None:
        self._address = address
        self._readiness = readiness

    def __repr__(self) -> str:
        said = "one has newer labels" if self._readiness.surpassed else "none has newer labels"
        return f"<Peers {self._address}, {said}>"

    async def run(self) -> None:
        """Ask every `INTERVAL` seconds while our labels are old. It ends only by cancellation."""
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
        """Tell whether a replica is ready and has new labels.

        This replica may ask itself too: it answers no, as its labels are old.
        """
        try:
            async with asyncio.timeout(TIMEOUT):
                found = await asyncio.get_running_loop().getaddrinfo(
                    self._address.host, self._address.port, type=socket.SOCK_STREAM
                )
                hosts = sorted({str(entry[4][0]) for entry in found})[:MOST]
                said = await asyncio.gather(*(self._is_newer(session, host) for host in hosts))
        except (OSError, UnicodeError, TimeoutError):  # no replica is known to have newer labels
            return False
        return any(said)

    async def _is_newer(self, session: aiohttp.ClientSession, host: str) -> bool:
        url = f"http://{Address(host, self._address.port)}/freshz"
        try:
            async with session.get(url, allow_redirects=False) as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError, ValueError):
            return False
