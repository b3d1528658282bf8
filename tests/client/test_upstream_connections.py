"""Kept connections: one that died or brought unexpected bytes carries no request."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

import pytest

from kmproxy.client.session import open_session
from kmproxy.errors import UpstreamError
from kmproxy.process import TLS_BUFFER, bound_tls_buffers
from tests.support.upstreams import fetch, serving


async def test_a_server_whose_packets_are_lost(upstream, monkeypatch):
    """A connection that does not come about is given up long before the silence is too long."""
    monkeypatch.setattr("kmproxy.client.upstream.CONNECT", 0.2)
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # a full backlog: the next SYN is dropped
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/"
        with pytest.raises(UpstreamError) as raised:
            async with asyncio.timeout(60), upstream.get(url, accept="*/*", silence=80.0):
                pass
    assert raised.value.reason == "timeout"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("idle", [1, 2, 5])
async def test_connections_that_died_meanwhile(upstream, method, idle):
    """However many kept connections turn out to be dead, the request goes out by a new one."""
    served, together, connections = [], asyncio.Barrier(idle), []

    async def handle(reader, writer):
        connections.append(writer)
        number = len(connections)
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(2 if method == "POST" else 0)
                if served.count(number) and number <= idle:
                    break
                served.append(number)
                if number <= idle:
                    await together.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    async def ask():
        if method == "GET":
            return await fetch(upstream, url)
        async with upstream.post(url, b"{}") as response:
            return response.status, b"".join([piece async for piece in upstream.pieces(response)])

    async with serving(handle) as url:
        assert await asyncio.gather(*(ask() for _ in range(idle))) == [(200, b"ok")] * idle
        assert await ask() == (200, b"ok")
        assert await ask() == (200, b"ok")
    assert served == [*served[:idle], idle + 1, idle + 1]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_nobody_asked_for(upstream, method):
    """An answer that came before its question is of no connection that is used again."""
    connections, asked, said = [], asyncio.Event(), asyncio.Event()

    async def handle(reader, writer):
        connections.append(writer)
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n%03d"
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(2 if method == "POST" else 0)
                writer.write(answer % len(connections))
                await writer.drain()
                if len(connections) == 1:
                    await asked.wait()
                    writer.write(answer % 999)
                    said.set()
        writer.close()

    async def ask():
        if method == "GET":
            return (await fetch(upstream, url))[1]
        async with upstream.post(url, b"{}") as response:
            return b"".join([piece async for piece in upstream.pieces(response)])

    async with serving(handle) as url:
        assert await ask() == b"001"
        asked.set()
        await said.wait()
        for _ in range(10):
            await asyncio.sleep(0)  # it is on its way within this process
        assert await ask() == b"002"
        assert await ask() == b"002"


async def test_gzip_is_not_decoded_here(upstream, answering):
    """The body comes as it was sent: whose end must be proven is for others to decode."""
    url, _ = await answering(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nxyz"
    )
    assert await fetch(upstream, url) == (200, b"xyz")


async def test_a_tls_connection_holds_little(cluster):
    """What an idle connection to a kubelet costs is two records, not asyncio's 256 KiB."""
    bound_tls_buffers()
    kubelet = cluster.kubelets["node-a"]
    trust = ssl.create_default_context(cadata=cluster.ca_pem.decode())
    async with open_session():
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, kubelet.host, kubelet.port, ssl=trust
        )
        assert len(transport._ssl_protocol._ssl_buffer) == TLS_BUFFER < 1 << 16
        transport.abort()
