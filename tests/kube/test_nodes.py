"""Node names: which names are nodes, and the addresses of their kubelets."""

from __future__ import annotations

import asyncio
import json

import pytest

from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.errors import ApiError, CredentialError, UpstreamError
from kmproxy.kube import nodes
from kmproxy.kube.nodes import ABSENT_FOR, KEPT, REMEMBERED, RETRY, Node, NodeDirectory
from kmproxy.kube.objects import ObjectMeta
from kmproxy.kube.watch import LIST_ACCEPT


class Nodes:
    """An API server with Node objects that counts requests."""

    def __init__(self, **nodes):
        self.nodes = nodes
        self.asked = []
        self.error = None

    async def get(self, path, _, *, accept):
        assert accept == "application/json"
        self.asked.append(path)
        if self.error:
            raise self.error
        name = path.removeprefix("/api/v1/nodes/")
        if name not in self.nodes:
            raise ApiError(404, "NotFound", "not found")
        node = self.nodes[name]
        return node if isinstance(node, bytes) else json.dumps(node).encode()


def directory_of(api, clock=lambda: 0.0, metrics=None):
    """A node directory that asks this API server."""
    return NodeDirectory(api=api, clock=clock, errors=(metrics or OwnMetrics()).upstream_errors)


def node(port=None, **addresses):
    """A Node object with addresses by type."""
    status = {"addresses": [{"type": kind, "address": value} for kind, value in addresses.items()]}
    if port is not None:
        status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": port}}
    return {"kind": "Node", "metadata": {"name": "a"}, "status": status}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (node(10350, InternalIP="10.0.0.1", Hostname="h"), Node("a", "10.0.0.1", 10350, "")),
        (node(Hostname="h", InternalIP="10.0.0.1"), Node("a", "10.0.0.1", None, "")),
        (node(Hostname="h", ExternalIP="1.2.3.4"), Node("a", "1.2.3.4", None, "")),
        (node(Hostname="h"), Node("a", "h", None, "")),
        (node(InternalIP="fd00::1"), Node("a", "fd00::1", None, "")),
        (node(0, InternalIP="", InternalDNS="d"), Node("a", "d", None, "")),
    ],
)
async def test_addresses(given, found):
    """The address types have the order of Prometheus' node role. The port is the kubelet's own."""
    directory = directory_of(Nodes(a=given))
    assert await directory.find("a") == found


async def test_the_first_of_a_kind():
    """Of two addresses of one type the first counts, as on dual-stack nodes."""
    given = node(InternalIP="10.0.0.1")
    given["status"]["addresses"].append({"type": "InternalIP", "address": "fd00::1"})
    assert (await directory_of(Nodes(a=given)).find("a")).host == "10.0.0.1"


async def test_a_node_is_remembered_for_a_minute():
    """A node is remembered for a minute, then asked for again. A deleted node is gone."""
    now = [0.0]
    api = Nodes(a=node(InternalIP="10.0.0.1"))
    directory = directory_of(api, lambda: now[0])
    await directory.find("a")
    now[0] = REMEMBERED - 1
    await directory.find("a")
    assert len(api.asked) == 1
    api.nodes.clear()
    now[0] = REMEMBERED
    with pytest.raises(UpstreamError) as raised:
        await directory.find("a")
    assert raised.value.status == 404
    assert len(api.asked) == 2


A, B = node(InternalIP="10.0.0.1"), node(InternalIP="10.0.0.2")
AWAY = UpstreamError("refused", "the API server cannot be reached")


@pytest.mark.parametrize(
    "error",
    [
        AWAY,
        UpstreamError("timeout", "the API server sent nothing for too long", status=504),
        ApiError(500, "InternalError", "x"),
        ApiError(429, "TooManyRequests", "x"),
        ApiError(401, "Unauthorized", "x"),
    ],
)
async def test_an_address_while_the_api_server_fails(clock, own_metrics, error, caplog):
    """The last address stays in use for an hour, counted and logged once."""
    api = Nodes(a=A)
    directory = directory_of(api, clock, own_metrics)
    found, began = await directory.find("a"), clock.now
    api.error = error
    for seconds in (REMEMBERED, REMEMBERED + RETRY, KEPT - 1):
        clock.now = began + seconds
        assert await directory.find("a") == found
    why = {"upstream": "apiserver", "reason": error.reason}
    assert own_metrics.registry.get_sample_value("kmproxy_upstream_errors_total", why) == 3
    assert caplog.text.count("the last known addresses of nodes stay in use") == 1
    clock.now = began + KEPT
    with pytest.raises(UpstreamError):
        await directory.find("a")
    with pytest.raises(UpstreamError):
        await directory.find("b")


async def test_an_address_is_confirmed_again(clock):
    """After an outage the new address is used, and the hour starts over."""
    api = Nodes(a=A)
    directory = directory_of(api, clock)
    await directory.find("a")
    clock.now += REMEMBERED
    api.error = AWAY
    assert (await directory.find("a")).host == "10.0.0.1"
    api.nodes["a"], api.error = B, None
    clock.now += RETRY
    assert (await directory.find("a")).host == "10.0.0.2"
    api.error = AWAY
    clock.now += KEPT - 1
    assert (await directory.find("a")).host == "10.0.0.2"


@pytest.mark.parametrize(
    ("answer", "error"),
    [(None, None), (node(), None), (A, ApiError(403, "Forbidden", "x"))],
)
async def test_an_answer_ends_the_use_of_an_address(clock, answer, error):
    """A missing node, a missing address and a refusal end it: they are not outages."""
    api = Nodes(a=A)
    directory = directory_of(api, clock)
    await directory.find("a")
    clock.now += REMEMBERED
    api.nodes, api.error = {"a": answer} if answer else {}, error
    with pytest.raises(UpstreamError):
        await directory.find("a")
    api.error = AWAY
    clock.now += ABSENT_FOR
    with pytest.raises(UpstreamError, match="cannot be reached"):
        await directory.find("a")


async def test_how_often_an_api_server_that_fails_is_asked(clock):
    """One request in some seconds for all known nodes. An unknown node is asked at once."""
    api = Nodes(a=A, b=B)
    directory = directory_of(api, clock)
    await directory.find("a")
    await directory.find("b")
    clock.now += REMEMBERED
    api.error, api.asked = AWAY, []
    for _ in range(3):
        await directory.find("a")
        await directory.find("b")
    assert len(api.asked) == 1
    with pytest.raises(UpstreamError):
        await directory.find("c")
    assert len(api.asked) == 2
    clock.now += RETRY
    await asyncio.gather(*(directory.find(name) for name in "abab"))
    assert len(api.asked) == 3
    api.error = None
    clock.now += RETRY
    await directory.find("a")
    await directory.find("b")
    assert len(api.asked) == 5


async def test_an_api_server_that_hangs(clock, monkeypatch):
    """A scrape waits a short time only, and only one scrape at a time waits."""
    monkeypatch.setattr(nodes, "PATIENCE", 0.01)
    api = Nodes(a=A, b=B)
    directory = directory_of(api, clock)
    found = [await directory.find(name) for name in "ab"]
    waits = 0

    async def hang(*_, **__):
        nonlocal waits
        waits += 1
        await asyncio.Event().wait()

    api.get = hang
    clock.now += REMEMBERED
    assert await directory.find("a") == found[0]
    clock.now += RETRY
    assert await asyncio.gather(directory.find("a"), directory.find("b")) == found
    assert waits == 2


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "-a",
        "A",
        "a/b",
        "a%2fb",
        "a:1",
        "https:a:1",
        "a?b",
        "a b",
        "a\n",
        "ä",
        "x" * 300,
    ],
)
async def test_what_is_no_name(name):
    """An invalid node name is 404 without a request to the API server."""
    api = Nodes(a=node(InternalIP="10.0.0.1"))
    with pytest.raises(UpstreamError) as raised:
        await directory_of(api).find(name)
    assert raised.value.status == 404
    assert api.asked == []


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (ApiError(404, "NotFound", "x"), 404, "no node 'a'"),
        (ApiError(403, "Forbidden", "x"), 502, "resources [nodes] and verbs [get]"),
        (ApiError(500, "InternalError", "x"), 502, "500"),
        (UpstreamError("refused", "the API server cannot be reached"), 502, "cannot be reached"),
    ],
)
async def test_an_api_server_that_cannot_tell(error, status, says):
    """The scraper gets a fitting status, and the line says what to do."""
    api = Nodes()
    api.error = error
    with pytest.raises(UpstreamError) as raised:
        await directory_of(api).find("a")
    assert raised.value.status == status
    assert says in str(raised.value)


@pytest.mark.parametrize("given", [b"<html>", b"[]", node()])
async def test_what_is_no_node(given):
    """Garbage, and a node without an address, are 502."""
    with pytest.raises(UpstreamError) as raised:
        await directory_of(Nodes(a=given)).find("a")
    assert raised.value.status == 502


class Lists:
    """Lists as `ApiServer` gives them, from the answers of `get`."""

    async def objects(self, path, params, reader):
        for some in reader.feed(bytes(await self.get(path, params, accept=LIST_ACCEPT))):
            yield some


class Listed(Lists, Nodes):
    """An API server that also lists its nodes."""

    async def get(self, path, params, *, accept):
        if path != "/api/v1/nodes":
            return await super().get(path, params, accept=accept)
        if self.error:
            raise self.error
        assert params == {"limit": "1"}
        items = [{"metadata": {"name": name}} for name in list(self.nodes)[:1]]
        return json.dumps({"items": items, "metadata": {}}).encode()


async def test_the_first_node():
    """The first listed node is taken, and its address is found as for a named node."""
    api = Listed(b=node(InternalIP="10.0.0.2"), c=node(InternalIP="10.0.0.3"))
    assert await directory_of(api).first() == Node("b", "10.0.0.2", None, "")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ApiError(403, "Forbidden", "planted"), "403 Forbidden; name a node with --try-node"),
        (UpstreamError("refused", "the API server cannot be reached"), "cannot be reached"),
        (None, "the cluster has no nodes"),
    ],
)
async def test_no_first_node(error, says):
    """Without the right to list nodes, or without nodes, the error says to name one."""
    api = Listed()
    api.error = error
    with pytest.raises(UpstreamError) as raised:
        await directory_of(api).first()
    assert says in str(raised.value)


class Pages(Lists):
    """An API server with pages of node metadata that records requests."""

    def __init__(self, *pages):
        self.pages = list(pages)
        self.asked = []

    async def get(self, path, params, *, accept):
        assert "as=PartialObjectMetadataList" in accept
        self.asked.append((path, dict(params)))
        page = self.pages.pop(0)
        if isinstance(page, Exception):
            raise page
        return page if isinstance(page, bytes) else json.dumps(page).encode()


def page(*names, token=""):
    """One page of a list."""
    items = [{"metadata": {"name": name}} for name in names]
    return {"metadata": {"continue": token, "resourceVersion": "7"}, "items": items}


async def all_nodes(directory):
    """Every node, in the order received."""
    return [node async for some in directory.list_all() for node in some]


async def test_all_nodes_page_by_page():
    """All pages are requested, from the API server's cache. Metadata may be missing."""
    last = {
        "metadata": {},
        "items": [{"metadata": {"name": "c", "labels": {"z": "1"}, "annotations": None}}],
    }
    api = Pages(page("a", token="next"), page("b", token="more"), page(token="end"), last)
    nodes = await all_nodes(directory_of(api))
    assert nodes == [ObjectMeta("a"), ObjectMeta("b"), ObjectMeta("c", {"z": "1"})]
    assert [params for _, params in api.asked] == [
        {"limit": "500", "resourceVersion": "0"},
        {"limit": "500", "continue": "next"},
        {"limit": "500", "continue": "more"},
        {"limit": "500", "continue": "end"},
    ]


async def test_a_cluster_without_nodes():
    """An empty cluster can be listed as null."""
    api = Pages({"metadata": {}, "items": None})
    assert await all_nodes(directory_of(api)) == []


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (ApiError(403, "Forbidden", "x"), "resources [nodes] and verbs [list]"),
        (ApiError(410, "Expired", "x"), "failed to return all nodes: 410"),
        (b"<html>", "failed to return all nodes: 200"),
        (b"{}", "failed to return all nodes: 200"),
        ({"metadata": {}, "items": [[]]}, "failed to return all nodes: 200"),
    ],
)
async def test_nodes_that_cannot_be_listed(answer, says):
    """An error on any page is an error of the whole list."""
    api = Pages(page("a", token="next"), answer)
    with pytest.raises(UpstreamError) as raised:
        await all_nodes(directory_of(api))
    assert raised.value.status == 502
    assert says in str(raised.value)


async def test_a_name_of_no_node_is_looked_up_once(clock):
    """A missing name is looked up again after ten seconds, as a node may exist then."""
    api = Nodes()
    directory = directory_of(api, clock)
    for _ in range(3):
        with pytest.raises(UpstreamError, match="the cluster has no node 'a'") as raised:
            await directory.find("a")
        assert (raised.value.reason, raised.value.status) == ("no_node", 404)
    assert len(api.asked) == 1
    api.nodes["a"] = A
    clock.now += ABSENT_FOR
    assert (await directory.find("a")).host == "10.0.0.1"


async def test_invented_names_are_bounded(clock):
    """A caller has a bounded number of failed look-ups. Known nodes and others are served."""
    api = Nodes(a=A, b=B)
    directory = directory_of(api, clock)
    await directory.find("a", asker="eve")
    statuses = []
    for number in range(nodes.MISSES + 50):
        with pytest.raises(UpstreamError) as raised:
            await directory.find(f"n{number}", asker="eve")
        statuses.append(raised.value.status)
    assert statuses == [404] * nodes.MISSES + [503] * 50
    assert len(api.asked) == 1 + nodes.MISSES
    assert (await directory.find("a", asker="eve")).host == "10.0.0.1"
    with pytest.raises(UpstreamError, match="try again later"):
        await directory.find("b", asker="eve")
    assert (await directory.find("b", asker="ann")).host == "10.0.0.2"
    clock.now += nodes.MISSES_IN
    assert (await directory.find("b", asker="eve")).host == "10.0.0.2"


async def test_absent_names_are_bounded_in_bytes(clock, monkeypatch):
    """The oldest missing names are forgotten, so memory is bounded."""
    monkeypatch.setattr(nodes, "MISSES", 10_000)
    directory = directory_of(Nodes(), clock)
    for number in range(nodes.MAX_ABSENT // 400):
        with pytest.raises(UpstreamError):
            await directory.find("n" * 240 + f"{number:05d}")
    assert nodes.MAX_ABSENT - 1000 < directory._absent.weight <= nodes.MAX_ABSENT


async def test_known_nodes_are_bounded(clock, monkeypatch):
    """Only the node that was unused for the longest time is requested again."""
    monkeypatch.setattr(nodes, "MAX_REMEMBERED", 3)
    api = Nodes(a=A, b=A, c=A, d=A)
    directory = directory_of(api, clock)
    for name in "abcad":
        await directory.find(name)
    asked = len(api.asked)
    for name in "acd":
        await directory.find(name)
    assert len(api.asked) == asked
    await directory.find("b")
    assert len(api.asked) == asked + 1


@pytest.mark.parametrize(
    ("error", "known"),
    [
        (None, False),
        (AWAY, True),
        (ApiError(403, "Forbidden", "x"), True),
        (CredentialError("x"), True),
    ],
)
async def test_knows(clock, error, known):
    """Only a missing node counts as missing, not a failure of the API server."""
    api = Nodes(a=A)
    directory = directory_of(api, clock)
    assert await directory.knows("a")
    assert not await directory.knows("No Node")
    api.error = error
    assert await directory.knows("b") is known
