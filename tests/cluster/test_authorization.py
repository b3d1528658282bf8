"""Authorization, reviewed by a real API server with Kubernetes' own default roles."""

from __future__ import annotations

import pytest

from .control_plane import ISSUER, RequestError

pytestmark = [pytest.mark.cluster]

REVIEWS = (
    {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
    {
        "apiGroups": ["authorization.k8s.io"],
        "resources": ["subjectaccessreviews"],
        "verbs": ["create"],
    },
)
NODES = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}
METRICS = {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}
PATHS = {"nonResourceURLs": ["/metrics", "/metrics/*"], "verbs": ["get"]}
PODS = {"apiGroups": ["metrics.k8s.io"], "resources": ["pods/metrics"], "verbs": ["get"]}
BY_NAME = "/api/v1/nodes/node-a/proxy/metrics/cadvisor"


def scraper(plane, namespace, name, *rules, where=None, **token):
    """The header of a new service account that has a role with these rules."""
    user = plane.account(namespace, name)
    if rules:
        plane.grant(user, *rules, namespace=where)
    return {"Authorization": f"Bearer {plane.token(namespace, name, **token)}"}


def test_the_default_roles_grant_the_path_to_everyone(plane):
    """system:discovery has /api/*, so a node by name is not reviewed by its path."""
    user = plane.account("shop", "anybody")
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    spec = {"user": user, "groups": ["system:authenticated"]}
    spec["nonResourceAttributes"] = {"path": BY_NAME, "verb": "get"}
    document = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    assert plane.request("POST", path, document | {"spec": spec})["status"]["allowed"]


async def test_a_node_by_name(real_front, plane):
    """It needs the right to `get nodes/metrics` of that node, as at the kubelet."""
    front = await real_front("--authorization=kubernetes", "--all-nodes", rules=(*REVIEWS, NODES))
    anybody = scraper(plane, "shop", "anybody")
    one = scraper(plane, "shop", "one-node", METRICS | {"resourceNames": ["node-a"]})
    other = scraper(plane, "shop", "other-node", METRICS | {"resourceNames": ["node-b"]})
    every = scraper(plane, "monitoring", "prometheus", METRICS)
    assert (await front.get(BY_NAME))[0] == 401
    assert (await front.get(BY_NAME, **anybody))[0] == 403
    assert (await front.get(BY_NAME, **other))[0] == 403
    assert (await front.get(BY_NAME, **one))[0] == 200
    assert (await front.get(BY_NAME, **every))[0] == 200
    unknown = BY_NAME.replace("node-a", "node-z")
    assert (await front.get(unknown, **anybody))[0] == 403
    assert (await front.get(unknown, **one))[0] == 403
    assert (await front.get(unknown, **every))[0] == 404


async def test_the_configured_node(real_front, plane):
    """It needs the right to the path. `nodes/metrics` alone is not reviewed there."""
    front = await real_front("--authorization=kubernetes", rules=REVIEWS)
    allowed = scraper(plane, "monitoring", "by-path", PATHS)
    assert (await front.get(**scraper(plane, "shop", "anybody")))[0] == 403
    status, text = await front.get(**allowed)
    assert status == 200
    assert 'namespace="payments",team="payments"' in text


async def test_the_attributes_of_a_resource(real_front, plane):
    """With the flag, every path is reviewed as `nodes/metrics`."""
    front = await real_front(
        "--authorization=kubernetes",
        "--authorization-attributes=nodes/metrics",
        rules=REVIEWS,
    )
    assert (await front.get(**scraper(plane, "monitoring", "by-path", PATHS)))[0] == 403
    assert (await front.get(**scraper(plane, "monitoring", "prometheus", METRICS)))[0] == 200


async def test_a_tenant(real_front, plane):
    """A tenant gets the namespace of its role. A caller without a role gets 403."""
    front = await real_front("--authorization=tenant", rules=REVIEWS)
    tenant = scraper(plane, "payments", "prometheus", PODS, where="payments")
    status, text = await front.get(**tenant)
    assert status == 200
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert samples
    assert all('namespace="payments"' in line for line in samples)
    assert (await front.get(**scraper(plane, "shop", "anybody")))[0] == 403
    platform = scraper(plane, "monitoring", "platform", PODS)
    status, text = await front.get(**platform)
    assert status == 200
    assert 'namespace="kube-system"' in text


async def test_audiences(real_front, plane):
    """A token of another audience is refused. Without audiences the API server's are accepted."""
    named = await real_front(
        "--authorization=kubernetes", "--authorization-audience=kmproxy", rules=REVIEWS
    )
    right = scraper(plane, "monitoring", "by-path", PATHS, audiences=["kmproxy"])
    wrong = scraper(plane, "monitoring", "by-path", PATHS, audiences=[ISSUER])
    assert (await named.get(**right))[0] == 200
    assert (await named.get(**wrong))[0] == 401
    plain = await real_front("--authorization=kubernetes", rules=REVIEWS)
    assert (await plain.get(**wrong))[0] == 200
    assert (await plain.get(**right))[0] == 401


async def test_a_token_that_is_no_longer_good(real_front, plane):
    """Tokens of a deleted service account, invented ones and expired ones are refused."""
    front = await real_front("--authorization=kubernetes", rules=REVIEWS)
    gone = scraper(plane, "shop", "leaver", PATHS)
    plane.request("DELETE", "/api/v1/namespaces/shop/serviceaccounts/leaver")
    assert (await front.get(**gone))[0] == 401
    assert (await front.get(Authorization="Bearer made.up.token"))[0] == 401
    stays = scraper(plane, "shop", "stays", PATHS)
    assert (await front.get(**stays))[0] == 200
    _, token = stays["Authorization"].split()
    assert (await front.get(Authorization=f"Bearer {plane.expired(token)}"))[0] == 401
    with pytest.raises(RequestError, match="401"):
        plane.request("GET", "/api/v1/namespaces", token="made.up.token")


async def test_without_the_right_to_review(real_front, plane):
    """A daemon without the right to review says so, and admits no caller."""
    plane.account("kmproxy-system", "kmproxy")
    front = await real_front("--authorization=kubernetes", rules=())
    status, text = await front.get(**scraper(plane, "monitoring", "prometheus", PATHS))
    assert status == 500
    assert "tokenreviews" in text
