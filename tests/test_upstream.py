"""What a failed request is called, and what is never done on the way."""

from __future__ import annotations

import asyncio

import pytest

from kmproxy.errors import UpstreamError
from kmproxy.identity import Identity
from kmproxy.telemetry import Telemetry
from kmproxy.tls import TlsContext, Trust
from kmproxy.upstream import Upstream, open_session


class Nobody(Identity):
    """An identity without credentials."""

    server = "http://127.0.0.1"

    @property
    def trust(self):
        return Trust()

    async def authorization(self, *, anew=False):  # noqa: ARG002 - it always says the same
        return "Bearer planted-secret"


@pytest.fixture
async def upstream():
    """A way to anything on plain http."""
    tls = TlsContext(Trust, "CA", clock=lambda: 0.0, telemetry=Telemetry())
    async with open_session() as session:
        yield Upstream("kubelet", session, Nobody(), tls)


@pytest.fixture
async def answering():
    """A function that starts a server which answers each request with these bytes, and hangs up."""
    servers = []
    seen = []

    async def start(*answers):
        async def handle(reader, writer):
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answers[min(len(seen), len(answers)) - 1])
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x", seen

    yield start
    for server in servers:
        server.close()


async def fetch(upstream, url, **options):
    """Status and body of a GET."""
    async with upstream.get(url, accept="text/plain", **options) as response:
        return response.status, b"".join([piece async for piece in upstream.pieces(response)])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "disconnected"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "truncated"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "truncated"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "protocol"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20000 + b"\r\n\r\n", "protocol"),
    ],
)
async def test_failures(upstream, answering, answer, reason):
    """Every failure of a connection has a word, and a line that shows nothing of the answer."""
    url, _ = await answering(answer)
    with pytest.raises(UpstreamError) as raised:
        await fetch(upstream, url)
    assert raised.value.reason == reason
    assert str(raised.value).startswith("the kubelet")
    assert "abc" not in str(raised.value)
    assert "SSH" not in str(raised.value)


async def test_silence(upstream):
    """A server that says nothing for too long has timed out."""

    async def handle(reader, writer):
        await reader.read()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(UpstreamError) as raised:
            await fetch(upstream, url, silence=0.05)
    assert (raised.value.reason, raised.value.status) == ("timeout", 504)


async def test_a_redirect_is_not_followed(upstream, answering):
    """It is an answer like any other."""
    url, seen = await answering(b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n")
    assert await fetch(upstream, url) == (302, b"")
    assert len(seen) == 1


async def test_no_credential_over_plain_http(upstream, answering):
    """Plain http gets none, and no cookie comes back."""
    url, seen = await answering(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    )
    assert await fetch(upstream, url) == (200, b"ok")
    assert await fetch(upstream, url) == (200, b"ok")
    assert b"planted-secret" not in b"".join(seen)
    assert b"cookie" not in b"".join(seen).lower()
    assert b"User-Agent: kmproxy/" in seen[0]


async def test_gzip_is_not_decoded_here(upstream, answering):
    """The body comes as it was sent: whose end must be proven is for others to decode."""
    url, _ = await answering(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nxyz"
    )
    assert await fetch(upstream, url) == (200, b"xyz")


def test_repr_shows_no_credential():
    """Who asks is shown, not what with."""
    assert "planted-secret" not in repr(Upstream("kubelet", None, Nobody(), None))
