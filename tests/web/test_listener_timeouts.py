"""Limits of time: a slow or silent client loses its connection."""

from __future__ import annotations

import asyncio

import pytest

from kmproxy.simulator.kubelet import Fault
from tests.conftest import until
from tests.support.clients import KEPT
from tests.support.listener import config

# Limits of time.


async def silence(proxy, *parts, context=None, every=0.05):
    """Sends parts slowly and then nothing; returns the answer up to the end."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", proxy.daemon.metrics_port, ssl=context
    )
    try:
        for part in parts:
            if writer.transport.is_closing():
                break
            writer.write(part)
            await asyncio.sleep(every)
        async with asyncio.timeout(30):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


SLOW = {
    "nothing": [],
    "no end of the request line": [b"GET /metrics"],
    "no end of the headers": [b"GET / HTTP/1.1\r\nHost: x\r\n"],
    "a byte at a time": [
        bytes([byte]) for byte in b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 200
    ],
}


@pytest.mark.parametrize("parts", SLOW.values(), ids=SLOW)
async def test_a_slow_sender_of_a_head(front, parts):
    """A client that sends its head too slowly is cut, even if it goes on sending."""
    proxy = await front("--header-timeout=300ms")
    assert await silence(proxy, *parts) == b""
    assert await proxy.metric("kmproxy_refused_total", reason="timeout") == 1


async def test_a_slow_second_head(front):
    """The second head on a kept connection has the same time as the first."""
    proxy = await front("--header-timeout=300ms")
    answer = await silence(proxy, KEPT, b"GET /")
    assert answer.count(b"HTTP/1.1 200") == 1
    assert await proxy.metric("kmproxy_refused_total", reason="timeout") == 1


async def test_a_head_behind_another(front, cluster):
    """Half a pipelined head gets no more time than others."""
    proxy = await front("--header-timeout=300ms")
    answer = await silence(proxy, KEPT + b"GET /metr")
    assert answer.count(b"HTTP/1.1 200") == 1
    assert await proxy.metric("kmproxy_refused_total", reason="timeout") == 1


async def test_a_slow_handshake(front, ours, tmp_path):
    """A client that never finishes its handshake is cut."""
    proxy = await front(config(tmp_path), "--header-timeout=300ms")
    assert await silence(proxy) == b""
    assert await silence(proxy, b"\x16\x03\x01\x02\x00\x01") == b""
    assert await proxy.metric("kmproxy_refused_total", reason="tls") == 2


async def test_an_idle_connection(front):
    """A connection is kept between requests, for a limited time."""
    proxy = await front("--header-timeout=200ms", "--idle-timeout=2s")
    answer = await silence(proxy, KEPT, b"", b"", b"", b"", b"", b"", b"", KEPT)
    assert answer.count(b"HTTP/1.1 200") == 2


async def test_a_slow_reader(front, cluster):
    """The scrape time ends an answer to a slow reader, and its slot is free."""
    cluster.kubelets["node-a"].fail(Fault.BOMB, size=64 << 20)
    proxy = await front("--max-concurrency=1")
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.daemon.metrics_port, limit=1)
    writer.write(
        b"GET /metrics/cadvisor HTTP/1.1\r\nHost: x\r\n"
        b"X-Prometheus-Scrape-Timeout-Seconds: 5\r\n\r\n"
    )
    await reader.readexactly(1)

    async def broken():
        return await proxy.metric("kmproxy_scrapes_total", code="broken") == 1

    await until(broken)
    assert await proxy.metric("kmproxy_scrapes_in_flight") == 0
    writer.close()


async def test_a_scrape_that_would_last_for_ever(front, cluster):
    """A scraper that announces a year gets --max-scrape-time."""
    cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS)
    proxy = await front("--max-scrape-time=200ms")
    status, text = await proxy.get(X_Prometheus_Scrape_Timeout_Seconds="31536000")
    assert status == 504
    assert "within 0.2 s" in text


async def test_a_body_that_never_comes(front):
    """A refused request does not wait for its announced body."""
    proxy = await front()
    head = b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    assert (await silence(proxy, head)).startswith(b"HTTP/1.1 405 ")
