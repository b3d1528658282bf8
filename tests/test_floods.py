"""Strangers in great number: the daemon stays small, and serves those whom it knows.

The daemon is a process of its own, with a pod's identity.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from kmproxy.simkubelet import Fault

from .test_end_to_end import daemon, in_a_pod

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc")

LIMIT = 100.0
"""MiB of memory that the daemon may take at most, whatever comes."""

MANY = 130
"""Connections of strangers: more than there may be in all."""

START = b"GET / HTTP/1.1\r\nHost: x\r\n"
LONG = (
    b"GET /metrics/cadvisor HTTP/1.1\r\nHost: x\r\nX-Prometheus-Scrape-Timeout-Seconds: 60\r\n\r\n"
)


def fields(number, size):
    """As many headers, each of so many bytes."""
    return b"".join(b"X%03d: %b\r\n" % (each, b"a" * (size - 8)) for each in range(number))


def peak(process):
    """The most memory that a process has had, in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


@asynccontextmanager
async def started(cluster, directory, *flags):
    """A daemon in front of node-a; yields its process and its ports."""
    environment, own = in_a_pod(cluster, directory / "sa")
    # Whoever measures coverage must not be measured as well.
    environment = {k: v for k, v in environment.items() if not k.startswith("COVERAGE")}
    async with daemon(environment, [*own, *flags]) as (process, ports):
        reading = asyncio.create_task(_read(process.stderr))
        try:
            yield process, ports
        finally:
            reading.cancel()
            await asyncio.wait([reading])


async def _read(stream):
    while await stream.readline():
        pass


async def sent(port, data, *, context=None):
    """Send all of it, or what is taken of it before the other side ends; returns the connection."""
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
    """Ask for the health as a kubelet's probe does."""
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


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_memory_under_unfinished_requests(cluster, tmp_path, attack):
    """On every connection that there may be: under 100 MiB, and alive."""
    cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS, path="/metrics/cadvisor")
    async with started(cluster, tmp_path) as (process, (port, telemetry)):
        for _ in range(2):
            connections = await asyncio.gather(*(sent(port, attack) for _ in range(MANY)))
            await healthy(telemetry)
            for connection in filter(None, connections):
                connection[1].transport.abort()
        assert peak(process) < LIMIT
