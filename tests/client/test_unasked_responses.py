"""Responses that no request asked for: they end the connection, and take neither memory nor time."""

from __future__ import annotations

import asyncio

import pytest

from kmproxy.client.protocol import MAX_INTERIM

TYPED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"
LINE = b'm{namespace="payments"} 1\n'
ANSWER = TYPED + b"Content-Length: %d\r\n\r\n%b" % (len(LINE), LINE)
SERVED = (200, 'm{namespace="payments",team="payments"} 1\n')
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
MOST = 16 << 20
"""Bytes that do not fit into the buffers of a connection."""


@pytest.mark.parametrize(
    "unasked",
    [
        INTERIM,
        b"HTTP/1.1 103 Early Hints\r\n"
        + b"".join(b"X-%d: y\r\n" % n for n in range(100))
        + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"\r\n",
        ANSWER,
    ],
    ids=["interim", "long heads", "empty", "blank lines", "answers"],
)
async def test_a_flood_on_an_idle_connection(spoken, unasked):
    """None is kept, and the next request goes over another connection."""
    refused, flood = asyncio.Event(), unasked * (100_000 // len(unasked))

    async def say(writer, number):
        writer.write(ANSWER)
        if number > 1:
            return
        await writer.drain()
        await idle.wait()
        sent = 0
        try:
            while sent < MOST:
                writer.write(flood)
                await writer.drain()
                sent += len(flood)
        except OSError:
            refused.set()
            raise

    idle = asyncio.Event()
    proxy = await spoken(say)
    assert await proxy.get("/metrics") == SERVED
    idle.set()
    async with asyncio.timeout(30):
        await refused.wait()
    assert await proxy.get("/metrics") == SERVED


@pytest.mark.parametrize("more", [0, 1])
async def test_interim_responses(spoken, more):
    """A few are skipped, as HTTP demands. Too many end the request."""

    async def say(writer, _):
        writer.write(INTERIM * (MAX_INTERIM + more) + ANSWER)
        return True

    proxy = await spoken(say)
    status, text = await proxy.get("/metrics")
    assert (status, text) == SERVED if not more else (status, "HTTP" in text) == (502, True)


async def test_interim_responses_without_end(spoken):
    """They end at once, and not with the time of the scrape."""

    async def say(writer, _):
        while True:
            writer.write(INTERIM * 1000)
            await writer.drain()

    proxy = await spoken(say)
    async with asyncio.timeout(30):
        status, text = await proxy.get("/metrics", X_Prometheus_Scrape_Timeout_Seconds="60")
    assert (status, text) == (502, "the kubelet's answer is not valid HTTP\n")


async def test_a_response_behind_the_body(spoken):
    """The body is whole, and served. What follows is not the response to the next request."""
    evil = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\nevil 1\n"

    async def say(writer, number):
        writer.write(ANSWER + evil * 3 if number == 1 else ANSWER)

    proxy = await spoken(say)
    for _ in range(3):
        assert await proxy.get("/metrics") == SERVED
