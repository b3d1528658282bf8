"""Credentials, redirects and proxies: a credential reaches only its intended server."""

from __future__ import annotations

import pytest

from kmproxy.client.upstream import Upstream
from kmproxy.config.proxies import Proxy
from kmproxy.config.types import Secret
from kmproxy.errors import UpstreamError
from tests.support.sites import ForwardProxy, Site, metrics, new_ca, redirect
from tests.support.upstreams import Nobody, fetch


async def test_a_redirect_is_not_followed(upstream, answering):
    """A redirect is returned like any other answer."""
    url, seen = await answering(b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n")
    assert await fetch(upstream, url) == (302, b"")
    assert len(seen) == 1


async def test_no_credential_over_plain_http(upstream, answering):
    """Plain HTTP gets no credential, and no cookie is returned."""
    url, seen = await answering(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    )
    assert await fetch(upstream, url) == (200, b"ok")
    assert await fetch(upstream, url) == (200, b"ok")
    assert b"planted-secret" not in b"".join(seen)
    assert b"cookie" not in b"".join(seen).lower()
    assert b"User-Agent: kmproxy/" in seen[0]


def test_repr_shows_no_credential():
    """The repr shows the identity without its credential."""
    assert "planted-secret" not in repr(Upstream("kubelet", None, Nobody(), None))


def known(seen):
    """The facts that a server learned about the client's identity."""
    return seen.headers.get("Authorization"), seen.headers.get("X-Extra"), seen.certificate


OURS = ("Bearer planted-secret", "planted-extra", "kmproxy")
NOBODY = (None, None, None)


async def test_a_scheme_in_capitals(ca, direct, upstream):
    """HTTPS in capitals is verified, and gets the credential."""
    async with Site(lambda _: metrics("ok"), ca) as site:
        url = site.url.replace("https", "HTTPS")
        assert await fetch(direct(), url) == (200, b"ok")
        assert known(site.seen[0])[0] == OURS[0]
        with pytest.raises(UpstreamError, match="certificate does not verify"):
            await fetch(upstream, url)
        assert len(site.seen) == 1


async def test_extra_headers(ca, direct):
    """All values are sent with the credential over TLS, and not over plain HTTP."""
    async with Site(lambda _: metrics("ok"), ca) as site, Site(lambda _: metrics("ok")) as plain:
        assert await fetch(direct(), site.url) == (200, b"ok")
        assert known(site.seen[0])[0] == OURS[0]
        assert await fetch(direct(), plain.url) == (200, b"ok")
    assert known(plain.seen[0]) == NOBODY


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_the_same_place(ca, direct, status):
    """A followed redirect to the same server carries the credential."""

    def answer(seen):
        return redirect("/there?x=1", status) if seen.path == "/here" else metrics("ok")

    async with Site(answer, ca) as site:
        assert await fetch(direct(follow=True), f"{site.url}/here") == (200, b"ok")
        assert [seen.path for seen in site.seen] == ["/here", "/there?x=1"]
        assert [known(seen)[0] for seen in site.seen] == [OURS[0]] * 2
        assert [seen.certificate for seen in site.seen] == ["kmproxy"] * 2
        assert (await fetch(direct(), f"{site.url}/here"))[0] == status


async def test_a_redirect_to_another_place(ca, direct):
    """Another port or name gets no token, header or certificate, nor do later servers."""

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
    """The configured server name is not required of a redirect's server."""
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
    """Plain HTTP, another scheme or a user in the URL is an error; nothing is sent."""
    async with Site(lambda _: redirect(location), ca) as site:
        with pytest.raises(UpstreamError, match="does not follow") as raised:
            await fetch(direct(follow=True), site.url)
        assert len(site.seen) == 1
    assert raised.value.reason == "redirect"


async def test_redirects_without_an_end(ca, direct):
    """The number of followed redirects is bounded."""
    async with Site(lambda seen: redirect(f"{seen.path}x"), ca) as site:
        with pytest.raises(UpstreamError, match="more than 5 times") as raised:
            await fetch(direct(follow=True), f"{site.url}/")
        assert len(site.seen) == 6
    assert raised.value.reason == "redirect"


async def test_a_post_is_not_redirected(ca, direct):
    """A POST is never redirected."""
    async with (
        Site(lambda _: redirect("/there", 307), ca) as site,
        direct(follow=True).post(f"{site.url}/here", b"{}") as response,
    ):
        assert response.status == 307
        assert len(site.seen) == 1


@pytest.mark.parametrize("over_tls", [False, True])
async def test_through_a_proxy(ca, direct, over_tls):
    """TLS goes through to the server. The proxy gets only the target and its own headers."""
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
    """A refused, unreachable or failing proxy has the reason `proxy`."""
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
    """The server's certificate is verified with the server's name."""
    async with (
        Site(lambda _: metrics("ok"), new_ca()) as site,
        ForwardProxy() as forward,
    ):
        with pytest.raises(UpstreamError, match="certificate does not verify") as raised:
            await fetch(direct(proxy=lambda _: Proxy(forward.url)), site.url)
    assert raised.value.reason == "tls"
