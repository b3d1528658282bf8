"""The paths of HTTP service discovery: statuses, headers, queries and permissions."""

from __future__ import annotations

import json

import pytest

from kmproxy.discovery.handler import own_address
from tests.conftest import until
from tests.support.pods import flat
from tests.support.targets import answer, targets, teams

GET = b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n%b\r\n"


async def test_pods(front, cluster):
    """The kubelet's pods as targets, with the labels of their namespaces."""
    proxy = await front("--discovery")
    status, headers, body = await answer(proxy)
    assert status == 200
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert headers["Server"] == "kmproxy"
    found = flat(body)
    kubelet = cluster.kubelets["node-a"]
    assert {target["__meta_kubernetes_pod_name"] for target in found} == {
        pod.name for pod in kubelet.node.pods
    }
    assert {
        ("payments", "payments"),
        ("frontend-service1", "frontend"),
        ("default", None),
    } <= teams(found)
    (pay, *_) = (t for t in found if t["__meta_kubernetes_namespace"] == "payments")
    assert pay["__meta_kubernetes_namespace_label_owner_example_com_cost_center"] == "cc-42"
    assert pay["__meta_kubernetes_pod_annotation_prometheus_io_scrape"] == "true"
    assert pay["__meta_kubernetes_pod_controller_kind"] == "ReplicaSet"


async def test_off(front, cluster):
    """Without --discovery the paths are missing, and no kubelet is asked for pods."""
    proxy = await front("--all-nodes")
    for path in ("/sd/pods", "/sd/nodes", "/pods", "/sd/pods?node=node-a"):
        assert (await answer(proxy, path))[0] == 404
    assert "/sd/" not in (await proxy.get("/"))[1]
    assert not cluster.kubelets["node-a"].requests
    assert len(proxy.daemon._watcher._maps) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/sd",
        "/sd/",
        "/sd/pods/",
        "/sd//pods",
        "/sd/%70ods",
        "/sd/../pods",
        "/pods",
        "/sd/nodes/node-a",
        "/sd/configz",
        "/api/v1/nodes/node-a/proxy/pods",
        "http://elsewhere/sd/pods",
    ],
)
async def test_no_other_path(front, cluster, path):
    """Every other path is 404, or 400 if malformed, and no kubelet is asked."""
    proxy = await front("--discovery", "--all-nodes")
    head, _ = await proxy.raw(GET % (path.encode(), b"x", b""))
    assert head.startswith(b"HTTP/1.1 404 " if path.startswith("/") else b"HTTP/1.1 400 ")
    assert not [r for kubelet in cluster.kubelets.values() for r in kubelet.requests]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/sd/pods", "/sd/nodes"])
async def test_only_get_and_head(front, cluster, method, path):
    """Another method gets 405, and nothing is fetched."""
    proxy = await front("--discovery", "--all-nodes")
    status, headers, _ = await answer(proxy, path, method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert not cluster.kubelets["node-a"].requests


async def test_etag(front, cluster):
    """An unchanged document is not sent again, for GET and HEAD. A changed one is."""
    proxy = await front("--discovery", "--discovery-refresh-interval=1ms")
    _, headers, body = await answer(proxy)
    tag = headers["ETag"]
    for given in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        for method in ("GET", "HEAD"):
            status, again, empty = await answer(proxy, method=method, If_None_Match=given)
            assert (status, again["ETag"], empty) == (304, tag, b"")
    for given in ('"x"', tag.strip('"'), "", "garbage,,"):
        assert (await answer(proxy, If_None_Match=given))[::2] == (200, body)
    cluster.kubelets["node-a"].node = cluster.kubelets["node-b"].node

    async def changed():
        status, headers, other = await answer(proxy, If_None_Match=tag)
        return status == 200 and headers["ETag"] != tag and other != body

    await until(changed)


async def test_head(front):
    """HEAD has the status and the headers of GET, and no body."""
    proxy = await front("--discovery")
    _, expected, body = await answer(proxy)
    status, headers, empty = await answer(proxy, method="HEAD")
    assert (status, empty) == (200, b"")
    for name in ("Content-Type", "ETag", "Content-Length"):
        assert headers[name] == expected[name]
    assert int(headers["Content-Length"]) == len(body)


async def test_a_query_narrows(front):
    """Globs leave out namespaces within the flag's selection."""
    proxy = await front("--discovery", "--discovery-namespace=front*", "--discovery-namespace=pay*")
    spaces = {space for space, _ in teams(await targets(proxy))}
    assert spaces == {"frontend-service1", "frontend-service2", "payments"}
    assert teams(await targets(proxy, "/sd/pods?namespace=*2&namespace=default")) == {
        ("frontend-service2", "frontend")
    }
    assert await targets(proxy, "/sd/pods?namespace=") == []
    assert (await answer(proxy, "/sd/pods?namespace="))[2] == b"[]\n"


async def test_any_node(front, cluster):
    """With --all-nodes every node's pods are served by name. Without it no node has a path."""
    proxy = await front("--discovery", "--all-nodes")
    for name, kubelet in cluster.kubelets.items():
        found = await targets(proxy, f"/sd/pods?node={name}")
        assert {target["__meta_kubernetes_pod_node_name"] for target in found} == {name}
        assert len(kubelet.requests) == 1
    for node, status in (("node-c", 404), ("..%2Fx", 404), ("", 404), ("a&node=b", 400)):
        assert (await answer(proxy, f"/sd/pods?node={node}"))[0] == status
    only = await front("--discovery")
    status, _, body = await answer(only, "/sd/pods?node=node-b")
    assert status == 404
    assert b"--all-nodes" in body


async def test_through_the_node_proxy(front, cluster):
    """The API server forwards the request to the kubelet, with its own token."""
    proxy = await front(
        "--discovery", f"--kube-apiserver={cluster.api.url}", "--node-name-or-ip=node-b"
    )
    found = await targets(proxy)
    assert {target["__meta_kubernetes_pod_node_name"] for target in found} == {"node-b"}
    assert "/api/v1/nodes/node-b/proxy/pods" in {record.path for record in cluster.api.requests}
    cluster.api.deny("get", "nodes/proxy")
    denied = await front(
        "--discovery", f"--kube-apiserver={cluster.api.url}", "--node-name-or-ip=node-b"
    )
    status, _, body = await answer(denied)
    assert status == 502
    assert b"resources [nodes/proxy] and verbs [get]" in body


@pytest.mark.parametrize(
    ("version", "granted", "missing"),
    [
        ((1, 36), "nodes/pods", None),
        ((1, 36), "nodes/proxy", None),
        ((1, 33), "nodes/pods", None),
        ((1, 32), "nodes/pods", "[nodes/proxy] and verbs [get] (the kubelet is older than 1.33)"),
        ((1, 32), "nodes/proxy", None),
        ((1, 36), None, "[nodes/pods] and verbs [get]"),
    ],
)
async def test_permissions(front, cluster, version, granted, missing):
    """`nodes/pods` is enough for a kubelet that knows it. An older one needs `nodes/proxy`.

    The kubelet's answer tells which one is missing.
    """
    cluster.kubelets["node-a"].version = version
    for resource in {"nodes/pods", "nodes/proxy"} - {granted}:
        cluster.api.deny("get", resource)
    proxy = await front("--discovery")
    status, _, body = await answer(proxy)
    assert status == (502 if missing else 200)
    if missing:
        assert body.decode().endswith(f"{missing}\n")


async def test_nodes(front, cluster):
    """Each node is a target at the requested host, with a path of its own that is served."""
    cluster.api.store.put("nodes", cluster.api.store.objects["nodes"]["node-a"] | {
        "metadata": {"name": "node-a", "labels": {"zone": "z1"}, "annotations": {"a/b": "c"}},
    })  # fmt: skip
    proxy = await front("--discovery", "--all-nodes")
    status, headers, body = await answer(proxy, "/sd/nodes")
    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    first, second = flat(body)
    assert first == {
        "__address__": proxy.url.removeprefix("http://"),
        "__metrics_path__": "/api/v1/nodes/node-a/proxy/metrics/cadvisor",
        "__meta_kubernetes_node_name": "node-a",
        "__meta_kubernetes_node_label_zone": "z1",
        "__meta_kubernetes_node_labelpresent_zone": "true",
        "__meta_kubernetes_node_annotation_a_b": "c",
        "__meta_kubernetes_node_annotationpresent_a_b": "true",
        "instance": "node-a",
        "node": "node-a",
    }
    for target in (first, second):
        status, text = await proxy.get(target["__metrics_path__"])
        assert status == 200
        assert 'team="payments"' in text
    assert await proxy.metric("kmproxy_discovery_targets", role="node") == 2
    lists = [record for record in cluster.api.requests if record.path.startswith("/api/v1/nodes?")]
    assert len(lists) == 1
    assert "as=PartialObjectMetadataList" in lists[0].headers["Accept"]


async def test_nodes_at_another_endpoint(front):
    """A query selects which of the four endpoints the targets have."""
    proxy = await front("--discovery", "--all-nodes")
    found = await targets(proxy, "/sd/nodes?path=/metrics/resource")
    assert found[1]["__metrics_path__"] == "/api/v1/nodes/node-b/proxy/metrics/resource"
    for path in ("/exec", "/metrics/", "/pods", "/metrics&path=/metrics"):
        assert (await answer(proxy, f"/sd/nodes?path={path}"))[0] == 400


async def test_nodes_without_permission(front, cluster):
    """502 with the missing rule."""
    cluster.api.deny("list", "nodes")
    proxy = await front("--discovery", "--all-nodes")
    status, _, body = await answer(proxy, "/sd/nodes")
    assert status == 502
    assert b"resources [nodes] and verbs [list]" in body
    assert await proxy.metric(
        "kmproxy_upstream_errors_total", upstream="apiserver", reason="forbidden"
    ) == 1  # fmt: skip


@pytest.mark.parametrize(
    "host",
    ["kmproxy:8080", "kmproxy.kmproxy.svc", "10.0.0.1:80", "[fd00::1]:8080", "[fd00::1]", "A_b:1"],
)
async def test_the_host_that_is_told(front, host):
    """The targets have the host of the request."""
    proxy = await front("--discovery", "--all-nodes")
    raw, _ = await proxy.raw(GET % (b"/sd/nodes", host.encode(), b""))
    _, _, body = raw.partition(b"\r\n\r\n")
    assert {group["targets"][0] for group in json.loads(body)} == {host}


@pytest.mark.parametrize(
    "host",
    ["", "a b", 'a"b', "a/b", "http://a", "user@a", "a:b", "a:0", "a:1:2", "a?b", "a#b", "fd00::1",
     "[fd00::1", "a:99999", "a\\b", "é", "a,b", "a\nb", "<a>", "[::1]x", "[a]:", "a:", "[]:1", "a:1\n"],
)  # fmt: skip
def test_a_host_that_is_none(host):
    """A Host that is not HOST or HOST:PORT is not repeated."""
    assert own_address(host) is None


async def test_no_host(front):
    """A request without a Host is refused with a line that says so."""
    proxy = await front("--discovery", "--all-nodes")
    for request in (b"GET /sd/nodes HTTP/1.0\r\n\r\n", GET % (b"/sd/nodes", b"a/b", b"")):
        raw, _ = await proxy.raw(request)
        assert b" 400 Bad Request\r\n" in raw
        assert b"Host header" in raw


async def test_the_status_page_names_the_paths(front):
    """The status page shows the served paths."""
    proxy = await front("--discovery", "--all-nodes")
    _, page = await proxy.get("/")
    assert '<a href="/sd/pods">' in page
    assert '<a href="/sd/nodes">' in page
    only = await front("--discovery")
    assert "/sd/nodes" not in (await only.get("/"))[1]
