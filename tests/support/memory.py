"""A daemon as a process, in front of a node that answers with anything, and its peak memory."""

from __future__ import annotations

import asyncio
import socket
import zlib
from contextlib import asynccontextmanager, suppress

from tests.support.floods import healthy, peak, sent
from tests.support.process import daemon, in_a_pod

MANY = 120
SCRAPES = 8
"""Scrapes at once: more than there are slots."""

TEXT = "text/plain; version=0.0.4"
SCRAPE = b"GET %b HTTP/1.1\r\nHost: x\r\n%bX-Prometheus-Scrape-Timeout-Seconds: 60\r\n\r\n"
FIGURES = {}


def repeated(line, size):
    """So many bytes of this line, at least."""
    return line * (size // len(line) + 1)


def numbered(form, count):
    """A line for each number, in one text."""
    return "".join(form.format(number) for number in range(count)).encode()


class Node:
    """A kubelet without TLS that answers each path with what it is told, in chunks or packed."""

    def __init__(self):
        self.bodies = {}
        self.kinds = {}
        self.status = b"200 OK"

    def serve(self, body, path="/metrics/cadvisor", *, packed=False, kind=TEXT):
        """Answer this; packed is sent as gzip, or already is it if bytes."""
        if packed is True:
            packed = zlib.compress(body, 1, 31)
        self.bodies[path] = (packed or body, b"Content-Encoding: gzip\r\n" if packed else b"")
        self.kinds[path] = kind.encode()

    @asynccontextmanager
    async def running(self):
        """Its port."""
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _handle(self, reader, writer):
        with suppress(OSError, EOFError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ")[1].decode()
                body, coding = self.bodies.get(path, (b"", b""))
                kind = self.kinds.get(path, TEXT.encode())
                writer.write(
                    b"HTTP/1.1 %b\r\nContent-Type: %b\r\n%bContent-Length: %d\r\n\r\n"
                    % (self.status, kind, coding, len(body))
                )
                for start in range(0, len(body), 1 << 18):
                    writer.write(body[start : start + (1 << 18)])
                    await writer.drain()
        writer.transport.abort()


class World:
    """A cluster, a node that says anything, and daemons in front of them."""

    def __init__(self, cluster, folder, stack):
        self.cluster = cluster
        self.folder = folder
        self.stack = stack
        self.node = Node()
        self.process = None

    async def start(self, *flags, own_node=True):
        """A daemon; with `own_node` in front of our node."""
        environment, defaults = in_a_pod(self.cluster, self.folder / "sa")
        environment = {k: v for k, v in environment.items() if not k.startswith("COVERAGE")}
        if own_node:
            port = await self.stack.enter_async_context(self.node.running())
            defaults += ["--kubelet-scheme=http", f"--node-port={port}"]
        self.process, (self.port, self.telemetry) = await self.stack.enter_async_context(
            daemon(environment, [*defaults, *flags])
        )
        reading = asyncio.create_task(self._read())
        self.stack.callback(reading.cancel)

    async def _read(self):
        while await self.process.stderr.readline():
            pass

    async def get(self, path="/metrics/cadvisor", headers=b""):
        """The status of an answer that is read to its end, and its size."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        writer.write(SCRAPE % (path.encode(), headers + b"Connection: close\r\n"))
        size, head = 0, b""
        with suppress(OSError):
            async with asyncio.timeout(60):
                head = piece = await reader.read(1 << 20)
                while piece:
                    size += len(piece)
                    piece = await reader.read(1 << 20)
        writer.transport.abort()
        return head[9:12].decode(), size

    async def scrape(self, path="/metrics/cadvisor", headers=b"", count=SCRAPES):
        """So many at once; their statuses."""
        answers = await asyncio.gather(*(self.get(path, headers) for _ in range(count)))
        return [status for status, _ in answers]

    async def plug(self, data):
        """Send a request and never read: the connection."""
        plug = socket.socket()
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plug.setblocking(False)
        self.stack.callback(plug.close)
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            await loop.sock_connect(plug, ("127.0.0.1", self.port))
            await loop.sock_sendall(plug, data)

    async def attack(self, data):
        """Send this on as many connections as there may be, and leave them open for a moment."""
        connections = await asyncio.gather(*(sent(self.port, data) for _ in range(MANY)))
        await healthy(self.telemetry)
        for connection in filter(None, connections):
            connection[1].transport.abort()

    def note(self, case):
        """The peak of the daemon."""
        FIGURES[case] = max(peak(self.process), FIGURES.get(case, 0))
        assert self.process.returncode is None
