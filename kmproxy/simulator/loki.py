"""A stand-in of Loki: it takes pushes of log lines, and hands each line on.

Knows the JSON form of Loki's push. Must not know queries, tenants or limits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from kmproxy.simulator.wire import HOST

PATH = "/loki/api/v1/push"
MAX_PUSH = 64 << 20
"""Bytes of the largest push that is taken, after decompression."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line as it was pushed. `time` is in nanoseconds since 1970."""

    stream: Mapping[str, str]
    time: int
    text: str
    metadata: Mapping[str, str]


class SimLoki:
    """A push endpoint on a loopback port, which calls `take` for each line."""

    def __init__(self, take: Callable[[Entry], None]) -> None:
        self.port = 0
        self._take = take
        app = web.Application(client_max_size=MAX_PUSH)
        app.router.add_post(PATH, self._push)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    def __repr__(self) -> str:
        return f"<SimLoki {self.url}>"

    @property
    def url(self) -> str:
        """The URL of the push endpoint."""
        return f"http://{HOST}:{self.port}{PATH}"

    async def start(self) -> None:
        """Listen on any free port."""
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close the port and its connections."""
        await self._runner.cleanup()

    async def _push(self, request: web.Request) -> web.Response:
        for stream in json.loads(await request.read())["streams"]:
            for time, text, *metadata in stream["values"]:
                found = metadata[0] if metadata else {}
                self._take(Entry(stream["stream"], int(time), text, found))
        return web.Response(status=204)
