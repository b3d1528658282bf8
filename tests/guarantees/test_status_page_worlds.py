"""A tenant's status page is the same whatever the cluster has beside the tenant's namespaces."""

from __future__ import annotations

import json

import pytest

from kmproxy.kube.reviews import ACCESS_REVIEWS, ALLOWED_FOR, DENIED_FOR
from kmproxy.simulator.kubelet import Fault
from tests.support.callers import Clock, asked
from tests.support.tenants import bearer, grant

QUERIES = ("", "?q=front", "?q=nosuch", "?owner=frontend", "?missing=team", "?sort=owner")


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
async def test_two_worlds(front, cluster, accept):
    """Other namespaces with other labels, other callers' scrapes and failures change nothing."""
    grant(cluster, "payments")
    grant(cluster, user="root")
    worlds = []
    for world in range(2):
        if world:
            for name in ("frontend-service1", "frontend-service2"):
                cluster.api.namespaces.apply(name, {})
            cluster.api.namespaces.apply("no-team", {"team": "frontend"})
        proxy = await front("--authorization=tenant", "--all-nodes", clock=Clock())
        await proxy.get("/metrics/cadvisor", **bearer(cluster))
        if world:
            cluster.kubelets["node-a"].fail(Fault.STATUS)
            for path in ("/metrics", "/api/v1/nodes/node-a/proxy/metrics"):
                assert (await proxy.get(path, **bearer(cluster, "root")))[0] == 502
            cluster.kubelets["node-a"].recover()
        cluster.api.requests.clear()
        answers = [
            await proxy.get(f"/{each}", **bearer(cluster), Accept=accept) for each in QUERIES
        ]
        assert {status for status, _ in answers} == {200}
        worlds.append((answers, asked(cluster, ACCESS_REVIEWS)))
    assert worlds[0] == worlds[1]


async def test_not_every_page_reviews_every_namespace(front, cluster):
    """In a large cluster that would be a flood. A lost right takes effect all the same."""
    for number in range(400):
        cluster.api.namespaces.apply(f"space-{number}", {})
    (bound, _) = grant(cluster, "payments", "space-7")
    clock = Clock()
    proxy = await front("--authorization=tenant", clock=clock)
    tenant = bearer(cluster)

    async def page():
        cluster.api.requests.clear()
        status, text = await proxy.get("/", **tenant, Accept="application/json")
        assert status == 200
        rows = json.loads(text)["namespaces"]["rows"]
        return [each["name"] for each in rows], asked(cluster, ACCESS_REVIEWS)

    names, reviews = await page()
    assert names == ["payments", "space-7"]
    assert reviews >= 400
    clock.now += DENIED_FOR + 1
    names, reviews = await page()
    assert names == ["payments", "space-7"]
    assert reviews < 10
    cluster.authority.rbac.delete(bound)
    clock.now += ALLOWED_FOR
    names, reviews = await page()
    assert names == ["space-7"]
    assert reviews >= 400
