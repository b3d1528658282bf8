"""Nothing on the scraped port is reached unauthorized: real sockets, real reviews."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest
import yaml

from kmproxy.auth.authorizer import granted_to_all
from kmproxy.auth.reviewer import Reviewer
from kmproxy.cli.read import read_config
from kmproxy.daemon.daemon import Daemon
from kmproxy.errors import ConfigError
from kmproxy.kube.reviews import ACCESS_REVIEWS, TOKEN_REVIEWS
from kmproxy.simulator.answers import ApiFault
from kmproxy.simulator.rbac import AUTHENTICATED, Attributes
from kmproxy.sources.slots import ConcurrencyLimit
from tests.conftest import until
from tests.support.callers import Clock, asked, fetched, readme_rbac
from tests.support.documents import block
from tests.support.rbac import binding, role

PROMETHEUS = "system:serviceaccount:monitoring:prometheus"
EVERYWHERE = {"nonResourceURLs": ["*"], "verbs": ["get"]}
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


@pytest.fixture
def prometheus(cluster):
    """A token of Prometheus, which may get everything that is no resource."""
    cluster.authority.rbac.apply(
        role("all", EVERYWHERE),
        binding("ClusterRole", "all", {"kind": "User", "name": PROMETHEUS}),
    )
    return cluster.authority.issue(PROMETHEUS)


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


async def test_rights_change(front, cluster, prometheus):
    """What RBAC objects say is heard after half a minute where it was no, five where it was yes."""
    clock = Clock()
    proxy = await front("--authorization=kubernetes", clock=clock)
    ann = {"kind": "User", "name": "ann"}
    token = f"Bearer {cluster.authority.issue('ann')}"
    bound = binding("ClusterRole", "all", ann)
    bound["metadata"]["name"] = "of-ann"

    async def status():
        return (await proxy.get(Authorization=token))[0]

    assert await status() == 403
    cluster.authority.rbac.apply(bound)
    clock.now += 29.0
    assert await status() == 403
    clock.now += 1.0
    assert await status() == 200
    cluster.authority.rbac.delete(bound)
    clock.now += 299.0
    assert await status() == 200
    clock.now += 1.0
    assert await status() == 403


async def test_one_review_for_all_scrapes(front, cluster, prometheus):
    """Scrapes that come at once with one token cost one review of each kind."""
    proxy = await front("--authorization=kubernetes", "--max-concurrency=50")
    token = f"Bearer {prometheus}"
    answers = await asyncio.gather(*(proxy.get(Authorization=token) for _ in range(50)))
    assert {status for status, _ in answers} == {200}
    assert (asked(cluster, TOKEN_REVIEWS), asked(cluster, ACCESS_REVIEWS)) == (1, 1)
    for kind in ("token", "access"):
        assert await proxy.metric("kmproxy_reviews_total", kind=kind, result="allowed") == 1


async def test_a_review_that_hangs_holds_up_nobody_else(front, cluster, prometheus):
    """It ends with its scrape's own time, and takes no slot: others pass it."""
    proxy = await front("--authorization=kubernetes", "--max-concurrency=1")
    known = f"Bearer {prometheus}"
    assert (await proxy.get(Authorization=known))[0] == 200
    cluster.api.fail("review", ApiFault.HANG)
    before = asked(cluster, TOKEN_REVIEWS)
    short = {"X_Prometheus_Scrape_Timeout_Seconds": "3"}
    hanging = [
        asyncio.create_task(proxy.get(Authorization=f"Bearer t{number}", **short))
        for number in range(5)
    ]
    await until(lambda: _reaches(cluster, before + 5))
    assert (await proxy.get(Authorization=known))[0] == 200
    assert not any(each.done() for each in hanging)
    for status, text in await asyncio.gather(*hanging):
        assert (status, text) == (500, "your access was not reviewed within 2.7 s\n")


async def _reaches(cluster, count):
    return asked(cluster, TOKEN_REVIEWS) == count


async def test_the_time_of_reviews_is_the_scrapes(front, prometheus, monkeypatch):
    """What the review has taken of a scrape's time is not given to the kubelet again."""
    proxy = await front("--authorization=kubernetes")
    may, taken, clock = Reviewer.may, ConcurrencyLimit.taken, asyncio.get_running_loop().time
    times = []

    async def slow(*question):
        times.append(clock())
        await asyncio.sleep(0.1)
        return await may(*question)

    def noted(slots, deadline, *asker):
        times.append(deadline)
        return taken(slots, deadline, *asker)

    monkeypatch.setattr(Reviewer, "may", slow)
    monkeypatch.setattr(ConcurrencyLimit, "taken", noted)
    status, _ = await proxy.get(
        Authorization=f"Bearer {prometheus}", X_Prometheus_Scrape_Timeout_Seconds="5"
    )
    assert status == 200
    began, deadline = times
    assert deadline <= began + 4.5


async def test_the_api_server_is_away(front, cluster, prometheus):
    """500, with the reason; what is remembered still holds; all is well when it is back."""
    clock = Clock()
    proxy = await front("--authorization=kubernetes", clock=clock)
    token = f"Bearer {prometheus}"
    assert (await proxy.get(Authorization=token))[0] == 200
    await cluster.api.stop()
    assert (await proxy.get(Authorization=token))[0] == 200
    clock.now += 60.0
    status, text = await proxy.get(Authorization=token)
    assert status == 500
    assert text.startswith("your access cannot be reviewed: the API server at 127.0.0.1:")
    await cluster.api.start()
    assert (await proxy.get(Authorization=token))[0] == 200
    assert await proxy.metric("kmproxy_reviews_total", kind="token", result="failed") == 1


async def test_what_is_logged_and_counted(front, cluster, prometheus, caplog):
    """A line for each reason, not for each request, with who was refused and never a token."""
    clock = Clock()
    proxy = await front("--authorization=kubernetes", clock=clock)
    ann = cluster.authority.issue("ann\nwith a line\x1b[31m")
    with caplog.at_level(logging.DEBUG):
        for _ in range(20):
            await proxy.get()
            await proxy.get(Authorization="Bearer s3cret-and-wrong")
            await proxy.get(Authorization=f"Bearer {ann}")
        clock.now += 10.0
        await proxy.get()
    lines = [record.getMessage() for record in caplog.records if record.name == "kmproxy.auth"]
    assert [line.split(": ")[1] for line in lines] == ["401", "401", "403", "401"]
    assert "user 'ann\\nwith a line\\x1b[31m' may not get /metrics/cadvisor" in lines[2]
    assert lines[3].endswith("(19 more like this since the last such line)")
    for code, count in (("401", 41), ("403", 20)):
        path = {"path": "/metrics/cadvisor", "code": code}
        assert await proxy.metric("kmproxy_scrapes_total", **path) == count
    seen = caplog.text + (await proxy.probe("/metrics"))[1]
    seen += (
        repr(vars(proxy.daemon)) + (await proxy.get("/", Authorization=f"Bearer {prometheus}"))[1]
    )
    for token in ("s3cret-and-wrong", ann, prometheus, cluster.token):
        assert token not in seen
        assert token.rpartition(".")[2] not in seen


async def test_no_label_grows_with_what_is_asked(front):
    """Refused requests for paths that are not served share one series."""
    proxy = await front("--authorization=kubernetes", "--all-nodes")
    for number in range(5):
        await proxy.get(f"/nothing/{number}")
        await proxy.get(f"/api/v1/nodes/n{number}/proxy/metrics")
    _, text = await proxy.probe("/metrics")
    series = re.findall(r'kmproxy_scrapes_total\{code="401",path="(.*)"\} 5.0', text)
    assert sorted(series) == ["/api/v1/nodes/{node}/proxy/metrics", "other"]


async def test_the_telemetry_port_tells_nothing_of_the_cluster(front, cluster):
    """Probes and own metrics are for everybody, so no node, namespace or team is in them."""
    proxy = await front("--authorization=kubernetes", "--all-nodes")
    token = f"Bearer {cluster.authority.issue('ann')}"
    await proxy.get("/api/v1/nodes/node-b/proxy/metrics", Authorization=token)
    for path in ("/metrics", "/readyz", "/healthz"):
        _, text = await proxy.probe(path)
        for word in ("node-a", "node-b", "payments", "frontend", "kube-system", "ann"):
            assert word not in text.replace("cannot", "")


@pytest.mark.parametrize(
    ("flags", "warned"),
    [
        (("--listen=:0",), "who reaches it may read every metric"),
        (("--listen=0.0.0.0:0",), "who reaches it may read every metric"),
        (("--listen=127.0.0.1:0",), None),
        (("--listen=localhost:0",), None),
        (("--listen=:0", "--authorization=kubernetes"), "tokens can be read on their way"),
        (("--listen=127.0.0.1:0", "--authorization=tenant"), None),
    ],
)
async def test_the_warning_at_the_start(front, caplog, flags, warned):
    """One line if everybody may scrape from elsewhere, or who may sends a token unencrypted."""
    await front(*flags)
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("--listen=")]
    assert len(lines) == (warned is not None)
    assert all(warned in line for line in lines)


async def test_without_authorization_there_is_no_door(front, cluster):
    """No token is looked at, none is reviewed."""
    proxy = await front()
    assert (await proxy.get(Authorization="Bearer x"))[0] == 200
    assert not asked(cluster, TOKEN_REVIEWS)


async def test_reviews_need_an_encrypted_way(cluster, tmp_path):
    """Scrapers' tokens are not sent to an API server in plain text: exit 2 at the start."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": cluster.api.plain_url}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    flags = [f"--kubeconfig={tmp_path / 'kubeconfig'}", "--authorization=kubernetes"]
    flags += ["--listen=127.0.0.1:0", "--telemetry-listen=127.0.0.1:0"]
    daemon = Daemon(read_config(flags)[0], {})
    try:
        with pytest.raises(ConfigError, match="sent in plain text to the API server at http://"):
            await daemon.start()
    finally:
        await daemon.stop()


async def test_a_client_that_leaves(front, cluster, prometheus):
    """One that waits for a review and leaves spoils nothing for the next."""
    proxy = await front("--authorization=kubernetes")
    cluster.api.fail("review", ApiFault.HANG, times=1)
    leaving = asyncio.create_task(proxy.get("/metrics", Authorization=f"Bearer {prometheus}"))
    await until(lambda: _reaches(cluster, 1))
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    other = cluster.authority.issue(PROMETHEUS)
    assert (await proxy.get(Authorization=f"Bearer {other}"))[0] == 200


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
