"""What SharedReads keeps, for which node, and in how many bytes; before real servers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import zlib
from contextlib import asynccontextmanager
from functools import partial

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from kmproxy.client.session import open_session
from kmproxy.client.tls import TlsContext, Trust
from kmproxy.client.upstream import Upstream
from kmproxy.config.sections import KubeletConfig
from kmproxy.errors import SlowClientError, UpstreamError
from kmproxy.kube.nodes import Node
from kmproxy.sources.cache import SHARED, SharedReadMetrics, SharedReads
from kmproxy.sources.endpoints import CADVISOR, ENDPOINTS, RESOURCE
from kmproxy.sources.kubelet import Kubelet
from kmproxy.sources.shared_read import WINDOW
from kmproxy.telemetry import CredentialErrors
from tests.conftest import until
from tests.support.gated import HEAD, LAST, Gated, chunk
from tests.support.sites import Site


@asynccontextmanager
async def sharing(port, clock, **options):
    """Shared reads of the kubelets of 127.0.0.1, and those kubelets without sharing."""
    config = KubeletConfig(scheme="http", node="127.0.0.1", port=port)
    registry = CollectorRegistry()
    tls = TlsContext(Trust, "CA", clock=clock, errors=CredentialErrors(registry))
    async with open_session() as session:
        kubelet = Kubelet(config, Upstream("kubelet", session, None, tls))
        given = {"max_age": 25.0, "room": 1 << 20, "longest": 60.0} | options
        metrics = SharedReadMetrics(registry)
        reads = SharedReads(kubelet, metrics=metrics, clock=clock, **given)
        reads.registry = registry
        try:
            yield reads, kubelet
        finally:
            await reads.close()


async def begun(server):
    """Whether a kubelet was asked."""
    return server.asked > 0


async def text(source, node, endpoint=CADVISOR):
    """The whole text of an endpoint."""
    async with source.fetch(node, endpoint) as exposition:
        return b"".join([piece async for piece in exposition.pieces])


def kept(reads):
    """The bytes that are counted as kept."""
    return reads.registry.get_sample_value("kmproxy_shared_read_bytes")


def packed(body):
    """A response in gzip."""
    headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
    return web.Response(body=zlib.compress(body, 1, 31), headers=headers)


def noise(seed, size):
    """Lines that gzip hardly makes smaller than half."""
    return random.Random(seed).randbytes(size // 2).hex().encode() + b" 1 1\n"


def of_path(size):
    """A kubelet's answer: noise of its own for each node of a node proxy."""
    return lambda seen: packed(noise(seen.path, size))


def node(name, port, **fields):
    """A node by its name, at a port of this machine."""
    return Node(name, "127.0.0.1", port, **fields)


def test_what_is_shared():
    """The endpoints whose samples bear timestamps, and no other."""
    assert {CADVISOR, RESOURCE} == SHARED
    assert set(ENDPOINTS) > SHARED


async def test_a_node_that_was_made_again_is_another_one(clock):
    """Also with the same name and address; and so is one whose address or port has changed."""
    async with (
        Site(lambda _: packed(b"m 1 1\n")) as site,
        Site(lambda _: packed(b"m 2 1\n")) as other,
        sharing(site.port, clock) as (reads, _),
    ):
        for uid in ("one", "two", "", None):
            for _ in range(2):
                assert await text(reads, node("n", site.port, uid=uid)) == b"m 1 1\n"
        assert len(site.seen) == 4
        assert await text(reads, node("n", other.port, uid="one")) == b"m 2 1\n"
        assert await text(reads, Node("n", "localhost", site.port, "one")) == b"m 1 1\n"
        assert (len(site.seen), len(other.seen)) == (5, 1)


async def test_the_read_used_least_recently_goes_first(clock):
    """All nodes together keep no more bytes than there is room; what was just used stays."""
    async with (
        Site(of_path(200_000)) as site,
        sharing(site.port, clock, room=300_000) as (reads, kubelet),
    ):
        kubelet._proxy = site.url
        names = ("a", "b", "c")
        texts = {name: await text(reads, node(name, 1)) for name in names}
        assert len(set(texts.values())) == 3
        assert len(site.seen) == 3
        assert 200_000 < kept(reads) <= 300_000

        async def asked_anew(name):
            before = len(site.seen)
            assert await text(reads, node(name, 1)) == texts[name]
            return len(site.seen) > before

        assert not await asked_anew("b")  # so that c is the one used least recently
        assert not await asked_anew("c")
        assert not await asked_anew("b")
        assert await asked_anew("a")
        assert not await asked_anew("b")
        assert await asked_anew("c")
        assert kept(reads) <= 300_000


async def test_many_small_answers_count_more_than_their_bytes(clock):
    """What the record of a read takes is a part of the bound."""
    async with (
        Site(lambda _: packed(b"")) as site,
        sharing(site.port, clock, room=50_000) as (reads, kubelet),
    ):
        kubelet._proxy = site.url
        for number in range(50):
            await text(reads, node(f"n{number}", 1))
        assert len(reads._reads) < 25
        assert 40_000 < kept(reads) <= 50_000


async def test_an_answer_larger_than_the_room(clock):
    """It is streamed to who asked, and not kept; the next one asks anew."""
    async with (
        Site(of_path(4_000_000)) as site,
        sharing(site.port, clock, room=500_000) as (reads, kubelet),
    ):
        expected = await text(kubelet, node("n", site.port))
        held = []
        for _ in range(2):
            async with reads.fetch(node("n", site.port), CADVISOR) as exposition:
                received = b""
                async for piece in exposition.pieces:
                    received += piece
                    held.append(kept(reads))
            assert received == expected
            assert kept(reads) == 0
        assert len(site.seen) == 3
        assert max(held) < 500_000 * 9 / 8 + 2 * WINDOW


async def test_a_large_answer_of_several_readers(clock, monkeypatch):
    """It waits for the slower one; one that takes nothing is cut off, and the others go on."""
    monkeypatch.setattr("kmproxy.sources.shared_read.LAG", 0.1)
    body = noise(1, 4_000_000)
    data = zlib.compress(body, 1, 31)
    half = len(data) // 2
    gate, end = asyncio.Event(), asyncio.Event()
    steps = (HEAD, chunk(data[:1000]), gate, chunk(data[1000:half]), end, chunk(data[half:]), LAST)
    async with Gated(*steps) as server, sharing(server.port, clock, room=300_000) as (reads, _):
        here = node("n", server.port)
        async with reads.fetch(here, CADVISOR) as slow, reads.fetch(here, CADVISOR) as late:
            stopped = aiter(slow.pieces)
            assert await anext(stopped)
            gate.set()
            first = asyncio.create_task(_all(late))
            end.set()
            assert await first == body
            with pytest.raises(SlowClientError):
                async for _ in stopped:
                    pass
        assert server.asked == 1
        assert kept(reads) == 0


async def test_a_single_slow_reader_is_waited_for(clock, monkeypatch):
    """Whatever it takes: only its own slot and time end it. The kubelet is held back meanwhile."""
    monkeypatch.setattr("kmproxy.sources.shared_read.LAG", 0.01)
    async with (
        Site(of_path(4_000_000)) as site,
        sharing(site.port, clock, room=300_000) as (reads, kubelet),
    ):
        expected = await text(kubelet, node("n", site.port))
        async with reads.fetch(node("n", site.port), CADVISOR) as exposition:
            received = await anext(aiter(exposition.pieces))
            await asyncio.sleep(0.2)
            assert kept(reads) < 300_000 * 9 / 8 + 2 * WINDOW
            received += await _all(exposition)
        assert received == expected


async def test_a_large_answer_leaves_a_small_one_alone(clock):
    """A read under way that fits is still shared while one that does not fit passes through."""
    gate = asyncio.Event()
    small = zlib.compress(b"small 1 1\n", 1, 31)
    async with (
        Gated(HEAD, chunk(small[:5]), gate, chunk(small[5:]), LAST) as server,
        Site(of_path(4_000_000)) as site,
        sharing(server.port, clock, room=300_000) as (reads, _),
    ):
        here = node("small", server.port)
        first = asyncio.create_task(text(reads, here))
        await until(partial(begun, server))
        await text(reads, node("large", site.port))
        second = asyncio.create_task(text(reads, here))
        await asyncio.sleep(0)
        gate.set()
        assert await asyncio.gather(first, second) == [b"small 1 1\n"] * 2
        assert server.asked == 1


async def test_one_reader_finds_the_damage_for_all(clock):
    """Whoever comes then asks anew, also while a slower reader has not come so far."""
    data = zlib.compress(noise(1, 300_000), 1, 31)
    async with (
        Gated(HEAD, chunk(data[:-8] + bytes(8)), LAST) as server,
        sharing(server.port, clock) as (reads, _),
    ):
        here = node("n", server.port)
        async with reads.fetch(here, CADVISOR) as slow:
            pieces = aiter(slow.pieces)
            assert await anext(pieces)
            with pytest.raises(UpstreamError, match="damaged"):
                await text(reads, here)
            server.steps = (HEAD, chunk(data), LAST)
            assert await text(reads, here) == noise(1, 300_000)
            with pytest.raises(UpstreamError, match="damaged"):
                async for _ in pieces:
                    pass
        assert server.asked == 2
        assert await text(reads, here) == noise(1, 300_000)
        assert server.asked == 2


async def test_a_read_does_not_outlive_the_longest_scrape(clock):
    """Whoever joins it, when and for how long: it fails with the status of a timeout."""
    async with (
        Gated(HEAD, asyncio.Event()) as server,
        sharing(server.port, clock, longest=0.3) as (reads, _),
    ):
        here = node("n", server.port)
        results = await asyncio.gather(
            *(text(reads, here) for _ in range(2)), return_exceptions=True
        )
        assert [(each.reason, each.status) for each in results] == [("timeout", 504)] * 2
        assert results[0] is not results[1]
        assert server.asked == 1


async def test_the_end_of_the_daemon_ends_a_read(clock):
    """It waits for no reader; who still takes its answer is told so."""
    async with (
        Gated(HEAD, asyncio.Event()) as server,
        sharing(server.port, clock) as (reads, _),
    ):
        async with asyncio.timeout(30), reads.fetch(node("n", server.port), CADVISOR) as waiting:
            await reads.close()
            await server.left.wait()
            with pytest.raises(UpstreamError, match="kmproxy is stopping"):
                await _all(waiting)
        assert kept(reads) == 0


async def test_an_unexpected_error_reaches_every_reader(clock):
    """A fault of our own is not waited for until the time is up, nor kept."""

    class Faulty:
        @asynccontextmanager
        async def open(self, *_):
            await asyncio.sleep(0.01)
            raise RuntimeError("a fault of our own")
            yield

    metrics = SharedReadMetrics(CollectorRegistry())
    reads = SharedReads(Faulty(), max_age=25.0, room=1, longest=60.0, metrics=metrics, clock=clock)
    results = await asyncio.gather(
        *(text(reads, node("n", 1)) for _ in range(2)), return_exceptions=True
    )
    assert [type(each) for each in results] == [RuntimeError] * 2
    assert not reads._reads
    await reads.close()


async def _all(exposition):
    return b"".join([piece async for piece in exposition.pieces])


@settings(max_examples=25, deadline=None)
@given(
    lines=st.lists(st.binary(max_size=300), max_size=30),
    repeat=st.integers(1, 200),
    gzipped=st.booleans(),
    cut=st.one_of(st.none(), st.integers(0, 4000)),
    room=st.sampled_from([1, 3000, 1 << 20]),
)
def test_shared_is_as_unshared(lines, repeat, gzipped, cut, room):
    """Each scrape gets the kubelet's text, or breaks where it would break without sharing."""
    body = b"\n".join(lines) * repeat
    data = zlib.compress(body, 1, 31) if gzipped else body
    pieces = [data[start : start + 997] for start in range(0, len(data), 997)]
    coding = b"" if gzipped else b"identity"
    head = HEAD.replace(b"gzip", coding) if coding else HEAD
    sent = [head, *map(chunk, pieces), LAST]
    if cut is not None:
        sent = [b"".join(sent)[: len(head) + cut], None]

    async def outcome(source, here):
        received = b""
        with contextlib.suppress(UpstreamError):
            async with source.fetch(here, CADVISOR) as exposition:
                async for piece in exposition.pieces:
                    received += piece
            return received
        return None

    async def run():
        async with (
            Gated(*sent) as server,
            sharing(server.port, lambda: 0.0, room=room) as (reads, kubelet),
        ):
            here = node("n", server.port)
            alone = await outcome(kubelet, here)
            assert alone in {body, None}
            together = await asyncio.gather(*(outcome(reads, here) for _ in range(3)))
            assert [*together, await outcome(reads, here)] == [alone] * 4

    asyncio.run(run())
