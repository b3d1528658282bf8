"""How many fetches are under way at once, and what becomes of those who wait."""

from __future__ import annotations

import asyncio
import socket

import pytest

from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.errors import SlowClientError, UpstreamError
from kmproxy.simulator.kubelet import Fault
from kmproxy.sources.slots import ConcurrencyLimit
from tests.conftest import until
from tests.support.resets import ends_in_a_reset


@pytest.fixture
def metrics():
    """Our own metrics."""
    return OwnMetrics()


def in_flight(metrics):
    """What the metric says."""
    return metrics.registry.get_sample_value("kmproxy_scrapes_in_flight")


def soon(seconds=30.0):
    """A deadline, on the clock of the event loop."""
    return asyncio.get_running_loop().time() + seconds


async def test_no_more_than_the_count(metrics):
    """As many hold one as there are; the next gets in when one leaves, the first to ask first."""
    slots = ConcurrencyLimit(2, metrics.slots)
    leave = [asyncio.Event() for _ in range(5)]
    inside = []

    async def ask(number):
        async with slots.taken(soon()):
            inside.append(number)
            await leave[number].wait()

    tasks = [asyncio.create_task(ask(number)) for number in range(5)]
    await asyncio.sleep(0.05)
    assert inside == [0, 1]
    assert in_flight(metrics) == 2
    for number in (1, 0, 2, 3, 4):
        leave[number].set()
        await tasks[number]
    assert inside == [0, 1, 2, 3, 4]
    assert in_flight(metrics) == 0


@pytest.mark.parametrize("seconds", [0.05, 0.0, -1.0])
async def test_nobody_waits_beyond_the_deadline(metrics, seconds):
    """503, which names the flag, and the one that holds the slot is left alone."""
    slots = ConcurrencyLimit(1, metrics.slots)
    async with slots.taken(soon()):
        with pytest.raises(UpstreamError, match="--max-concurrency is 1") as caught:
            await asyncio.wait_for(slots.taken(soon(seconds)).__aenter__(), 30)
        assert (caught.value.status, caught.value.reason) == (503, "timeout")
        assert in_flight(metrics) == 1
    async with slots.taken(soon()):
        assert in_flight(metrics) == 1


async def test_the_block_is_not_bounded(metrics):
    """The deadline is for the waiting alone: what is done with a slot has limits of its own."""
    async with ConcurrencyLimit(1, metrics.slots).taken(soon(0.02)):
        await asyncio.sleep(0.05)


async def test_a_slot_comes_back(metrics):
    """After an error, after a cancellation while it is held, and after one while it is awaited."""
    slots = ConcurrencyLimit(1, metrics.slots)
    with pytest.raises(ValueError, match="inside"):
        async with slots.taken(soon()):
            raise ValueError("inside")

    async def hold():
        async with slots.taken(soon()):
            await asyncio.Event().wait()

    for _ in range(3):
        holding, waiting = asyncio.create_task(hold()), asyncio.create_task(hold())
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.sleep(0)
        holding.cancel()
        await asyncio.gather(holding, waiting, return_exceptions=True)
    assert in_flight(metrics) == 0
    async with slots.taken(soon(0.05)):
        pass


async def test_the_address_with_the_fewest_is_next(metrics):
    """However long the queue of another is: a share is kept for who has none."""
    slots = ConcurrencyLimit(2, metrics.slots)
    leave = asyncio.Event()
    inside = []

    async def ask(who):
        async with slots.taken(soon(), who):
            inside.append(who)
            await leave.wait()

    many = [asyncio.create_task(ask("many")) for _ in range(6)]
    await asyncio.sleep(0)
    one = asyncio.create_task(ask("one"))
    await asyncio.sleep(0)
    assert inside == ["many", "many"]  # it may have all while nobody else asks
    many[0].cancel()
    await asyncio.sleep(0.01)
    assert inside == ["many", "many", "one"]
    leave.set()
    await asyncio.gather(*many, one, return_exceptions=True)
    assert in_flight(metrics) == 0
    assert repr(slots) == "<ConcurrencyLimit 0 of 2, 0 wait>"


async def at_once():
    """A write that does not wait."""


async def test_a_client_that_does_not_read(metrics, monkeypatch):
    """Its slot waits for so long and no longer, however often it is asked to."""
    monkeypatch.setattr("kmproxy.sources.slots.PATIENCE", 0.3)
    slots = ConcurrencyLimit(1, metrics.slots)
    async with slots.taken(soon(), "a") as slot:
        for _ in range(100):
            await slot.sent(1 << 20, at_once())  # what did not wait earns nothing
        await slot.sent(1, asyncio.sleep(0.2))
        with pytest.raises(SlowClientError):
            await slot.sent(1, asyncio.sleep(0.2))
        with pytest.raises(SlowClientError):
            await slot.sent(1, asyncio.Event().wait())
    assert metrics.registry.get_sample_value("kmproxy_refused_total", {"reason": "slow"}) == 2


async def test_a_client_that_reads_earns_time(metrics, monkeypatch):
    """Bytes that it has taken while it was waited for count."""
    monkeypatch.setattr("kmproxy.sources.slots.PATIENCE", 1.0)
    async with ConcurrencyLimit(1, metrics.slots).taken(soon(), "a") as slot:
        for _ in range(8):
            await slot.sent(1 << 20, asyncio.sleep(0.2))


async def test_another_that_waits_shortens_the_patience(metrics, monkeypatch):
    """For an address that has more than its share; at once, in the middle of a wait."""
    monkeypatch.setattr("kmproxy.sources.slots.PATIENCE", 600)
    monkeypatch.setattr("kmproxy.sources.slots.SHORT_PATIENCE", 0.1)
    slots = ConcurrencyLimit(2, metrics.slots)

    async def hold(who):
        async with slots.taken(soon(60), who) as slot:
            await slot.sent(1, asyncio.Event().wait())

    holders = [asyncio.create_task(hold("a")) for _ in range(2)]
    await asyncio.sleep(0.3)
    same = asyncio.create_task(hold("a"))  # of its own it takes none
    await asyncio.sleep(0.3)
    assert not any(holder.done() for holder in holders)
    other = asyncio.create_task(hold("b"))
    done, _ = await asyncio.wait(holders, return_when=asyncio.FIRST_COMPLETED, timeout=30)
    assert {type(each.exception()) for each in done} == {SlowClientError}
    await asyncio.sleep(0.3)
    assert not other.done()  # who has one only has the time of all
    for task in (*holders, same, other):
        task.cancel()
    await asyncio.gather(*holders, same, other, return_exceptions=True)
    assert in_flight(metrics) == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
async def test_five_slow_readers_and_a_good_one(front, cluster, host):
    """They hold every slot; each is reset, never ended cleanly, and the good one is served whole."""
    line = b'm{namespace="payments"} 1\n'
    cluster.kubelets["node-a"].fail(
        Fault.BODY,
        body=line * 400_000,
        content_type="text/plain; version=0.0.4",
        path="/metrics/cadvisor",
    )
    proxy = await front()
    loop = asyncio.get_running_loop()
    readers = []

    async def trickle(client):
        while True:
            await asyncio.sleep(0.2)
            await loop.sock_recv(client, 100)

    for _ in range(5):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        client.bind((host, 0))
        await loop.sock_connect(client, ("127.0.0.1", proxy.daemon.metrics_port))
        await loop.sock_sendall(
            client,
            b"GET /metrics/cadvisor HTTP/1.1\r\nHost: x\r\n"
            b"X-Prometheus-Scrape-Timeout-Seconds: 120\r\n\r\n",
        )
        readers.append((client, asyncio.create_task(trickle(client))))

    async def all_taken():
        return await proxy.metric("kmproxy_scrapes_in_flight") == 5

    async def all_reset():
        return await proxy.metric("kmproxy_refused_total", reason="slow") == 5

    await until(all_taken)
    status, text = await proxy.get("/metrics/probes")
    assert status == 200
    assert 'team="payments"' in text
    await until(all_reset)
    assert await proxy.metric("kmproxy_scrapes_total", code="broken") == 5
    for client, reading in readers:
        reading.cancel()
        await asyncio.wait([reading])
        with client:
            assert isinstance(
                reading.exception() if not reading.cancelled() else None, ConnectionResetError
            ) or await ends_in_a_reset(client)
    assert await proxy.metric("kmproxy_scrapes_in_flight") == 0
