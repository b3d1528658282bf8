"""A kubelet that sends its answer step by step, as a test opens the gates between the steps."""

from __future__ import annotations

import asyncio
import contextlib
import zlib

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"
    b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
)
LAST = b"0\r\n\r\n"


def chunk(data):
    """A chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def packed(*texts):
    """One gzip member in as many parts as texts; each part decodes to its whole text."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    parts = [packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH) for text in texts]
    return [*parts[:-1], parts[-1] + packer.flush()]


class Gated:
    """A kubelet of plain HTTP that plays `steps` for each request: bytes to send, gates to wait at.

    `asked` counts the requests. `left` is set when a client has gone before the end of an answer.
    After a step of None the connection is closed.
    """

    def __init__(self, *steps):
        self.steps = steps
        self.asked = 0
        self.left = asyncio.Event()
        self._connections = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.flags = [
            "--kubelet-scheme=http",
            "--node-name-or-ip=127.0.0.1",
            f"--node-port={self.port}",
        ]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for writer in self._connections:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader, writer):
        self._connections.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                self.asked += 1
                gone = asyncio.create_task(reader.read(1))
                try:
                    if not await self._play(writer, gone):
                        break
                finally:
                    gone.cancel()
                    await asyncio.wait({gone})
        writer.close()

    async def _play(self, writer, gone):
        for step in self.steps:
            if step is None:
                return False
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
                continue
            opened = asyncio.create_task(step.wait())
            await asyncio.wait({opened, gone}, return_when=asyncio.FIRST_COMPLETED)
            opened.cancel()
            if gone.done():
                self.left.set()
                return False
        return True
