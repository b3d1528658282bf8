"""When the pods of a node are listed, which scrapes share a list, and how many nodes are held."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry

from kmproxy.config.pod_labels import PodConfig
from kmproxy.config.sections import KubeletConfig
from kmproxy.errors import CredentialError, UpstreamError
from kmproxy.exposition.pods import PodsNeededError
from kmproxy.kube.nodes import Node
from kmproxy.labels.pods import RETENTION, PodListing
from kmproxy.scrape import pod_lists as module
from kmproxy.scrape.pod_lists import (
    INTERVAL,
    MAX_HELD,
    REFRESH,
    REFRESHES,
    NodePods,
    PodLists,
    PodMetrics,
)
from kmproxy.sources.kubelet import Kubelet
from kmproxy.sources.shared_read import Room
from tests.conftest import until
from tests.support.sharing import Clock, Source, failure

NODE = Node("node-a", "10.0.0.1", 10250, "uid-a")


class Fetch(Source):
    """Lists of pods; each answer is the names of the pods of a list, or an error."""

    async def __call__(self, node):
        answer = await super().__call__()
        self.node = node
        listing = PodListing()
        for name in answer:
            listing.put(b"shop", name.encode(), b',workload="web"')
        return listing


@pytest.fixture
def clock():
    """The time of the lists."""
    return Clock()


@pytest.fixture
def registry():
    """The registry of the metrics."""
    return CollectorRegistry()


@pytest.fixture
def node_pods(clock, registry):
    """A function that makes the pods of a node of what is fetched."""
    metrics = PodMetrics(registry)
    return lambda fetch: NodePods(NODE, fetch, metrics, Room(MAX_HELD), clock)


def counted(registry, result):
    """How many lists went so."""
    return registry.get_sample_value("kmproxy_pod_lists_total", {"result": result})


async def test_one_list_for_all_who_wait(node_pods, clock, registry):
    """However many scrapes need it at once, it is asked for once."""
    fetch = Fetch(["web-0"])
    pods = node_pods(fetch)
    await asyncio.gather(*(pods.listed_after(clock.now) for _ in range(20)))
    assert fetch.asked == 1
    assert pods.map.lookup(b"shop", b"web-0") == b',workload="web"'
    assert counted(registry, "ok") == 1


async def test_a_list_that_was_asked_for_before_the_answer(node_pods, clock):
    """It may lack the pods of the answer: it does not count, even if it ends later."""
    fetch = Fetch(["old"], ["old", "new"])
    pods = node_pods(fetch)
    fetch.gate.clear()
    first = asyncio.create_task(pods.listed_after(clock.now))
    await fetch.begun.wait()
    clock.now += 0.5
    second = asyncio.create_task(pods.listed_after(clock.now))
    fetch.gate.set()
    await first
    assert pods.map.lookup(b"shop", b"new") is None
    await asyncio.sleep(0)
    assert not second.done()
    assert fetch.asked == 1  # at most one a second
    clock.now += INTERVAL
    await second
    assert pods.map.lookup(b"shop", b"new") is not None
    assert fetch.asked == 2


async def test_a_list_that_another_scrape_asked_for(node_pods, clock):
    """It serves every scrape whose answer had begun before."""
    fetch = Fetch(["web-0"])
    pods = node_pods(fetch)
    began = clock.now
    clock.now += 1
    await pods.listed_after(clock.now)
    await pods.listed_after(began)
    assert fetch.asked == 1


async def test_a_list_that_fails(node_pods, clock, registry):
    """Each who waits gets the error, as a 502. The known pods stay."""
    fetch = Fetch(["web-0"], failure(503), CredentialError("no token"), ["web-1"])
    pods = node_pods(fetch)
    await pods.listed_after(clock.now)
    clock.now += 2
    waiting = [asyncio.create_task(pods.listed_after(clock.now)) for _ in range(3)]
    for error in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(error, UpstreamError)
        assert (error.reason, error.status) == ("refused", 502)
    clock.now += 2
    with pytest.raises(CredentialError):
        await pods.listed_after(clock.now)
    assert pods.map.lookup(b"shop", b"web-0") is not None
    clock.now += 2
    await pods.listed_after(clock.now)
    assert (counted(registry, "ok"), counted(registry, "failed")) == (2, 2)


async def test_an_empty_list(node_pods, clock, registry):
    """A kubelet that has just started may list nothing: the pods that are known stay so."""
    fetch = Fetch([], ["web-0"], [])
    pods = node_pods(fetch)
    for _ in range(3):
        clock.now += 2
        await pods.listed_after(clock.now)
    assert pods.map.lookup(b"shop", b"web-0") is not None
    assert pods.map.gone == 1
    assert (counted(registry, "ok"), counted(registry, "empty")) == (2, 1)


async def test_a_refresh_that_fails(node_pods, clock, registry, caplog):
    """It is told once, and does no harm."""
    fetch = Fetch(failure(), failure(), ["web-0"], failure())
    pods = node_pods(fetch)
    for _ in range(4):
        clock.now += REFRESH
        await pods.refresh()
    assert [record.getMessage() for record in caplog.records] == [
        "no list of the pods of node-a: the kubelet cannot be reached"
    ] * 2
    assert counted(registry, "failed") == 3
    assert pods.refresh_at == clock.now + REFRESH
    assert pods.map.lookup(b"shop", b"web-0") is not None


class Lists:
    """The pods of nodes whose kubelets list one pod each, after the gate is open."""

    def __init__(self, clock, registry, monkeypatch, **config):
        self.asked = []
        self.under_way = self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()
        kubelet = Kubelet(KubeletConfig(**{"node": "10.0.0.9", **config}), None)
        monkeypatch.setattr(kubelet, "pods", self._pods)
        self.lists = PodLists(
            PodConfig(workload=True), kubelet,
            max_value=1024, at_once=2, metrics=PodMetrics(registry), clock=clock,
        )  # fmt: skip

    async def _pods(self, node, reader):
        self.asked.append(node.name)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.gate.wait()
        name = f"web-{node.name}"
        reader.feed(b'{"items":[{"metadata":{"namespace":"shop","name":"%b"}}]}' % name.encode())
        self.under_way -= 1

    async def scrape(self, number, uid="u"):
        """A scrape of a node that needs its pods."""
        scrape = self.lists.scraped(Node(f"n{number}", "10.0.0.1", 10250, uid))
        for _ in range(2):  # if the first list fails, the known pods do not suffice
            with suppress(PodsNeededError):
                scrape.lookup(b"shop", b"unknown")
                return scrape
            await scrape.list()
        raise AssertionError


@pytest.fixture
def lists(clock, registry, monkeypatch):
    """The pods of many nodes."""
    return Lists(clock, registry, monkeypatch)


async def test_each_node_has_its_own_pods(lists):
    """A pod of another node is unknown. So is that of a node that had the name before."""
    one, two = await lists.scrape(1), await lists.scrape(2)
    again = lists.lists.scraped(Node("n1", "10.0.0.2", 10250, "v"))
    again._answer.use_known()
    assert one.lookup(b"shop", b"web-n1") == b',workload="web-n1",workload_type="barepod"'
    assert one.lookup(b"shop", b"web-n2") is None
    assert two.lookup(b"shop", b"web-n1") is None
    with pytest.raises(PodsNeededError):
        again.lookup(b"shop", b"web-n1")


async def test_the_configured_node_is_listed_at_the_start(lists, clock):
    """And again when the list is old, scraped or not; others after a scrape only."""
    running = asyncio.create_task(lists.lists.run())
    await asyncio.sleep(0.01)
    assert lists.asked == ["10.0.0.9"]
    clock.now += REFRESH
    await until(lambda: asyncio.sleep(0, len(lists.asked) == 2))
    running.cancel()
    await asyncio.wait({running})
    assert lists.asked == ["10.0.0.9"] * 2


async def test_without_a_configured_node(clock, registry, monkeypatch):
    """With --all-nodes nothing is listed before a scrape."""
    lists = Lists(clock, registry, monkeypatch, node="localhost", all_nodes=True)
    running = asyncio.create_task(lists.lists.run())
    await asyncio.sleep(0.01)
    assert lists.asked == []
    await lists.scrape(1)
    clock.now += REFRESH
    await until(lambda: asyncio.sleep(0, lists.asked == ["n1", "n1"]))
    running.cancel()
    await asyncio.wait({running})


async def test_nodes_that_are_not_scraped(lists, clock, registry):
    """They are forgotten after the time for which pods are remembered."""
    await lists.scrape(1)
    clock.now += RETENTION - 1
    await lists.scrape(2)
    assert registry.get_sample_value("kmproxy_pods") == 2
    clock.now += 1
    await lists.scrape(3)
    assert registry.get_sample_value("kmproxy_pods") == 2


async def test_more_nodes_than_fit(lists, registry):
    """The one scraped longest ago is forgotten, and is listed anew when it is scraped again."""
    await lists.scrape(0)
    room = lists.lists._room
    room.limit = 10 * room.held
    for number in range(1, 30):
        await lists.scrape(number)
        lists.lists.scraped(Node("n0", "10.0.0.1", 10250, "u"))
    held = [name for name, _ in lists.lists._nodes]
    assert len(held) <= 11
    assert "n0" in held
    assert "n1" not in held
    await lists.scrape(1)
    assert registry.get_sample_value("kmproxy_pods") <= 11


async def test_the_bytes_of_all_nodes(lists, clock):
    """They are those of the nodes that are held, whatever came, went, and was listed late."""
    room, nodes = lists.lists._room, lists.lists._nodes

    def counted():
        return sum(module._COST + pods.map.size for pods in nodes.values())

    late = lists.lists.scraped(Node("n0", "10.0.0.1", 10250, "u"))
    for number in range(1, 4):
        await lists.scrape(number)
    assert room.held == counted() > 3 * module._COST
    nodes["n3", "u"].map.swap(PodListing(), clock.now)
    clock.now += RETENTION
    await lists.scrape(3)
    await lists.scrape(4)
    assert [name for name, _ in nodes] == ["n3", "n4"]
    assert room.held == counted()
    await late.list()
    assert room.held == counted()


async def test_lists_at_once(lists):
    """As many as there are slots, and some for refreshing: the others wait, without a slot."""
    lists.gate.clear()
    scrapes = [asyncio.create_task(lists.scrape(number)) for number in range(20)]
    await asyncio.sleep(0.01)
    assert lists.most == 2 + REFRESHES
    lists.gate.set()
    await asyncio.gather(*scrapes)
    assert lists.most == 2 + REFRESHES
    assert len(lists.asked) == 20


async def test_a_list_that_hangs(lists, monkeypatch):
    """It fails after its own time, whatever the scrapes allow."""
    monkeypatch.setattr(module, "LIST_TIMEOUT", 0.01)
    lists.gate.clear()
    with pytest.raises(UpstreamError, match=r"no whole list of pods .* within 0.01 s") as raised:
        await lists.scrape(1)
    assert (raised.value.reason, raised.value.status) == ("timeout", 502)


async def test_pods_that_left(lists, clock, registry):
    """They are counted as gone, and forgotten when the node is scraped after their time."""
    scrape = await lists.scrape(1)
    pods = lists.lists._nodes[("n1", "u")].map
    pods.swap(PodListing(), clock.now)
    assert registry.get_sample_value("kmproxy_pods_gone") == 1
    assert scrape.lookup(b"shop", b"web-n1") is not None
    clock.now += RETENTION
    lists.lists.scraped(Node("n1", "10.0.0.1", 10250, "u"))
    assert registry.get_sample_value("kmproxy_pods_gone") == 0
