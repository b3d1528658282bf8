"""Requests for samples: the paths, methods and queries that are served, and the answers."""

from __future__ import annotations

import re

import pytest

from kmproxy.simulator.kubelet import Fault
from kmproxy.sources.endpoints import ENDPOINTS
from kmproxy.web.responses import scrape_budget

GET = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b\r\n"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("10", 9.5),
        ("10.000000", 9.5),
        ("60", 59.5),
        ("1", 0.9),
        ("0.5", 0.45),
        (None, 10.0),
        ("", 10.0),
        ("soon", 10.0),
        ("0", 10.0),
        ("-1", 10.0),
        ("inf", 10.0),
        ("nan", 10.0),
    ],
)
def test_scrape_budget(header, seconds):
    """The scrape time is the header's seconds less a margin, or ten if the header is not usable."""
    assert scrape_budget(header) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "path", ["/metrics/cadvisor", "/metrics", "/metrics/resource", "/metrics/probes"]
)
async def test_every_endpoint(front, cluster, path):
    """Each of the four endpoints is served, with the kubelet's own Content-Type."""
    proxy = await front()
    async with proxy.session.get(proxy.url + path) as response:
        text = await response.text()
        assert response.status == 200
        assert response.headers["Content-Type"] == (
            "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
        )
        assert response.headers["Vary"] == "Accept-Encoding"
        assert response.headers["Server"] == "kmproxy"
    assert 'namespace="frontend-service1",team="frontend"' in text
    assert [record.path for record in cluster.kubelets["node-a"].requests] == [path]


@pytest.mark.parametrize(
    "path",
    [
        "/metrics/cadvisor/",
        "/metrics/probes/x",
        "/metric",
        "/pods",
        "/exec/default/pod/container",
        "/run/default/pod/container",
        "/logs/",
        "/stats/summary",
        "/configz",
        "/healthz",
        "//metrics",
        "/metrics/%63advisor",
        "/metrics/../pods",
        "/metrics/cadvisor%2f..%2f..%2fpods",
        "/api/v1/nodes/node-a/proxy/pods",
        "/api/v1/nodes/node-a/proxy/metrics/../pods",
        "/api/v1/nodes/node-a/proxy/metrics/",
        "/api/v1/nodes/node-a/metrics",
        "/api/v1/namespaces",
    ],
)
async def test_no_other_path(front, cluster, path):
    """Every other path, as it was sent, gets 404, and no kubelet is asked."""
    proxy = await front("--all-nodes")
    answer, _ = await proxy.raw(GET % (path.encode(), b""))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert not [r for kubelet in cluster.kubelets.values() for r in kubelet.requests]


async def test_node_paths_need_all_nodes(front):
    """Without --all-nodes no path names a node."""
    proxy = await front()
    status, _ = await proxy.get("/api/v1/nodes/node-a/proxy/metrics/cadvisor")
    assert status == 404


async def test_a_query_is_not_passed_on(front, cluster):
    """Neither a query nor a header of the client reaches the kubelet."""
    proxy = await front()
    status, _ = await proxy.get(
        "/metrics?metric=*", Authorization="Bearer mine", X_Secret="s", Cookie="c=d"
    )
    assert status == 200
    (record,) = cluster.kubelets["node-a"].requests
    assert record.path == "/metrics"
    assert record.headers["Authorization"] == f"Bearer {cluster.token}"
    assert record.headers["Accept"] == "text/plain;version=0.0.4"
    assert not {"X-Secret", "Cookie"} & set(record.headers)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/metrics", "/"])
async def test_only_get_and_head(front, cluster, method, path):
    """Every other method gets 405, which names GET and HEAD."""
    proxy = await front()
    async with proxy.session.request(method, proxy.url + path) as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET, HEAD"
    assert not cluster.kubelets["node-a"].requests


async def test_head(front, cluster):
    """HEAD has the status and headers of GET, and no body. The kubelet gets GET."""
    proxy = await front()
    answer, _ = await proxy.raw(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"Content-Type: text/plain; version=0.0.4" in head
    assert body == b""
    assert cluster.kubelets["node-a"].requests[0].method == "GET"
    cluster.kubelets["node-a"].fail(Fault.STATUS)
    answer, _ = await proxy.raw(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/", "q, owner, by, missing, sort, page, node"),
        *[
            (path, "namespace, metric, cluster-samples")
            for path in ("/metrics", "/metrics/cadvisor")
        ],
        ("/api/v1/nodes/node-a/proxy/metrics", "namespace, metric, cluster-samples"),
        ("/sd/pods", "node, namespace"),
        ("/sd/nodes", "path"),
    ],
)
async def test_a_query_key_that_no_rule_knows(front, cluster, path, known):
    """An unknown query key gets 400 with the known keys, on every path. Nothing is fetched."""
    proxy = await front("--all-nodes", "--discovery")
    status, text = await proxy.get(path + "?namespce=payments")
    assert (status, text.count("\n")) == (400, 1)
    assert "'namespce'" in text
    assert known in text
    assert not cluster.kubelets["node-a"].requests
    assert (await proxy.get(path))[0] == 200


async def test_a_query_of_too_many_globs(front, cluster):
    """Too many globs get 400 with a line that names the bound, on paths of targets, too."""
    proxy = await front("--all-nodes", "--discovery")
    for path in ("/metrics", "/sd/pods"):
        for query in ("&".join(["namespace=a"] * 65), "namespace=" + "*" * 257):
            status, text = await proxy.get(f"{path}?{query}")
            assert status == 400
            assert "at most 64" in text or "over 256 characters" in text
    assert not cluster.kubelets["node-a"].requests


async def test_an_empty_exposition(front, cluster):
    """An empty body with 200 is a complete exposition without samples."""
    cluster.kubelets["node-a"].fail(Fault.BODY, body=b"", content_type="text/plain; version=0.0.4")
    proxy = await front()
    assert await proxy.get() == (200, "")


async def test_a_request_narrows(front):
    """A query selects samples within the flags' selection, and dropped samples are counted."""
    proxy = await front("--drop-metric=container_memory_.*", "--exclude-namespace=payments")
    _, text = await proxy.get(
        "/metrics/cadvisor?namespace=pay*&namespace=front*1&cluster-samples=drop"
    )
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines
    assert all('namespace="frontend-service1",team="frontend"' in line for line in lines)
    assert "container_memory" not in text
    _, text = await proxy.get("/metrics/cadvisor?metric=container_cpu_*&namespace=")
    assert {line.split("{")[0] for line in text.splitlines() if line[:1] != "#"} >= {
        "container_cpu_usage_seconds_total"
    }
    assert 'namespace="frontend' not in text
    for by in ("metric", "namespace"):
        assert await proxy.metric("kmproxy_samples_dropped_total", by=by) > 0


async def test_the_info_metric(front):
    """With --info-metric the answer ends with a series for each of its namespaces."""
    proxy = await front("--info-metric")
    _, text = await proxy.get("/metrics/probes")
    assert (
        'kube_namespace_labels{namespace="payments",label_team="payments",instance="",node="",pod=""} 1\n'
        in text
    )


CENTRAL = ("--all-nodes", "--node-name-or-ip=localhost", "--discovery")
"""As in a Deployment: every node by name, and no node of its own."""


async def test_without_a_node_of_its_own(front):
    """Without an own node, its paths get 404 with a hint, and have no links."""
    proxy = await front(*CENTRAL)
    for path in ENDPOINTS:
        status, line = await proxy.get(path)
        assert status == 404
        assert "--node-name-or-ip" in line
        assert "/api/v1/nodes/" in line
    assert await proxy.metric("kmproxy_upstream_errors_total") == 0
    status, line = await proxy.get("/sd/pods")
    assert (status, "/sd/pods?node=" in line) == (404, True)
    _, page = await proxy.get("/")
    assert not re.findall(r'href="(/metrics[^"]*|/sd/pods)"', page)
    assert "/sd/pods?node={node}" in page
    assert "localhost" not in page.partition('id="settings"')[0]
    for path in ("/api/v1/nodes/node-b/proxy/metrics/cadvisor", "/sd/pods?node=node-b"):
        assert (await proxy.get(path))[0] == 200


async def test_a_node_of_its_own_beside_every_node(front):
    """With --node-name-or-ip the short paths are served beside --all-nodes."""
    proxy = await front("--all-nodes", "--discovery")
    for path in (*ENDPOINTS, "/sd/pods"):
        assert (await proxy.get(path))[0] == 200
    assert 'href="/metrics/cadvisor"' in (await proxy.get("/"))[1]
