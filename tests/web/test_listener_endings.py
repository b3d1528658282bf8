"""Ends of connections: an unfinished answer ends in a reset, and never looks complete."""

from __future__ import annotations

import asyncio
import socket

import pytest

from kmproxy.simulator.kubelet import Fault
from tests.conftest import until
from tests.support.clients import KEPT, connected
from tests.support.listener import GET, ask, served
from tests.support.process import refused
from tests.support.resets import ends_in_a_reset

# Requests behind a request.

LONG = (
    b"GET /metrics/cadvisor HTTP/1.1\r\nHost: x\r\nX-Prometheus-Scrape-Timeout-Seconds: 60\r\n\r\n"
)
BEHIND = {
    "nothing": (b"", False),
    "a few": (KEPT * 20, False),
    "many": (KEPT * 40, False),
    "more than a head may have": (KEPT * 1000, True),
    "thousands": (KEPT * 20_000, True),
    "a body": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + bytes(1 << 20), True),
    "another protocol": (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + bytes(1 << 20),
        True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(("behind", "refused"), BEHIND.values(), ids=BEHIND)
async def test_a_client_that_leaves_with_more_on_its_way(front, cluster, behind, refused, at_once):
    """It is seen to leave, or refused: its slot is free, and not only when the scrape's time is up."""
    cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS, path="/metrics/cadvisor")
    proxy = await front("--max-concurrency=1")

    async def at_work():
        return await proxy.metric("kmproxy_scrapes_in_flight") == 1

    async def over():
        return await proxy.metric("kmproxy_scrapes_in_flight") == 0

    async def refusals():
        return await proxy.metric("kmproxy_refused_total", reason="form") == 1

    ((_, writer),) = await connected(proxy, 1)
    if at_once:
        writer.write(LONG + behind)
    else:
        writer.write(LONG)
        await until(at_work)
        writer.write(behind)
    await until(refusals if refused else at_work)
    writer.transport.abort()
    await until(over)
    assert await refusals() is refused
    cluster.kubelets["node-a"].recover()
    assert await served(proxy, None)


async def test_requests_behind_a_request(front):
    """A few are answered in their order."""
    proxy = await front()
    answer = await ask(proxy, None, KEPT * 5 + GET % b"/nope")
    assert answer.count(b"HTTP/1.1 200 OK") == 5
    assert answer.rpartition(b"HTTP/1.1 ")[2].startswith(b"404")


async def test_an_answer_that_is_cut_does_not_look_whole(front, cluster):
    """It ends by a reset, as HTTP/1.0 has no other sign of it."""
    cluster.kubelets["node-a"].fail(Fault.HANG_IN_BODY)
    proxy = await front()
    ((reader, writer),) = await connected(proxy, 1)
    writer.write(b"GET /metrics/cadvisor HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert b"team=" in await reader.readuntil(b"team=")
    writer.write(KEPT * 1000)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 30)
    writer.close()


@pytest.fixture
async def unfetched(front, cluster, monkeypatch):
    """A function that starts a daemon, and a client for whom most of its answer is still held."""
    lines = b'm{namespace="payments"} 1\n' * 1000
    kind = "text/plain; version=0.0.4"
    cluster.kubelets["node-a"].fail(Fault.BODY, body=lines, content_type=kind)

    def listening(where, family):
        sock = socket.create_server(where, family=family)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that the rest waits
        return sock

    monkeypatch.setattr("kmproxy.web.listener._listening", listening)
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)

        async def start(*flags):
            proxy = await front(*flags)
            await loop.sock_connect(client, ("127.0.0.1", proxy.daemon.metrics_port))
            await loop.sock_sendall(client, b"GET /metrics HTTP/1.0\r\n\r\n")

            async def answered():
                return await proxy.metric("kmproxy_scrapes_total", code="200") == 1

            await until(answered)
            return proxy, client

        yield start


async def test_an_answer_that_nobody_fetches(unfetched):
    """Where its connection has to make room before it is sent, it does not look whole either."""
    proxy, client = await unfetched("--max-connections=1")
    ((_, writer),) = await connected(proxy, 1)
    assert await ends_in_a_reset(client)
    writer.close()
    assert await proxy.metric("kmproxy_refused_total", reason="limit") == 1


# The end of the process.


async def test_an_answer_that_is_fetched_while_the_process_ends(unfetched):
    """What was answered before is sent to its end."""
    proxy, client = await unfetched()
    stopped = asyncio.create_task(proxy.daemon.stop())
    await until(lambda: refused(proxy.daemon.metrics_port))
    for _ in range(100):
        await asyncio.sleep(0)  # what does not wait for the client is over by then
    answer = b""
    while piece := await asyncio.get_running_loop().sock_recv(client, 1 << 20):
        answer += piece
    assert answer.count(b'team="payments"} 1\n') == 1000
    await stopped


async def test_an_answer_that_nobody_fetches_while_the_process_ends(unfetched, monkeypatch):
    """It does not keep the process, which takes what is not sent with it; so it is broken off."""
    monkeypatch.setattr("kmproxy.web.listener.LINGER", 0.1)
    proxy, client = await unfetched()
    async with asyncio.timeout(10):
        await proxy.daemon.stop()
    assert await ends_in_a_reset(client)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_an_answer_that_has_no_end_when_the_process_ends(
    front, cluster, monkeypatch, version
):
    """It is broken off by a reset, as whatever else cuts it."""
    monkeypatch.setattr("kmproxy.web.listener.SHUTDOWN_TIMEOUT", 0.1)
    cluster.kubelets["node-a"].fail(Fault.HANG_IN_BODY)
    proxy = await front()
    ((reader, writer),) = await connected(proxy, 1)
    minute = b"X-Prometheus-Scrape-Timeout-Seconds: 60\r\n"
    writer.write(b"GET /metrics/cadvisor HTTP/%b\r\nHost: x\r\n%b\r\n" % (version, minute))
    await reader.readuntil(b"team=")
    async with asyncio.timeout(10):
        await proxy.daemon.stop()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
