"""A tenant's status page is the same whatever the cluster has beside the tenant's namespaces."""

from __future__ import annotations

import pytest

from kmproxy.kube.reviews import ACCESS_REVIEWS
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
