"""--authorization=tenant, from the token to the bytes: a tenant gets only its own samples."""

from __future__ import annotations

import asyncio
import re

import pytest

from kmproxy.kube.reviews import ACCESS_REVIEWS, DENIED_FOR, TOKEN_REVIEWS
from kmproxy.simulator.answers import ApiFault
from kmproxy.simulator.kubelet import Fault
from tests.conftest import until
from tests.support.callers import Clock, asked, readme_rbac
from tests.support.rbac import binding, role
from tests.support.tenant_text import EXPOSITION, SEEN
from tests.support.tenants import bearer, grant

TEXT = "text/plain; version=0.0.4"


def serve(cluster, body):
    """Let node-a's kubelet answer with this."""
    cluster.kubelets["node-a"].recover()
    cluster.kubelets["node-a"].fail(Fault.BODY, body=body, content_type=TEXT)


def spaces(text):
    """The namespaces of the samples of an exposition."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {
        found[1] if (found := re.search(r'namespace="([^"]*)"', line)) else "" for line in lines
    }


async def test_the_roles_of_the_documents(front, cluster):
    """With the roles of docs/security.md a tenant gets its namespace, the platform gets all."""
    for resource in ("tokenreviews", "subjectaccessreviews"):
        cluster.authority.deny("create", resource)
    cluster.authority.rbac.apply(*readme_rbac("kmproxy-reviews", "kmproxy-tenant"))
    cluster.authority.rbac.apply(*readme_rbac("kmproxy-platform"))
    proxy = await front("--authorization=tenant")
    tenant = bearer(cluster, "system:serviceaccount:payments:prometheus")
    platform = bearer(cluster, "system:serviceaccount:monitoring:prometheus")
    for path in ("/metrics/cadvisor", "/metrics", "/metrics/resource", "/metrics/probes"):
        status, text = await proxy.get(path, **tenant)
        assert status == 200
        assert spaces(text) <= {"payments"}
        assert "# TYPE" in text
        assert "frontend" not in text
        assert spaces((await proxy.get(path, **platform))[1]) >= {"payments", "frontend-service1"}
    _, text = await proxy.get("/metrics/cadvisor", **tenant)
    assert 'namespace="payments",team="payments"' in text
    assert "" in spaces((await proxy.get("/metrics/cadvisor", **platform))[1])


async def test_what_passes(front, cluster):
    """A tenant gets its own samples and their metadata, enriched. Other lines are left out."""
    cluster.api.namespaces.apply("web", {})
    grant(cluster, "payments", "web")
    cluster.authority.rbac.apply(
        binding("ClusterRole", "t", {"kind": "User", "name": "cleo"}, namespace="no-team")
    )
    serve(cluster, EXPOSITION)
    proxy = await front("--authorization=tenant")
    enriched = SEEN.replace(b'namespace="payments"', b'namespace="payments",team="payments"')
    assert await proxy.get(**bearer(cluster)) == (200, enriched.decode())
    for by, count in (("tenant", 13), ("unparsed", 5)):
        assert await proxy.metric("kmproxy_samples_dropped_total", by=by) == count
    assert await proxy.metric("kmproxy_lines_unparsed_total") == 0
    elsewhere = await proxy.get(**bearer(cluster, "cleo"))
    assert elsewhere == (
        200,
        "".join(line for line in SEEN.decode().splitlines(keepends=True) if line[:1] in "#\n"),
    )
    assert await proxy.get(**bearer(cluster, "bob")) == (
        403,
        "user 'bob' may not get pods/metrics.metrics.k8s.io in any namespace\n",
    )


async def test_who_sees_every_namespace(front, cluster):
    """A caller with a right in all namespaces gets the whole answer after one review."""
    grant(cluster)
    serve(cluster, EXPOSITION)
    proxy = await front("--authorization=tenant", "--label=nothing")
    assert await proxy.get(**bearer(cluster)) == (200, EXPOSITION.decode())
    assert asked(cluster, ACCESS_REVIEWS) == 1


async def test_every_path_is_narrowed(front, cluster):
    """The paths of nodes are narrowed too. Paths that cannot be narrowed refuse tenants."""
    grant(cluster, "payments")
    grant(cluster, user="root")
    proxy = await front("--authorization=tenant", "--all-nodes", "--discovery")
    tenant = bearer(cluster)
    for node in ("node-a", "node-b"):
        for end in ("", "/cadvisor", "/resource", "/probes"):
            status, text = await proxy.get(f"/api/v1/nodes/{node}/proxy/metrics{end}", **tenant)
            assert status == 200
            assert spaces(text) <= {"payments"}
    status, text = await proxy.get("/sd/nodes", **tenant)
    assert (status, text) == (
        403,
        "user 'ann' may not get pods/metrics.metrics.k8s.io in every namespace\n",
    )
    assert (await proxy.get("/sd/nodes", **bearer(cluster, "root")))[0] == 200


@pytest.mark.parametrize(
    "query", ["namespace=*", "namespace=frontend-service1", "namespace=", "metric=*"]
)
async def test_a_query_does_not_widen(front, cluster, query):
    """A query selects only among the tenant's own samples."""
    grant(cluster, "payments")
    proxy = await front("--authorization=tenant")
    _, text = await proxy.get(f"/metrics/cadvisor?{query}", **bearer(cluster))
    assert spaces(text) == (set() if query[-1] in "1=" else {"payments"})


async def test_flags_hold_for_tenants(front, cluster):
    """The selection flags hold for tenants, too."""
    grant(cluster, "payments", "monitoring")
    flags = ("--namespace=payments", "--namespace=front*", "--exclude-namespace=*2")
    proxy = await front("--authorization=tenant", *flags, "--info-metric")
    _, text = await proxy.get(**bearer(cluster))
    assert spaces(text) == {"payments"}
    assert re.findall(r"kube_namespace_labels\{.*", text) == [
        'kube_namespace_labels{namespace="payments",label_team="payments",instance="",node="",pod=""} 1'
    ]


async def test_reviews_are_of_what_is_in_the_answer(front, cluster):
    """One review per existing namespace of the answer, kept for the next scrape, for any query."""
    user = "system:serviceaccount:payments:prometheus"
    grant(cluster, "payments", user=user)
    for number in range(1000):
        cluster.api.namespaces.put({"metadata": {"name": f"elsewhere-{number}"}})
    proxy = await front("--authorization=tenant")
    tenant = bearer(cluster, user)
    await proxy.get("/metrics/cadvisor?namespace=payments", **tenant)
    _, everything = await (await front()).get()
    count = len(spaces(everything) - {""})
    assert asked(cluster, ACCESS_REVIEWS) == 1 + count
    await asyncio.gather(*(proxy.get(**tenant) for _ in range(5)))
    assert asked(cluster, ACCESS_REVIEWS) == 1 + count
    assert asked(cluster, TOKEN_REVIEWS) == 1


async def test_thousands_of_namespaces(front, cluster):
    """An answer with thousands of namespaces is complete. The second one needs no review."""
    body = b"".join([b'm{namespace="n%d"} 1\n' % number for number in range(3000)])
    serve(cluster, body)
    for number in range(3000):
        cluster.api.namespaces.apply(f"n{number}", {})
    user = "system:serviceaccount:n0:prometheus"
    grant(cluster, "n0", "n1500", "n2999", user=user)
    proxy = await front("--authorization=tenant")
    tenant = bearer(cluster, user) | {"X_Prometheus_Scrape_Timeout_Seconds": "60"}
    expected = "".join(f'm{{namespace="n{number}"}} 1\n' for number in (0, 1500, 2999))
    for _ in range(2):
        assert await proxy.get(**tenant) == (200, expected)
        assert asked(cluster, ACCESS_REVIEWS) == 3001
        cluster.api.requests[:] = cluster.api.requests[-10_000:]


async def test_rights_change(front, cluster):
    """A granted namespace appears after half a minute. A withdrawn one is gone within five."""
    clock = Clock()
    proxy = await front("--authorization=tenant", clock=clock)
    grant(cluster, "payments")
    tenant = bearer(cluster)
    assert spaces((await proxy.get(**tenant))[1]) == {"payments"}
    (more,) = grant(cluster, "frontend-service1")
    clock.now += 29.0
    assert spaces((await proxy.get(**tenant))[1]) == {"payments"}
    clock.now += 1.0
    assert spaces((await proxy.get(**tenant))[1]) == {"payments", "frontend-service1"}
    cluster.authority.rbac.delete(more)
    clock.now += 299.0
    assert spaces((await proxy.get(**tenant))[1]) == {"payments", "frontend-service1"}
    clock.now += 1.0
    assert spaces((await proxy.get(**tenant))[1]) == {"payments"}


async def test_tenants_share_nothing(front, cluster):
    """Remembered reviews of one tenant show nothing to another, in either order."""
    grant(cluster, "payments", user="ann")
    grant(cluster, "frontend-service1", user="bob")
    proxy = await front("--authorization=tenant")
    for _ in range(2):
        assert spaces((await proxy.get(**bearer(cluster, "ann")))[1]) == {"payments"}
        assert spaces((await proxy.get(**bearer(cluster, "bob")))[1]) == {"frontend-service1"}


async def test_another_resource(front, cluster):
    """The resource that a tenant must be allowed to get is configurable."""
    grant(cluster, "payments")
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    subject = {"kind": "User", "name": "ann"}
    bound = binding("ClusterRole", "pods", subject, namespace="monitoring")
    cluster.authority.rbac.apply(role("pods", rule), bound)
    proxy = await front("--authorization=tenant", "--tenant-resource=pods")
    assert spaces((await proxy.get(**bearer(cluster)))[1]) == {"monitoring"}


async def test_compressed_and_head(front, cluster):
    """A gzip answer holds the same bytes. HEAD has no body."""
    grant(cluster, "payments")
    proxy = await front("--authorization=tenant")
    tenant = bearer(cluster)
    async with proxy.session.get(
        proxy.url + "/metrics/cadvisor", headers=tenant | {"Accept-Encoding": "gzip"}
    ) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert spaces(await response.text()) == {"payments"}
    async with proxy.session.head(proxy.url + "/metrics/cadvisor", headers=tenant) as response:
        assert (response.status, await response.text()) == (200, "")


async def test_who_is_not_known(front, cluster):
    """A request without a token gets 401, and a failed review 500."""
    proxy = await front("--authorization=tenant")
    assert (await proxy.get())[0] == 401
    cluster.authority.deny("create", "subjectaccessreviews")
    status, text = await proxy.get(**bearer(cluster))
    assert status == 500
    assert "resources [subjectaccessreviews] and verbs [create]" in text
    assert not cluster.kubelets["node-a"].requests


async def test_a_review_fails_before_the_first_byte(front, cluster):
    """A failed review gives 500, never an incomplete answer. The next scrape is complete."""
    grant(cluster, "payments")
    serve(cluster, b'm{namespace="payments"} 1\n')
    proxy = await front("--authorization=tenant", "--label=x")
    tenant = bearer(cluster)
    await proxy.get("/metrics", **tenant)
    serve(cluster, b'm{namespace="payments"} 1\nm{namespace="shop"} 2\n')
    cluster.api.fail("review", ApiFault.STATUS, status=500)
    status, text = await proxy.get(**tenant)
    assert (status, text) == (
        500,
        "kmproxy cannot review your access: the API server answered 500\n",
    )
    cluster.api.recover()
    assert await proxy.get(**tenant) == (200, 'm{namespace="payments"} 1\n')


async def test_a_review_fails_in_the_middle(front, cluster):
    """The connection is reset, so the client cannot take the sent part for complete."""
    grant(cluster, "payments")
    many = b'm{namespace="payments"} 1\n' * 20_000
    serve(cluster, many)
    proxy = await front("--authorization=tenant")
    (token,) = bearer(cluster).values()
    await proxy.get("/metrics/cadvisor", Authorization=token)
    serve(cluster, many + b'm{namespace="shop"} 2\n')
    cluster.api.fail("review", ApiFault.STATUS, status=500)
    answer, end = await proxy.raw(
        f"GET /metrics/cadvisor HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode()
    )
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert end == "reset"
    assert not answer.endswith(b"0\r\n\r\n")
    path = {"path": "/metrics/cadvisor", "code": "broken"}
    assert await proxy.metric("kmproxy_scrapes_total", **path) == 1


async def test_a_review_hangs_in_the_middle(front, cluster, monkeypatch):
    """A hanging review ends with the scrape time, and is not counted as a kubelet failure."""
    monkeypatch.setattr("kmproxy.auth.tenant.MARGIN", 1.0)  # more than a busy machine's own pauses
    grant(cluster, "payments")
    serve(cluster, b'm{namespace="payments"} 2\n')
    proxy = await front("--authorization=tenant")
    tenant = bearer(cluster)
    await proxy.get("/metrics/cadvisor", **tenant)
    serve(cluster, b'm{namespace="shop"} 2\n')
    cluster.api.fail("review", ApiFault.HANG)
    status, text = await proxy.get(**tenant, X_Prometheus_Scrape_Timeout_Seconds="3")
    assert status == 500
    assert text == "the scrape time was over before your access to every namespace was reviewed\n"
    kubelet = {"upstream": "kubelet", "reason": "timeout"}
    assert await proxy.metric("kmproxy_upstream_errors_total", **kubelet) == 0


async def test_hanging_reviews_take_no_slot(front, cluster):
    """Known namespaces are reviewed before the fetch, so waiting for reviews takes no slot."""
    clock = Clock()
    grant(cluster, "payments")
    grant(cluster, user="root")
    proxy = await front("--authorization=tenant", "--max-concurrency=1", clock=clock)
    tenant, root = bearer(cluster), bearer(cluster, "root")
    for who in (tenant, root):
        assert (await proxy.get(**who))[0] == 200
    clock.now += 31.0  # what was denied is to be asked for again
    cluster.kubelets["node-a"].requests.clear()
    before = asked(cluster, ACCESS_REVIEWS)
    cluster.api.fail("review", ApiFault.HANG)
    hanging = asyncio.create_task(proxy.get(**tenant, X_Prometheus_Scrape_Timeout_Seconds="3"))
    await until(lambda: _exceeds(cluster, before))
    assert (await proxy.get(**root))[0] == 200
    assert not hanging.done()
    assert await hanging == (500, "the API server has not reviewed your access within 2.7 s\n")
    assert len(cluster.kubelets["node-a"].requests) == 1


async def _exceeds(cluster, count):
    return asked(cluster, ACCESS_REVIEWS) > count


async def test_targets_are_narrowed(front, cluster):
    """/sd/pods lists only the tenant's pods. Tenants get no nodes."""
    grant(cluster, "payments")
    grant(cluster, user="root")
    proxy = await front("--authorization=tenant", "--discovery", "--all-nodes")
    tenant, root = bearer(cluster), bearer(cluster, "root")
    status, text = await proxy.get("/sd/pods?node=node-a", **tenant)
    assert status == 200
    assert set(re.findall(r'"__meta_kubernetes_namespace":"([^"]*)"', text)) == {"payments"}
    assert "frontend" not in text
    assert (await proxy.get("/sd/pods?node=node-a&namespace=front*", **tenant)) == (200, "[]\n")
    assert (await proxy.get("/sd/pods?node=node-a", **bearer(cluster, "bob")))[0] == 403
    assert "frontend" in (await proxy.get("/sd/pods?node=node-a", **root))[1]
    assert (await proxy.get("/sd/nodes", **tenant))[0] == 403
    assert (await proxy.get("/sd/nodes", **root))[0] == 200
    for path in ("/sd/pods", "/sd/nodes"):
        assert (await proxy.get(path))[0] == 401


async def test_targets_that_cannot_be_reviewed(front, cluster):
    """500 instead of an incomplete list, so Prometheus keeps its targets."""
    grant(cluster, "no-team")
    clock = Clock()
    proxy = await front("--authorization=tenant", "--discovery", clock=clock)
    tenant = bearer(cluster)
    await proxy.get("/metrics/probes", **tenant)
    clock.now += DENIED_FOR
    cluster.api.fail("review", ApiFault.STATUS, status=500)
    status, text = await proxy.get("/sd/pods", **tenant)
    assert (status, text) == (
        500,
        "kmproxy cannot review your access: the API server answered 500\n",
    )
