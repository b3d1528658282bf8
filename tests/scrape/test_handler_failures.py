"""Kubelets that fail: a scrape gets 502 or 504, or a reset after the first byte."""

from __future__ import annotations

import asyncio

import pytest

from kmproxy.simulator.answers import ApiFault
from kmproxy.simulator.kubelet import Fault
from kmproxy.sources.endpoints import ENDPOINTS

GET = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b\r\n"
FAILURES = [
    (
        {"fault": Fault.STATUS, "status": 401, "body": b"Unauthorized"},
        "unauthorized",
        "credentials",
    ),
    ({"fault": Fault.STATUS, "status": 403}, "forbidden", "resources [nodes/metrics]"),
    ({"fault": Fault.STATUS, "status": 404}, "status", "404"),
    ({"fault": Fault.STATUS, "status": 500, "body": b"secret text"}, "status", "500"),
    ({"fault": Fault.STATUS, "status": 206, "body": b"secret 1\n"}, "status", "206"),
    ({"fault": Fault.REDIRECT, "location": "http://127.0.0.1:1/"}, "redirect", "redirect"),
    ({"fault": Fault.HTML}, "content_type", "text/html"),
    ({"fault": Fault.PROTOBUF}, "content_type", "protobuf"),
    ({"fault": Fault.NO_CONTENT_TYPE}, "content_type", "no Content-Type"),
    ({"fault": Fault.NO_FRAMING}, "framing", "neither Content-Length nor chunks"),
    ({"fault": Fault.GARBAGE_GZIP}, "gzip", "gzip"),
    ({"fault": Fault.DISCONNECT}, "disconnected", "closed the connection"),
]


@pytest.mark.parametrize(("failure", "reason", "says"), FAILURES)
async def test_a_kubelet_that_fails_before_the_first_byte(front, cluster, failure, reason, says):
    """502, one plain line that says what failed, nothing of the upstream's body, and a count."""
    proxy = await front()
    cluster.kubelets["node-a"].fail(**failure)
    async with proxy.session.get(proxy.url + "/metrics/cadvisor") as response:
        text = await response.text()
        assert response.status == 502
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert says in text
    assert text.count("\n") == 1
    assert "secret" not in text
    assert cluster.token not in text
    assert (
        await proxy.metric("kmproxy_upstream_errors_total", upstream="kubelet", reason=reason) == 1
    )
    assert await proxy.metric("kmproxy_scrapes_total", path="/metrics/cadvisor", code="502") == 1
    cluster.kubelets["node-a"].recover()
    assert (await proxy.get())[0] == 200


@pytest.mark.parametrize("fault", [Fault.HANG_BEFORE_HEADERS, Fault.HANG_IN_BODY])
async def test_a_kubelet_that_hangs(front, cluster, fault):
    """504 when the scrape's time is up, or a broken connection if the body has begun."""
    proxy = await front()
    cluster.kubelets["node-a"].fail(fault)
    seconds = b"0.4" if fault is Fault.HANG_BEFORE_HEADERS else b"2"  # time for the headers to come
    header = b"X-Prometheus-Scrape-Timeout-Seconds: %b\r\n" % seconds
    answer, end = await proxy.raw(GET % (b"/metrics/cadvisor", header))
    if fault is Fault.HANG_BEFORE_HEADERS:
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert b"within 0.36 s" in answer
    else:
        assert end == "reset"
    assert (
        await proxy.metric("kmproxy_upstream_errors_total", upstream="kubelet", reason="timeout")
        == 1
    )
    assert await proxy.metric("kmproxy_scrapes_in_flight") == 0


@pytest.mark.parametrize(
    ("rate", "seconds", "ends"),
    [(1 << 20, b"10", "whole"), (200, b"0.5", "504"), (2000, b"2", "reset")],
)
async def test_a_slow_kubelet(front, cluster, rate, seconds, ends):
    """It has the scrape's time: within it its answer is whole, past it that is the end of it."""
    proxy = await front("--max-concurrency=1")
    cluster.kubelets["node-a"].fail(Fault.SLOW, times=1, rate=rate)
    header = b"X-Prometheus-Scrape-Timeout-Seconds: %b\r\n" % seconds
    async with asyncio.timeout(20):
        answer, end = await proxy.raw(GET % (b"/metrics/cadvisor", header))
    late = await proxy.metric("kmproxy_upstream_errors_total", upstream="kubelet", reason="timeout")
    assert late == (ends != "whole")
    if ends == "504":
        assert answer.startswith(b"HTTP/1.1 504 ")
    else:
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b'team="frontend"' in answer
        assert end == ("closed" if ends == "whole" else "reset")
        assert answer.endswith(b"0\r\n\r\n") == (ends == "whole")
    assert await proxy.metric("kmproxy_scrapes_in_flight") == 0
    assert (await proxy.get("/metrics/probes"))[0] == 200


async def test_an_api_server_that_does_not_tell_of_a_node(front, cluster):
    """504 when the scrape's time is up, and it is not the kubelet that is blamed."""
    cluster.api.fail("get nodes", ApiFault.HANG)
    proxy = await front("--all-nodes")
    status, text = await proxy.get(
        "/api/v1/nodes/node-b/proxy/metrics", X_Prometheus_Scrape_Timeout_Seconds="0.5"
    )
    assert status == 504
    assert "kubelet" not in text
    late = "kmproxy_upstream_errors_total"
    assert await proxy.metric(late, upstream="kubelet", reason="timeout") == 0
    assert await proxy.metric(late, upstream="apiserver", reason="timeout") == 1


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_the_hint_at_the_path_of_cadvisor(front, cluster, path):
    """--node-cadvisor-path can be wrong where it is what was asked for, and nowhere else."""
    cluster.kubelets["node-a"].fail(Fault.STATUS, status=404)
    proxy = await front()
    status, line = await proxy.get(path)
    assert (status, "404" in line) == (502, True)
    assert ("--node-cadvisor-path" in line) == (path == "/metrics/cadvisor")


async def test_no_such_node_behind_the_api_server(front, cluster):
    """There the API server answers in the kubelet's place: it is no matter of a path."""
    proxy = await front(f"--kube-apiserver={cluster.api.url}", "--node-name-or-ip=nobody")
    status, line = await proxy.get()
    assert status == 502
    assert "--node-cadvisor-path" not in line
    assert "no node of this name" in line
