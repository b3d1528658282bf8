"""Lists of pods behind HTTP service discovery: fetched once for many, kept during failures."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from kmproxy.simulator.api import ApiFault
from kmproxy.simulator.kubelet import Fault
from tests.conftest import until
from tests.support.pods import flat
from tests.support.rbac import binding, role
from tests.support.targets import answer, targets, teams
from tests.support.tenants import bearer


async def test_nothing_of_the_request_is_passed_on(front, cluster):
    """The kubelet gets kmproxy's own request: JSON, no coding, own token, no query."""
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
    """Other parts of the objects, such as secrets in `env`, are not served."""
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
    """Twenty concurrent requests, and later ones in the interval, cost the kubelet one list."""
    proxy = await front("--discovery")
    answers = await asyncio.gather(*(answer(proxy) for _ in range(20)))
    assert len({body for _, _, body in answers}) == 1
    await targets(proxy)
    assert [r.path for r in cluster.kubelets["node-a"].requests] == ["/pods"]
    assert await proxy.metric("kmproxy_discovery_requests_total", path="/sd/pods", code="200") == 21
    assert await proxy.metric("kmproxy_discovery_fetches_total", role="pod", result="ok") == 1


async def test_a_namespace_that_moves(front, cluster):
    """Targets show new namespace labels at once, with an older list of pods."""
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


async def test_before_the_namespaces_are_listed(front, cluster):
    """503: a target never appears without its team first."""
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
    """Labels of a snapshot serve samples, but not targets, which need all labels."""
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
    """502 with one plain line, counted: never half a list, no upstream body."""
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
    """While the kubelet fails the last good list is served, and its age is shown."""
    proxy = await front("--discovery", "--discovery-refresh-interval=1ms")
    _, _, body = await answer(proxy)
    cluster.kubelets["node-a"].fail(Fault.STATUS, status=500)

    async def failed():
        assert (await answer(proxy))[::2] == (200, body)
        return await proxy.metric("kmproxy_discovery_fetches_total", role="pod", result="failed")

    await until(failed)
    assert await proxy.metric("kmproxy_discovery_age_seconds", role="pod") > 0


async def test_a_list_that_is_too_old(front, cluster):
    """After --discovery-max-age the error is served."""
    proxy = await front(
        "--discovery", "--discovery-refresh-interval=1ms", "--discovery-max-age=1ms"
    )
    assert (await answer(proxy))[0] == 200
    cluster.kubelets["node-a"].fail(Fault.STATUS, status=500)

    async def refused():
        return (await answer(proxy))[0] == 502

    await until(refused)


async def test_a_kubelet_that_hangs(front, cluster):
    """504 within Prometheus' own timeout, which is its refresh interval."""
    proxy = await front("--discovery")
    cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS)
    status, _, body = await answer(proxy, X_Prometheus_Refresh_Interval_Seconds="0.2")
    assert (status, body) == (504, b"no list within 0.18 s\n")


async def test_behind_the_door(front, cluster):
    """With --authorization an unknown caller gets nothing, and no kubelet is asked."""
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
    """A stopped daemon leaves no fetch behind."""
    proxy = await front("--discovery")
    cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS)
    status, _, _ = await answer(proxy, X_Prometheus_Refresh_Interval_Seconds="0.1")
    assert status == 504
    await proxy.daemon.stop()
    assert not [task for task in asyncio.all_tasks() if "SharedValue" in repr(task)]


async def test_a_long_document(cluster, front):
    """A long document is sent in pieces with its length. A client that does not read is cut."""
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
