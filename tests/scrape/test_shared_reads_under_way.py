"""--share-reads while a read is under way: who joins it, who leaves it, and how it fails for all."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.conftest import until
from tests.support.gated import HEAD, LAST, Gated, chunk, packed

SCRAPE = b"GET /metrics/cadvisor HTTP/1.1\r\nHost: x\r\n%bConnection: close\r\n\r\n"
FIRST = b'first{namespace="payments"} 1 1\n' * 1000
SECOND = b'second{namespace="payments"} 2 2\n' * 1000
TEXT = (FIRST + SECOND).replace(b'"payments"', b'"payments",team="payments"')
PARTS = packed(FIRST, SECOND)
KEPT = "kmproxy_shared_read_bytes"


class Scrape:
    """A scrape as a client sees it: what has come of the answer so far."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.answer = bytearray()

    async def until_it_has(self, text):
        """Read until this text has come."""
        async with asyncio.timeout(30):
            while text not in self.answer:
                data = await self.reader.read(1 << 16)
                assert data, self.answer[:300]
                self.answer += data

    async def end(self):
        """Read to the end; tell whether it is that of a whole answer, and the body's text."""
        try:
            async with asyncio.timeout(30):
                while data := await self.reader.read(1 << 16):
                    self.answer += data
        except ConnectionResetError:
            return False, self._body()
        return self.answer.endswith(b"\r\n0\r\n\r\n"), self._body()

    def _body(self):
        head, _, rest = self.answer.partition(b"\r\n\r\n")
        if b"chunked" not in head:
            return rest
        body, at = b"", 0
        while (end := rest.find(b"\r\n", at)) >= 0:
            size = int(rest[at:end], 16)
            body += rest[end + 2 : end + 2 + size]
            at = end + 4 + size
        return body

    def go(self):
        """Leave."""
        self.writer.transport.abort()


@pytest.fixture
async def scrape():
    """A function that starts a scrape, with more headers."""
    writers = []

    async def start(proxy, headers=b""):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.daemon.metrics_port)
        writers.append(writer)
        writer.write(SCRAPE % headers)
        return Scrape(reader, writer)

    yield start
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)


async def joined(proxy, count):
    """Wait until so many scrapes have joined a read."""

    async def enough():
        return await proxy.metric("kmproxy_shared_reads_total", result="joined") == count

    await until(enough)


async def test_a_scrape_joins_a_read_under_way(front, scrape):
    """It gets at once what the first one has got so far, and the rest as it comes."""
    gate = asyncio.Event()
    async with Gated(HEAD, chunk(PARTS[0]), gate, chunk(PARTS[1]), LAST) as kubelet:
        proxy = await front("--share-reads=60s", *kubelet.flags)
        first = await scrape(proxy)
        await first.until_it_has(b"first{")
        second = await scrape(proxy)
        await second.until_it_has(b"first{")
        assert b"second{" not in first.answer + second.answer
        gate.set()
        assert await first.end() == (True, TEXT)
        assert await second.end() == (True, TEXT)
        assert await (await scrape(proxy)).end() == (True, TEXT)
        assert kubelet.asked == 1
        assert await proxy.metric("kmproxy_shared_reads_total", result="hit") == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", b"the kubelet forbids it (403)"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", b"HTTP status 500"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", b"its end cannot be proven"),
    ],
)
async def test_all_who_wait_get_the_failure(front, scrape, answer, said):
    """With its status and its line; and the next scrape asks anew."""
    gate = asyncio.Event()
    async with Gated(gate, answer) as kubelet:
        proxy = await front("--share-reads=60s", *kubelet.flags)
        scrapes = [await scrape(proxy) for _ in range(3)]
        await joined(proxy, 2)
        gate.set()
        for each in scrapes:
            await each.end()
            assert each.answer.startswith(b"HTTP/1.1 502 ")
            assert said in each.answer
        assert kubelet.asked == 1
        await (await scrape(proxy)).end()
        assert kubelet.asked == 2


DAMAGED = PARTS[1][:-8] + bytes(8)


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param((None,), id="cut"),
        pytest.param((b"what\r\n",), id="no chunk"),
        pytest.param((chunk(PARTS[1][:-4]), LAST), id="gzip without its end"),
        pytest.param((chunk(DAMAGED), LAST), id="another checksum"),
        pytest.param((chunk(PARTS[1] + b"x"), LAST), id="something behind it"),
    ],
)
async def test_a_failure_midway_breaks_every_answer(front, scrape, rest):
    """None of those who share the read takes it for whole, and nobody after them gets it."""
    gate = asyncio.Event()
    async with Gated(HEAD, chunk(PARTS[0]), gate, *rest) as kubelet:
        proxy = await front("--share-reads=60s", *kubelet.flags)
        scrapes = [await scrape(proxy) for _ in range(3)]
        for each in scrapes:
            await each.until_it_has(b"first{")
        assert kubelet.asked == 1
        gate.set()
        for each in scrapes:
            whole, _ = await each.end()
            assert not whole
        assert await proxy.metric(KEPT) == 0
        kubelet.steps = (HEAD, chunk(PARTS[0]), chunk(PARTS[1]), LAST)
        assert await (await scrape(proxy)).end() == (True, TEXT)
        assert kubelet.asked == 2


async def test_the_first_scraper_leaves(front, scrape):
    """The read goes on for the others, and is kept."""
    gate = asyncio.Event()
    async with Gated(HEAD, chunk(PARTS[0]), gate, chunk(PARTS[1]), LAST) as kubelet:
        proxy = await front("--share-reads=60s", *kubelet.flags)
        first, second = await scrape(proxy), await scrape(proxy)
        await first.until_it_has(b"first{")
        await second.until_it_has(b"first{")
        first.go()

        async def gone():
            return await proxy.metric("kmproxy_scrapes_in_flight") == 1

        await until(gone)
        gate.set()
        assert await second.end() == (True, TEXT)
        assert await (await scrape(proxy)).end() == (True, TEXT)
        assert kubelet.asked == 1


@pytest.mark.parametrize("begun", [True, False])
async def test_a_read_that_nobody_waits_for_ends(front, scrape, begun):
    """The kubelet's connection is closed, and nothing of it is kept."""
    gate = asyncio.Event()
    steps = (HEAD, chunk(PARTS[0])) if begun else ()
    async with Gated(*steps, gate) as kubelet:
        proxy = await front("--share-reads=60s", *kubelet.flags)
        scrapes = [await scrape(proxy) for _ in range(2)]
        await joined(proxy, 1)
        for each in scrapes:
            each.go()
        async with asyncio.timeout(30):
            await kubelet.left.wait()
        assert await proxy.metric(KEPT) == 0
        assert await proxy.metric("kmproxy_scrapes_in_flight") == 0


async def test_each_scrape_has_its_own_time(front, scrape):
    """One that may not wait longer is 504; the read goes on for the one that may."""
    gate = asyncio.Event()
    async with Gated(HEAD, gate, chunk(PARTS[0]), chunk(PARTS[1]), LAST) as kubelet:
        proxy = await front("--share-reads=60s", *kubelet.flags)
        patient = await scrape(proxy, b"X-Prometheus-Scrape-Timeout-Seconds: 60\r\n")
        hasty = await scrape(proxy, b"X-Prometheus-Scrape-Timeout-Seconds: 0.2\r\n")
        await hasty.end()
        assert hasty.answer.startswith(b"HTTP/1.1 504 ")
        gate.set()
        assert await patient.end() == (True, TEXT)
        assert kubelet.asked == 1


async def test_a_read_has_the_longest_scrape_time(front, scrape):
    """It fails for those who still wait then, whenever they came."""
    async with Gated(HEAD, asyncio.Event()) as kubelet:
        proxy = await front("--share-reads=60s", "--max-scrape-time=500ms", *kubelet.flags)
        waiting = await scrape(proxy, b"X-Prometheus-Scrape-Timeout-Seconds: 60\r\n")
        await waiting.end()
        assert waiting.answer.startswith(b"HTTP/1.1 504 ")
        assert await proxy.metric(KEPT) == 0


async def test_a_read_that_is_too_old_is_not_joined(front, scrape, clock):
    """The age counts from its beginning, also while it is under way."""
    gate = asyncio.Event()
    async with Gated(HEAD, chunk(PARTS[0]), gate, chunk(PARTS[1]), LAST) as kubelet:
        proxy = await front("--share-reads=5s", *kubelet.flags, clock=clock)
        first = await scrape(proxy)
        await first.until_it_has(b"first{")
        clock.now += 5
        second = await scrape(proxy)
        await second.until_it_has(b"first{")
        assert kubelet.asked == 2
        gate.set()
        assert await first.end() == (True, TEXT)
        assert await second.end() == (True, TEXT)
        assert await (await scrape(proxy)).end() == (True, TEXT)
        assert kubelet.asked == 2


async def test_every_scrape_holds_a_slot(front, scrape):
    """Also one that joins a read: what it costs is work of ours, not of the kubelet."""
    gate = asyncio.Event()
    async with Gated(HEAD, chunk(PARTS[0]), gate, chunk(PARTS[1]), LAST) as kubelet:
        proxy = await front("--share-reads=60s", "--max-concurrency=1", *kubelet.flags)
        first = await scrape(proxy)
        await first.until_it_has(b"first{")
        second = await scrape(proxy, b"X-Prometheus-Scrape-Timeout-Seconds: 0.2\r\n")
        await second.end()
        assert second.answer.startswith(b"HTTP/1.1 503 ")
        gate.set()
        assert await first.end() == (True, TEXT)


async def test_a_slow_reader_holds_nobody_back(front, scrape):
    """Another gets the whole answer meanwhile; then the slow one gets it, too."""
    lines = b"".join(b'm{namespace="payments",n="%d"} 1 1\n' % n for n in range(100_000))
    (body,) = packed(lines)
    async with Gated(HEAD, chunk(body), LAST) as kubelet:
        proxy = await front("--share-reads=60s", *kubelet.flags)
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        with slow:
            await loop.sock_connect(slow, ("127.0.0.1", proxy.daemon.metrics_port))
            await loop.sock_sendall(slow, SCRAPE % b"")
            await loop.sock_recv(slow, 100)
            others = [await scrape(proxy) for _ in range(2)]
            whole, text = await others[0].end()
            assert whole
            assert text.count(b"\n") == 100_000
            assert await others[1].end() == (True, text)
            assert await proxy.metric("kmproxy_scrapes_in_flight") == 1
            tail = b""
            while data := await loop.sock_recv(slow, 1 << 16):
                tail = (tail + data)[-100:]
        assert tail.endswith(b"\r\n0\r\n\r\n")
        assert kubelet.asked == 1
