"""Who may scrape an upstream: its path is reviewed, and tenants see their own samples."""

from __future__ import annotations

import pytest

from kmproxy.auth.authorizer import DENIALS
from kmproxy.check.everybody import questions
from kmproxy.cli.read import read_config
from kmproxy.kube.reviews import ACCESS_REVIEWS
from tests.support.callers import Clock, asked
from tests.support.exporters import Exporter, answer, config_file
from tests.support.rbac import binding, role
from tests.support.tenants import bearer, grant

KSM = "/upstreams/ksm/metrics"
TEXT = (
    b"# TYPE a gauge\n"
    b'a{namespace="payments"} 1\n'
    b'a{namespace="frontend-service2"} 1\n'
    b'node{node="a"} 1\n'
)


@pytest.fixture
async def exporter():
    """An exporter with samples of two namespaces, and one of none."""
    async with Exporter(answer(TEXT)) as running:
        yield running


@pytest.fixture
async def start(front, exporter, tmp_path):
    """A function that starts a daemon in a mode of authorization."""

    async def start(mode, *flags, entry=None, **passed):
        entry = {"name": "ksm", "url": exporter.url} | (entry or {})
        flags = [config_file(tmp_path, entry), f"--authorization={mode}", *flags]
        return await front(*flags, **passed)

    return start


def allow(cluster, *paths, user="ann"):
    """Let a user get paths."""
    rule = {"nonResourceURLs": list(paths), "verbs": ["get"]}
    cluster.authority.rbac.apply(
        role("paths", rule), binding("ClusterRole", "paths", {"kind": "User", "name": user})
    )


async def test_the_path_is_reviewed(start, cluster, exporter):
    """403 without a right to it, also with one to another path; nothing is fetched."""
    proxy = await start("kubernetes")
    assert (await proxy.get(KSM))[0] == 401
    allow(cluster, "/metrics", "/upstreams/other/metrics")
    assert await proxy.get(KSM, **bearer(cluster)) == (403, f"user 'ann' may not get {KSM}\n")
    assert exporter.heads == []
    allow(cluster, "/upstreams/*", user="bob")
    assert (await proxy.get(KSM, **bearer(cluster, "bob")))[0] == 200


async def test_the_resource_is_reviewed(start, cluster):
    """With --authorization-attributes=nodes/metrics it is that everywhere."""
    rule = {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}
    cluster.authority.rbac.apply(
        role("nodes", rule), binding("ClusterRole", "nodes", {"kind": "User", "name": "ann"})
    )
    proxy = await start("kubernetes", "--authorization-attributes=nodes/metrics")
    assert (await proxy.get(KSM, **bearer(cluster)))[0] == 200
    assert (await proxy.get("/upstreams/other/metrics", **bearer(cluster)))[0] == 404
    assert (await proxy.get(KSM, **bearer(cluster, "bob")))[0] == 403


async def test_authorization_comes_before_existence(start, cluster):
    """A name of no upstream is 403 as one of an upstream, in the same words, and else 404."""
    proxy = await start("kubernetes")
    status, text = await proxy.get(KSM, **bearer(cluster))
    other = await proxy.get("/upstreams/other/metrics", **bearer(cluster))
    assert other == (403, text.replace("ksm", "other"))
    assert status == 403
    allow(cluster, "/upstreams/*", user="bob")
    for query in ("", "?x=y"):
        path = "/upstreams/other/metrics" + query
        assert (await proxy.get(path, **bearer(cluster, "bob")))[0] == 404


async def test_names_without_end(start, cluster):
    """A caller cannot make the API server review any number of names."""
    proxy = await start("kubernetes", clock=Clock())
    for number in range(DENIALS + 20):
        path = f"/upstreams/n{number}/metrics"
        assert (await proxy.get(path, **bearer(cluster)))[0] == 403
    assert asked(cluster, ACCESS_REVIEWS) <= DENIALS + 5
    assert (await proxy.get(KSM, **bearer(cluster)))[0] == 403
    allow(cluster, "/upstreams/*", user="bob")
    assert (await proxy.get(KSM, **bearer(cluster, "bob")))[0] == 200  # others are not affected


async def test_a_tenant_sees_its_samples(start, cluster):
    """And no sample without a namespace; who sees everything gets all of it."""
    proxy = await start("tenant")
    grant(cluster, "payments")
    _, text = await proxy.get(KSM, **bearer(cluster))
    assert text == '# TYPE a gauge\na{namespace="payments",team="payments"} 1\n'
    assert (await proxy.get(KSM, **bearer(cluster, "bob")))[0] == 403
    assert (await proxy.get("/upstreams/other/metrics", **bearer(cluster)))[0] == 404
    assert (await proxy.get("/upstreams/other/metrics", **bearer(cluster, "bob")))[0] == 403
    grant(cluster, user="cleo")
    _, text = await proxy.get(KSM, **bearer(cluster, "cleo"))
    assert text.count("\n") == TEXT.count(b"\n")


async def test_a_tenant_by_other_labels(start, cluster, exporter):
    """Whose a sample is is told by the labels that name its namespace."""
    exporter.say = answer(
        b'a{namespace="payments",exported_namespace="frontend-service2"} 1\n'
        b'b{namespace="frontend-service2",exported_namespace="payments"} 1\n'
        b'c{namespace="payments",exported_namespace=""} 1\n'
    )
    proxy = await start("tenant", entry={"namespace-labels": ["exported_namespace", "namespace"]})
    grant(cluster, "payments")
    _, text = await proxy.get(KSM, **bearer(cluster))
    assert [line[0] for line in text.splitlines()] == ["b", "c"]


async def test_a_tenant_of_a_mesh(start, cluster, exporter):
    """A sample of several namespaces is seen by who sees all of them."""
    exporter.say = answer(
        b'a{source_ns="payments",destination_ns="payments"} 1\n'
        b'b{source_ns="payments",destination_ns="frontend-service2"} 1\n'
        b'c{source_ns="",destination_ns="payments"} 1\n'
        b'd{namespace="payments"} 1\n'
    )
    labels = {"source_ns": "source_", "destination_ns": "destination_"}
    proxy = await start("tenant", entry={"namespace-labels": labels})
    grant(cluster, "payments")
    _, text = await proxy.get(KSM, **bearer(cluster))
    assert [line[0] for line in text.splitlines()] == ["a", "c"]


async def test_a_tenant_finds_the_upstreams(start, cluster):
    """The list holds no data of a namespace; a caller without any right gets none."""
    proxy = await start("tenant")
    grant(cluster, "payments")
    assert (await proxy.get("/sd/upstreams", **bearer(cluster)))[0] == 200
    assert (await proxy.get("/sd/upstreams", **bearer(cluster, "bob")))[0] == 403
    assert (await proxy.get("/sd/upstreams"))[0] == 401


def test_check_asks_about_the_paths(tmp_path):
    """Roles that grant them to everybody are found."""
    flag = config_file(tmp_path, {"name": "ksm", "url": "http://ksm/"})
    config, _ = read_config([flag, "--authorization=kubernetes"])
    paths = {question.path for question in questions(config)}
    assert {KSM, "/sd/upstreams"} <= paths
    config, _ = read_config(["--authorization=kubernetes"])
    assert not [each for each in questions(config) if "upstreams" in each.path]
