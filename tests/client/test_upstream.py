"""What a failed request is called, and what is never done on the way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time

import pytest

from kmproxy.client.session import open_session
from kmproxy.client.tls import TlsContext, Trust
from kmproxy.client.upstream import Upstream
from kmproxy.config.proxies import Proxy
from kmproxy.config.types import Secret
from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.errors import UpstreamError
from kmproxy.kube.identity import Identity
from kmproxy.process import TLS_BUFFER, bound_tls_buffers
from tests.conftest import until
from tests.support.sites import ForwardProxy, Site, metrics, new_ca, pem_of, redirect


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
    tls = TlsContext(Trust, "CA", clock=lambda: 0.0, errors=OwnMetrics().credential_errors)
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


@contextlib.asynccontextmanager
async def serving(handle):
    """A server whose connections are left to `handle`; yields its URL."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()  # not awaited: from 3.12 on that takes until the client's connections end


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


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        (b"", None),
        (HEAD, None),
        (HEAD + b"3\r\nabc\r\n", None),
        # Into a stream that has begun, as a proxy on the way does when it loses its server.
        (HEAD + b"3\r\nabc\r\n", b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
        (HEAD + b"3\r\nabc\r\n", b"3\r\nabcXX"),
    ],
)
async def test_silence(upstream, begins, goes_on):
    """A server that says nothing that makes sense for too long has timed out."""
    came, begun, over = [], asyncio.Event(), asyncio.Event()

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begins)
        if goes_on:
            await begun.wait()
            writer.write(goes_on)
            await writer.drain()
        else:
            await over.wait()
        writer.close()

    async def read():
        async with upstream.get(url, accept="text/plain", silence=0.5) as response:
            async for piece in upstream.pieces(response, silence=0.5):
                came.append(piece)
                begun.set()

    async with serving(handle) as url:
        with pytest.raises(UpstreamError) as raised:
            await asyncio.wait_for(read(), 30)
        over.set()
    assert (raised.value.reason, raised.value.status) == ("timeout", 504)
    assert b"".join(came).startswith(b"abc" if b"abc" in begins else b"")


@pytest.mark.parametrize(
    "wrong",
    [
        b"zz\r\n",
        b"3\r\nabcXX",
        b"-3\r\nabc\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"0\r\nno trailer\r\n\r\n",
    ],
)
@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("busy", [False, True])
async def test_wrong_framing(upstream, monkeypatch, wrong, closes, busy):
    """What comes in the place of a chunk ends the answer, with no time limit at all.

    Whether it comes while the next piece is waited for, or while the last is worked on.
    """
    monkeypatch.setattr("kmproxy.client.upstream.TICK", 0.02)
    begun, over = asyncio.Event(), asyncio.Event()

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"3\r\nabc\r\n")
        await begun.wait()
        writer.write(wrong)
        if not closes:
            await over.wait()
        writer.close()

    async def read():
        async with upstream.get(url, accept="text/plain") as response:

            async def given_up():
                return response.connection.transport is None

            async for _ in upstream.pieces(response):
                begun.set()
                if busy:
                    await until(given_up)

    async with serving(handle) as url:
        with pytest.raises(UpstreamError) as raised:
            await asyncio.wait_for(read(), 30)
        over.set()
    assert raised.value.reason in {"truncated", "protocol"}


async def test_an_end_at_the_moment_of_a_look(upstream, monkeypatch):
    """A connection that has just been given back, as all has come, is not one that was lost."""
    monkeypatch.setattr("kmproxy.client.upstream.TICK", 0.05)
    begun, over = asyncio.Event(), asyncio.Event()

    def end(writer):
        writer.write(b"3\r\ndef\r\n0\r\n\r\n")
        time.sleep(0.1)  # so that the loop finds both at once: what has come, and that it is time

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"3\r\nabc\r\n")
        await begun.wait()
        end(writer)
        await over.wait()
        writer.close()

    async with serving(handle) as url, upstream.get(url, accept="text/plain") as response:
        came = []
        async for piece in upstream.pieces(response):
            came.append(piece)
            begun.set()
        over.set()
    assert b"".join(came) == b"abcdef"


async def test_a_pause_is_no_end(upstream, monkeypatch):
    """Looks at the connection in between take nothing from an answer that only comes slowly."""
    monkeypatch.setattr("kmproxy.client.upstream.TICK", 0.01)

    async def handle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        for _ in range(5):
            await asyncio.sleep(0.05)
            writer.write(b"3\r\nabc\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"0\r\n\r\n")
        writer.close()

    async with serving(handle) as url:
        assert await fetch(upstream, url) == (200, b"abc" * 5)


async def test_a_server_whose_packets_are_lost(upstream, monkeypatch):
    """A connection that does not come about is given up long before the silence is too long."""
    monkeypatch.setattr("kmproxy.client.upstream.CONNECT", 0.2)
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # a full backlog: the next SYN is dropped
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/"
        with pytest.raises(UpstreamError) as raised:
            async with asyncio.timeout(60), upstream.get(url, accept="*/*", silence=80.0):
                pass
    assert raised.value.reason == "timeout"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("idle", [1, 2, 5])
async def test_connections_that_died_meanwhile(upstream, method, idle):
    """However many kept connections turn out to be dead, the request goes out by a new one."""
    served, together, connections = [], asyncio.Barrier(idle), []

    async def handle(reader, writer):
        connections.append(writer)
        number = len(connections)
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(2 if method == "POST" else 0)
                if served.count(number) and number <= idle:
                    break
                served.append(number)
                if number <= idle:
                    await together.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    async def ask():
        if method == "GET":
            return await fetch(upstream, url)
        async with upstream.post(url, b"{}") as response:
            return response.status, b"".join([piece async for piece in upstream.pieces(response)])

    async with serving(handle) as url:
        assert await asyncio.gather(*(ask() for _ in range(idle))) == [(200, b"ok")] * idle
        assert await ask() == (200, b"ok")
        assert await ask() == (200, b"ok")
    assert served == [*served[:idle], idle + 1, idle + 1]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_nobody_asked_for(upstream, method):
    """An answer that came before its question is of no connection that is used again."""
    connections, asked, said = [], asyncio.Event(), asyncio.Event()

    async def handle(reader, writer):
        connections.append(writer)
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n%03d"
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(2 if method == "POST" else 0)
                writer.write(answer % len(connections))
                await writer.drain()
                if len(connections) == 1:
                    await asked.wait()
                    writer.write(answer % 999)
                    said.set()
        writer.close()

    async def ask():
        if method == "GET":
            return (await fetch(upstream, url))[1]
        async with upstream.post(url, b"{}") as response:
            return b"".join([piece async for piece in upstream.pieces(response)])

    async with serving(handle) as url:
        assert await ask() == b"001"
        asked.set()
        await said.wait()
        for _ in range(10):
            await asyncio.sleep(0)  # it is on its way within this process
        assert await ask() == b"002"
        assert await ask() == b"002"


async def test_a_server_that_died(upstream):
    """Behind the dead connection is nothing alive: that is the end of it."""
    connections = []

    async def handle(reader, writer):
        connections.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        if len(connections) == 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with serving(handle) as url:
        assert await fetch(upstream, url) == (200, b"ok")
        with pytest.raises(UpstreamError, match="closed the connection"):
            await asyncio.wait_for(fetch(upstream, url), 30)
    assert len(connections) == 2


async def test_a_server_that_only_hangs_up(upstream, answering):
    """It is asked once more, which is aiohttp's doing, and not for ever."""
    url, seen = await answering(b"")
    with pytest.raises(UpstreamError):
        await fetch(upstream, url)
    assert len(seen) == 2


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
async def test_a_host_name_that_cannot_be_one(upstream, host):
    """It is known to nobody."""
    with pytest.raises(UpstreamError, match="the kubelet's host name") as raised:
        await fetch(upstream, f"http://{host}/")
    assert raised.value.reason == "unresolved"


@pytest.mark.parametrize("through", [False, True])
async def test_silence_before_tls(upstream, direct, through):
    """A handshake, and the answer of a proxy, have no more time than the rest."""
    over = asyncio.Event()

    async def handle(_, writer):
        await over.wait()
        writer.close()

    async with serving(handle) as url:
        proxied = direct(proxy=lambda _: Proxy(url.rstrip("/")))
        asked = fetch(proxied if through else upstream, url.replace("http", "https"), silence=0.1)
        with pytest.raises(UpstreamError) as raised:
            await asyncio.wait_for(asked, 30)
        over.set()
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


@pytest.fixture
def ca():
    """The CA of the test's own servers."""
    return new_ca()


@pytest.fixture
async def direct(ca):
    """A function that makes a way to those servers, as an identity with a certificate."""
    trust = Trust(
        Secret(ca.cert_pem.bytes().decode()),
        *(Secret(part.decode()) for part in pem_of(ca.issue_cert("x", common_name="kmproxy"))),
    )
    errors = OwnMetrics().credential_errors
    contexts = [
        TlsContext(lambda each=each: each, "CA", clock=lambda: 0.0, errors=errors)
        for each in (trust, Trust(trust.ca))
    ]
    async with open_session() as session:

        def make(*, follow=False, **options):
            elsewhere = contexts[1] if follow else None
            headers = (("X-Extra", Secret("planted-extra")), ("X-Extra", Secret("two")))
            return Upstream(
                "kubelet", session, Nobody(), contexts[0], elsewhere=elsewhere,
                **{"headers": headers} | options,
            )  # fmt: skip

        yield make


def known(seen):
    """What a server learns of who we are."""
    return seen.headers.get("Authorization"), seen.headers.get("X-Extra"), seen.certificate


OURS = ("Bearer planted-secret", "planted-extra", "kmproxy")
NOBODY = (None, None, None)


async def test_a_scheme_in_capitals(ca, direct, upstream):
    """It is https as well: verified, and asked as who we are."""
    async with Site(lambda _: metrics("ok"), ca) as site:
        url = site.url.replace("https", "HTTPS")
        assert await fetch(direct(), url) == (200, b"ok")
        assert known(site.seen[0])[0] == OURS[0]
        with pytest.raises(UpstreamError, match="certificate does not verify"):
            await fetch(upstream, url)
        assert len(site.seen) == 1


async def test_extra_headers(ca, direct):
    """They are sent with the credential over TLS, all values of them, and not over plain http."""
    async with Site(lambda _: metrics("ok"), ca) as site, Site(lambda _: metrics("ok")) as plain:
        assert await fetch(direct(), site.url) == (200, b"ok")
        assert known(site.seen[0])[0] == OURS[0]
        assert await fetch(direct(), plain.url) == (200, b"ok")
    assert known(plain.seen[0]) == NOBODY


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_the_same_place(ca, direct, status):
    """It is followed as who we are, where that is wanted."""

    def answer(seen):
        return redirect("/there?x=1", status) if seen.path == "/here" else metrics("ok")

    async with Site(answer, ca) as site:
        assert await fetch(direct(follow=True), f"{site.url}/here") == (200, b"ok")
        assert [seen.path for seen in site.seen] == ["/here", "/there?x=1"]
        assert [known(seen)[0] for seen in site.seen] == [OURS[0]] * 2
        assert [seen.certificate for seen in site.seen] == ["kmproxy"] * 2
        assert (await fetch(direct(), f"{site.url}/here"))[0] == status


async def test_a_redirect_to_another_place(ca, direct):
    """No token, header or certificate goes to another port or name, nor anywhere from there."""

    def lead_away(seen):
        if seen.path == "/start":
            return redirect(f"{other.url}/away")
        if seen.path == "/name":
            return redirect(f"https://localhost:{home.port}/end")
        return metrics("home")

    def lead_back(seen):
        if seen.path == "/away":
            return redirect("/further")
        return redirect(f"{home.url}/end") if seen.path == "/further" else metrics("other")

    async with Site(lead_away, ca) as home, Site(lead_back, ca) as other:
        assert await fetch(direct(follow=True), f"{home.url}/start") == (200, b"home")
        assert [known(seen) for seen in other.seen] == [NOBODY] * 2
        assert [known(seen)[0] for seen in home.seen] == [OURS[0], None]
        assert [known(seen)[2] for seen in home.seen] == ["kmproxy", None]
        home.seen.clear()
        assert await fetch(direct(follow=True), f"{home.url}/name") == (200, b"home")
        assert known(home.seen[1]) == NOBODY


async def test_the_name_of_another_place(ca, direct):
    """What the kubelet's certificate must bear is not asked of any other's."""
    async with (
        Site(lambda _: metrics("other"), ca) as other,
        Site(lambda _: redirect(other.url), ca, "node-x") as home,
    ):
        upstream = direct(follow=True, server_name=lambda: "node-x")
        assert await fetch(upstream, home.url) == (200, b"other")


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1:1/", "http:/x", "ftp://a/", "https://u:p@127.0.0.1/", "https://[", "https://a:x/", "file:///etc/passwd"],
)  # fmt: skip
async def test_a_redirect_to_nowhere_to_go(ca, direct, location):
    """Plain http, another scheme, or a user in the URL: an error, and nothing is sent."""
    async with Site(lambda _: redirect(location), ca) as site:
        with pytest.raises(UpstreamError, match="not followed") as raised:
            await fetch(direct(follow=True), site.url)
        assert len(site.seen) == 1
    assert raised.value.reason == "redirect"


async def test_redirects_without_an_end(ca, direct):
    """At most a few are followed."""
    async with Site(lambda seen: redirect(f"{seen.path}x"), ca) as site:
        with pytest.raises(UpstreamError, match="more than 5 times") as raised:
            await fetch(direct(follow=True), f"{site.url}/")
        assert len(site.seen) == 6
    assert raised.value.reason == "redirect"


async def test_a_post_is_not_redirected(ca, direct):
    """What is posted goes where it was meant to go."""
    async with (
        Site(lambda _: redirect("/there", 307), ca) as site,
        direct(follow=True).post(f"{site.url}/here", b"{}") as response,
    ):
        assert response.status == 307
        assert len(site.seen) == 1


@pytest.mark.parametrize("over_tls", [False, True])
async def test_through_a_proxy(ca, direct, over_tls):
    """TLS goes through it to the server itself; the proxy learns the target and its own headers."""
    async with (
        Site(lambda _: metrics("ok"), ca) as site,
        ForwardProxy(ca=ca if over_tls else None) as forward,
    ):
        headers = (
            ("Proxy-Authorization", Secret("Basic x")),
            ("X-A", Secret("1")),
            ("X-A", Secret("2")),
        )
        upstream = direct(proxy=lambda _: Proxy(forward.url, headers))
        for _ in range(2):
            assert await fetch(upstream, f"{site.url}/x") == (200, b"ok")
    assert known(site.seen[0])[0::2] == OURS[0::2]
    assert not {"X-A", "Proxy-Authorization"} & set(site.seen[0].headers)
    ((connect, told),) = forward.asked  # once: the connection is kept
    assert connect == f"CONNECT 127.0.0.1:{site.port}"
    assert {("Proxy-Authorization", "Basic x"), ("X-A", "1"), ("X-A", "2")} <= set(told)
    assert "planted" not in str(told)


async def test_a_proxy_that_fails(ca, direct):
    """Refused, unreachable or without the server behind it: the reason is `proxy`."""
    async with ForwardProxy(wants="Basic x") as forward:
        cases = {
            "wants a user and password (407)": (forward.url, "https://127.0.0.1:1/"),
            "at 127.0.0.1:1 cannot be reached": ("http://127.0.0.1:1", "https://127.0.0.1:2/"),
            "host name proxy.invalid is not known": ("http://proxy.invalid", "https://node-a/"),
        }
        for says, (proxy, url) in cases.items():
            with pytest.raises(UpstreamError, match="the proxy before the kubelet") as raised:
                await fetch(direct(proxy=lambda _, proxy=proxy: Proxy(proxy)), url)
            assert says in str(raised.value)
            assert raised.value.reason == "proxy"
    async with ForwardProxy() as forward:
        with pytest.raises(UpstreamError, match=r"does not connect \(502\)") as raised:
            await fetch(direct(proxy=lambda _: Proxy(forward.url)), "https://127.0.0.1:1/")
    assert raised.value.reason == "proxy"


async def test_the_certificate_behind_a_proxy(direct):
    """It is the server's that is verified, by the server's name."""
    async with (
        Site(lambda _: metrics("ok"), new_ca()) as site,
        ForwardProxy() as forward,
    ):
        with pytest.raises(UpstreamError, match="certificate does not verify") as raised:
            await fetch(direct(proxy=lambda _: Proxy(forward.url)), site.url)
    assert raised.value.reason == "tls"


async def test_a_tls_connection_holds_little(cluster):
    """What an idle connection to a kubelet costs is two records, not asyncio's 256 KiB."""
    bound_tls_buffers()
    kubelet = cluster.kubelets["node-a"]
    trust = ssl.create_default_context(cadata=cluster.ca_pem.decode())
    async with open_session():
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, kubelet.host, kubelet.port, ssl=trust
        )
        assert len(transport._ssl_protocol._ssl_buffer) == TLS_BUFFER < 1 << 16
        transport.abort()
