"""Failed requests: each has its reason, and a body that was cut is never taken for complete."""

from __future__ import annotations

import asyncio
import time

import pytest

from kmproxy.config.proxies import Proxy
from kmproxy.errors import UpstreamError
from tests.conftest import until
from tests.support.upstreams import fetch, serving


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "disconnected"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "truncated"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "truncated"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "protocol"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20000 + b"\r\n\r\n", "protocol"),
    ],
)
async def test_failures(upstream, answering, answer, reason):
    """Every failure of a connection has a word, and a line that shows nothing of the answer."""
    url, _ = await answering(answer)
    with pytest.raises(UpstreamError) as raised:
        await fetch(upstream, url)
    assert raised.value.reason == reason
    assert str(raised.value).startswith("the kubelet")
    assert "abc" not in str(raised.value)
    assert "SSH" not in str(raised.value)


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        (b"", None),
        (HEAD, None),
        (HEAD + b"3\r\nabc\r\n", None),
        # Into a stream that has begun, as a proxy on the way does when it loses its server.
        (HEAD + b"3\r\nabc\r\n", b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
        (HEAD + b"3\r\nabc\r\n", b"3\r\nabcXX"),
    ],
)
async def test_silence(upstream, begins, goes_on):
    """A server that says nothing that makes sense for too long has timed out."""
    came, begun, over = [], asyncio.Event(), asyncio.Event()

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begins)
        if goes_on:
            await begun.wait()
            writer.write(goes_on)
            await writer.drain()
        else:
            await over.wait()
        writer.close()

    async def read():
        async with upstream.get(url, accept="text/plain", silence=0.5) as response:
            async for piece in upstream.pieces(response, silence=0.5):
                came.append(piece)
                begun.set()

    async with serving(handle) as url:
        with pytest.raises(UpstreamError) as raised:
            await asyncio.wait_for(read(), 30)
        over.set()
    assert (raised.value.reason, raised.value.status) == ("timeout", 504)
    assert b"".join(came).startswith(b"abc" if b"abc" in begins else b"")


@pytest.mark.parametrize(
    "wrong",
    [
        b"zz\r\n",
        b"3\r\nabcXX",
        b"-3\r\nabc\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"0\r\nno trailer\r\n\r\n",
    ],
)
@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("busy", [False, True])
async def test_wrong_framing(upstream, monkeypatch, wrong, closes, busy):
    """What comes in the place of a chunk ends the answer, with no time limit at all.

    Whether it comes while the next piece is waited for, or while the last is worked on.
    """
    monkeypatch.setattr("kmproxy.client.upstream.TICK", 0.02)
    begun, over = asyncio.Event(), asyncio.Event()

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"3\r\nabc\r\n")
        await begun.wait()
        writer.write(wrong)
        if not closes:
            await over.wait()
        writer.close()

    async def read():
        async with upstream.get(url, accept="text/plain") as response:

            async def given_up():
                return response.connection.transport is None

            async for _ in upstream.pieces(response):
                begun.set()
                if busy:
                    await until(given_up)

    async with serving(handle) as url:
        with pytest.raises(UpstreamError) as raised:
            await asyncio.wait_for(read(), 30)
        over.set()
    assert raised.value.reason in {"truncated", "protocol"}


async def test_an_end_at_the_moment_of_a_look(upstream, monkeypatch):
    """A connection that has just been given back, as all has come, is not one that was lost."""
    monkeypatch.setattr("kmproxy.client.upstream.TICK", 0.05)
    begun, over = asyncio.Event(), asyncio.Event()

    def end(writer):
        writer.write(b"3\r\ndef\r\n0\r\n\r\n")
        time.sleep(0.1)  # so that the loop finds both at once: what has come, and that it is time

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"3\r\nabc\r\n")
        await begun.wait()
        end(writer)
        await over.wait()
        writer.close()

    async with serving(handle) as url, upstream.get(url, accept="text/plain") as response:
        came = []
        async for piece in upstream.pieces(response):
            came.append(piece)
            begun.set()
        over.set()
    assert b"".join(came) == b"abcdef"


async def test_a_pause_is_no_end(upstream, monkeypatch):
    """Looks at the connection in between take nothing from an answer that only comes slowly."""
    monkeypatch.setattr("kmproxy.client.upstream.TICK", 0.01)

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        for _ in range(5):
            await asyncio.sleep(0.05)
            writer.write(b"3\r\nabc\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"0\r\n\r\n")
        writer.close()

    async with serving(handle) as url:
        assert await fetch(upstream, url) == (200, b"abc" * 5)


async def test_a_server_that_died(upstream):
    """Behind the dead connection is nothing alive: that is the end of it."""
    connections = []

    async def handle(reader, writer):
        connections.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        if len(connections) == 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with serving(handle) as url:
        assert await fetch(upstream, url) == (200, b"ok")
        with pytest.raises(UpstreamError, match="closed the connection"):
            await asyncio.wait_for(fetch(upstream, url), 30)
    assert len(connections) == 2


async def test_a_server_that_only_hangs_up(upstream, answering):
    """It is asked once more, which is aiohttp's doing, and not for ever."""
    url, seen = await answering(b"")
    with pytest.raises(UpstreamError):
        await fetch(upstream, url)
    assert len(seen) == 2


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
async def test_a_host_name_that_cannot_be_one(upstream, host):
    """It is known to nobody."""
    with pytest.raises(UpstreamError, match="the kubelet's host name") as raised:
        await fetch(upstream, f"http://{host}/")
    assert raised.value.reason == "unresolved"


@pytest.mark.parametrize("through", [False, True])
async def test_silence_before_tls(upstream, direct, through):
    """A handshake, and the answer of a proxy, have no more time than the rest."""
    over = asyncio.Event()

    async def handle(_, writer):
        await over.wait()
        writer.close()

    async with serving(handle) as url:
        proxied = direct(proxy=lambda _: Proxy(url.rstrip("/")))
        asked = fetch(proxied if through else upstream, url.replace("http", "https"), silence=0.1)
        with pytest.raises(UpstreamError) as raised:
            await asyncio.wait_for(asked, 30)
        over.set()
    assert (raised.value.reason, raised.value.status) == ("timeout", 504)
