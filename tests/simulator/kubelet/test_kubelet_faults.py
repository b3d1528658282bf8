"""Faults of the simulated kubelet: wrong, cut and endless answers, as a real kubelet sends them."""

import asyncio
import gzip
import re
import time
import zlib

import aiohttp
import pytest

from kmproxy.simulator.kubelet import Fault
from kmproxy.simulator.wire import HOST
from tests.conftest import until
from tests.support.kubelets import NOW, TEXT, fetch


async def raw(kubelet, path="/metrics/probes", *, connection="keep-alive", encoding="identity"):
    """Return head and body of the plain port's answer as bytes, and whether it was closed."""
    reader, writer = await asyncio.open_connection(HOST, int(kubelet.plain_url.rsplit(":", 1)[1]))
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: k\r\nConnection: {connection}\r\n"
        f"Accept-Encoding: {encoding}\r\n\r\n".encode()
    )
    received, closed = b"", False
    try:
        async with asyncio.timeout(30):
            while piece := await reader.read(65536):
                received += piece
            closed = True
    except TimeoutError:
        pass
    except ConnectionError:
        closed = True
    writer.close()
    head, _, body = received.partition(b"\r\n\r\n")
    return head.decode(), body, closed


def chunks(body):
    """Return the payload of chunked bytes, and whether the last chunk is there."""
    whole = b""
    while match := re.match(rb"([0-9a-f]+)\r\n", body):
        size, start = int(match[1], 16), match.end()
        if size == 0:
            return whole, True
        whole += body[start : start + size]
        body = body[start + size + 2 :]
    return whole, False


async def test_a_cut_list_of_pods(kubelet, session):
    """Faults hit the list of pods as what it is: JSON."""
    kubelet.fail(Fault.CUT_CONTENT_LENGTH, path="/pods")
    headers = {"Authorization": "Bearer good"}
    async with session.get(kubelet.url + "/pods", headers=headers) as answer:
        assert answer.headers["Content-Type"] == "application/json"
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_faults_are_for_a_path_and_a_number_of_times(kubelet, session):
    """A fault hits only its path, as often as asked; `recover` ends all."""
    kubelet.fail(Fault.STATUS, path="/metrics", times=1, status=503, body=b"no")
    assert kubelet.faults[0].status == 503
    assert (await fetch(session, kubelet.url + "/metrics/probes"))[0] == 200
    assert (await fetch(session, kubelet.url + "/metrics"))[::2] == (503, b"no")
    assert (await fetch(session, kubelet.url + "/metrics"))[0] == 200
    kubelet.fail(Fault.EMPTY)
    kubelet.recover()
    assert (await fetch(session, kubelet.url + "/metrics"))[2]


@pytest.mark.parametrize(
    ("fault", "needs", "status", "header", "body"),
    [
        (
            Fault.BODY,
            {"body": b"a 1\n", "content_type": "x/y"},
            200,
            ("Content-Type", "x/y"),
            b"a 1\n",
        ),
        (Fault.HTML, {}, 200, ("Content-Type", "text/html; charset=utf-8"), b"<html>"),
        (Fault.EMPTY, {}, 200, ("Content-Type", TEXT), b""),
        (Fault.REDIRECT, {"location": "http://x/"}, 302, ("Location", "http://x/"), b""),
        (Fault.GARBAGE_GZIP, {}, 200, ("Content-Encoding", "gzip"), b"\x1f\x8b\x08\x00garbage"),
    ],
)
async def test_wrong_answers_in_right_framing(kubelet, session, fault, needs, status, header, body):
    """These faults are complete answers of the wrong kind."""
    kubelet.fail(fault, **needs)
    got, headers, content = await fetch(session, kubelet.url + "/metrics")
    assert (got, headers[header[0]]) == (status, header[1])
    assert content.startswith(body)
    assert bool(content) == bool(body)


async def test_protobuf_fault(kubelet, session):
    """The protobuf fault answers protobuf to a client that asked for text."""
    kubelet.fail(Fault.PROTOBUF)
    _, headers, _ = await fetch(session, kubelet.url + "/metrics", Accept="text/plain")
    assert headers["Content-Type"].startswith("application/vnd.google.protobuf;")


async def test_gzip_faults(kubelet, session):
    """A cut gzip stream has no end, one with garbage behind it has; both are framed well."""
    kubelet.fail(Fault.CUT_GZIP, times=1)
    unpack = zlib.decompressobj(31)
    unpack.decompress((await fetch(session, kubelet.url + "/metrics"))[2])
    assert not unpack.eof
    kubelet.fail(Fault.GZIP_TRAILING_GARBAGE, times=1)
    unpack = zlib.decompressobj(31)
    text = unpack.decompress((await fetch(session, kubelet.url + "/metrics"))[2])
    assert (unpack.eof, unpack.unused_data) == (True, b"garbage")
    assert text == kubelet.metrics.text("/metrics", NOW)


async def test_bomb_is_small_and_becomes_large(kubelet, session):
    """The bomb is a valid gzip stream hundreds of times its size."""
    kubelet.fail(Fault.BOMB, size=32 * 1024 * 1024)
    _, _, packed = await fetch(session, kubelet.url + "/metrics/cadvisor")
    text = gzip.decompress(packed)
    assert len(text) >= 32 * 1024 * 1024 > 200 * len(packed)
    assert set(text.splitlines()) == {b"zero_bytes 0"}


async def test_cut_chunked(kubelet):
    """The connection ends in a chunked body, without the last chunk."""
    kubelet.fail(Fault.CUT_CHUNKED, after=100)
    head, body, closed = await raw(kubelet)
    assert "Transfer-Encoding: chunked" in head
    assert chunks(body) == (kubelet.metrics.text("/metrics/probes", NOW)[:100], False)
    assert closed


async def test_cut_content_length(kubelet):
    """The connection ends before the announced length; half of the body by default."""
    kubelet.fail(Fault.CUT_CONTENT_LENGTH)
    head, body, closed = await raw(kubelet)
    text = kubelet.metrics.text("/metrics/probes", NOW)
    assert f"Content-Length: {len(text)}" in head
    assert (body, closed) == (text[: len(text) // 2], True)


async def test_cut_of_an_encoded_body(kubelet):
    """A client that accepts gzip gets the broken body as gzip."""
    kubelet.fail(Fault.CUT_CHUNKED)
    head, body, _ = await raw(kubelet, encoding="gzip")
    assert "Content-Encoding: gzip" in head
    assert kubelet.metrics.text("/metrics/probes", NOW).startswith(
        zlib.decompressobj(31).decompress(chunks(body)[0])
    )


@pytest.mark.parametrize("after", [None, 50])
async def test_no_framing(kubelet, after):
    """A body with neither length nor chunks ends with the connection, complete or not."""
    kubelet.fail(Fault.NO_FRAMING, after=after)
    head, body, closed = await raw(kubelet)
    assert "Content-Length" not in head
    assert "Transfer-Encoding" not in head
    assert (body, closed) == (kubelet.metrics.text("/metrics/probes", NOW)[:after], True)


async def test_no_content_type(kubelet):
    """The answer is complete but for its Content-Type."""
    kubelet.fail(Fault.NO_CONTENT_TYPE)
    head, body, _ = await raw(kubelet, connection="close")
    assert head.startswith("HTTP/1.1 200 OK")
    assert "Content-Type" not in head
    assert body == kubelet.metrics.text("/metrics/probes", NOW)


async def test_disconnect(kubelet):
    """The connection ends before a byte of the answer."""
    kubelet.fail(Fault.DISCONNECT)
    assert await raw(kubelet) == ("", b"", True)


async def test_close_after(kubelet):
    """A complete answer that does not say so is followed by the end of the connection."""
    kubelet.fail(Fault.CLOSE_AFTER)
    head, body, closed = await raw(kubelet)
    assert "Connection" not in head
    assert (body, closed) == (kubelet.metrics.text("/metrics/probes", NOW), True)


@pytest.mark.parametrize(
    ("fault", "size"), [(Fault.HANG_BEFORE_HEADERS, 0), (Fault.HANG_IN_BODY, 64)]
)
async def test_hangs(kubelet, fault, size):
    """A hang keeps the connection and says nothing more; the kubelet still stops at once."""
    kubelet.fail(fault, after=64)
    waiting = asyncio.create_task(raw(kubelet))
    await until(lambda: asyncio.sleep(0, kubelet.requests))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    async with asyncio.timeout(10):
        await kubelet.stop()
    _, body, closed = await waiting
    assert (len(chunks(body)[0]), closed) == (size, True)


async def test_slow(kubelet):
    """A slow body trickles, and ends well."""
    text = kubelet.metrics.text("/metrics/probes", NOW)
    kubelet.fail(Fault.SLOW, rate=len(text) * 10)
    started = time.monotonic()
    _, body, _ = await raw(kubelet, connection="close")
    assert time.monotonic() - started >= 0.1
    assert chunks(body) == (text, True)
