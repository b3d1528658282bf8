"""When lists of targets are fetched, who shares them, and what stands in for a failure."""

from __future__ import annotations

import asyncio
import json

import pytest

from kmproxy.config.label_rules import Namespace
from kmproxy.config.sections import DiscoveryConfig
from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.discovery import targets as module
from kmproxy.discovery.targets import SharedList, TargetService
from kmproxy.errors import CredentialError, UpstreamError
from kmproxy.kube.nodes import Node
from kmproxy.sources.slots import ConcurrencyLimit


class Clock:
    """A time that is set."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Source:
    """What is fetched: the next of `answers`, once `gate` is open. Counts how often."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()
        self.asked = 0

    async def __call__(self):
        self.asked += 1
        self.begun.set()
        answer = self.answers.pop(0)
        await self.gate.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


def failure(status=502):
    """What an upstream's failure is."""
    return UpstreamError("refused", "the kubelet cannot be reached", status=status)


@pytest.fixture
def clock():
    """The time of the lists."""
    return Clock()


def shared(source, clock, *, interval=5.0, max_age=60.0):
    """A list of that source."""
    return SharedList(source, interval=interval, max_age=max_age, clock=clock)


async def test_one_fetch_for_all_askers_at_once(clock):
    """However many ask while a fetch is under way, it is the only one."""
    source = Source("list")
    source.gate.clear()
    listed = shared(source, clock)
    askers = [asyncio.create_task(listed.get(5.0)) for _ in range(20)]
    await source.begun.wait()
    source.gate.set()
    assert {found.value for found in await asyncio.gather(*askers)} == {"list"}
    assert source.asked == 1


async def test_one_fetch_within_the_interval(clock):
    """Who asks within it of the fetch's end gets the same; then it is fetched anew."""
    source = Source("first", "second")
    listed = shared(source, clock)
    assert (await listed.get(5.0)).value == "first"
    clock.now += 4.999
    assert await listed.get(5.0) == module.Found("first", pytest.approx(4.999))
    assert source.asked == 1
    clock.now += 0.001
    assert await listed.get(5.0) == module.Found("second", 0.0)


async def test_the_age_counts_from_the_question(clock):
    """What a slow kubelet answers is as old as the question; the interval begins at the end."""
    source = Source("slow", "next")
    source.gate.clear()
    listed = shared(source, clock)
    asker = asyncio.create_task(listed.get(5.0))
    await source.begun.wait()
    clock.now += 7.0
    source.gate.set()
    assert await asker == module.Found("slow", 7.0)
    clock.now += 4.0
    assert await listed.get(5.0) == module.Found("slow", 11.0)
    assert source.asked == 1


async def test_the_last_good_one_stands_in(clock):
    """While fetches fail it is given, with its age, until it is too old; then their error is."""
    source = Source("good", *(failure() for _ in range(3)), "better")
    listed = shared(source, clock)
    await listed.get(5.0)
    clock.now += 30.0
    assert await listed.get(5.0) == module.Found("good", 30.0)
    clock.now += 29.0
    assert (await listed.get(5.0)).value == "good"
    clock.now += 1.0
    with pytest.raises(UpstreamError, match="cannot be reached") as caught:
        await listed.get(5.0)
    assert (caught.value.reason, caught.value.status) == ("refused", 502)
    clock.now += 4.0  # five seconds after the last fetch, the third
    source.answers[:1] = []
    assert await listed.get(5.0) == module.Found("better", 0.0)


async def test_a_fetch_that_takes_longer_than_a_list_may_age(clock):
    """What it brings is given all the same, as nothing newer is to be had; not after a failure."""
    source = Source("slow", failure())
    source.gate.clear()
    listed = shared(source, clock, interval=1.0, max_age=5.0)
    asker = asyncio.create_task(listed.get(5.0))
    await source.begun.wait()
    clock.now += 8.0
    source.gate.set()
    assert await asker == module.Found("slow", 8.0)
    assert await listed.get(5.0) == module.Found("slow", 8.0)
    clock.now += 1.0
    with pytest.raises(UpstreamError):
        await listed.get(5.0)


async def test_a_failure_is_shared_as_well(clock):
    """A kubelet that fails is not asked more often than one that answers."""
    source = Source(failure(), "good")
    listed = shared(source, clock)
    for _ in range(3):
        with pytest.raises(UpstreamError):
            await listed.get(5.0)
        clock.now += 1.0
    assert source.asked == 1
    clock.now += 2.0
    assert (await listed.get(5.0)).value == "good"


async def test_what_is_gone_is_gone(clock):
    """A 404 is an answer, not a failure: nothing stands in for it."""
    source = Source("good", failure(404), failure())
    listed = shared(source, clock)
    await listed.get(5.0)
    for _ in range(2):
        clock.now += 5.0
        with pytest.raises(UpstreamError):
            await listed.get(5.0)
    assert listed.held is None


async def test_an_asker_waits_for_its_time_only(clock):
    """Past its patience it gets the last good list, or 504; the fetch goes on for the next."""
    source = Source("first", "second")
    source.gate.clear()
    listed = shared(source, clock)
    with pytest.raises(UpstreamError) as caught:
        await listed.get(0.01)
    assert (caught.value.reason, caught.value.status) == ("timeout", 504)
    source.gate.set()
    assert (await listed.get(5.0)).value == "first"
    source.gate.clear()
    clock.now += 6.0
    assert (await listed.get(0.01)).value == "first"
    source.gate.set()
    assert (await listed.get(5.0)).value == "second"
    assert source.asked == 2


async def test_an_asker_that_leaves_ends_nothing(clock):
    """The fetch that it began serves the others."""
    source = Source("list")
    source.gate.clear()
    listed = shared(source, clock)
    first, second = (asyncio.create_task(listed.get(5.0)) for _ in range(2))
    await source.begun.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.gate.set()
    assert (await second).value == "list"


async def test_close_gives_up_the_fetch(clock):
    """Nothing is left under way."""
    source = Source("list")
    source.gate.clear()
    listed = shared(source, clock)
    with pytest.raises(UpstreamError):
        await listed.get(0.01)
    await listed.close()
    assert len(asyncio.all_tasks()) == 1
    await listed.close()


async def test_an_unforeseen_error_is_no_list(clock):
    """It reaches the asker as what it is, and the next fetch is tried all the same."""
    source = Source(RuntimeError("a fault of our own"), "good")
    listed = shared(source, clock)
    with pytest.raises(RuntimeError):
        await listed.get(5.0)
    clock.now += 5.0
    assert (await listed.get(5.0)).value == "good"


class Kubelet:
    """Kubelets that answer each node's name with as many pods as they are told."""

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
    """A directory that knows some names."""

    def __init__(self, *names):
        self.names = set(names)

    async def find(self, name, *, asker):
        assert asker == "discovery"
        if name not in self.names:
            raise UpstreamError("no_node", "the cluster has no such node", status=404)
        return Node(name, name)

    async def list_all(self):
        yield [Namespace(name) for name in self.names]


def service(clock, kubelet, nodes=None, *, slots=5, metrics=None, **config):
    """A service in front of these kubelets."""
    metrics = metrics or OwnMetrics()
    return TargetService(
        DiscoveryConfig(enabled=True, **config),
        kubelet=kubelet,
        nodes=nodes,
        slots=ConcurrencyLimit(slots, metrics.slots),
        metrics=metrics.discovery,
        clock=clock,
    )


def value(metrics, name, **labels):
    """One of our own metrics."""
    return metrics.registry.get_sample_value(f"kmproxy_{name}", labels)


async def test_nodes_are_kept_apart(clock):
    """Each node has its own list; the configured one is that without a name."""
    kubelet = Kubelet()
    found = service(clock, kubelet, Nodes("a", "b"))
    for name in (None, "a", "b", "a", None):
        targets = (await found.pods(name, 5.0)).value
        assert f'"{name or "here"}-0"'.encode() in targets.render(lambda _: b"")
    assert kubelet.asked == ["here", "a", "b"]


async def test_a_node_that_does_not_exist(clock):
    """404, and nothing of it is remembered."""
    found = service(clock, Kubelet(), Nodes("a"))
    for name in ("x", "y" * 500, ""):
        with pytest.raises(UpstreamError) as caught:
            await found.pods(name, 5.0)
        assert caught.value.status == 404
    assert not found._named


async def test_nodes_need_the_directory(clock):
    """Without --all-nodes there are no nodes by name, and no list of them."""
    found = service(clock, Kubelet())
    for asking in (found.pods("here", 5.0), found.nodes(5.0)):
        with pytest.raises(UpstreamError, match="--all-nodes") as caught:
            await asking
        assert caught.value.status == 404


async def test_only_configured_namespaces(clock):
    """Pods of others are not held; a glob matches a whole name."""
    for patterns, count in ((("bank", "sho"), 0), (("sh*",), 1), ((), 1)):
        found = service(clock, Kubelet(), namespace=patterns)
        assert (await found.pods(None, 5.0)).value.count == count


async def test_what_is_held_is_bounded(clock, monkeypatch):
    """The node that was asked for longest ago goes first, by bytes and by number."""
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
    """A fetch waits for a free slot, and 503 is the end of it."""
    monkeypatch.setattr(module, "FETCH_TIMEOUT", 0.05)
    kubelet = Kubelet()
    found = service(clock, kubelet, slots=0)
    with pytest.raises(UpstreamError, match="--max-concurrency") as caught:
        await found.pods(None, 5.0)
    assert caught.value.status == 503
    assert not kubelet.asked


async def test_a_fetch_that_hangs(clock, monkeypatch):
    """It is given up in its own time, and its slot is free again."""
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
    """It is a failure like an upstream's."""
    kubelet = Kubelet()
    kubelet.error = CredentialError("the token cannot be read")
    with pytest.raises(UpstreamError, match="token") as caught:
        await service(clock, kubelet).pods(None, 5.0)
    assert (caught.value.reason, caught.value.status) == ("credential", 502)


async def test_metrics(clock):
    """Fetches and failures are counted, targets and the age of what is served shown."""
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
    """A service and its lists say how they are."""
    found = service(clock, Kubelet(), Nodes("a"))
    assert repr(found) == "<TargetService <SharedList nothing, well>, 0 nodes by name>"
    await found.pods(None, 5.0)
    clock.now += 3.0
    assert "3s old, well" in repr(found)
    await found.close()
