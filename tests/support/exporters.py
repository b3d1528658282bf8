"""Exporters of the tests' own, on real sockets, and a daemon's configuration that names them."""

from __future__ import annotations

import asyncio
import contextlib

import yaml

TEXT = "text/plain; version=0.0.4; charset=utf-8"


def answer(body, *more, status="200 OK", kind=TEXT, length=None):
    """The bytes of a response: its length is the body's, unless another is given."""
    size = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {size}", *more]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Exporter:
    """A server that answers each request as `say` writes it.

    `heads` holds the requests' heads, `connections` is the number of connections. `say` is the bytes
    of a response, or a coroutine function that gets a writer. Then the connection is closed.
    """

    def __init__(self, say=b""):
        self.say = say
        self.heads = []
        self.connections = 0
        self._writers = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/metrics"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader, writer):
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            if isinstance(self.say, bytes):
                writer.write(self.say)
            else:
                await self.say(writer)
            await writer.drain()
        self._writers.discard(writer)
        writer.close()


def config_file(directory, *upstreams, **more):
    """The flag of a YAML file with these entries."""
    path = directory / "kmproxy.yaml"
    path.write_text(yaml.safe_dump({"upstreams": list(upstreams), **more}, sort_keys=False))
    return f"--config={path}"
