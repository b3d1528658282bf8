"""--authorization=kubernetes on paths of nodes: rights per node, and no hints to other callers."""

from __future__ import annotations

import asyncio

import pytest

from kmproxy.auth import authorizer as auth
from kmproxy.kube import nodes
from kmproxy.kube.reviews import ACCESS_REVIEWS
from kmproxy.simulator.answers import ApiFault
from kmproxy.simulator.rbac import AUTHENTICATED, MONITORING, Attributes
from tests.support.callers import Clock, asked, fetched
from tests.support.rbac import binding, role

FLAGS = ("--authorization=kubernetes", "--all-nodes")
RULE = {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}
NO_NODES = ["node-z", "Node-A", "node-a%2f..", "", "node-a.", "n" * 300, "node-a:10250"]


def path_of(node, end="/cadvisor"):
    """The path of a node's metrics."""
    return f"/api/v1/nodes/{node}/proxy/metrics{end}"


def bearer(cluster, user, **how):
    """The Authorization header of a user."""
    return {"Authorization": f"Bearer {cluster.authority.issue(user, **how)}"}


def grant(cluster, user, *names):
    """Let a user scrape these nodes, or all nodes if none is given."""
    rule = RULE | ({"resourceNames": list(names)} if names else {})
    made = role(f"of-{user}", rule), binding("ClusterRole", f"of-{user}", _user(user))
    made[1]["metadata"]["name"] = f"of-{user}"
    cluster.authority.rbac.apply(*made)
    return made[1]


def _user(name):
    return {"kind": "User", "name": name}


def looked_up(cluster):
    """The names of nodes that kmproxy looked up at the API server."""
    return [
        record.path.removeprefix("/api/v1/nodes/")
        for record in cluster.api.requests
        if record.path.startswith("/api/v1/nodes/")
    ]


async def counters(proxy):
    """All kmproxy values of the telemetry port, without times."""
    _, text = await proxy.probe("/metrics")
    lines = [line for line in text.splitlines() if line.startswith("kmproxy_")]
    return {
        series: float(value)
        for series, _, value in (line.rpartition(" ") for line in lines)
        if "seconds" not in series
    }


async def cost(proxy, cluster, path, **headers):
    """Status, headers and body of an answer, changed counters, and the number of reviews."""
    before, reviews = await counters(proxy), asked(cluster, ACCESS_REVIEWS)
    async with proxy.session.get(proxy.url + path, headers=headers) as response:
        head = {name: value for name, value in response.headers.items() if name != "Date"}
        answer = response.status, head, await response.text()
    after = await counters(proxy)
    changed = {key: after[key] - before.get(key, 0.0) for key in after}
    changed = {key: value for key, value in changed.items() if value}
    return answer, changed, asked(cluster, ACCESS_REVIEWS) - reviews


@pytest.mark.parametrize("end", ["", "/cadvisor", "/resource", "/probes"])
async def test_who_is_only_authenticated_scrapes_no_node(front, cluster, monkeypatch, end):
    """The default right to a path is not enough: a node needs a right to the node."""
    permits, wanted = cluster.authority.permits, []
    assert permits("eve", (AUTHENTICATED,), Attributes("get", path=path_of("node-a", end)))

    def noted(user, groups, attributes):
        if user == "eve":
            wanted.append(attributes)
        return permits(user, groups, attributes)

    monkeypatch.setattr(cluster.authority, "permits", noted)
    proxy = await front(*FLAGS)
    status, text = await proxy.get(path_of("node-a", end), **bearer(cluster, "eve"))
    assert (status, text) == (403, "user 'eve' may not get nodes/metrics 'node-a'\n")
    assert not fetched(cluster)
    everything = Attributes("get", resource="nodes/metrics")
    assert wanted == [everything, Attributes("get", resource="nodes/metrics", name="node-a")]


async def test_who_may_get_the_path_alone(front, cluster):
    """A rule for the path, as older versions needed, gives no right to a node."""
    rule = {"nonResourceURLs": ["/api/v1/nodes/*"], "verbs": ["get"]}
    cluster.authority.rbac.apply(role("p", rule), binding("ClusterRole", "p", _user("eve")))
    proxy = await front(*FLAGS)
    assert (await proxy.get(path_of("node-a"), **bearer(cluster, "eve")))[0] == 403


async def test_monitoring_as_kubernetes_has_it(front, cluster):
    """The group system:monitoring scrapes nodes by its default role, as it scrapes kubelets."""
    proxy = await front(*FLAGS)
    token = bearer(cluster, "ann", groups=(MONITORING,))
    assert (await proxy.get(path_of("node-a"), **token))[0] == 200
    assert (await proxy.get("/metrics", **token))[0] == 200
    assert (await proxy.get("/metrics/cadvisor", **token))[0] == 403


async def test_every_node_or_some(front, cluster):
    """A caller has a right to all nodes, or to named nodes only."""
    grant(cluster, "ann")
    grant(cluster, "bob", "node-b")
    proxy = await front(*FLAGS)
    ann, bob = bearer(cluster, "ann"), bearer(cluster, "bob")
    for _ in range(2):
        for node, status in (("node-a", 403), ("node-b", 200)):
            assert (await proxy.get(path_of(node), **ann))[0] == 200
            assert (await proxy.get(path_of(node), **bob))[0] == status
    assert (await proxy.get("/metrics", **ann))[0] == 403


@pytest.mark.parametrize("name", NO_NODES)
async def test_no_node(front, cluster, name):
    """404 for a caller with a right to all nodes, 403 for others; one review per caller."""
    grant(cluster, "ann")
    grant(cluster, "bob", "node-b", "node-z")
    proxy = await front(*FLAGS)
    for user, status in (("ann", 404), ("bob", 403), ("eve", 403)):
        token = bearer(cluster, user)
        before = asked(cluster, ACCESS_REVIEWS)
        for _ in range(3):
            assert (await proxy.get(path_of(name), **token))[0] == status
            assert (await proxy.get(path_of("node-y"), **token))[0] == status
        assert asked(cluster, ACCESS_REVIEWS) == before + 1
    assert not fetched(cluster)


@pytest.mark.parametrize("scraped", [False, True])
async def test_a_node_looks_as_none(front, cluster, scraped):
    """Without a right, an existing and a missing node give equal answers and equal counters."""
    proxy = await front(*FLAGS)
    if scraped:  # so that addresses are known
        root = bearer(cluster, "root", groups=("system:masters",))
        for name in cluster.kubelets:
            assert (await proxy.get(path_of(name), **root))[0] == 200
    eve = bearer(cluster, "eve")
    await proxy.get(path_of("node-w"), **eve)
    seen = {}
    for name in ("node-a", "node-x"):
        seen[name] = []
        for _ in range(2):
            answer, changed, _ = await cost(proxy, cluster, path_of(name), **eve)
            assert answer[0] == 403
            seen[name].append((repr(answer).replace(name, "NAME"), changed))
    assert seen["node-a"] == seen["node-x"]
    for name in ("node-b", "node-y"):
        before = await counters(proxy)
        await asyncio.gather(*(proxy.get(path_of(name), **eve) for _ in range(20)))
        after = await counters(proxy)
        seen[name] = {key: after[key] - before.get(key, 0.0) for key in after}
    assert seen["node-b"] == seen["node-y"]


async def test_a_flood_of_invented_names(front, cluster):
    """Invented names cause one review and a bounded number of look-ups. Others are served."""
    grant(cluster, "ann")
    grant(cluster, "bob", "node-b")
    clock = Clock()
    proxy = await front(*FLAGS, clock=clock)
    ann, bob, eve = (bearer(cluster, user) for user in ("ann", "bob", "eve"))
    assert (await proxy.get(path_of("node-b"), **bob))[0] == 200
    before = asked(cluster, ACCESS_REVIEWS)
    for start in range(0, 1000, 50):
        names = [f"n{number}" for number in range(start, start + 50)]
        answers = await asyncio.gather(*(proxy.get(path_of(name), **eve) for name in names))
        assert {status for status, _ in answers} == {403}
    assert asked(cluster, ACCESS_REVIEWS) == before + 1
    assert len(looked_up(cluster)) <= 1 + auth.DENIALS + 50  # those of the round that used it up
    for name in ("node-a", "node-x", "node-y"):  # no name is looked at any more
        _, changed, reviews = await cost(proxy, cluster, path_of(name), **eve)
        assert not reviews
        assert not any("reviews" in key for key in changed)
    for name in ("node-a", "node-b"):
        assert (await proxy.get(path_of(name), **ann))[0] == 200
    assert (await proxy.get(path_of("node-b"), **bob))[0] == 200
    assert (await proxy.get(path_of("node-a"), **bob))[0] == 403
    grant(cluster, "eve", "node-a")
    clock.now += 30.0
    assert (await proxy.get(path_of("node-a"), **eve))[0] == 200


async def test_a_flood_by_who_may(front, cluster):
    """A caller with a right to all nodes gets 503 past the bound, and still gets known nodes."""
    grant(cluster, "ann")
    proxy = await front(*FLAGS)
    ann = bearer(cluster, "ann")
    assert (await proxy.get(path_of("node-a"), **ann))[0] == 200
    names = [f"n{number}" for number in range(nodes.MISSES + 60)]
    statuses = [(await proxy.get(path_of(name), **ann))[0] for name in names]
    assert statuses[:200] == [404] * 200
    assert statuses[-1] == 503
    assert (await proxy.get(path_of("node-a"), **ann))[0] == 200
    assert asked(cluster, ACCESS_REVIEWS) == 2
    assert len(looked_up(cluster)) < nodes.MISSES + 60


async def test_who_was_allowed_before_is_asked_anew(front, cluster):
    """A caller that used up its denials still gets the nodes that it may scrape."""
    clock = Clock()
    bound = grant(cluster, "bob", "node-b")
    proxy = await front(*FLAGS, clock=clock)
    bob = bearer(cluster, "bob")
    assert (await proxy.get(path_of("node-b"), **bob))[0] == 200
    clock.now += 301.0
    for number in range(auth.DENIALS + 5):
        await proxy.get(path_of(f"n{number}"), **bob)
    assert (await proxy.get(path_of("node-b"), **bob))[0] == 200
    cluster.authority.rbac.delete(bound)
    clock.now += 301.0
    assert (await proxy.get(path_of("node-b"), **bob))[0] == 403


async def test_nodes_that_cannot_be_looked_up(front, cluster):
    """Without look-ups each name is reviewed: a missing node looks the same, and rights hold."""
    grant(cluster, "bob", "node-b")
    proxy = await front(*FLAGS)
    cluster.api.fail("get nodes", ApiFault.STATUS, status=500)
    eve, bob = bearer(cluster, "eve"), bearer(cluster, "bob")
    for name in ("node-a", "node-x"):
        answer, changed, reviews = await cost(proxy, cluster, path_of(name), **eve)
        assert answer[0] == 403
        assert reviews == 1 + (name == "node-a")
    assert (await proxy.get(path_of("node-b"), **bob))[0] == 502
    assert (await proxy.get(path_of("node-a"), **bob))[0] == 403
    assert changed


async def test_by_resource_everywhere(front, cluster):
    """--authorization-attributes=nodes/metrics treats the paths of nodes equally."""
    grant(cluster, "bob", "node-b")
    proxy = await front(*FLAGS, "--authorization-attributes=nodes/metrics")
    bob = bearer(cluster, "bob")
    for name, status in (("node-b", 200), ("node-a", 403), ("node-x", 403)):
        assert (await proxy.get(path_of(name), **bob))[0] == status
