"""--share-reads: what the daemon's memory is at most, whatever kubelets answer and clients take."""

from __future__ import annotations

import asyncio
import random
import socket
import zlib
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.floods import healthy, peak
from tests.support.gated import HEAD, LAST, Gated, chunk
from tests.support.process import daemon, in_a_pod

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc")

LIMIT = 100.0
"""MiB that the daemon may take at most: the same as for the worst of every other bound."""

SCRAPE = (
    b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    b"X-Prometheus-Scrape-Timeout-Seconds: 60\r\n\r\n"
)
PATHS = (b"/metrics/cadvisor", b"/metrics/resource")
IDENTITY = HEAD.replace(b"gzip", b"identity")


def noise(size):
    """Lines that gzip makes hardly smaller than half."""
    lines = random.Random(1).randbytes(size // 2).hex(" ", 200).replace(" ", " 1 1\n")
    return lines.encode() + b"\n"


def pieces(data):
    """The chunks of a body."""
    return [chunk(data[start : start + (1 << 18)]) for start in range(0, len(data), 1 << 18)]


@pytest.mark.parametrize("packed", [True, False])
async def test_peak_memory(cluster, tmp_path, packed):
    """Answers that do not fit, for clients that read and for those that do not."""
    body = noise(40 << 20)
    sent = [HEAD, *pieces(zlib.compress(body, 1, 31))] if packed else [IDENTITY, *pieces(body)]
    environment, flags = in_a_pod(cluster, tmp_path / "sa")
    environment = {k: v for k, v in environment.items() if not k.startswith("COVERAGE")}
    async with (
        Gated(*sent, LAST) as kubelet,
        daemon(environment, [*flags, *kubelet.flags, "--share-reads=300ms"]) as (process, ports),
    ):
        port, telemetry = ports

        async def read(path):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
            writer.write(SCRAPE % path)
            size = 0
            with suppress(OSError):
                while data := await reader.read(1 << 20):
                    size += len(data)
            writer.transport.abort()
            return size

        async def plug(path):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
            await asyncio.get_running_loop().sock_sendall(client, SCRAPE % path)
            return client

        async def log():
            while await process.stderr.readline():
                pass

        reading = asyncio.create_task(log())
        clients = [await plug(path) for path in PATHS for _ in range(4)]
        sizes = await asyncio.gather(*(read(path) for path in PATHS * 2))
        clients += [await plug(path) for path in PATHS for _ in range(4)]
        sizes += await asyncio.gather(*(read(path) for path in PATHS * 2))
        await healthy(telemetry)
        for client in clients:
            client.close()
        reading.cancel()
        figure = peak(process)
    assert max(sizes) > len(body)  # who reads is served meanwhile
    print(f"peak {figure:.0f} MiB")  # noqa: T201 - shown with -s
    assert figure < LIMIT
