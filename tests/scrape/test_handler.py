"""Statuses, headers and broken connections, on real sockets."""

from __future__ import annotations

import asyncio
import gzip
import re
import time

import pytest

from kmproxy.simulator.answers import ApiFault
from kmproxy.simulator.kubelet import Fault
from kmproxy.sources.endpoints import ENDPOINTS
from kmproxy.sources.slots import ConcurrencyLimit
from kmproxy.web.responses import scrape_budget
from tests.conftest import until

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
    """The scraper's own time less a margin; ten seconds where it says nothing sensible."""
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
    """Anything else is 404, as it was sent, and nothing of it reaches a kubelet."""
    proxy = await front("--all-nodes")
    answer, _ = await proxy.raw(GET % (path.encode(), b""))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert not [r for kubelet in cluster.kubelets.values() for r in kubelet.requests]


async def test_node_paths_need_all_nodes(front):
    """Without --all-nodes there are no nodes by name."""
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
    """Another method is 405 and names the two that are not."""
    proxy = await front()
    async with proxy.session.request(method, proxy.url + path) as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET, HEAD"
    assert not cluster.kubelets["node-a"].requests


async def test_head(front, cluster):
    """HEAD has the status and headers of GET, and no body; the kubelet is asked by GET."""
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
    ("accepts", "packed"),
    [
        ("gzip", True),
        ("gzip;q=0.1", True),
        ("deflate, gzip", True),
        ("*", True),
        ("gzip;q=0", False),
        ("identity", False),
        ("zstd", False),
        ("", False),
    ],
)
async def test_gzip_where_the_client_takes_it(front, accepts, packed):
    """The body is gzip by the client's q-values, and the same bytes either way."""
    proxy = await front()
    header = f"Accept-Encoding: {accepts}\r\n".encode()
    answer, end = await proxy.raw(b"GET /metrics/probes HTTP/1.0\r\nHost: x\r\n%b\r\n" % header)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert end == "closed"
    assert (b"Content-Encoding: gzip" in head) == packed
    text = gzip.decompress(body) if packed else body
    assert b'namespace="payments",team="payments"' in text


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


TYPED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"
LINES = b'm{namespace="payments"} 1\n' * 3
PACKED = gzip.compress(LINES)


def _chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


PACKED_LENGTH = b"Content-Length: %d\r\n" % len(PACKED)
LENGTH = b"Content-Length: %d\r\n" % len(LINES)
ODD = {
    "xchunked": (b"Transfer-Encoding: xchunked\r\n", LINES[:40], "framing"),
    "chunked and more": (b"Transfer-Encoding: chunked\x0b\r\n", LINES[:40], "framing"),
    "chunked first": (b"Transfer-Encoding: chunked, gzip\r\n", LINES[:40], "framing"),
    "gzip, chunked": (b"Transfer-Encoding: gzip, chunked\r\n", _chunk(LINES) + _chunk(b""), "framing"),
    "gzip and chunked": (
        b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", _chunk(LINES) + _chunk(b""), "framing",
    ),
    "identity, gzip": (b"Content-Encoding: identity, gzip\r\n" + LENGTH, LINES, "encoding"),
    "identity and gzip": (
        b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n" + PACKED_LENGTH, PACKED, "encoding",
    ),
    "deflate": (b"Content-Encoding: deflate\r\n" + LENGTH, LINES, "encoding"),
}  # fmt: skip
EVEN = {
    "chunked": (b"Transfer-Encoding: Chunked\r\n", _chunk(LINES) + _chunk(b"")),
    "identity": (b"Content-Encoding: Identity\r\n" + LENGTH, LINES),
    "no name": (b"Content-Encoding:\r\n" + LENGTH, LINES),
    "x-gzip": (b"Content-Encoding: X-GZIP\r\n" + PACKED_LENGTH, PACKED),
}


@pytest.mark.parametrize(("headers", "body", "reason"), ODD.values(), ids=ODD)
async def test_an_odd_frame_or_coding(spoken, headers, body, reason):
    """What could hide that the body was cut, in whatever header, is 502."""

    async def say(writer, _):
        writer.write(TYPED + headers + b"\r\n" + body)
        return True

    proxy = await spoken(say)
    assert (await proxy.get("/metrics"))[0] == 502
    assert await proxy.metric("kmproxy_upstream_errors_total", reason=reason) == 1


@pytest.mark.parametrize(("headers", "body"), EVEN.values(), ids=EVEN)
async def test_a_frame_and_coding_as_they_may_be(spoken, headers, body):
    """In any case, and where nothing is said."""

    async def say(writer, _):
        writer.write(TYPED + headers + b"\r\n" + body)

    proxy = await spoken(say)
    expected = LINES.replace(b"}", b',team="payments"}').decode()
    assert await proxy.get("/metrics") == (200, expected)


CUTS = [
    {"fault": Fault.CUT_CHUNKED},
    {"fault": Fault.CUT_CONTENT_LENGTH},
    {"fault": Fault.CUT_GZIP},
    {"fault": Fault.GZIP_TRAILING_GARBAGE},
]


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("accepts", [b"", b"Accept-Encoding: gzip\r\n"])
@pytest.mark.parametrize("failure", CUTS)
async def test_a_body_that_is_cut(front, cluster, failure, accepts, version):
    """An answer that has begun is broken off by a reset: no client can take it for whole."""
    proxy = await front()
    cluster.kubelets["node-a"].fail(**failure)
    request = b"GET /metrics/cadvisor HTTP/%b\r\nHost: x\r\nConnection: close\r\n%b\r\n"
    answer, end = await proxy.raw(request % (version, accepts))
    if answer.startswith((b"HTTP/1.1 502", b"HTTP/1.0 502")):
        return  # found before the first byte
    assert end == "reset"
    assert not answer.endswith(b"0\r\n\r\n")
    assert await proxy.metric("kmproxy_scrapes_total", path="/metrics/cadvisor", code="broken") == 1


OLD = b"%b /metrics/probes HTTP/1.0\r\nConnection: keep-alive\r\n%b\r\n"


@pytest.mark.parametrize("accepts", [b"", b"Accept-Encoding: gzip\r\n"])
async def test_an_old_client_that_would_keep_the_connection(front, cluster, accepts):
    """HTTP/1.0 has no chunks: the end of the connection is the body's, or a reset if it is cut."""
    proxy = await front()
    async with asyncio.timeout(10):  # an idle connection lasts longer
        answer, end = await proxy.raw(OLD % (b"GET", accepts))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert end == "closed"
        assert b"keep-alive" not in head.lower()
        text = gzip.decompress(body) if accepts else body
        assert text.endswith(b"\n")
        assert text.count(b'team="payments"') == (await proxy.get("/metrics/probes"))[1].count(
            'team="payments"'
        )
        assert (await proxy.raw(OLD % (b"HEAD", accepts)))[1] == "closed"
        cluster.kubelets["node-a"].fail(Fault.CUT_CHUNKED)
        answer, end = await proxy.raw(OLD.replace(b"probes", b"cadvisor") % (b"GET", b""))
    assert b'team="frontend"' in answer
    assert end == "reset"


async def test_a_cut_does_begin(front, cluster):
    """The case above is not always found before the first byte."""
    proxy = await front()
    cluster.kubelets["node-a"].fail(Fault.CUT_CHUNKED)
    answer, end = await proxy.raw(GET % (b"/metrics/cadvisor", b""))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b'team="frontend"' in answer
    assert end == "reset"


async def test_a_bomb(front, cluster):
    """A small gzip body that becomes a large one is broken off at the limit."""
    proxy = await front("--max-response-bytes=1000000")
    cluster.kubelets["node-a"].fail(Fault.BOMB, size=64 << 20)
    answer, end = await proxy.raw(GET % (b"/metrics/cadvisor", b""))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert end == "reset"
    assert len(answer) < 1_100_000
    assert await proxy.metric("kmproxy_upstream_errors_total", reason="too_large") == 1
    assert await proxy.metric("kmproxy_scrapes_total", code="broken") == 1


SLOW_LINE = b'm{namespace="pay\\\\ments"} 1\n'  # it has to be read byte by byte


@pytest.fixture
async def costly(spoken):
    """A daemon whose kubelet sends at once what takes minutes to read, and the lines of that."""
    member = gzip.compress(SLOW_LINE * 1_000_000, 9)
    lines = 20_000_000

    async def say(writer, _):
        head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        writer.write(TYPED + head % (len(member) * lines // 1_000_000))
        for _ in range(lines // 1_000_000):
            writer.write(member)

    return await spoken(say, "--max-response-bytes=1000000000000"), lines


async def test_a_bomb_that_costs_time(costly):
    """The scrape's time ends it, however much text is there at once."""
    proxy, lines = costly
    headers = b"Accept-Encoding: gzip\r\nX-Prometheus-Scrape-Timeout-Seconds: 2\r\n"
    answer, end = await proxy.raw(GET % (b"/metrics", headers))
    assert end == "reset" or b" 504 " in answer
    assert await proxy.metric("kmproxy_upstream_errors_total", reason="timeout") == 1
    assert await proxy.metric("kmproxy_samples_total") < lines / 10
    assert await proxy.metric("kmproxy_scrapes_in_flight") == 0


async def test_others_are_served_during_a_bomb(costly):
    """What costs time is done in pieces, on a slow machine as well."""
    proxy, _ = costly
    headers = b"Accept-Encoding: gzip\r\nX-Prometheus-Scrape-Timeout-Seconds: 60\r\n"
    bomb = asyncio.create_task(proxy.raw(GET % (b"/metrics", headers)))
    await until(lambda: _busy(proxy))
    for _ in range(3):
        assert await proxy.probe("/healthz") == (200, "ok\n")
        assert not bomb.done()
    bomb.cancel()
    await asyncio.wait([bomb])


TINY = {
    "no bytes": b"\n",
    "one byte": b"x\n",
    "samples": b"a 1\n",
    "comments": b" #\n",
    "starts": b"m{" + b'anamespace="",' * 70_000 + b"\n",
}


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("kind", TINY)
async def test_the_loop_runs_during_an_answer_of_tiny_lines(spoken, kind, coding):
    """They take some milliseconds of CPU between two turns, and a line of a megabyte the most."""
    text = TINY[kind]
    text = text * (4_000_000 // len(text))
    body = gzip.compress(text, 1) if coding == "gzip" else text

    async def say(writer, _):
        head = b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n"
        writer.write(TYPED + head % (coding.encode(), len(body)) + body)

    proxy = await spoken(say, "--info-metric", "--timestamps=strip")
    turns, done = [], False

    async def watch():
        while not done:
            began = time.process_time()
            await asyncio.sleep(0)
            turns.append(time.process_time() - began)

    watching = asyncio.create_task(watch())
    async with proxy.session.get(proxy.url + "/metrics") as response:
        assert (await response.read()).startswith(text)
    done = True
    await watching
    assert max(turns) < 0.6


async def test_more_series_than_can_be_kept_apart(front, cluster, monkeypatch):
    """The scrape is refused and counted, or broken after the first byte: no series comes twice."""
    monkeypatch.setattr("kmproxy.exposition.selector.MAX_SERIES", 200 * 1000)
    proxy = await front("--drop-label=x")
    for count, expected in ((1000, "200"), (1001, "502"), (50_000, "broken")):
        body = b"".join(b'm{a="%d",x="%d"} 1\n' % (number, number) for number in range(count))
        if expected == "broken":
            body = body.replace(b"m{", b"#\n" * 70_000 + b"m{", 1)
        kubelet = cluster.kubelets["node-a"]
        kubelet.fail(Fault.BODY, body=body, content_type="text/plain; version=0.0.4")
        if expected == "broken":
            assert (await proxy.raw(GET % (b"/metrics/cadvisor", b"")))[1] == "reset"
        else:
            status, text = await proxy.get()
            assert status == int(expected)
            assert status == 200 or "over 1000 series" in text
        assert await proxy.metric("kmproxy_scrapes_total", code=expected) == 1
    assert await proxy.metric("kmproxy_upstream_errors_total", reason="series") == 2


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/", "this path takes no query"),
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
    """It is 400 on every path, with the keys that are known, and nothing is fetched."""
    proxy = await front("--all-nodes", "--discovery")
    status, text = await proxy.get(path + "?namespce=payments")
    assert (status, text.count("\n")) == (400, 1)
    assert "'namespce'" in text
    assert known in text
    assert not cluster.kubelets["node-a"].requests
    assert (await proxy.get(path))[0] == 200


async def test_a_query_of_too_many_globs(front, cluster):
    """It is 400, with a line that names the bound; on the paths of targets, too."""
    proxy = await front("--all-nodes", "--discovery")
    for path in ("/metrics", "/sd/pods"):
        for query in ("&".join(["namespace=a"] * 65), "namespace=" + "*" * 257):
            status, text = await proxy.get(f"{path}?{query}")
            assert status == 400
            assert "at most 64" in text or "over 256 characters" in text
    assert not cluster.kubelets["node-a"].requests


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 502)])
async def test_the_size_of_an_answer(front, cluster, size, status):
    """An answer of just the limit is served; one of more is not."""
    proxy = await front("--max-response-bytes=1000")
    body = b"m 1".ljust(size - 1) + b"\n"
    cluster.kubelets["node-a"].fail(Fault.BODY, body=body, content_type="text/plain; version=0.0.4")
    answered, text = await proxy.get()
    assert answered == status
    assert text == body.decode() if status == 200 else "--max-response-bytes" in text


async def test_an_answer_that_announces_too_much(spoken):
    """It is refused before any of it has come, and its slot is free."""

    async def say(writer, _):
        writer.write(TYPED + b"Content-Length: 1001\r\n\r\n")

    proxy = await spoken(say, "--max-response-bytes=1000")
    async with asyncio.timeout(20):
        status, text = await proxy.get("/metrics", X_Prometheus_Scrape_Timeout_Seconds="60")
    assert status == 502
    assert "--max-response-bytes" in text


async def test_an_empty_exposition(front, cluster):
    """An empty 200 is a whole exposition of nothing."""
    cluster.kubelets["node-a"].fail(Fault.BODY, body=b"", content_type="text/plain; version=0.0.4")
    proxy = await front()
    assert await proxy.get() == (200, "")


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


async def test_a_chunk_that_is_none(spoken):
    """It ends the scrape and frees its slot at once, though the kubelet stays and there is time."""
    begun, over = asyncio.Event(), asyncio.Event()

    async def say(writer, number):
        writer.write(TYPED + b"Transfer-Encoding: chunked\r\n\r\n" + _chunk(LINES))
        if number > 1:
            writer.write(_chunk(b""))
            return
        await begun.wait()
        writer.write(b"zz\r\n")
        await over.wait()

    proxy = await spoken(say, "--max-concurrency=1")
    minute = b"X-Prometheus-Scrape-Timeout-Seconds: 60\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.daemon.metrics_port)
    writer.write(GET % (b"/metrics", minute))
    await reader.readuntil(b"team=")
    waiting = asyncio.create_task(proxy.raw(GET % (b"/metrics/probes", minute)))
    begun.set()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 20)
    answer, _ = await asyncio.wait_for(waiting, 20)
    assert answer.endswith(b"\r\n0\r\n\r\n")
    errors = {
        reason: await proxy.metric("kmproxy_upstream_errors_total", reason=reason)
        for reason in ("truncated", "protocol", "timeout")
    }
    assert (errors["truncated"] + errors["protocol"], errors["timeout"]) == (1, 0)
    over.set()
    writer.close()


@pytest.mark.parametrize(("idle", "kept"), [(15, True), (60, True), (89, False)])
async def test_connections_are_kept_between_scrapes(spoken, monkeypatch, idle, kept):
    """Over a scrape interval; not so long that the kubelet, which closes after 90 s, is first."""
    connections = []

    async def say(writer, number):
        connections.append(number)
        writer.write(TYPED + b"Content-Length: %d\r\n\r\n" % len(LINES) + LINES)

    proxy = await spoken(say)
    assert (await proxy.get("/metrics"))[0] == 200
    monkeypatch.setattr("aiohttp.connector.monotonic", lambda: time.monotonic() + idle)
    assert (await proxy.get("/metrics"))[0] == 200
    assert connections == [1, 1 if kept else 2]


async def test_no_free_slot(front, cluster):
    """503 when all slots stay taken for the scrape's time; a slot is free again afterwards."""
    proxy = await front("--max-concurrency=1")
    cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS, times=1)
    hanging = asyncio.create_task(proxy.get(X_Prometheus_Scrape_Timeout_Seconds="3"))
    await until(lambda: _busy(proxy))
    status, text = await proxy.get(X_Prometheus_Scrape_Timeout_Seconds="0.2")
    assert status == 503
    assert "--max-concurrency" in text
    assert (await hanging)[0] == 504
    assert (await proxy.get())[0] == 200


async def test_no_free_slot_is_said_in_time(front, cluster, monkeypatch):
    """The 503 is there before the scraper, who began to count first, gives up."""
    waits, taken, clock = [], ConcurrencyLimit.taken, asyncio.get_running_loop().time

    def noted(slots, deadline, *asker):
        waits.append(deadline - clock())
        return taken(slots, deadline, *asker)

    monkeypatch.setattr(ConcurrencyLimit, "taken", noted)
    proxy = await front("--max-concurrency=1")
    cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS)
    hanging = asyncio.create_task(proxy.get(X_Prometheus_Scrape_Timeout_Seconds="60"))
    await until(lambda: _busy(proxy))
    status, text = await proxy.get(X_Prometheus_Scrape_Timeout_Seconds="1")
    assert status == 503
    assert "--max-concurrency" in text
    assert waits[-1] <= 0.9
    hanging.cancel()


async def test_a_client_that_leaves_while_it_waits(front, cluster, monkeypatch):
    """It leaves the queue: its kubelet is never asked, and who came after it is next."""
    made = []
    monkeypatch.setattr(
        "kmproxy.daemon.daemon.ConcurrencyLimit",
        lambda *given: made.append(ConcurrencyLimit(*given)) or made[0],
    )

    async def waiting():
        others = len(made[0]._waiting)
        return await _busy(proxy) and others == len(clients) - 1

    proxy = await front("--max-concurrency=1")
    kubelet = cluster.kubelets["node-a"]
    kubelet.fail(Fault.HANG_BEFORE_HEADERS, path="/metrics/cadvisor")
    kubelet.fail(Fault.HANG_BEFORE_HEADERS, path="/metrics/resource")
    minute = b"X-Prometheus-Scrape-Timeout-Seconds: 60\r\n"
    clients = []
    for path in (b"/metrics/cadvisor", b"/metrics/resource", b"/metrics/probes"):
        clients.append(await asyncio.open_connection("127.0.0.1", proxy.daemon.metrics_port))
        clients[-1][1].write(GET % (path, minute))
        await until(waiting)
    (_, first), (_, second), (reader, third) = clients
    second.transport.abort()

    async def gone():
        return await proxy.metric("kmproxy_scrapes_total", path="/metrics/resource", code="gone")

    await until(gone)
    assert await _busy(proxy)
    first.transport.abort()
    assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 200 OK")
    assert [record.path for record in kubelet.requests] == ["/metrics/cadvisor", "/metrics/probes"]
    third.close()


async def _busy(proxy):
    return await proxy.metric("kmproxy_scrapes_in_flight") == 1


async def test_a_client_that_leaves_frees_its_slot(front, cluster):
    """The upstream of a client that has gone is given up at once."""
    proxy = await front("--max-concurrency=1")
    cluster.kubelets["node-a"].fail(Fault.HANG_IN_BODY, times=1)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.daemon.metrics_port)
    writer.write(GET % (b"/metrics/cadvisor", b""))
    await reader.readuntil(b"\r\n\r\n")
    assert await _busy(proxy)
    writer.transport.abort()
    status, _ = await proxy.get(X_Prometheus_Scrape_Timeout_Seconds="2")
    assert status == 200
    assert await proxy.metric("kmproxy_scrapes_total", path="/metrics/cadvisor", code="gone") == 1


async def test_before_the_namespaces_are_loaded(front, cluster):
    """503 with the reason, and not ready; both end with the first list."""
    cluster.api.fail("list", ApiFault.STATUS, status=500)
    proxy = await front(loaded=False)
    await until(lambda: _says(proxy, "500"))
    status, text = await proxy.get()
    assert status == 503
    assert "namespaces are not loaded yet: " in text
    assert await proxy.probe("/readyz") == (503, "namespaces are not loaded yet\n")
    assert (await proxy.probe("/healthz")) == (200, "ok\n")
    assert not cluster.kubelets["node-a"].requests
    cluster.api.recover()
    await until(lambda: _ready(proxy))
    assert (await proxy.get())[0] == 200


async def _says(proxy, word):
    return word in (await proxy.get())[1]


async def _ready(proxy):
    return (await proxy.probe("/readyz"))[0] == 200


async def test_the_status_page(front):
    """It says what is served, from what, with which labels."""
    proxy = await front("--label=team", "--label=owner.example.com/cost-center=cc", "--all-nodes")
    status, text = await proxy.get("/")
    assert status == 200
    for word in ("ready", "<td>7", "owner.example.com/cost-center", "/metrics/cadvisor", "{node}"):
        assert word in text


async def test_telemetry_paths(front):
    """Own metrics, health, readiness; nothing else, and only to be read."""
    proxy = await front()
    assert (await proxy.probe("/"))[0] == 404
    assert (await proxy.probe("/metrics/cadvisor"))[0] == 404
    async with proxy.session.post(proxy.telemetry_url + "/metrics") as response:
        assert response.status == 405


async def test_counts(front):
    """What passed is counted: samples, enriched ones, namespaces, durations, the build."""
    proxy = await front()
    _, text = await proxy.get()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert await proxy.metric("kmproxy_samples_total") == len(lines)
    enriched = sum('team="' in line for line in lines)
    assert await proxy.metric("kmproxy_samples_enriched_total") == enriched > 0
    assert await proxy.metric("kmproxy_lines_unparsed_total") == 0
    assert await proxy.metric("kmproxy_namespaces") == 7
    assert await proxy.metric("kmproxy_namespaces_without_label", label="team") == 4
    assert 0 <= await proxy.metric("kmproxy_namespaces_sync_age_seconds") < 5
    assert (
        await proxy.metric("kmproxy_scrape_duration_seconds_count", path="/metrics/cadvisor") == 1
    )
    assert "kmproxy_build_info{" in (await proxy.probe("/metrics"))[1]


async def test_a_line_not_understood_does_not_end_the_scrape(front, cluster):
    """It passes unchanged and is counted."""
    body = b'm{namespace="payments"} 1\nm{namespace="payments" 1\n'
    cluster.kubelets["node-a"].fail(Fault.BODY, body=body, content_type="text/plain; version=0.0.4")
    proxy = await front()
    expected = 'm{namespace="payments",team="payments"} 1\nm{namespace="payments" 1\n'
    assert await proxy.get() == (200, expected)
    assert await proxy.metric("kmproxy_lines_unparsed_total") == 1


async def test_a_fault_of_our_own_breaks_the_connection(front, monkeypatch):
    """Even an error that nobody thought of never ends a begun answer cleanly."""

    def fail(_):
        raise RuntimeError

    proxy = await front()
    monkeypatch.setattr("kmproxy.exposition.enricher.Enricher.finish", fail)
    answer, end = await proxy.raw(b"GET /metrics/cadvisor HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 200")
    assert end == "reset"
    assert await proxy.metric("kmproxy_scrapes_total", path="/metrics/cadvisor", code="error") == 1


async def test_a_dead_connection_is_not_an_error(front, cluster):
    """A kept-alive connection that the kubelet closed meanwhile is opened anew."""
    proxy = await front()
    cluster.kubelets["node-a"].fail(Fault.CLOSE_AFTER, times=2)
    for _ in range(3):
        assert (await proxy.get("/metrics/probes"))[0] == 200


async def test_a_request_narrows(front):
    """A query leaves out samples, and what is left out is counted; the flags hold besides."""
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
    """With --info-metric the answer ends in the namespaces it has shown."""
    proxy = await front("--info-metric")
    _, text = await proxy.get("/metrics/probes")
    assert (
        'kube_namespace_labels{namespace="payments",label_team="payments",instance="",node="",pod=""} 1\n'
        in text
    )


CENTRAL = ("--all-nodes", "--node-name-or-ip=localhost", "--discovery")
"""As in a Deployment: every node by name, and no node of its own."""


async def test_without_a_node_of_its_own(front):
    """The paths that name no node are not served, nor linked; the line says where nodes are."""
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
    assert "localhost" not in page
    for path in ("/api/v1/nodes/node-b/proxy/metrics/cadvisor", "/sd/pods?node=node-b"):
        assert (await proxy.get(path))[0] == 200


async def test_a_node_of_its_own_beside_every_node(front):
    """With --node-name-or-ip the short paths are there, whatever else is."""
    proxy = await front("--all-nodes", "--discovery")
    for path in (*ENDPOINTS, "/sd/pods"):
        assert (await proxy.get(path))[0] == 200
    assert 'href="/metrics/cadvisor"' in (await proxy.get("/"))[1]


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
