"""A tenant learns nothing of others: queries for foreign and missing namespaces look equal."""

from __future__ import annotations

import pytest

from kmproxy.kube.reviews import ACCESS_REVIEWS, DENIED_FOR, TOKEN_REVIEWS
from kmproxy.simulator.answers import ApiFault
from kmproxy.simulator.kubelet import Fault
from tests.support.callers import Clock, asked
from tests.support.tenants import bearer, grant

FOREIGN, NOTHING = "front*", "nosuch*"
TIMES = ("_seconds_sum", "_seconds_bucket", "_age_seconds", "_bytes", "process_", "python_")
"""Parts of the names of metrics that depend on the time or the machine."""
BODY = b"".join(
    b'# TYPE m%d gauge\nm%d{namespace="%b",pod="a"} 1\n' % (number, number, space)
    for number in range(50)
    for space in (b"payments", b"frontend-service1", b"frontend-service2", b"monitoring")
)


async def counters(proxy):
    """All counters of the open telemetry port."""
    _, text = await proxy.probe("/metrics")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {
        line.rpartition(" ")[0]: line.rpartition(" ")[2]
        for line in lines
        if not any(part in line.partition("{")[0] for part in TIMES) and "created" not in line
    }


async def ask(proxy, path, tenant):
    """Everything that the tenant sees of an answer."""
    async with proxy.session.get(proxy.url + path, headers=tenant) as response:
        shown = {name: value for name, value in response.headers.items() if name != "Date"}
        return response.status, await response.text(), shown


@pytest.mark.parametrize(
    ("path", "flags"),
    [
        ("/metrics/cadvisor?namespace={}", ()),
        ("/metrics/cadvisor?namespace={}", ("--info-metric", "--drop-label=pod")),
        ("/metrics/cadvisor?namespace={}&namespace=payments", ()),
        ("/metrics/cadvisor?namespace=payments&metric=*{}", ()),
        ("/metrics?namespace={}", ()),
        ("/sd/pods?namespace={}", ("--discovery",)),
        ("/api/v1/nodes/node-b/proxy/metrics/cadvisor?namespace={}", ("--all-nodes",)),
    ],
)
async def test_two_worlds(front, cluster, path, flags):
    """Status, body, headers, every counter and the number of reviews are the same in both.

    This also holds when reviews fail: a review in only one of the worlds would change the
    status.
    """
    grant(cluster, "payments")
    for kubelet in cluster.kubelets.values():
        kubelet.fail(Fault.BODY, path="/metrics", body=BODY, content_type="text/plain")
        kubelet.fail(Fault.BODY, path="/metrics/cadvisor", body=BODY, content_type="text/plain")
    worlds = []
    for glob in (FOREIGN, NOTHING):
        cluster.api.requests.clear()
        cluster.api.recover()
        clock = Clock()
        proxy = await front("--authorization=tenant", *flags, clock=clock)
        tenant = bearer(cluster)
        answers = [await ask(proxy, path.format(glob), tenant) for _ in range(3)]
        assert {status for status, *_ in answers} == {200}
        reviews = [asked(cluster, each) for each in (TOKEN_REVIEWS, ACCESS_REVIEWS)]
        clock.now += DENIED_FOR
        cluster.api.fail("review", ApiFault.STATUS, status=500)
        failed = [await ask(proxy, path.format(glob), tenant) for _ in range(3)]
        assert {status for status, *_ in failed} == {500}
        worlds.append((answers, reviews, failed, await counters(proxy)))
    for one, other in zip(*worlds, strict=True):
        assert one == other


async def test_no_right_at_all(front, cluster):
    """Every query gets 403 with one line, after the same number of reviews."""
    worlds = []
    for glob in (FOREIGN, NOTHING):
        cluster.api.requests.clear()
        proxy = await front("--authorization=tenant")
        answer = await ask(proxy, f"/metrics/cadvisor?namespace={glob}", bearer(cluster, "eve"))
        assert answer[:2] == (
            403,
            "user 'eve' may not get pods/metrics.metrics.k8s.io in any namespace\n",
        )
        worlds.append((answer, asked(cluster, ACCESS_REVIEWS), await counters(proxy)))
    assert worlds[0] == worlds[1]
    assert not cluster.kubelets["node-a"].requests
