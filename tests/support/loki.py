"""A stand-in for Loki's push endpoint, and `kmproxy logs` as a process in front of it."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from tests.support.process import in_a_pod

PATH = "/loki/api/v1/push"


@dataclass
class Entry:
    """One line as it was pushed."""

    stream: dict[str, str]
    time: int
    text: str
    metadata: dict[str, str]
    tenant: str | None


@dataclass
class Loki:
    """Takes pushes. While `status` is not 204, every push is answered by it and dropped.

    `store_and_fail` pushes are stored, but answered with a broken connection.
    """

    status: int = 204
    store_and_fail: int = 0
    pushes: int = 0
    entries: list[Entry] = field(default_factory=list)
    stored: list[set[str]] = field(default_factory=list)  # the texts of each push
    port: int = 0
    _runner: web.AppRunner | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self):
        """The URL of the push endpoint."""
        return f"http://127.0.0.1:{self.port}{PATH}"

    @property
    def texts(self):
        """The texts of all lines, in the order of their arrival."""
        return [entry.text for entry in self.entries]

    async def start(self):
        """Listen, again on the same port."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post(PATH, self._push)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]

    async def stop(self):
        """Refuse connections."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None

    async def _push(self, request):
        self.pushes += 1
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        document = json.loads(body)
        if self.status != 204:
            return web.Response(status=self.status, text="not now")
        tenant = request.headers.get("X-Scope-OrgID")
        self.stored.append({each[1] for stream in document["streams"] for each in stream["values"]})
        for stream in document["streams"]:
            for stamp, text, *metadata in stream["values"]:
                found = metadata[0] if metadata else {}
                self.entries.append(Entry(stream["stream"], int(stamp), text, found, tenant))
        self._changed.set()
        if self.store_and_fail and document["streams"]:
            self.store_and_fail -= 1
            request.transport.abort()
        return web.Response(status=204)

    async def has(self, *texts):
        """Wait until each of these texts has come."""
        async with asyncio.timeout(60):
            while missing := set(texts) - set(self.texts):
                self._changed.clear()
                await self._changed.wait()
        return missing

    def repeated(self):
        """The texts that came more than once."""
        return {text: count for text, count in Counter(self.texts).items() if count > 1}


def arguments(cluster, directory, loki, source="files"):
    """The environment and the command line of `kmproxy logs`: for node-a, or by the API server."""
    environment, flags = in_a_pod(cluster, directory / "sa")
    if source == "api":
        flags = [*(each for each in flags if not each.startswith("--node-")), "--source=api"]
    return environment, [
        "logs",
        *flags,
        f"--loki-url={loki.url}",
        f"--positions={directory / 'positions.json'}",
        "--batch-wait=100ms",
    ]


async def got(port, path, **headers):
    """The text of one answer of the process."""
    url = f"http://127.0.0.1:{port}{path}"
    async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as response:
        return await response.text()


@asynccontextmanager
async def shipping(environment, flags):
    """Run `kmproxy logs`. Yields the process and its two ports. At the end it is killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kmproxy", *flags, env=environment, stderr=asyncio.subprocess.PIPE
    )
    said = []

    async def read():
        while line := await process.stderr.readline():
            said.append(line.decode())
            started.set()

    started = asyncio.Event()
    reading = asyncio.create_task(read())
    try:
        async with asyncio.timeout(60):
            while not (found := [line for line in said if "page on port" in line]):
                assert not reading.done(), said
                started.clear()
                waits = asyncio.create_task(started.wait())
                await asyncio.wait({waits, reading}, return_when=asyncio.FIRST_COMPLETED)
                waits.cancel()
        words = found[0].replace(",", " ").replace(";", " ").split()
        process.said = said
        yield process, [int(word) for word in words if word.isdecimal()]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def run(environment, flags):
    """Run `kmproxy logs` to its end. Returns its exit status and its output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kmproxy", *flags, env=environment, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        _, said = await process.communicate()
    return process.returncode, said.decode()


async def until(holds):
    """Wait until a condition holds."""
    async with asyncio.timeout(60):
        while True:
            if holds():
                return
            await asyncio.sleep(0.05)
