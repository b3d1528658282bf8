"""Prometheus' HTTP service discovery on real sockets: statuses, headers, and what is asked."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from kmproxy.discovery.handler import own_address
from kmproxy.simulator.api import ApiFault
from kmproxy.simulator.kubelet import Fault
from tests.conftest import until
from tests.support.pods import flat
from tests.support.rbac import binding, role
from tests.support.targets import answer
from tests.support.tenants import bearer

GET = b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n%b\r\n"


async def targets(proxy, path="/sd/pods"):
    """The targets that are found at a path."""
    status, _, body = await answer(proxy, path)
    assert status == 200, body
    return flat(body)


def teams(found):
    """The team of each namespace's targets."""
    return {(t["__meta_kubernetes_namespace"], t.get("team")) for t in found}


async def test_pods(front, cluster):
    """The kubelet's pods as targets, with what their namespaces are labelled."""
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
    """Without --discovery there are no such paths, and no kubelet is ever asked for its pods."""
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
    """Anything else stays 404, or 400 if it is no path, and nothing of it reaches a kubelet."""
    proxy = await front("--discovery", "--all-nodes")
    head, _ = await proxy.raw(GET % (path.encode(), b"x", b""))
    assert head.startswith(b"HTTP/1.1 404 " if path.startswith("/") else b"HTTP/1.1 400 ")
    assert not [r for kubelet in cluster.kubelets.values() for r in kubelet.requests]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/sd/pods", "/sd/nodes"])
async def test_only_get_and_head(front, cluster, method, path):
    """Another method is 405 and asks nobody."""
    proxy = await front("--discovery", "--all-nodes")
    status, headers, _ = await answer(proxy, path, method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert not cluster.kubelets["node-a"].requests


async def test_nothing_of_the_request_is_passed_on(front, cluster):
    """The kubelet is asked for its pods by us: JSON, no coding, our token, no query."""
    proxy = await front("--discovery")
    await answer(
        proxy,
        "/sd/pods?namespace=payments*/../exec%26limit%3d1",
        Authorization="Bearer mine",
        Accept="text/html",
        Accept_Encoding="gzip",
        Cookie="c=d",
        X_Secret="s",
    )
    (record,) = cluster.kubelets["node-a"].requests
    assert (record.method, record.path) == ("GET", "/pods")
    assert record.headers["Authorization"] == f"Bearer {cluster.token}"
    assert record.headers["Accept"] == "application/json"
    assert record.headers["Accept-Encoding"] == "identity"
    assert not {"Cookie", "X-Secret"} & set(record.headers)


async def test_the_pod_objects_are_not_passed_on(front, cluster):
    """What an object holds besides the documented labels, such as secrets in `env`, stays here."""
    kubelet = cluster.kubelets["node-a"]
    given = {
        "metadata": {"name": "p", "namespace": "payments", "managedFields": ["planted"]},
        "spec": {
            "containers": [{"name": "c", "env": [{"name": "PASSWORD", "value": "planted"}]}],
            "volumes": [{"secret": {"secretName": "planted"}}],
        },
        "status": {"podIP": "10.0.0.1", "message": "planted"},
    }
    kubelet.pods = [given]
    proxy = await front("--discovery")
    _, _, body = await answer(proxy)
    assert len(flat(body)) == 1
    assert b"planted" not in body


async def test_one_fetch_for_many(front, cluster):
    """Twenty at once, and whoever comes within the interval, cost the kubelet one list."""
    proxy = await front("--discovery")
    answers = await asyncio.gather(*(answer(proxy) for _ in range(20)))
    assert len({body for _, _, body in answers}) == 1
    await targets(proxy)
    assert [r.path for r in cluster.kubelets["node-a"].requests] == ["/pods"]
    assert await proxy.metric("kmproxy_discovery_requests_total", path="/sd/pods", code="200") == 21
    assert await proxy.metric("kmproxy_discovery_fetches_total", role="pod", result="ok") == 1


async def test_a_namespace_that_moves(front, cluster):
    """Its targets say so at once, though the pods are those of a moment ago."""
    proxy = await front("--discovery", "--discovery-refresh-interval=1h", "--discovery-max-age=1h")
    assert ("payments", "payments") in teams(await targets(proxy))
    cluster.api.namespaces.apply("payments", {"team": "treasury"})

    async def moved():
        return ("payments", "treasury") in teams(await targets(proxy))

    await until(moved)
    assert len(cluster.kubelets["node-a"].requests) == 1
    cluster.api.namespaces.delete("payments")

    async def gone():
        return await proxy.metric("kmproxy_namespaces") == 6

    await until(gone)
    assert ("payments", "treasury") in teams(await targets(proxy))


async def test_etag(front, cluster):
    """What a client has is not sent again, by GET or HEAD; what has changed is."""
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


async def test_before_the_namespaces_are_listed(front, cluster):
    """503: a target never appears first without and then with its team."""
    cluster.api.fail("list", ApiFault.STATUS, status=500)
    proxy = await front("--discovery", "--all-nodes", loaded=False)
    for path in ("/sd/pods", "/sd/nodes"):
        status, _, body = await answer(proxy, path)
        assert status == 503
        assert b"namespaces are not loaded yet" in body
    assert not cluster.kubelets["node-a"].requests
    cluster.api.recover()

    async def served():
        return (await answer(proxy))[0] == 200

    await until(served)
    assert ("payments", "payments") in teams(await targets(proxy))


async def test_a_snapshot_is_no_list(front, cluster, tmp_path):
    """Labels from a snapshot serve samples, not targets, which need all of a namespace."""
    flags = ("--discovery", f"--label-snapshot={tmp_path / 'labels'}")
    first = await front(*flags)
    await first.daemon.stop()
    cluster.api.fail("list namespaces", ApiFault.STATUS, status=500)
    proxy = await front(*flags)
    assert 'team="payments"' in (await proxy.get())[1]
    status, _, body = await answer(proxy)
    assert (status, body) == (503, b"namespaces are not listed yet\n")


FAILURES = [
    ({"fault": Fault.STATUS, "status": 401}, "unauthorized", "credentials"),
    ({"fault": Fault.STATUS, "status": 403}, "forbidden", "resources [nodes/pods] and verbs [get]"),
    ({"fault": Fault.STATUS, "status": 406}, "status", "406"),
    ({"fault": Fault.STATUS, "status": 500, "body": b"secret text"}, "status", "500"),
    ({"fault": Fault.REDIRECT, "location": "http://127.0.0.1:1/"}, "redirect", "redirect"),
    ({"fault": Fault.HTML}, "content_type", "text/html"),
    ({"fault": Fault.NO_CONTENT_TYPE}, "content_type", "no Content-Type"),
    ({"fault": Fault.NO_FRAMING}, "framing", "neither Content-Length nor chunks"),
    ({"fault": Fault.DISCONNECT}, "disconnected", "closed the connection"),
    ({"fault": Fault.CUT_CHUNKED}, "truncated", "cut short"),
    ({"fault": Fault.CUT_CONTENT_LENGTH}, "truncated", "cut short"),
    (
        {"fault": Fault.BODY, "body": b'{"items":[{}]}', "content_type": "application/json"},
        "garbage",
        "list of pods",
    ),
    ({"fault": Fault.BODY, "body": b"", "content_type": "application/json"}, "garbage", "list"),
]


@pytest.mark.parametrize(("failure", "reason", "says"), FAILURES)
async def test_a_kubelet_that_fails(front, cluster, failure, reason, says):
    """502 and one plain line, never half a list; nothing of the upstream's body; a count."""
    proxy = await front("--discovery", "--discovery-refresh-interval=1ms")
    cluster.kubelets["node-a"].fail(**failure)
    status, headers, body = await answer(proxy)
    text = body.decode()
    assert (status, headers["Content-Type"]) == (502, "text/plain; charset=utf-8")
    assert says in text
    assert text.count("\n") == 1
    assert "secret" not in text
    assert cluster.token not in text
    assert (
        await proxy.metric("kmproxy_upstream_errors_total", upstream="kubelet", reason=reason) >= 1
    )
    assert await proxy.metric("kmproxy_discovery_requests_total", path="/sd/pods", code="502") == 1
    assert await proxy.metric("kmproxy_discovery_fetches_total", role="pod", result="failed") == 1
    cluster.kubelets["node-a"].recover()
    assert (await answer(proxy))[0] == 200


async def test_the_last_good_list_stands_in(front, cluster):
    """While the kubelet fails it is served, and its age shows."""
    proxy = await front("--discovery", "--discovery-refresh-interval=1ms")
    _, _, body = await answer(proxy)
    cluster.kubelets["node-a"].fail(Fault.STATUS, status=500)

    async def failed():
        assert (await answer(proxy))[::2] == (200, body)
        return await proxy.metric("kmproxy_discovery_fetches_total", role="pod", result="failed")

    await until(failed)
    assert await proxy.metric("kmproxy_discovery_age_seconds", role="pod") > 0


async def test_a_list_that_is_too_old(front, cluster):
    """Past --discovery-max-age it is the error that is served."""
    proxy = await front(
        "--discovery", "--discovery-refresh-interval=1ms", "--discovery-max-age=1ms"
    )
    assert (await answer(proxy))[0] == 200
    cluster.kubelets["node-a"].fail(Fault.STATUS, status=500)

    async def refused():
        return (await answer(proxy))[0] == 502

    await until(refused)


async def test_a_kubelet_that_hangs(front, cluster):
    """504 in the time that Prometheus waits for an answer: its refresh interval."""
    proxy = await front("--discovery")
    cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS)
    status, _, body = await answer(proxy, X_Prometheus_Refresh_Interval_Seconds="0.2")
    assert (status, body) == (504, b"no list within 0.18 s\n")


async def test_a_query_narrows(front):
    """Globs leave out namespaces; the flag holds besides."""
    proxy = await front("--discovery", "--discovery-namespace=front*", "--discovery-namespace=pay*")
    spaces = {space for space, _ in teams(await targets(proxy))}
    assert spaces == {"frontend-service1", "frontend-service2", "payments"}
    assert teams(await targets(proxy, "/sd/pods?namespace=*2&namespace=default")) == {
        ("frontend-service2", "frontend")
    }
    assert await targets(proxy, "/sd/pods?namespace=") == []
    assert (await answer(proxy, "/sd/pods?namespace="))[2] == b"[]\n"


async def test_any_node(front, cluster):
    """With --all-nodes the pods of each node, by its name; without it there are no names."""
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
    """The runner's other way: the API server asks the kubelet, with the API server's token."""
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
        ((1, 32), "nodes/pods", "[nodes/proxy] and verbs [get] (it is older than 1.33)"),
        ((1, 32), "nodes/proxy", None),
        ((1, 36), None, "[nodes/pods] and verbs [get]"),
    ],
)
async def test_permissions(front, cluster, version, granted, missing):
    """`nodes/pods` is enough where the kubelet knows it, an older one wants `nodes/proxy`.

    Which it is that is missing the kubelet itself says.
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
    """Each node is a target at the address the asker used, at its own path, which is served."""
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
    """A query chooses which of the four endpoints the targets are."""
    proxy = await front("--discovery", "--all-nodes")
    found = await targets(proxy, "/sd/nodes?path=/metrics/resource")
    assert found[1]["__metrics_path__"] == "/api/v1/nodes/node-b/proxy/metrics/resource"
    for path in ("/exec", "/metrics/", "/pods", "/metrics&path=/metrics"):
        assert (await answer(proxy, f"/sd/nodes?path={path}"))[0] == 400


async def test_nodes_without_permission(front, cluster):
    """502 with the rule that is missing."""
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
    """The address of the targets is what the asker called us."""
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
    """What is no HOST or HOST:PORT is not repeated."""
    assert own_address(host) is None


async def test_no_host(front):
    """Who does not say how it reached us is told to."""
    proxy = await front("--discovery", "--all-nodes")
    for request in (b"GET /sd/nodes HTTP/1.0\r\n\r\n", GET % (b"/sd/nodes", b"a/b", b"")):
        raw, _ = await proxy.raw(request)
        assert b" 400 Bad Request\r\n" in raw
        assert b"Host header" in raw


async def test_the_status_page_names_the_paths(front):
    """What is served is shown."""
    proxy = await front("--discovery", "--all-nodes")
    _, page = await proxy.get("/")
    assert '<a href="/sd/pods">' in page
    assert '<a href="/sd/nodes">' in page
    only = await front("--discovery")
    assert "/sd/nodes" not in (await only.get("/"))[1]


async def test_behind_the_door(front, cluster):
    """With --authorization nothing is told, and no kubelet asked, before it is known who asks."""
    cluster.authority.rbac.apply(
        role("targets", {"nonResourceURLs": ["/sd/*"], "verbs": ["get"]}),
        binding("ClusterRole", "targets", {"kind": "User", "name": "ann"}),
    )
    proxy = await front("--discovery", "--all-nodes", "--authorization=kubernetes")
    for path in ("/sd/pods", "/sd/nodes", "/sd/pods?node=node-b"):
        assert (await answer(proxy, path))[0] == 401
        assert (await answer(proxy, path, **bearer(cluster, "bob")))[0] == 403
    assert not [each for kubelet in cluster.kubelets.values() for each in kubelet.requests]
    for path in ("/sd/pods", "/sd/nodes", "/sd/pods?node=node-b"):
        assert (await answer(proxy, path, **bearer(cluster, "ann")))[0] == 200


async def test_stop_while_a_fetch_hangs(front, cluster):
    """A daemon that stops leaves no fetch behind."""
    proxy = await front("--discovery")
    cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS)
    status, _, _ = await answer(proxy, X_Prometheus_Refresh_Interval_Seconds="0.1")
    assert status == 504
    await proxy.daemon.stop()
    assert not [task for task in asyncio.all_tasks() if "SharedValue" in repr(task)]


async def test_a_long_document(cluster, front):
    """It is sent piece by piece, with its length; a client that does not read is cut off."""
    items = [
        {
            "metadata": {
                "name": f"p{n}",
                "namespace": "payments",
                "annotations": {"a": "x" * 4000},
            },
            "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 1}] * 20}]},
            "status": {"podIP": "10.0.0.1"},
        }
        for n in range(100)
    ]
    body = json.dumps({"kind": "PodList", "items": items}).encode()
    cluster.kubelets["node-a"].fail(
        Fault.BODY, path="/pods", body=body, content_type="application/json"
    )
    proxy = await front("--discovery")
    async with proxy.session.get(proxy.url + "/sd/pods") as response:
        document = await response.read()
        assert response.status == 200
        assert response.content_length == len(document) > 8_000_000
        tag = response.headers["ETag"]
    assert len(json.loads(document)) == 2000
    async with proxy.session.head(proxy.url + "/sd/pods") as response:
        assert response.content_length == len(document)
    assert (await proxy.get("/sd/pods", If_None_Match=tag))[0] == 304
    assert await proxy.metric("kmproxy_scrapes_in_flight") == 0
    plug = socket.socket()
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plug.connect(("127.0.0.1", proxy.daemon.metrics_port))
    plug.sendall(b"GET /sd/pods HTTP/1.1\r\nHost: x\r\n\r\n")

    async def cut():
        return await proxy.metric("kmproxy_refused_total", reason="slow") == 1

    await until(cut)
    with plug:
        assert len(plug.recv(len(document), socket.MSG_WAITALL)) < len(document)
