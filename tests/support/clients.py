"""Clients that speak HTTP over a bare socket."""

from __future__ import annotations

import asyncio

KEPT = b"GET /metrics/probes HTTP/1.1\r\nHost: x\r\n\r\n"


async def answers(connection):
    """Whether a kept connection answers one more request."""
    reader, writer = connection
    try:
        writer.write(KEPT)
        head = await reader.readuntil(b"\r\n\r\n")
        while b"0\r\n\r\n" not in head[-7:]:
            head += await reader.read(65536) or b"\r\n0\r\n\r\n"
    except (OSError, asyncio.IncompleteReadError):
        return False
    return head.startswith(b"HTTP/1.1 200")


async def connected(proxy, number):
    """Opens connections that send nothing."""
    return [
        await asyncio.open_connection("127.0.0.1", proxy.daemon.metrics_port) for _ in range(number)
    ]
