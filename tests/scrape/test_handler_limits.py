"""Large and costly bodies end at a limit, and other scrapes are served meanwhile."""

from __future__ import annotations

import asyncio
import gzip
import time

import pytest

from kmproxy.simulator.kubelet import Fault
from tests.conftest import until

GET = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b\r\n"
TYPED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"


async def test_a_bomb(front, cluster):
    """A small gzip body that unpacks to a large one ends at the limit."""
    proxy = await front("--max-response-bytes=1000000")
    cluster.kubelets["node-a"].fail(Fault.BOMB, size=64 << 20)
    answer, end = await proxy.raw(GET % (b"/metrics/cadvisor", b""))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert end == "reset"
    assert len(answer) < 1_100_000
    assert await proxy.metric("kmproxy_upstream_errors_total", reason="too_large") == 1
    assert await proxy.metric("kmproxy_scrapes_total", code="broken") == 1


SLOW_LINE = b'm{namespace="pay\\\\ments"} 1\n'  # the pure engine reads it byte by byte


@pytest.fixture
async def costly(spoken, monkeypatch):
    """A daemon with the pure engine whose kubelet sends text at once that takes minutes to read; and its lines."""
    monkeypatch.setattr("kmproxy.exposition.engine.IN_USE", "pure")
    member = gzip.compress(SLOW_LINE * 1_000_000, 9)
    lines = 20_000_000

    async def say(writer, _):
        head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        writer.write(TYPED + head % (len(member) * lines // 1_000_000))
        for _ in range(lines // 1_000_000):
            writer.write(member)

    return await spoken(say, "--max-response-bytes=1000000000000"), lines


async def test_a_bomb_that_costs_time(costly):
    """The scrape time ends the work, however much text has arrived."""
    proxy, lines = costly
    headers = b"Accept-Encoding: gzip\r\nX-Prometheus-Scrape-Timeout-Seconds: 2\r\n"
    answer, end = await proxy.raw(GET % (b"/metrics", headers))
    assert end == "reset" or b" 504 " in answer
    assert await proxy.metric("kmproxy_upstream_errors_total", reason="timeout") == 1
    assert await proxy.metric("kmproxy_samples_total") < lines / 10
    assert await proxy.metric("kmproxy_scrapes_in_flight") == 0


async def test_others_are_served_during_a_bomb(costly):
    """Costly work is done in pieces, so others are served, on a slow machine too."""
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
    """Tiny lines block the loop for milliseconds only; a line of a megabyte longest."""
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
    """The scrape gets an error and a count, or a reset. No series appears twice."""
    monkeypatch.setattr("kmproxy.exposition.series.MAX_SERIES", 200 * 1000)
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


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 502)])
async def test_the_size_of_an_answer(front, cluster, size, status):
    """An answer of exactly the limit is served. A larger one is not."""
    proxy = await front("--max-response-bytes=1000")
    body = b"m 1".ljust(size - 1) + b"\n"
    cluster.kubelets["node-a"].fail(Fault.BODY, body=body, content_type="text/plain; version=0.0.4")
    answered, text = await proxy.get()
    assert answered == status
    assert text == body.decode() if status == 200 else "--max-response-bytes" in text


async def test_an_answer_that_announces_too_much(spoken):
    """A too large Content-Length is refused before the body, and its slot is free."""

    async def say(writer, _):
        writer.write(TYPED + b"Content-Length: 1001\r\n\r\n")

    proxy = await spoken(say, "--max-response-bytes=1000")
    async with asyncio.timeout(20):
        status, text = await proxy.get("/metrics", X_Prometheus_Scrape_Timeout_Seconds="60")
    assert status == 502
    assert "--max-response-bytes" in text


async def _busy(proxy):
    return await proxy.metric("kmproxy_scrapes_in_flight") == 1
