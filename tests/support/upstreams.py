"""Servers on real sockets that answer byte by byte, and an identity for a client of them."""

from __future__ import annotations

import asyncio
import contextlib

from kmproxy.client.tls import Trust
from kmproxy.kube.identity import Identity


class Nobody(Identity):
    """An identity without credentials."""

    server = "http://127.0.0.1"

    @property
    def trust(self):
        return Trust()

    async def authorization(self, *, anew=False):  # noqa: ARG002 - it always says the same
        return "Bearer planted-secret"


@contextlib.asynccontextmanager
async def serving(handle):
    """A server whose connections are left to `handle`; yields its URL."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()  # not awaited: from 3.12 on that takes until the client's connections end


async def fetch(upstream, url, **options):
    """Status and body of a GET."""
    async with upstream.get(url, accept="text/plain", **options) as response:
        return response.status, b"".join([piece async for piece in upstream.pieces(response)])
