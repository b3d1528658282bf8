"""The wire level of the simulated servers: ports, framing, gzip, records, plans."""

import asyncio
import gzip
import ssl
import zlib

import aiohttp
import pytest
import trustme
from aiohttp import web

from kmproxy.simulator.wire import (
    HOST,
    PIECE,
    Listener,
    Payload,
    Plan,
    Raw,
    accepts_gzip,
    end_to_end,
    identify,
    is_secure,
    pack,
    record,
    relay,
    send,
    whole,
)
from tests.conftest import until


@pytest.fixture(scope="module")
def authority():
    """Make one certificate authority for all listeners here."""
    return trustme.CA()


@pytest.fixture
async def listen(authority):
    """A function that starts a listener with a handler."""
    running = []

    async def start(handler):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.configure_trust(context)
        authority.issue_cert(HOST).configure_cert(context)
        context.verify_mode = ssl.CERT_OPTIONAL
        listener = Listener(handler, context)
        running.append(listener)
        await listener.start()
        return listener

    yield start
    for listener in running:
        await listener.stop()


@pytest.fixture
async def session():
    """Make a client that does not decode bodies."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(auto_decompress=False, timeout=timeout) as made:
        yield made


def plain(listener):
    """The plain port of a listener, without a path."""
    return f"http://{HOST}:{listener.plain_port}"


async def fetch(session, url, **headers):
    """Return status, headers and body of an answer."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    async with session.get(url, headers=named) as answer:
        return answer.status, answer.headers, await answer.read()


def test_plan_counts_and_forgets():
    """The newest matching entry counts until it is used up. Then the older one does."""
    plan = Plan()
    plan.add(None, "always", None)
    plan.add("/a", "once", 1)
    assert [plan.take("/b"), plan.take("/a"), plan.take("/a")] == ["always", "once", "always"]
    assert plan.entries == ("always",)
    plan.clear()
    assert plan.take("/a") is None


async def test_both_ports_are_told_apart(listen, session, authority):
    """A request tells whether it came over TLS, and no answer has a Server header."""

    async def handler(request):
        return web.Response(text=str(is_secure(request)))

    listener = await listen(handler)
    _, headers, body = await fetch(session, plain(listener))
    assert body == b"False"
    assert "Server" not in headers
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(trust)
    async with session.get(f"https://{HOST}:{listener.port}", ssl=trust) as answer:
        assert await answer.read() == b"True"


async def test_who_asks(listen, session, authority):
    """A client certificate's common name has precedence over a bearer token. Others are unknown."""

    async def handler(request):
        return web.Response(text=str(identify(request, {"good": "ann"}.get)))

    listener = await listen(handler)
    for authorization, user in (
        ("Bearer good", b"ann"),
        ("bearer  good ", b"ann"),
        ("Bearer bad", b"None"),
        ("Basic good", b"None"),
        ("", b"None"),
    ):
        assert (await fetch(session, plain(listener), Authorization=authorization))[2] == user
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(trust)
    authority.issue_cert(common_name="bob").configure_cert(trust)
    headers = {"Authorization": "Bearer good"}
    url = f"https://{HOST}:{listener.port}"
    async with session.get(url, ssl=trust, headers=headers) as answer:
        assert await answer.read() == b"bob"


async def test_idle_connections_are_kept_for_90_seconds(listen, session):
    """A listener keeps an idle connection for 90 s."""

    async def handler(_):
        return web.Response()

    listener = await listen(handler)
    for _ in range(3):
        await fetch(session, plain(listener))
    server = listener._runner.server
    assert [each.keepalive_timeout for each in server.connections] == [90]


async def test_a_stop_is_quick_and_ends_everything(listen, session):
    """`closing` tells a waiting handler of the stop. A handler that goes on is cut."""
    come, told = [], []

    async def handler(request):
        come.append(request.path)
        if request.path == "/deaf":
            await asyncio.sleep(60)
        await listener.closing.wait()
        told.append(request.path)
        return web.Response()

    listener = await listen(handler)
    assert repr(listener) == f"<Listener {listener.port}/{listener.plain_port} up>"
    url = plain(listener)
    waiting = [asyncio.create_task(fetch(session, url + path)) for path in ("/", "/deaf")]
    await until(lambda: asyncio.sleep(0, len(come) == 2))
    async with asyncio.timeout(10):  # its clients would wait for longer
        await listener.stop()
        await listener.stop()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[1], aiohttp.ClientError)
    assert told == ["/"]
    assert repr(listener).endswith(" down>")
    with pytest.raises(aiohttp.ClientConnectorError):
        await fetch(session, url)


async def test_a_restart_is_on_the_same_ports(listen, session):
    """Both ports are kept, and `closing` is reset."""

    async def handler(_):
        return web.Response(text=str(listener.closing.is_set()))

    listener = await listen(handler)
    ports = listener.port, listener.plain_port
    await listener.stop()
    await listener.start()
    assert (listener.port, listener.plain_port) == ports
    assert (await fetch(session, plain(listener)))[2] == b"False"


async def test_records(listen, session):
    """A request is kept with query and headers. Over 10,000 the older half is dropped."""
    requests = [None] * 9_999

    async def handler(request):
        record(requests, request)
        return web.Response()

    listener = await listen(handler)
    await fetch(session, plain(listener) + "/a?b=c", X_Thing="1")
    assert (requests[-1].method, requests[-1].path) == ("GET", "/a?b=c")
    assert requests[-1].headers["x-thing"] == "1"
    assert len(requests) == 10_000
    await fetch(session, plain(listener) + "/d")
    assert len(requests) == 5_001
    assert [each.path for each in requests[-2:]] == ["/a?b=c", "/d"]


@pytest.mark.parametrize(("size", "length"), [(0, "0"), (2048, "2048"), (2049, None)])
async def test_small_bodies_have_a_length(listen, session, size, length):
    """A body of up to 2048 bytes comes with a Content-Length, a larger one in chunks."""
    body = b"x" * size

    async def handler(request):
        return await send(request, whole(body), {"X-Thing": "1"}, body)

    _, headers, received = await fetch(session, plain(await listen(handler)))
    assert (headers.get("Content-Length"), received) == (length, body)
    assert headers.get("Transfer-Encoding") == (None if length else "chunked")
    assert headers["X-Thing"] == "1"


async def test_raw_bytes_are_all_there_is(listen):
    """A raw answer has its own head, and ends the connection."""

    async def handler(_):
        return Raw(whole(b"HTTP/1.1 200 OK\r\n\r\nhalf"))

    listener = await listen(handler)
    reader, writer = await asyncio.open_connection(HOST, listener.plain_port)
    writer.write(b"GET / HTTP/1.1\r\nHost: k\r\n\r\n")
    assert await reader.read() == b"HTTP/1.1 200 OK\r\n\r\nhalf"
    writer.close()


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("broken", [False, True])
async def test_a_relayed_answer_ends_as_its_source_does(listen, session, length, broken):
    """Status, headers and framing are forwarded, and so is a broken end."""
    framing = "Content-Length: 4" if length else "Transfer-Encoding: chunked"
    body = b"body" if length else b"4\r\nbody\r\n0\r\n\r\n"
    head = f"HTTP/1.1 418 Teapot\r\nX-Thing: 1\r\nServer: s\r\n{framing}\r\n\r\n".encode()

    async def source(_):
        return Raw(whole(head + (body[:-2] if broken else body)))

    async def proxy(request):
        async with session.get(plain(behind)) as answer:
            return await relay(request, answer, {"X-More": "2"})

    behind, front = await listen(source), await listen(proxy)
    async with session.get(plain(front)) as answer:
        assert answer.status == 418
        assert (answer.headers["X-Thing"], answer.headers["X-More"]) == ("1", "2")
        assert answer.headers.get("Content-Length") == ("4" if length else None)
        assert "Server" not in answer.headers
        if broken:
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
        else:
            assert await answer.read() == b"body"


def test_headers_of_one_connection_are_not_passed_on():
    """Connection headers are left out in every spelling."""
    headers = {"connection": "close", "TRANSFER-ENCODING": "chunked", "Host": "k", "accept": "*/*"}
    assert end_to_end(headers) == {"accept": "*/*"}


@pytest.mark.parametrize(
    ("accept", "packed"),
    [
        ("gzip", True),
        ("deflate, gzip;q=1.0", True),
        ("zstd", False),
        ("deflate", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("", False),
    ],
)
async def test_who_takes_gzip(listen, session, accept, packed):
    """Only a client that names gzip with a quality over zero."""

    async def handler(request):
        return web.Response(text=str(accepts_gzip(request)))

    listener = await listen(handler)
    _, _, body = await fetch(session, plain(listener), Accept_Encoding=accept)
    assert body == str(packed).encode()


def test_gzip_has_no_time_in_it():
    """Equal bytes give equal gzip."""
    packed = pack(b"a 1\n" * 100)
    assert gzip.decompress(packed) == b"a 1\n" * 100
    assert packed[4:8] == bytes(4)


async def test_whole_bodies_come_in_pieces():
    """No piece is larger than `PIECE`, and together they are the body."""
    body = b"0123456789" * PIECE
    pieces = [piece async for piece in whole(body)]
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) == PIECE


async def test_a_payload_is_packed_once(tmp_path):
    """A payload is read unchanged, and its gzip is made once for all readers."""
    path = tmp_path / "payload.prom"
    path.write_bytes(b'x{namespace="default"} 1\n' * 10_000)
    payload = Payload(path)
    assert repr(payload) == "<Payload payload.prom>"

    async def read(**how):
        return b"".join([piece async for piece in payload.pieces(**how)])

    assert await read(packed=False) == path.read_bytes()
    first, second = await asyncio.gather(read(packed=True), read(packed=True))
    assert zlib.decompress(first, 31) == path.read_bytes()
    assert first == second
    payload.close()
    with pytest.raises(ValueError):
        await read(packed=True)
