"""Framing and coding of a kubelet's body: a body that was cut is never served as complete."""

from __future__ import annotations

import asyncio
import gzip
import time

import pytest

from kmproxy.simulator.kubelet import Fault

GET = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b\r\n"


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
