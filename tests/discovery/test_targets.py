"""Which lists of targets are fetched, counted and held."""

from __future__ import annotations

import asyncio
import json

import pytest

from kmproxy.config.sections import DiscoveryConfig
from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.discovery import targets as module
from kmproxy.discovery.targets import TargetService
from kmproxy.errors import CredentialError, UpstreamError
from kmproxy.kube.nodes import Node
from kmproxy.kube.objects import ObjectMeta
from kmproxy.sources.slots import ConcurrencyLimit
from tests.support.sharing import Clock, failure


@pytest.fixture
def clock():
    """The clock of the lists."""
    return Clock()


class Kubelet:
    """Kubelets that answer a node's name with a set number of pods."""

    configured = Node("here", "here", 10250)
    has_node = True

    def __init__(self):
        self.asked = []
        self.error = None
        self.pods_each = 1
        self.padding = ""
        self.hang = False

    async def pods(self, node, reader):
        self.asked.append(node.name)
        if self.hang:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        annotations = {"padding": self.padding}
        metadata = {"namespace": "shop", "annotations": annotations}
        body = json.dumps(
            {
                "items": [
                    {
                        "metadata": metadata | {"name": f"{node.name}-{number}"},
                        "spec": {"containers": [{"name": "c"}]},
                        "status": {"podIP": "10.0.0.1"},
                    }
                    for number in range(self.pods_each)
                ]
            }
        ).encode()
        reader.feed(body)


class Nodes:
    """A node directory with some names."""

    def __init__(self, *names):
        self.names = set(names)

    async def find(self, name, *, asker):
        assert asker == "discovery"
        if name not in self.names:
            raise UpstreamError("no_node", "the cluster has no such node", status=404)
        return Node(name, name)

    async def list_all(self):
        yield [ObjectMeta(name) for name in self.names]


def service(clock, kubelet, nodes=None, *, slots=5, metrics=None, **config):
    """A service in front of these kubelets."""
    metrics = metrics or OwnMetrics()
    return TargetService(
        config=DiscoveryConfig(enabled=True, **config),
        kubelet=kubelet,
        directory=nodes,
        slots=ConcurrencyLimit(slots, metrics.slots),
        metrics=metrics.discovery,
        clock=clock,
    )


def value(metrics, name, **labels):
    """The value of one of kmproxy's metrics."""
    return metrics.registry.get_sample_value(f"kmproxy_{name}", labels)


async def test_nodes_are_kept_apart(clock):
    """Each node has its own list. The configured node has the list without a name."""
    kubelet = Kubelet()
    found = service(clock, kubelet, Nodes("a", "b"))
    for name in (None, "a", "b", "a", None):
        targets = (await found.pods(name, 5.0)).value
        assert f'"{name or "here"}-0"'.encode() in targets.render(lambda _: b"")
    assert kubelet.asked == ["here", "a", "b"]


async def test_a_node_that_does_not_exist(clock):
    """404, and no trace of the node is kept."""
    found = service(clock, Kubelet(), Nodes("a"))
    for name in ("x", "y" * 500, ""):
        with pytest.raises(UpstreamError) as caught:
            await found.pods(name, 5.0)
        assert caught.value.status == 404
    assert not found._named


async def test_nodes_need_the_directory(clock):
    """Without --all-nodes no node has a name, and no list of nodes exists."""
    found = service(clock, Kubelet())
    for asking in (found.pods("here", 5.0), found.nodes(5.0)):
        with pytest.raises(UpstreamError, match="--all-nodes") as caught:
            await asking
        assert caught.value.status == 404


async def test_only_configured_namespaces(clock):
    """Pods of other namespaces are not held. A glob matches a whole name."""
    for patterns, count in ((("bank", "sho"), 0), (("sh*",), 1), ((), 1)):
        found = service(clock, Kubelet(), namespace=patterns)
        assert (await found.pods(None, 5.0)).value.count == count


async def test_what_is_held_is_bounded(clock, monkeypatch):
    """The node requested longest ago is forgotten first, by bytes and by number."""
    kubelet = Kubelet()
    kubelet.padding = "x" * 4000
    monkeypatch.setattr(module, "MAX_HELD", 15_000)
    found = service(clock, kubelet, Nodes(*"abcde"))
    for name in "abcad":
        await found.pods(name, 5.0)
    assert list(found._named) == ["c", "a", "d"]
    monkeypatch.setattr(module, "MAX_LISTS", 2)
    await found.pods("e", 5.0)
    assert list(found._named) == ["d", "e"]
    monkeypatch.setattr(module, "MAX_HELD", 1000)
    clock.now += 10.0
    assert (await found.pods("a", 5.0)).value.count == 1
    assert list(found._named) == ["a"]


async def test_the_configured_node_counts_to_what_is_held(clock, monkeypatch):
    """Its list stays, and takes the room of nodes by name: also if it is fetched after them."""
    kubelet = Kubelet()
    kubelet.padding = "x" * 4000
    monkeypatch.setattr(module, "MAX_HELD", 15_000)
    found = service(clock, kubelet, Nodes(*"abc"))
    for name in "abc":
        await found.pods(name, 5.0)
    assert list(found._named) == ["a", "b", "c"]
    await found.pods(None, 5.0)
    assert list(found._named) == ["b", "c"]
    await found.pods("a", 5.0)
    assert list(found._named) == ["c", "a"]
    assert found._configured.held is not None


async def test_slots_are_those_of_scrapes(clock, monkeypatch):
    """A fetch waits for a slot of scrapes, and gets 503 without one."""
    monkeypatch.setattr(module, "FETCH_TIMEOUT", 0.05)
    kubelet = Kubelet()
    found = service(clock, kubelet, slots=0)
    with pytest.raises(UpstreamError, match="--max-concurrency") as caught:
        await found.pods(None, 5.0)
    assert caught.value.status == 503
    assert not kubelet.asked


async def test_a_fetch_that_hangs(clock, monkeypatch):
    """A hanging fetch ends in its time, and frees its slot."""
    monkeypatch.setattr(module, "FETCH_TIMEOUT", 0.05)
    metrics, kubelet = OwnMetrics(), Kubelet()
    kubelet.hang = True
    found = service(clock, kubelet, slots=1, metrics=metrics)
    with pytest.raises(UpstreamError, match="no whole answer from the kubelet") as caught:
        await found.pods(None, 5.0)
    assert caught.value.status == 504
    assert value(metrics, "upstream_errors_total", upstream="kubelet", reason="timeout") == 1
    assert value(metrics, "scrapes_in_flight") == 0
    kubelet.hang = False
    clock.now += 5.0
    assert (await found.pods(None, 5.0)).value.count == 1


async def test_a_credential_that_cannot_be_used(clock):
    """An unusable credential is treated as an upstream failure."""
    kubelet = Kubelet()
    kubelet.error = CredentialError("the token cannot be read")
    with pytest.raises(UpstreamError, match="token") as caught:
        await service(clock, kubelet).pods(None, 5.0)
    assert (caught.value.reason, caught.value.status) == ("credential", 502)


async def test_metrics(clock):
    """Fetches and failures are counted, and targets and the age of the list are shown."""
    metrics, kubelet = OwnMetrics(), Kubelet()
    kubelet.pods_each = 3
    found = service(clock, kubelet, Nodes("a", "b"), metrics=metrics)
    await found.pods(None, 5.0)
    await found.pods("a", 5.0)
    await found.nodes(5.0)
    assert value(metrics, "discovery_fetches_total", role="pod", result="ok") == 2
    assert value(metrics, "discovery_fetches_total", role="node", result="ok") == 1
    assert value(metrics, "discovery_targets", role="pod") == 6
    assert value(metrics, "discovery_targets", role="node") == 2
    assert value(metrics, "discovery_age_seconds", role="pod") == 0
    kubelet.error = failure()
    clock.now += 40.0
    await found.pods(None, 5.0)
    assert value(metrics, "discovery_fetches_total", role="pod", result="failed") == 1
    assert value(metrics, "upstream_errors_total", upstream="kubelet", reason="refused") == 1
    assert value(metrics, "discovery_age_seconds", role="pod") == 40


async def test_reprs(clock):
    """The reprs of a service and its lists are status lines."""
    found = service(clock, Kubelet(), Nodes("a"))
    assert repr(found) == "<TargetService <SharedValue list, nothing, well>, 0 nodes by name>"
    await found.pods(None, 5.0)
    clock.now += 3.0
    assert "3s old, well" in repr(found)
    await found.close()
