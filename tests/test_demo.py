"""`kmproxy demo`: what it prints works when pasted, and its daemon stays small."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest

from kmproxy.simcadvisor import NodeMetrics, simulate_node
from kmproxy.simcluster import DEFAULT_NAMESPACES

from .conftest import until
from .programs import free_port


@asynccontextmanager
async def demo(*flags, environment=None):
    """Run a demo; yields its text and a function that ends it and returns the rest."""
    metrics, telemetry, api = (free_port() for _ in range(3))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "kmproxy",
        "demo",
        f"--listen=127.0.0.1:{metrics}",
        f"--telemetry-listen=127.0.0.1:{telemetry}",
        f"--api-port={api}",
        *flags,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    text = ""

    async def end():
        process.send_signal(signal.SIGINT)
        rest = (await asyncio.wait_for(process.stdout.read(), 60)).decode()
        assert await process.wait() == 0
        return rest

    try:
        async with asyncio.timeout(60):
            while "Ctrl-C ends it" not in text:
                line = await process.stdout.readline()
                assert line, text
                text += line.decode()
        yield text, end
    finally:
        if process.returncode is None:
            process.terminate()  # not killed: it ends its daemon
        await process.wait()


async def shell(command):
    """What a command prints."""
    process = await asyncio.create_subprocess_shell(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


def printed(text, start):
    """The command that begins so, with the line it goes on in."""
    return re.search(rf"^  ({re.escape(start)}.*(?:(?<=\\)\n.*)?)", text, re.MULTILINE)[1]


@pytest.mark.program("curl")
@pytest.mark.parametrize(
    "tool", ["curl -s -X PATCH", pytest.param("kubectl", marks=pytest.mark.program("kubectl"))]
)
async def test_a_namespace_moves(tool):
    """The metrics show the team; the printed command moves it; the next look shows the new one."""
    async with demo() as (text, end):
        look = printed(text, "curl -s http")
        before = await shell(look)
        assert 'namespace="frontend-service2",team="frontend"' in before
        assert all('team="' in line for line in before.splitlines())
        await shell(printed(text, tool))

        async def moved():
            after = await shell(look)
            spaces = [line for line in after.splitlines() if "frontend-service2" in line]
            assert len(spaces) == before.count("frontend-service2")
            return all('team="backend"' in line for line in spaces)

        await until(moved)
        other = shlex.split(re.search(r"curl -s \S+/node-2/\S+", text)[0])[-1]
        assert 'team="payments"' in await shell(f"curl -sf {other}")
        assert "peak memory of the daemon" in await end()


@pytest.mark.program("curl")
async def test_memory_does_not_grow_with_the_payload(tmp_path):
    """The daemon's peak is the same for 12 and 120 MB, and under 50 MiB as a pod runs it."""
    node = simulate_node("node-1", DEFAULT_NAMESPACES, pods_per_namespace=3, started=0.0)
    text = NodeMetrics(node).text("/metrics/cadvisor", 1_795_000_000.0)
    peaks = []
    # Whoever measures coverage must not be measured as well.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    for megabytes in (12, 120):
        path = tmp_path / "payload"
        with path.open("wb") as file:
            for _ in range(megabytes * 1_000_000 // len(text)):
                file.write(text)
        async with demo(f"--payload={path}", environment=environment) as (shown, end):
            url = shlex.split(printed(shown, "curl -s http").partition("|")[0])[-1]
            size = await shell(
                f"curl -sf -H 'X-Prometheus-Scrape-Timeout-Seconds: 60' {url} | wc -c"
            )
            assert int(size) > path.stat().st_size
            await shell(
                f"curl -sf --compressed -o {tmp_path / 'out'} -H 'X-Prometheus-Scrape-Timeout-Seconds: 60' {url}"
            )
            assert (tmp_path / "out").stat().st_size == int(size)
            peaks.append(
                float(re.search(r"peak memory of the daemon: ([0-9.]+) MiB", await end())[1])
            )
    assert max(peaks) - min(peaks) < 16
    assert max(peaks) < 50


@pytest.mark.parametrize(
    ("flags", "status", "says"),
    [
        (["--nonsense=1"], 2, "unknown flag --nonsense"),
        (["--payload=/nowhere"], 2, "--payload /nowhere: No such file"),
        (["--api-port={port}"], 1, "cannot listen on 127.0.0.1:{port} (--api-port)"),
        (["--api-port={free}", "--listen=127.0.0.1:{port}"], 1, "the daemon ended by itself"),
    ],
)
async def test_what_goes_wrong(flags, status, says):
    """One line, and the exit status."""
    free = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "kmproxy",
            "demo",
            *(flag.format(port=port, free=free) for flag in flags),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        text = (await asyncio.wait_for(process.stdout.read(), 60)).decode()
        assert await process.wait() == status
    assert says.format(port=port) in text
    assert "Traceback" not in text
