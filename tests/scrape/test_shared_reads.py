"""--share-reads from the request to the bytes of an answer: one read, and each scrape its own."""

from __future__ import annotations

import asyncio

import pytest

from kmproxy.simulator.kubelet import Fault
from tests.conftest import until
from tests.support.tenants import bearer, grant

SHARED = ("/metrics/cadvisor", "/metrics/resource")
KEPT = "kmproxy_shared_read_bytes"


@pytest.fixture
def kubelet(cluster):
    """The kubelet of node-a, whose samples do not change."""
    kubelet = cluster.kubelets["node-a"]
    kubelet.clock = lambda: 1_795_000_000.0
    return kubelet


def asked(kubelet):
    """The paths that a kubelet was asked for."""
    return [record.path for record in kubelet.requests]


async def results(proxy):
    """How many scrapes were served from memory, joined a read, and began one."""
    return [
        await proxy.metric("kmproxy_shared_reads_total", result=result)
        for result in ("hit", "joined", "read")
    ]


@pytest.mark.parametrize("path", SHARED)
async def test_two_scrapers_cost_one_read(front, kubelet, clock, path):
    """Within the time a read serves every scraper, byte for byte; after it, another is made."""
    expected = await (await front()).get(path)
    kubelet.requests.clear()
    proxy = await front("--share-reads=25s", clock=clock)
    assert [await proxy.get(path) for _ in range(3)] == [expected] * 3
    assert asked(kubelet) == [path]
    assert await results(proxy) == [2, 0, 1]
    clock.now += 24.9
    assert await proxy.get(path) == expected
    assert asked(kubelet) == [path]
    clock.now += 0.1
    assert await proxy.get(path) == expected
    assert asked(kubelet) == [path] * 2
    assert await results(proxy) == [3, 0, 2]


async def test_off_nothing_is_kept(front, kubelet):
    """Without the flag each scrape asks the kubelet."""
    proxy = await front()
    for _ in range(2):
        await proxy.get("/metrics/cadvisor")
    assert len(asked(kubelet)) == 2
    assert await proxy.metric(KEPT) == 0


@pytest.mark.parametrize("path", ["/metrics", "/metrics/probes"])
async def test_samples_without_timestamps_are_never_shared(front, kubelet, path):
    """Old values would be taken for those of now."""
    proxy = await front("--share-reads=25s")
    for _ in range(2):
        assert (await proxy.get(path))[0] == 200
    assert asked(kubelet) == [path] * 2
    assert await results(proxy) == [0, 0, 0]
    assert await proxy.metric(KEPT) == 0


async def test_the_endpoints_and_nodes_are_apart(front, cluster):
    """A read serves one endpoint of one node."""
    proxy = await front("--share-reads=25s", "--all-nodes", "--node-name-or-ip=localhost")
    texts = {}
    for node in ("node-a", "node-b"):
        cluster.kubelets[node].requests.clear()
        for path in SHARED:
            for _ in range(2):
                status, text = await proxy.get(f"/api/v1/nodes/{node}/proxy{path}")
                assert status == 200
                assert texts.setdefault((node, path), text) == text
        assert asked(cluster.kubelets[node]) == list(SHARED)
    assert len(set(texts.values())) == 4


async def test_labels_are_live(front, cluster, kubelet):
    """Two scrapes of one read show the labels of their own time."""
    proxy = await front("--share-reads=60s")
    assert 'team="payments"' in (await proxy.get())[1]
    cluster.api.namespaces.apply("payments", {"team": "cash"})

    async def changed():
        return 'namespace="payments",team="cash"' in (await proxy.get())[1]

    await until(changed)
    assert 'team="payments"' not in (await proxy.get())[1]
    assert len(asked(kubelet)) == 1


async def test_selections_are_apart(front, kubelet):
    """What one scrape leaves out, the next one of the same read gets."""
    proxy = await front("--share-reads=60s")
    narrow = (await proxy.get("/metrics/cadvisor?namespace=payments"))[1]
    whole = (await proxy.get())[1]
    assert 'namespace="frontend-service1"' in whole
    assert 'namespace="frontend-service1"' not in narrow
    assert 'namespace="payments"' in narrow
    assert len(asked(kubelet)) == 1


async def test_tenants_are_apart(front, cluster, kubelet):
    """Each sees its own namespaces, out of one read."""
    grant(cluster, "payments", user="ann")
    grant(cluster, "frontend-service1", user="bob")
    proxy = await front("--share-reads=60s", "--authorization=tenant")
    for user, own, other in (
        ("ann", "payments", "frontend-service1"),
        ("bob", "frontend-service1", "payments"),
    ) * 2:
        status, text = await proxy.get(**bearer(cluster, user))
        assert status == 200
        assert f'namespace="{own}"' in text
        assert f'namespace="{other}"' not in text
    assert len(asked(kubelet)) == 1


async def test_authorization_comes_before_a_kept_read(front, cluster):
    """Who may not scrape gets nothing from memory either."""
    cluster.api.allow("get", "nodes/metrics", user="ann")
    proxy = await front(
        *("--share-reads=60s", "--authorization=kubernetes"),
        "--authorization-attributes=nodes/metrics",
    )
    assert (await proxy.get(**bearer(cluster, "ann")))[0] == 200
    assert (await proxy.get(**bearer(cluster, "eve")))[0] == 403
    assert (await proxy.get())[0] == 401
    assert await results(proxy) == [0, 0, 1]


@pytest.mark.parametrize(
    ("fault", "needs", "status"),
    [
        (Fault.STATUS, {"status": 403}, 502),
        (Fault.STATUS, {"status": 500}, 502),
        (Fault.HTML, {}, 502),
        (Fault.DISCONNECT, {}, 502),
        (Fault.GARBAGE_GZIP, {}, 502),
        (Fault.NO_FRAMING, {}, 502),
    ],
)
async def test_a_failure_is_never_kept(front, kubelet, fault, needs, status):
    """The next scrape asks anew, and gets what is there then."""
    proxy = await front("--share-reads=60s")
    kubelet.fail(fault, path="/metrics/cadvisor", **needs)
    for _ in range(2):
        assert (await proxy.get())[0] == status
    assert await results(proxy) == [0, 0, 2]
    assert await proxy.metric(KEPT) == 0
    kubelet.recover()
    assert (await proxy.get())[0] == 200
    assert await results(proxy) == [0, 0, 3]


@pytest.mark.parametrize(
    "fault",
    [
        Fault.CUT_CHUNKED,
        Fault.CUT_CONTENT_LENGTH,
        Fault.CUT_GZIP,
        Fault.GZIP_TRAILING_GARBAGE,
        Fault.BOMB,
    ],
)
async def test_what_does_not_end_well_is_not_kept(front, kubelet, fault):
    """A connection that broke after the first byte leaves nothing behind."""
    proxy = await front("--share-reads=60s", "--max-response-bytes=8388608")
    kubelet.fail(fault, path="/metrics/cadvisor", times=1)
    answer, end = await proxy.raw(b"GET /metrics/cadvisor HTTP/1.1\r\nHost: x\r\n\r\n")
    assert end == "reset" or answer.startswith(b"HTTP/1.1 502 ")
    assert not answer.endswith(b"\r\n0\r\n\r\n")
    assert await proxy.metric(KEPT) == 0
    assert (await proxy.get())[0] == 200
    assert len(asked(kubelet)) == 2


async def test_a_kubelet_that_restarts(front, kubelet, clock):
    """A read that was whole serves its time; after it the kubelet is asked, and its failure told."""
    proxy = await front("--share-reads=25s", clock=clock)
    whole = await proxy.get()
    await kubelet.stop()
    assert await proxy.get() == whole
    clock.now += 25
    assert (await proxy.get())[0] == 502
    await kubelet.start()
    assert await proxy.get() == whole


async def test_a_head_keeps_nothing(front, kubelet):
    """It gets the head alone, the read ends with it, and the next scrape is whole."""
    proxy = await front("--share-reads=60s")

    async def head():
        plain = {"Accept-Encoding": "identity"}  # its first bytes do not wait for others
        async with proxy.session.head(proxy.url + "/metrics/cadvisor", headers=plain) as response:
            assert response.status == 200

    async def nothing_kept():
        return await proxy.metric(KEPT) == 0

    await head()
    await until(nothing_kept)
    status, text = await proxy.get()
    assert (status, len(asked(kubelet))) == (200, 2)
    await head()
    assert await proxy.get() == (200, text)
    assert await results(proxy) == [2, 0, 2]


async def test_what_is_too_old_leaves_the_memory(front, kubelet):
    """Also if nobody comes."""
    proxy = await front("--share-reads=300ms")
    assert (await proxy.get())[0] == 200
    assert await proxy.metric("kmproxy_shared_reads_total", result="read") == 1

    async def gone():
        return await proxy.metric(KEPT) == 0

    await until(gone)
    assert len(asked(kubelet)) == 1


async def test_through_the_node_proxy(front, cluster, kubelet):
    """The API server's node proxy is asked once, too."""
    proxy = await front(
        *("--share-reads=60s", f"--kube-apiserver={cluster.api.url}", "--node-name-or-ip=node-a"),
    )
    first = await proxy.get()
    assert first[0] == 200
    assert await proxy.get() == first
    assert len(asked(kubelet)) == 1


async def test_a_stopped_daemon_leaves_no_read(front, kubelet):
    """Its end ends the reads under way."""
    proxy = await front("--share-reads=60s")
    kubelet.fail(Fault.HANG_IN_BODY, path="/metrics/cadvisor")
    scrape = asyncio.create_task(proxy.raw(b"GET /metrics/cadvisor HTTP/1.1\r\nHost: x\r\n\r\n"))

    async def began():
        return await proxy.metric("kmproxy_shared_reads_total", result="read") == 1

    await until(began)
    await proxy.daemon.stop()
    answer, _ = await scrape
    assert not answer.endswith(b"\r\n0\r\n\r\n")
    names = {str(task.get_coro().__qualname__) for task in asyncio.all_tasks()}
    assert not any(name.startswith("SharedReads") for name in names)
