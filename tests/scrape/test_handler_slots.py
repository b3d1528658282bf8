"""The limit of concurrent scrapes: a scrape waits for a slot, and its end frees the slot."""

from __future__ import annotations

import asyncio

from kmproxy.simulator.kubelet import Fault
from kmproxy.sources.slots import ConcurrencyLimit
from tests.conftest import until

GET = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b\r\n"


async def test_no_free_slot(front, cluster):
    """503 when all slots stay taken for the scrape's time; a slot is free again afterwards."""
    proxy = await front("--max-concurrency=1")
    cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS, times=1)
    hanging = asyncio.create_task(proxy.get(X_Prometheus_Scrape_Timeout_Seconds="3"))
    await until(lambda: _busy(proxy))
    status, text = await proxy.get(X_Prometheus_Scrape_Timeout_Seconds="0.2")
    assert status == 503
    assert "--max-concurrency" in text
    assert (await hanging)[0] == 504
    assert (await proxy.get())[0] == 200


async def test_no_free_slot_is_said_in_time(front, cluster, monkeypatch):
    """The 503 is there before the scraper, who began to count first, gives up."""
    waits, taken, clock = [], ConcurrencyLimit.taken, asyncio.get_running_loop().time

    def noted(slots, deadline, *asker):
        waits.append(deadline - clock())
        return taken(slots, deadline, *asker)

    monkeypatch.setattr(ConcurrencyLimit, "taken", noted)
    proxy = await front("--max-concurrency=1")
    cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS)
    hanging = asyncio.create_task(proxy.get(X_Prometheus_Scrape_Timeout_Seconds="60"))
    await until(lambda: _busy(proxy))
    status, text = await proxy.get(X_Prometheus_Scrape_Timeout_Seconds="1")
    assert status == 503
    assert "--max-concurrency" in text
    assert waits[-1] <= 0.9
    hanging.cancel()


async def test_a_client_that_leaves_while_it_waits(front, cluster, monkeypatch):
    """It leaves the queue: its kubelet is never asked, and who came after it is next."""
    made = []
    monkeypatch.setattr(
        "kmproxy.daemon.daemon.ConcurrencyLimit",
        lambda *given: made.append(ConcurrencyLimit(*given)) or made[0],
    )

    async def waiting():
        others = len(made[0]._waiting)
        return await _busy(proxy) and others == len(clients) - 1

    proxy = await front("--max-concurrency=1")
    kubelet = cluster.kubelets["node-a"]
    kubelet.fail(Fault.HANG_BEFORE_HEADERS, path="/metrics/cadvisor")
    kubelet.fail(Fault.HANG_BEFORE_HEADERS, path="/metrics/resource")
    minute = b"X-Prometheus-Scrape-Timeout-Seconds: 60\r\n"
    clients = []
    for path in (b"/metrics/cadvisor", b"/metrics/resource", b"/metrics/probes"):
        clients.append(await asyncio.open_connection("127.0.0.1", proxy.daemon.metrics_port))
        clients[-1][1].write(GET % (path, minute))
        await until(waiting)
    (_, first), (_, second), (reader, third) = clients
    second.transport.abort()

    async def gone():
        return await proxy.metric("kmproxy_scrapes_total", path="/metrics/resource", code="gone")

    await until(gone)
    assert await _busy(proxy)
    first.transport.abort()
    assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 200 OK")
    assert [record.path for record in kubelet.requests] == ["/metrics/cadvisor", "/metrics/probes"]
    third.close()


async def _busy(proxy):
    return await proxy.metric("kmproxy_scrapes_in_flight") == 1


async def test_a_client_that_leaves_frees_its_slot(front, cluster):
    """The upstream of a client that has gone is given up at once."""
    proxy = await front("--max-concurrency=1")
    cluster.kubelets["node-a"].fail(Fault.HANG_IN_BODY, times=1)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.daemon.metrics_port)
    writer.write(GET % (b"/metrics/cadvisor", b""))
    await reader.readuntil(b"\r\n\r\n")
    assert await _busy(proxy)
    writer.transport.abort()
    status, _ = await proxy.get(X_Prometheus_Scrape_Timeout_Seconds="2")
    assert status == 200
    assert await proxy.metric("kmproxy_scrapes_total", path="/metrics/cadvisor", code="gone") == 1
