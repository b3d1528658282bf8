"""Floods of requests, and the memory of a daemon under them."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from pathlib import Path

import aiohttp

from tests.support.rbac import binding, role

START = b"GET / HTTP/1.1\r\nHost: x\r\n"


LONG = (
    b"GET /metrics/cadvisor HTTP/1.1\r\nHost: x\r\nX-Prometheus-Scrape-Timeout-Seconds: 60\r\n\r\n"
)


def fields(number, size):
    """A number of headers of a given size."""
    return b"".join(b"X%03d: %b\r\n" % (each, b"a" * (size - 8)) for each in range(number))


def peak(process):
    """The peak memory of a process, in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


async def sent(port, data, *, context=None):
    """Sends all bytes, or those accepted before the other side ends; returns the connection."""
    try:
        connection = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    except OSError:
        return None
    _, writer = connection
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(5):
            for start in range(0, len(data), 1 << 16):
                writer.write(data[start : start + (1 << 16)])
                await writer.drain()
    return connection


async def healthy(port):
    """Requests the health, as a kubelet's probe does."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/healthz") as response,
    ):
        assert response.status == 200


ATTACKS = {
    "64 headers of 8 KB, no end": START + fields(63, 8000),
    "as much as a head may have, no end": START + fields(2, 8000),
    "tiny headers, no end": START + fields(60, 200),
    "a request line without an end": b"GET /" + b"a" * 2_000_000,
    "blank lines": b"\r\n" * 500_000,
    "large requests behind one under way": LONG + (START + fields(60, 8000) + b"\r\n") * 12,
    "small requests behind one under way": LONG + (START + b"\r\n") * 200_000,
    "a body behind one under way": LONG + b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + bytes(4_000_000),
    "a large body": b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 90000000\r\n\r\n" + bytes(4_000_000),
}  # fmt: skip


def token(cluster):
    """A token with the right to get everything."""
    everything = [
        {"nonResourceURLs": ["*"], "verbs": ["get"]},
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
    ]
    user = {"kind": "User", "name": "good"}
    cluster.authority.rbac.apply(role("all", *everything), binding("ClusterRole", "all", user))
    return "Bearer " + cluster.authority.issue("good")
