"""Scrapes of large upstreams take constant memory: the daemon is a process, its peak is `VmHWM`.

With `-s` the figures are printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import pytest

from kmproxy.config.upstreams import MAX_UPSTREAMS
from kmproxy.simulator.state_metrics import state_metrics, usual_state
from tests.support.exporters import Exporter, config_file
from tests.support.floods import peak
from tests.support.process import daemon, in_a_pod

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc")

LIMIT = 100.0
"""MiB that the daemon may take at most."""

SMALL, LARGE = 6 << 20, 120 << 20
"""Bytes of the answers that are compared, at least."""

GROWTH = 12.0
"""MiB that the large answer may take more than the small one: the caches get full."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"


def block(cluster):
    """About a MiB of kube-state-metrics for the namespaces of the cluster."""
    spaces = {name: {} for name in cluster.api.namespaces}
    return b"".join(state_metrics(usual_state(spaces, ("node-a", "node-b"), 60)))


def streaming(text, size):
    """Says `text` again and again until it was at least `size` bytes, each time of other pods."""

    async def say(writer):
        writer.write(HEAD)
        for number in range(size // len(text) + 1):
            fresh = text.replace(b"6c5d7f9b84", b"%010x" % number)
            writer.write(b"%x\r\n%b\r\n" % (len(fresh), fresh))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    return say


async def drained(port, path):
    """The status of an answer that is read to its end, its size, and whether it was whole."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        "X-Prometheus-Scrape-Timeout-Seconds: 100\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    size, last = 0, b""
    with contextlib.suppress(ConnectionResetError):
        while piece := await reader.read(1 << 18):
            size += len(piece)
            last = (last + piece)[-5:]
    writer.close()
    return head.split(b" ")[1], size, last == b"0\r\n\r\n"


async def test_an_answer_of_120_megabytes(cluster, tmp_path):
    """It takes what one of a twentieth takes, with a list of labels and with prefixes."""
    text = block(cluster)
    async with Exporter() as exporter:
        entry = {"name": "list", "url": exporter.url}
        prefixes = {"namespace": "of_", "created_by_kind": "by_"}
        flag = config_file(tmp_path, entry, entry | {"name": "mesh", "namespace-labels": prefixes})
        environment, flags = in_a_pod(cluster, tmp_path / "sa")
        environment = {k: v for k, v in environment.items() if not k.startswith("COVERAGE")}
        flags = [*flags, flag, "--max-scrape-time=100s"]
        async with daemon(environment, flags) as (process, (port, _)):
            figures = []
            for size in (SMALL, LARGE):
                exporter.say = streaming(text, size)
                for name in ("list", "mesh"):
                    status, served, whole = await drained(port, f"/upstreams/{name}/metrics")
                    assert (status, whole) == (b"200", True)
                    assert served > size
                figures.append(peak(process))
    small, large = figures
    sys.stdout.write(f"\npeak: {small:.0f} MiB after {SMALL >> 20} MiB, {large:.0f} after 120\n")
    assert large < LIMIT
    assert large - small < GROWTH


async def test_many_upstreams(cluster, tmp_path):
    """As many as there may be, over TLS, cost little: they share the CAs of the system."""
    many = [{"name": f"u{n}", "url": "https://127.0.0.1:1/"} for n in range(MAX_UPSTREAMS)]
    environment, flags = in_a_pod(cluster, tmp_path / "sa")
    environment = {k: v for k, v in environment.items() if not k.startswith("COVERAGE")}
    figures = []
    for upstreams in (many[:1], many):
        flag = config_file(tmp_path, *upstreams)
        async with daemon(environment, [*flags, flag]) as (process, _):
            figures.append(peak(process))
    one, all_of_them = figures
    sys.stdout.write(f"\npeak: {one:.1f} MiB with an upstream, {all_of_them:.1f} with 64\n")
    assert all_of_them - one < 4.0
