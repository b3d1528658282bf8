"""Each authorizer: the callers that it admits, and the namespaces that a tenant sees."""

from __future__ import annotations

import asyncio

import pytest

from kmproxy.auth import footholds
from kmproxy.auth.authorizer import RequestAttributes, TenantAuthorizer, node_name
from kmproxy.auth.tenant import NamespaceNames, Tenant
from kmproxy.auth.tenant_filter import Recent
from kmproxy.errors import AccessError
from kmproxy.kube.reviews import ACCESS_REVIEWS, TOKEN_REVIEWS, Caller
from kmproxy.simulator.answers import ApiFault
from tests.conftest import until
from tests.support.desk import PATHS, bind
from tests.support.resources import PODS, RESOURCE

LATER = 1e9


async def test_by_path(desk, cluster):
    """A caller with a right to a path is admitted to this path only."""
    bind(cluster, PATHS)
    token = cluster.authority.issue("ann")
    await desk.admit(token)
    error = await desk.refusal(token, RequestAttributes("/metrics/cadvisor"))
    assert (error.status, error.reason) == (403, "denied")
    assert str(error) == "user 'ann' may not get /metrics/cadvisor"
    bob = await desk.refusal(cluster.authority.issue("bob"))
    assert (bob.status, bob.reason) == (403, "denied")


async def test_by_group(desk, cluster):
    """The groups of the TokenReview are part of the SubjectAccessReview."""
    bind(cluster, PATHS, {"kind": "Group", "name": "scrapers"})
    await desk.admit(cluster.authority.issue("bob", groups=("scrapers",)))
    assert (await desk.refusal(cluster.authority.issue("bob"))).status == 403


async def test_by_resource(desk, cluster):
    """With nodes/metrics, a rule for one node admits to that node only."""
    rule = {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}
    bind(cluster, rule | {"resourceNames": ["node-a"]})
    token = cluster.authority.issue("ann")
    await desk.admit(token, RequestAttributes("/metrics", "node-a"), by_path=False)
    for place in (RequestAttributes("/metrics", "node-b"), RequestAttributes("/metrics", "")):
        assert (await desk.refusal(token, place, by_path=False)).status == 403
    assert (await desk.refusal(token, RequestAttributes("/metrics", "node-a"))).status == 403
    bind(cluster, rule)
    desk.now += 30.0
    await desk.admit(token, RequestAttributes("/metrics", ""), by_path=False)


@pytest.mark.parametrize("token", ["", "unknown", "a b", "x" * 20_000])
async def test_no_token_that_is_accepted(desk, cluster, token):
    """401 without an accepted token. A text that cannot be a token is not reviewed."""
    error = await desk.refusal(token)
    assert error.status == 401
    assert desk.asked(TOKEN_REVIEWS) == (token == "unknown")


@pytest.mark.parametrize(
    ("host", "name"),
    [("node-a", "node-a"), ("localhost", ""), ("10.0.0.7", ""), ("fe80::1%eth0", "")],
)
def test_node_name(host, name):
    """An address is not a node name, and the API server knows no node `localhost`."""
    assert node_name(host) == name


def tenant_of(desk, wanted=lambda _: True, recent=None):
    """The tenant Ann."""
    recent = recent or Recent()
    return Tenant(
        desk.reviewer, Caller("ann"), RESOURCE,
        path="/m", wanted=wanted, recent=recent, names=NamespaceNames(),
    )  # fmt: skip


async def test_a_few_reviews_at_once(desk, cluster):
    """One scrape makes few concurrent reviews, and its answer has every namespace."""
    ann = tenant_of(desk)
    bind(cluster, PODS, namespace="n7")
    names = [f"n{number}" for number in range(100)]
    cluster.api.fail("review", ApiFault.HANG)
    asking = asyncio.create_task(ann.sees(names, deadline=LATER))
    await until(lambda: _reaches(desk, footholds.PARALLEL))
    await asyncio.sleep(0.05)
    assert desk.asked(ACCESS_REVIEWS) == footholds.PARALLEL
    asking.cancel()
    await desk.reviewer.close()
    cluster.api.recover()
    desk.reviewer = desk.open()
    ann = tenant_of(desk)
    assert await ann.sees(names, deadline=LATER) == {name: name == "n7" for name in names}
    assert await ann.sees((), deadline=LATER) == {}
    assert repr(ann) == "<Tenant 'ann'>"


async def _reaches(desk, count):
    return desk.asked(ACCESS_REVIEWS) == count


async def test_one_failure_is_a_failure(desk, cluster):
    """One failed review among many namespaces fails the whole answer."""
    ann = tenant_of(desk)
    await ann.sees(["a"], deadline=LATER)
    cluster.api.fail("review", ApiFault.STATUS, status=500, times=1)
    with pytest.raises(AccessError):
        await ann.sees([f"n{number}" for number in range(50)], deadline=LATER)


async def test_a_tenant_is_not_let_in_everywhere(desk, cluster):
    """Tenants get only paths that can be narrowed. A caller with all rights is no tenant."""
    authorizer = TenantAuthorizer(desk.reviewer, RESOURCE)
    ann = Caller("ann")
    bind(cluster, PODS, namespace="payments")
    tenant = await authorizer.admit(ann, RequestAttributes("/metrics", wanted=lambda _: True))
    names = ["payments", "shop", "", "*", "Payments"]
    seen = await tenant.sees(names, deadline=LATER)
    assert seen == {name: name == "payments" for name in names}
    assert desk.asked(ACCESS_REVIEWS) == 3
    with pytest.raises(AccessError, match="in every namespace"):
        await authorizer.admit(ann, RequestAttributes("/metrics"))
    bind(cluster, PODS)
    desk.now += 30.0
    assert await authorizer.admit(ann, RequestAttributes("/metrics", wanted=lambda _: True)) is None
    assert await authorizer.admit(ann, RequestAttributes("/")) is None


async def test_what_was_held_lately_is_foreseen(desk, cluster):
    """The namespaces of a path's last answer are reviewed before the next one."""
    recent = Recent()
    bind(cluster, PODS, namespace="a")
    tenant_stream = tenant_of(desk, recent=recent).stream(max_line=100, deadline=1e9)
    body = b"".join([b'm{namespace="%b"} 1\n' % name for name in (b"a", b"b", b"c")])
    assert await tenant_stream.feed(body) == b'm{namespace="a"} 1\n'
    assert await tenant_stream.finish() == b""
    assert tenant_stream.dropped == {"namespace": 0, "tenant": 2, "unparsed": 0}
    assert desk.asked(ACCESS_REVIEWS) == 3
    desk.now += 300.0
    await tenant_of(desk, {"a", "x"}.__contains__, recent).prefetch()
    assert desk.asked(ACCESS_REVIEWS) == 6
