"""`/metrics/namespaces` on real sockets: statuses, headers, and the namespaces per caller."""

from __future__ import annotations

import asyncio
import re

import pytest
from aiohttp import hdrs

from kmproxy.simulator.answers import ApiFault
from tests.conftest import until
from tests.support.rbac import binding, role
from tests.support.targets import answer
from tests.support.tenants import bearer, grant

PATH = "/metrics/namespaces"
CENTRAL = ("--all-nodes", "--info-metric")
LONG = {f"long-{number}": "y" * 60 for number in range(100)}
"""Labels of a namespace: 500 times as many do not fit into the buffers of a connection."""


def listed(text):
    """The samples with the labels of namespaces, by namespace."""
    return dict(
        re.findall(r'^kube_namespace_labels\{namespace="([^"]+)"(.*)\} 1$', text, re.MULTILINE)
    )


async def test_every_namespace(front, cluster):
    """One series per namespace, also without pods. No kubelet is asked."""
    cluster.api.namespaces.apply("payments", {"team": "payments", "myTeam": "x"})
    proxy = await front(*CENTRAL, "--label=team=squad", "--label=myTeam")
    status, headers, body = await answer(proxy, PATH, accept_encoding="identity")
    assert status == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert headers["Vary"] == "Accept-Encoding"
    assert headers["Server"] == "kmproxy"
    found = listed(body.decode())
    assert found.keys() == set(cluster.api.namespaces)
    assert found["payments"] == ',label_my_team="x",label_team="payments"'
    assert found["default"] == ""
    assert body.startswith(b"# HELP kube_namespace_labels [STABLE] Kubernetes labels converted")
    assert not any(kubelet.requests for kubelet in cluster.kubelets.values())
    assert await proxy.metric("kmproxy_scrapes_total", path=PATH, code="200") == 1


async def test_the_nodes_answers_do_not_have_it(front):
    """With a path of its own, the info metric is not in other answers."""
    proxy = await front(*CENTRAL)
    for path in ("/metrics/cadvisor", "/api/v1/nodes/node-b/proxy/metrics/cadvisor"):
        status, text = await proxy.get(path)
        assert status == 200
        assert "kube_namespace_labels" not in text


@pytest.mark.parametrize("flags", [(), ("--info-metric",), ("--all-nodes",)])
async def test_where_it_is_not_served(front, flags):
    """The path is not served per node: each pod of a DaemonSet would serve every namespace."""
    proxy = await front(*flags)
    assert (await proxy.get(PATH))[0] == 404
    assert PATH not in (await proxy.get("/"))[1]


async def test_head_gzip_and_the_status_page(front):
    """HEAD has the same head, gzip is negotiated, and the status page links the path."""
    proxy = await front(*CENTRAL)
    status, headers, body = await answer(proxy, PATH, "HEAD", accept_encoding="identity")
    _, _, whole = await answer(proxy, PATH, accept_encoding="identity")
    assert (status, body) == (200, b"")
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert whole.endswith(b"} 1\n")
    async with proxy.session.get(
        proxy.url + PATH, headers={hdrs.ACCEPT_ENCODING: "gzip"}
    ) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert await response.read() == whole  # the client has unpacked it
    assert (await answer(proxy, PATH, "POST"))[0] == 405
    assert f'href="{PATH}"' in (await proxy.get("/"))[1]


@pytest.mark.parametrize("query", ["namespce=a", "metric=a", "cluster-samples=drop", "node=a"])
async def test_unknown_query_keys(front, query):
    """An unknown query key is refused. The line names it and the known key."""
    proxy = await front(*CENTRAL)
    status, line = await proxy.get(f"{PATH}?{query}")
    assert status == 400
    assert "the known keys are namespace" in line


async def test_what_is_selected(front):
    """Flags select the namespaces, and a query selects among those."""
    flags = ("--namespace=front*", "--namespace=payments", "--exclude-namespace=*2")
    proxy = await front(*CENTRAL, *flags)
    assert listed((await proxy.get(PATH))[1]).keys() == {"frontend-service1", "payments"}
    query = "namespace=pay*&namespace=default"
    assert listed((await proxy.get(f"{PATH}?{query}"))[1]).keys() == {"payments"}
    assert listed((await proxy.get(f"{PATH}?namespace="))[1]) == {}


async def test_before_the_namespaces_are_loaded(front, cluster):
    """503, as for samples: a series never appears without its labels first."""
    cluster.api.fail("list", ApiFault.STATUS, status=500)
    proxy = await front(*CENTRAL, loaded=False)
    status, line = await proxy.get(PATH)
    assert (status, "not loaded yet" in line) == (503, True)
    cluster.api.recover()

    async def served():
        return (await proxy.get(PATH))[0] == 200

    await until(served)


async def test_labels_of_a_snapshot_are_not_enough(front, cluster, tmp_path):
    """A snapshot has no label keys: 503 until the list. Samples are served meanwhile."""
    flags = (*CENTRAL, f"--label-snapshot={tmp_path / 'labels.json'}")
    first = await front(*flags)
    await first.daemon.stop()
    cluster.api.fail("list", ApiFault.STATUS, status=500)
    proxy = await front(*flags)
    assert (await proxy.get("/metrics/cadvisor"))[0] == 200
    status, line = await proxy.get(PATH)
    assert (status, line) == (503, "namespaces are not listed yet\n")
    cluster.api.recover()

    async def served():
        return (await proxy.get(PATH))[0] == 200

    await until(served)


async def test_changes_are_followed(front, cluster):
    """A changed label and a deleted namespace show in the next scrape."""
    proxy = await front(*CENTRAL)
    cluster.api.namespaces.apply("payments", {"team": "moved"})

    async def moved():
        return listed((await proxy.get(PATH))[1])["payments"] == ',label_team="moved"'

    await until(moved)
    cluster.api.namespaces.delete("payments")

    async def gone():
        return "payments" not in listed((await proxy.get(PATH))[1])

    await until(gone)


async def test_the_path_is_reviewed(front, cluster):
    """The path needs the right to get it, as other paths do."""
    rule = {"nonResourceURLs": [PATH], "verbs": ["get"]}
    cluster.authority.rbac.apply(
        role("r", rule), binding("ClusterRole", "r", {"kind": "User", "name": "ann"})
    )
    proxy = await front(*CENTRAL, "--authorization=kubernetes")
    assert (await proxy.get(PATH))[0] == 401
    assert (await proxy.get(PATH, **bearer(cluster, "eve")))[0] == 403
    status, text = await proxy.get(PATH, **bearer(cluster, "ann"))
    assert (status, listed(text).keys()) == (200, set(cluster.api.namespaces))


async def test_a_tenant_sees_its_own(front, cluster):
    """A tenant gets its own namespaces only, after the same reviews for any query."""
    grant(cluster, "payments", "monitoring")
    proxy = await front(*CENTRAL, "--authorization=tenant")
    _, text = await proxy.get(PATH, **bearer(cluster))
    assert listed(text).keys() == {"payments", "monitoring"}
    _, text = await proxy.get(f"{PATH}?namespace=p*", **bearer(cluster))
    assert listed(text).keys() == {"payments"}
    _, text = await proxy.get(f"{PATH}?namespace=frontend*", **bearer(cluster))
    assert listed(text) == {}
    assert (await proxy.get(PATH, **bearer(cluster, "eve")))[0] == 403


async def test_a_client_that_does_not_read(front, cluster):
    """The scrape time ends its answer with a reset: no client holds a connection for ever."""
    for number in range(500):
        cluster.api.namespaces.apply(f"large-{number}", {"team": "x" * 60, **LONG})
    proxy = await front(*CENTRAL, "--label=*")
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.daemon.metrics_port, limit=1)
    writer.write(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n".encode())
    writer.write(b"X-Prometheus-Scrape-Timeout-Seconds: 1\r\n\r\n")
    await reader.readexactly(1)
    await until(lambda: proxy.metric("kmproxy_scrapes_total", path=PATH, code="broken"))
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
