"""Scrapes of upstreams: /upstreams/{name}/metrics in front of real exporters."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from kmproxy.simulator.answers import ApiFault
from tests.support.exporters import Exporter, answer, config_file

TEXT = b"""# HELP kube_pod_info Information about pod.
# TYPE kube_pod_info gauge
kube_pod_info{namespace="payments",pod="api-1"} 1
kube_pod_info{namespace="frontend-service2",pod="web-1"} 1
kube_node_info{node="node-a"} 1
"""


@pytest.fixture
async def exporter():
    """An exporter with a few samples of kube-state-metrics."""
    async with Exporter(answer(TEXT)) as running:
        yield running


@pytest.fixture
async def proxy(front, exporter, tmp_path):
    """A daemon with the exporter as its upstream `ksm`."""
    return await front(config_file(tmp_path, {"name": "ksm", "url": exporter.url}))


KSM = "/upstreams/ksm/metrics"


async def test_its_samples_are_enriched(proxy, exporter):
    """Labels stand after the namespace; the rest is as it came, and so is the Content-Type."""
    async with proxy.session.get(proxy.url + KSM) as response:
        text = await response.text()
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'kube_pod_info{namespace="payments",team="payments",pod="api-1"} 1\n' in text
    assert text.replace(',team="payments"', "").replace(',team="frontend"', "").encode() == TEXT
    (head,) = exporter.heads
    assert head.startswith("GET /metrics HTTP/1.1\r\n")
    assert "\r\nAccept: text/plain;version=0.0.4\r\n" in head
    assert await proxy.metric("kmproxy_scrapes_total", path=KSM, code="200") == 1
    assert (await proxy.get())[0] == 200  # kubelets are served as before


@pytest.mark.parametrize(
    ("query", "pods", "nodes"),
    [
        ("", {"api-1", "web-1"}, True),
        ("?namespace=payments", {"api-1"}, True),
        ("?namespace=pay*&cluster-samples=drop", {"api-1"}, False),
        ("?metric=kube_node_*", set(), True),
        ("?namespace=nothing&cluster-samples=drop", set(), False),
    ],
)
async def test_a_query_narrows(proxy, query, pods, nodes):
    """The keys of the other paths."""
    _, text = await proxy.get(KSM + query)
    assert {pod for pod in ("api-1", "web-1") if pod in text} == pods
    assert ("kube_node_info{" in text) == nodes


async def test_the_selection_flags(front, exporter, tmp_path):
    """They hold for upstreams as for kubelets, and so does the info metric."""
    proxy = await front(
        config_file(tmp_path, {"name": "ksm", "url": exporter.url}),
        "--exclude-namespace=pay*", "--cluster-samples=drop", "--drop-label=pod", "--info-metric",
    )  # fmt: skip
    _, text = await proxy.get(KSM)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == [
        'kube_pod_info{namespace="frontend-service2",team="frontend"} 1',
        (
            'kube_namespace_labels{namespace="frontend-service2",label_team="frontend",'
            'instance="",node="",pod=""} 1'
        ),
    ]


async def test_an_unknown_key(proxy, exporter):
    """It is 400: the whole exposition must not be served instead."""
    status, text = await proxy.get(KSM + "?namespce=payments")
    assert (status, "namespce" in text) == (400, True)
    assert exporter.heads == []
    assert await proxy.metric("kmproxy_scrapes_total", path=KSM, code="400") == 1


async def test_unknown_names(proxy, exporter):
    """They are 404, counted under one path; what is no name at all is no path."""
    status, text = await proxy.get("/upstreams/other/metrics?x=y")
    assert (status, text) == (404, "no upstream has this name, see /\n")
    for path in ("/upstreams/KSM/metrics", "/upstreams//metrics", "/upstreams/ksm/metrics/",
                 "/upstreams/ksm", "/upstreams/%6bsm/metrics", "/upstreams/../metrics",
                 "/upstreams/ksm/../ksm/metrics"):  # fmt: skip
        answered, _ = await proxy.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()[:-2]
                                      + b"Connection: close\r\n\r\n")  # fmt: skip
        assert answered.startswith(b"HTTP/1.1 404 "), path
    assert exporter.heads == []
    path = "/upstreams/{name}/metrics"
    assert await proxy.metric("kmproxy_scrapes_total", path=path, code="404") == 1
    assert await proxy.metric("kmproxy_scrapes_total", path="other", code="404") == 7


async def test_without_upstreams(front):
    """There is no such path."""
    proxy = await front()
    assert (await proxy.get(KSM))[0] == (await proxy.get("/sd/upstreams"))[0] == 404


async def test_methods(proxy, exporter):
    """HEAD is the head alone, and nothing else than GET is passed on."""
    async with proxy.session.head(proxy.url + KSM) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    async with proxy.session.delete(proxy.url + KSM) as response:
        assert response.status == 405
    assert [head.split(" ")[0] for head in exporter.heads] == ["GET"]


async def test_nothing_of_a_request_goes_on(proxy, exporter):
    """Neither its headers nor its query."""
    await proxy.get(
        KSM + "?namespace=payments", Authorization="Bearer hunter2", Cookie="a=b", X_Me="1"
    )
    (head,) = exporter.heads
    assert "hunter2" not in head
    assert "X-Me" not in head
    assert "Cookie" not in head
    assert head.startswith("GET /metrics HTTP/1.1\r\n")


async def test_openmetrics(front, tmp_path):
    """With `format: openmetrics` it is asked for, passed on, and keeps its exemplars."""
    text = (
        b"# TYPE requests counter\n"
        b'requests_total{namespace="payments"} 3 # {trace_id="a"} 1 1700000000\n# EOF\n'
    )
    kind = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    async with Exporter(answer(text, kind=kind)) as exporter:
        entry = {"name": "om", "url": exporter.url, "format": "openmetrics"}
        proxy = await front(config_file(tmp_path, entry))
        async with proxy.session.get(proxy.url + "/upstreams/om/metrics") as response:
            assert response.headers["Content-Type"] == kind
            served = await response.read()
        (head,) = exporter.heads
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    assert f"\r\nAccept: {accept}\r\n" in head
    assert served == text.replace(b'"payments"', b'"payments",team="payments"')


async def test_gzip(front, tmp_path):
    """A packed answer is unpacked, and has to be whole."""
    packed = gzip.compress(TEXT)
    async with Exporter(answer(packed, "Content-Encoding: gzip")) as exporter:
        proxy = await front(config_file(tmp_path, {"name": "ksm", "url": exporter.url}))
        assert (await proxy.get(KSM))[0] == 200
        exporter.say = answer(packed[:-4], "Content-Encoding: gzip")
        _, end = await proxy.raw(f"GET {KSM} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert end == "reset"
    errors = "kmproxy_upstream_errors_total"
    assert await proxy.metric(errors, upstream="ksm", reason="truncated") == 1


SECRET = b"hunter2"


@pytest.mark.parametrize(
    ("say", "reason", "message"),
    [
        (
            answer(SECRET, status="401 Unauthorized"),
            "unauthorized",
            "the upstream ksm answered 401: it wants a credential, see its entry in upstreams",
        ),
        (
            answer(SECRET, status="403 Forbidden"),
            "forbidden",
            "the upstream ksm answered 403: it may want a credential, see its entry in upstreams",
        ),
        (
            answer(SECRET, "Location: http://127.0.0.1:1/hunter2", status="302 Found"),
            "redirect",
            ("the upstream ksm answered with a redirect (302), not followed: "
            "write the URL that it leads to"),
        ),
        (
            answer(SECRET, status="404 Not Found"),
            "status",
            "the upstream ksm answered with HTTP status 404: is the path of its url right?",
        ),
        (
            answer(SECRET, status="500 Oops"),
            "status",
            "the upstream ksm answered with HTTP status 500",
        ),
        (
            answer(SECRET, kind="text/html"),
            "content_type",
            "the upstream ksm answered Content-Type 'text/html', which is not Prometheus text",
        ),
        (
            answer(SECRET, kind="application/vnd.google.protobuf"),
            "content_type",
            ("the upstream ksm answered Content-Type 'application/vnd.google.protobuf', "
            "which is not Prometheus text"),
        ),
        (
            answer(SECRET, "Content-Encoding: zstd"),
            "encoding",
            "the upstream ksm answered with Content-Encoding 'zstd'",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhunter2",
            "framing",
            ("the upstream ksm's answer has neither Content-Length nor chunks: "
            "its end cannot be proven"),
        ),
        (
            answer(b"m 1\n" * 400),
            "too_large",
            "the upstream ksm's answer is over 1000 bytes: see --max-response-bytes",
        ),
        (b"", "disconnected", "the upstream ksm closed the connection"),
        (b"SSH-2.0-hunter2\r\n\r\n", "protocol", "the upstream ksm's answer is not valid HTTP"),
    ],
)  # fmt: skip
async def test_an_upstream_that_fails_before_the_first_byte(front, tmp_path, say, reason, message):
    """It is 502, in one line that names the upstream and shows nothing of its answer."""
    async with Exporter(say) as exporter:
        proxy = await front(
            config_file(tmp_path, {"name": "ksm", "url": exporter.url}), "--max-response-bytes=1000"
        )
        assert await proxy.get(KSM) == (502, message + "\n")
    errors = "kmproxy_upstream_errors_total"
    assert await proxy.metric(errors, upstream="ksm", reason=reason) == 1
    assert "hunter2" not in (await proxy.probe("/metrics"))[1]
    assert await proxy.metric("kmproxy_scrapes_total", path=KSM, code="502") == 1


async def test_an_upstream_that_is_not_there(front, tmp_path):
    """502 with its address, without the query of its URL."""
    async with Exporter() as exporter:
        url = exporter.url + "?token=hunter2"
    proxy = await front(config_file(tmp_path, {"name": "ksm", "url": url}))
    status, text = await proxy.get(KSM)
    assert (status, text.startswith("the upstream ksm at 127.0.0.1:")) == (502, True)
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "say",
    [
        answer(TEXT * 3000, length=len(TEXT) * 4000),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"%x\r\n%b\r\n" % (len(TEXT * 3000), TEXT * 3000)
        + b"zz\r\n",
        answer(gzip.compress(TEXT * 3000) + b"more", "Content-Encoding: gzip"),
    ],
)  # fmt: skip
async def test_an_upstream_that_fails_after_the_first_byte(front, tmp_path, say):
    """The connection is reset: a part is never taken for the whole."""
    async with Exporter(say) as exporter:
        proxy = await front(config_file(tmp_path, {"name": "ksm", "url": exporter.url}))
        answered, end = await proxy.raw(f"GET {KSM} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answered.startswith((b"HTTP/1.1 200 OK\r\n", b"")), answered[:100]
    assert end == "reset"
    assert not answered.endswith(b"0\r\n\r\n")
    assert await proxy.metric("kmproxy_scrapes_total", path=KSM, code="broken") == 1


async def test_a_slow_upstream(front, tmp_path):
    """504 that names it, within the scrape's time."""

    async def hang(writer):
        await asyncio.sleep(3600)

    async with Exporter(hang) as exporter:
        proxy = await front(config_file(tmp_path, {"name": "ksm", "url": exporter.url}))
        status, text = await proxy.get(KSM, X_Prometheus_Scrape_Timeout_Seconds="0.5")
    assert (status, text) == (504, "no whole answer from the upstream ksm within 0.45 s\n")
    errors = "kmproxy_upstream_errors_total"
    assert await proxy.metric(errors, upstream="ksm", reason="timeout") == 1


async def test_a_slow_upstream_takes_nothing_from_others(front, tmp_path, exporter):
    """Its slots are its own: with all of them held, a kubelet and another upstream are served."""
    asked = asyncio.Event()

    async def hang(writer):
        asked.set()
        await asyncio.sleep(3600)

    async with Exporter(hang) as slow:
        proxy = await front(
            config_file(
                tmp_path, {"name": "slow", "url": slow.url}, {"name": "ksm", "url": exporter.url}
            ),
            "--max-concurrency=1",
        )
        path = "/upstreams/slow/metrics"
        first = asyncio.create_task(proxy.get(path, X_Prometheus_Scrape_Timeout_Seconds="60"))
        await asked.wait()
        assert (await proxy.get())[0] == 200
        assert (await proxy.get(KSM))[0] == 200
        status, text = await proxy.get(path, X_Prometheus_Scrape_Timeout_Seconds="0.5")
        assert (status, text) == (503, "no slot became free in time: --max-concurrency is 1\n")
        assert (await proxy.get())[0] == 200
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_before_the_namespaces_are_loaded(front, cluster, exporter, tmp_path):
    """503: no sample without its labels."""
    cluster.api.fail("list", ApiFault.STATUS, status=500)
    proxy = await front(config_file(tmp_path, {"name": "ksm", "url": exporter.url}), loaded=False)
    status, _ = await proxy.get(KSM)
    assert status == 503
    assert exporter.heads == []


async def test_the_status_page(proxy):
    """It lists the path of each upstream, and that of the targets."""
    _, page = await proxy.get("/")
    assert f'<a href="{KSM}">' in page
    assert '<a href="/sd/upstreams">' in page


async def test_other_namespace_labels(front, tmp_path):
    """The first one that a sample bears, not empty, names its namespace."""
    text = (
        b'a{exported_namespace="payments",namespace="frontend-service2"} 1\n'
        b'b{exported_namespace="",namespace="frontend-service2"} 1\n'
        b'c{namespace="payments",other_namespace="frontend-service2"} 1\n'
    )
    async with Exporter(answer(text)) as exporter:
        entry = {"name": "ksm", "url": exporter.url}
        labels = ["exported_namespace", "namespace"]
        proxy = await front(config_file(tmp_path, entry | {"namespace-labels": labels}))
        _, served = await proxy.get(KSM)
    assert served.splitlines() == [
        'a{exported_namespace="payments",team="payments",namespace="frontend-service2"} 1',
        'b{exported_namespace="",namespace="frontend-service2",team="frontend"} 1',
        'c{namespace="payments",team="payments",other_namespace="frontend-service2"} 1',
    ]


async def test_prefixes(front, tmp_path):
    """Each namespace label adds its own namespace's labels, with its prefix."""
    text = b'r{source_ns="payments",destination_ns="frontend-service2",code="200"} 1\n'
    async with Exporter(answer(text)) as exporter:
        labels = {"source_ns": "source_", "destination_ns": "destination_"}
        entry = {"name": "mesh", "url": exporter.url, "namespace-labels": labels}
        proxy = await front(config_file(tmp_path, entry))
        _, served = await proxy.get("/upstreams/mesh/metrics")
    assert served == (
        'r{source_ns="payments",source_team="payments",'
        'destination_ns="frontend-service2",destination_team="frontend",code="200"} 1\n'
    )


async def test_a_query_goes_by_the_same_labels(front, tmp_path):
    """With a list by the label that names the namespace; with prefixes by all that do."""
    text = (
        b'a{exported_namespace="payments",namespace="frontend-service2"} 1\n'
        b'b{exported_namespace="frontend-service2",namespace="payments"} 1\n'
        b'c{x="payments"} 1\n'
    )
    labels = ["exported_namespace", "namespace"]
    async with Exporter(answer(text)) as exporter:
        entry = {"name": "list", "url": exporter.url, "namespace-labels": labels}
        prefixes = {"exported_namespace": "of_", "namespace": "by_"}
        other = {"name": "both", "url": exporter.url, "namespace-labels": prefixes}
        proxy = await front(config_file(tmp_path, entry, other))
        query = "?namespace=payments&cluster-samples=drop"
        _, served = await proxy.get(f"/upstreams/list/metrics{query}")
        assert [line[0] for line in served.splitlines()] == ["a"]
        _, served = await proxy.get(f"/upstreams/both/metrics{query}")
        assert served == ""
        _, served = await proxy.get("/upstreams/both/metrics?namespace=*&cluster-samples=drop")
        assert [line[0] for line in served.splitlines()] == ["a", "b"]


async def test_labels_of_pods_are_for_kubelets(front, exporter, tmp_path):
    """With --workload a sample of an upstream gets no such label, and its pod need not be known."""
    proxy = await front(config_file(tmp_path, {"name": "ksm", "url": exporter.url}), "--workload")
    _, text = await proxy.get(KSM)
    assert 'kube_pod_info{namespace="payments",team="payments",pod="api-1"} 1\n' in text
    assert "workload" not in text
