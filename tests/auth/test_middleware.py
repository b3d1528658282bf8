"""Authorization by reviews: every path of the metrics port needs its own right, on real sockets."""

from __future__ import annotations

import pytest

from kmproxy.auth.authorizer import granted_to_all
from kmproxy.errors import ConfigError
from kmproxy.kube.reviews import ACCESS_REVIEWS, TOKEN_REVIEWS
from kmproxy.simulator.rbac import AUTHENTICATED, Attributes
from tests.support.callers import PROMETHEUS, asked, fetched, readme_rbac
from tests.support.documents import block
from tests.support.rbac import binding, role

PATHS = [
    "/metrics/cadvisor",
    "/metrics",
    "/api/v1/nodes/node-a/proxy/metrics",
    "/",
    "/sd/pods",
    "/nothing",
    "//metrics",
    "/metrics/../metrics",
]


async def test_the_roles_of_the_documents(front, cluster):
    """With what docs/security.md shows and nothing more, kmproxy reviews and Prometheus scrapes."""
    for resource in ("tokenreviews", "subjectaccessreviews"):
        cluster.authority.deny("create", resource)
    proxy = await front("--authorization=kubernetes", "--all-nodes")
    token = f"Bearer {cluster.authority.issue(PROMETHEUS)}"
    assert (await proxy.get(Authorization=token))[0] == 500
    cluster.authority.rbac.apply(*readme_rbac("kmproxy-reviews"))
    assert (await proxy.get(Authorization=token))[0] == 403
    cluster.authority.rbac.apply(*readme_rbac("kmproxy-scrape"))
    assert (await proxy.get("/metrics", Authorization=token))[0] == 200
    node = "/api/v1/nodes/node-b/proxy/metrics/cadvisor"
    assert (await proxy.get(node, Authorization=token))[0] == 200
    assert (await proxy.get("/", Authorization=token))[0] == 403


async def test_the_refusal_of_the_documents(front, cluster):
    """A refusal reads as docs/security.md shows it."""
    proxy = await front("--authorization=kubernetes")
    token = f"Bearer {cluster.authority.issue(PROMETHEUS)}"
    status, text = await proxy.get(Authorization=token)
    assert status == 403
    assert text == block("user 'system:serviceaccount:monitoring:prometheus' may not")


@pytest.mark.parametrize("token", [None, "unknown"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_who_is_not_known_learns_nothing(front, cluster, method, path, token):
    """401 whatever is asked for, and no kubelet is asked anything."""
    proxy = await front("--authorization=kubernetes", "--all-nodes")
    header = f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n"
    answer, _ = await proxy.raw(head.encode())
    assert answer.startswith(b"HTTP/1.1 401 ")
    invalid = b', error="invalid_token"' if token else b""
    assert b'\r\nWWW-Authenticate: Bearer realm="kmproxy"%b\r\n' % invalid in answer
    assert asked(cluster, TOKEN_REVIEWS) == bool(token)
    assert not asked(cluster, ACCESS_REVIEWS)
    assert not fetched(cluster)


async def test_two_tokens_are_none(front, prometheus):
    """Of two Authorization headers nobody knows which one another server would take."""
    proxy = await front("--authorization=kubernetes")
    header = f"Authorization: Bearer {prometheus}\r\n" * 2
    answer, _ = await proxy.raw(
        f"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n".encode()
    )
    assert answer.split(b" ")[1] in {b"400", b"401"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/sd/nothing", 404),
        ("POST", "/metrics", 405),
        ("PUT", "/", 405),
    ],
)
async def test_what_is_not_served_is_not_reviewed(front, cluster, prometheus, method, path, status):
    """Who is known is told so, at the cost of no review of access."""
    proxy = await front("--authorization=kubernetes")
    headers = {"Authorization": f"Bearer {prometheus}"}
    async with proxy.session.request(method, proxy.url + path, headers=headers) as response:
        assert response.status == status
    assert not asked(cluster, ACCESS_REVIEWS)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/metrics", 200),
        ("/metrics?metric=*", 200),
        ("/metrics?metrik=*", 400),
        ("/metrics/cadvisor?metrik=*", 403),
        ("/?x", 403),
        ("/metrics/cadvisor", 403),
        ("/api/v1/nodes/node-a/proxy/metrics", 403),
        ("/", 403),
    ],
)
async def test_each_path_is_asked_for_itself(front, cluster, path, status):
    """The path as it was sent, without its query; `/` and the nodes' paths are no exception."""
    cluster.authority.rbac.apply(
        role("r", {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}),
        binding("ClusterRole", "r", {"kind": "User", "name": "ann"}),
    )
    proxy = await front("--authorization=kubernetes", "--all-nodes")
    token = cluster.authority.issue("ann")
    assert (await proxy.get(path, Authorization=f"Bearer {token}"))[0] == status
    assert bool(fetched(cluster)) == (status == 200)


@pytest.mark.parametrize("path", ["/sd/pods", "/sd/nodes"])
async def test_targets_are_behind_the_door(front, cluster, path):
    """Who may not get the path does not get the targets."""
    cluster.authority.rbac.apply(
        role("r", {"nonResourceURLs": [path], "verbs": ["get"]}),
        binding("ClusterRole", "r", {"kind": "User", "name": "ann"}),
    )
    proxy = await front("--authorization=kubernetes", "--discovery", "--all-nodes")
    target = f"{path}?node=node-a" if path == "/sd/pods" else path
    for user, status in (("ann", 200), ("bob", 403)):
        token = f"Bearer {cluster.authority.issue(user)}"
        assert (await proxy.get(target, Authorization=token))[0] == status
    assert (await proxy.get(target))[0] == 401


async def test_by_nodes_metrics(front, cluster):
    """With the resource, a right for one node is a right for its paths and for no other's."""
    rule = {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}
    cluster.authority.rbac.apply(
        role("r", rule | {"resourceNames": ["node-b"]}),
        binding("ClusterRole", "r", {"kind": "User", "name": "ann"}),
    )
    flags = ("--authorization=kubernetes", "--authorization-attributes=nodes/metrics")
    proxy = await front(*flags, "--all-nodes")
    token = f"Bearer {cluster.authority.issue('ann')}"
    for path, status in (
        ("/api/v1/nodes/node-b/proxy/metrics", 200),
        ("/api/v1/nodes/node-a/proxy/metrics", 403),
        ("/metrics", 403),
        ("/", 403),
    ):
        assert (await proxy.get(path, Authorization=token))[0] == status


async def test_audiences(front, cluster, prometheus):
    """A token for the API server is none for kmproxy where that has an audience of its own."""
    proxy = await front("--authorization=kubernetes", "--authorization-audience=kmproxy")
    assert (await proxy.get(Authorization=f"Bearer {prometheus}"))[0] == 401
    token = cluster.authority.issue(PROMETHEUS, audiences=("kmproxy",))
    assert (await proxy.get(Authorization=f"Bearer {token}"))[0] == 200


async def test_without_authorization_there_is_no_door(front, cluster):
    """No token is looked at, none is reviewed."""
    proxy = await front()
    assert (await proxy.get(Authorization="Bearer x"))[0] == 200
    assert not asked(cluster, TOKEN_REVIEWS)


NODE_METRICS = {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}
BY_NAME = "/api/v1/nodes/{}/proxy/metrics"


async def test_a_node_by_name_takes_the_right_to_the_resource(front, cluster):
    """The path is granted to everybody by a default role, so that it is not what is asked for."""
    everybody = cluster.authority.permits(
        "ann", (AUTHENTICATED,), Attributes("get", path=BY_NAME.format("node-a"))
    )
    assert everybody
    cluster.authority.rbac.apply(
        role("one", NODE_METRICS | {"resourceNames": ["node-b"]}),
        binding("ClusterRole", "one", {"kind": "User", "name": "one"}),
        role("every", NODE_METRICS),
        binding("ClusterRole", "every", {"kind": "User", "name": "every"}),
    )
    proxy = await front("--authorization=kubernetes", "--all-nodes")
    for user, statuses in (
        ("ann", (403, 403, 403, 403)),
        ("one", (403, 200, 403, 403)),
        ("every", (200, 200, 404, 404)),
    ):
        token = f"Bearer {cluster.authority.issue(user)}"
        for name, status in zip(("node-a", "node-b", "node-z", "No-Node"), statuses, strict=True):
            found, text = await proxy.get(BY_NAME.format(name), Authorization=token)
            assert found == status, (user, name)
            if status == 403:
                assert text == f"user '{user}' may not get nodes/metrics '{name}'\n"


@pytest.mark.parametrize(
    ("path", "granted"),
    [
        *(
            (path, True)
            for path in ("/api", "/api/v1/nodes/x/proxy/metrics", "/apis/x", "/version")
        ),
        *((path, True) for path in ("/healthz", "/livez", "/readyz", "/openapi/v3", "/version/")),
        *((path, False) for path in ("/", "/metrics", "/metrics/cadvisor", "/sd/pods", "/apix")),
        ("/upstreams/x/metrics", False),
    ],
)
async def test_what_default_roles_grant(cluster, path, granted):
    """What is refused as a path to review is what the cluster's default roles grant to all."""
    assert granted_to_all(path) is granted
    asked_for = Attributes("get", path=path)
    assert cluster.authority.permits("ann", (AUTHENTICATED,), asked_for) is granted


async def test_no_path_is_reviewed_that_is_granted_to_all(front, monkeypatch):
    """Such a path among those that are served is a configuration error at the start."""
    monkeypatch.setattr("kmproxy.daemon.authorization.served_paths", lambda **_: ["/api/metrics"])
    with pytest.raises(ConfigError, match="let everyone get /api/metrics"):
        await front("--authorization=kubernetes")
