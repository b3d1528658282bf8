"""OAuth2 tokens against a real endpoint: cached, renewed in time, one request at a time."""

from __future__ import annotations

import asyncio
import base64

import pytest
from aiohttp import web

from kmproxy.client.credentials import TOKEN_AGE, RotatingText, is_password
from kmproxy.client.oauth2 import PAUSE, SETTLED, ClientCredentials
from kmproxy.client.session import open_session
from kmproxy.client.tls import TlsContext, Trust
from kmproxy.client.upstream import Upstream
from kmproxy.config.http_options import OAuth2
from kmproxy.config.types import File, Secret
from kmproxy.errors import UpstreamError
from tests.conftest import credential_failures, until
from tests.support.sites import Site, new_ca


class Endpoint:
    """Answers of a token endpoint: token `t1`, `t2`, ... or as a test sets them."""

    def __init__(self):
        self.count = 0
        self.life = 3600
        self.secret = "p:ss w"
        self.by_header = True
        self.broken = None
        self.authorizer = asyncio.Event()
        self.authorizer.set()

    async def __call__(self, seen):
        await self.authorizer.wait()
        if self.broken is not None:
            return self.broken()
        given = (seen.form.get("client_id"), seen.form.get("client_secret"))
        if self.by_header:
            pair = f"my+client:{self.secret.replace(':', '%3A').replace(' ', '+')}"
            expected = "Basic " + base64.b64encode(pair.encode()).decode()
            good = seen.headers.get("Authorization") == expected and given == (None, None)
        else:
            good = given == ("my client", self.secret) and "Authorization" not in seen.headers
        if seen.form.get("grant_type") != "client_credentials" or not good:
            return web.json_response({"error": "invalid_client"}, status=401)
        self.count += 1
        answer = {"access_token": f"t{self.count}", "token_type": "bearer"}
        return web.json_response(answer | ({"expires_in": self.life} if self.life else {}))


@pytest.fixture
def endpoint():
    """A token endpoint without faults."""
    return Endpoint()


@pytest.fixture
async def site(endpoint):
    """The server of the token endpoint."""
    async with Site(endpoint, new_ca()) as running:
        yield running


@pytest.fixture
async def client(site, mount, clock, own_metrics):
    """A client of that endpoint, with its secret in a file."""
    mount.swap(secret="p:ss w\n")
    made = make(site, File(str(mount.path / "secret")), clock, own_metrics)
    async with open_session() as session:
        credential = made(session)
        yield credential
        await credential.close()


def make(site, source, clock, own_metrics, url=None, **more):
    """A function that makes a client of a site for a session."""

    def made(session):
        config = OAuth2("my client", source, url or f"{site.url}/token", **more)
        secret = RotatingText(
            source,
            "secret",
            is_password,
            credential="client_secret",
            clock=clock,
            errors=own_metrics.credential_errors,
        )
        trust = Trust(verify=False)
        tls = TlsContext(lambda: trust, "CA", clock=clock, errors=own_metrics.credential_errors)
        endpoint = Upstream("OAuth2 token endpoint", session, None, tls)
        return ClientCredentials(
            config, secret, endpoint, clock=clock, errors=own_metrics.credential_errors
        )

    return made


async def test_a_token_is_kept(client, site, clock):
    """A token is requested once, and renewed before its end. The old one is used meanwhile."""
    assert await client.authorization() == "Bearer t1"
    clock.now += 3600 - 301
    assert await client.authorization() == "Bearer t1"
    assert len(site.seen) == 1
    clock.now += 2
    assert await client.authorization() == "Bearer t1"

    async def renewed():
        return await client.authorization() == "Bearer t2"

    await until(renewed)
    assert len(site.seen) == 2


async def test_a_token_that_has_ended(client, site, clock):
    """An expired token is not used: requests wait for the new one."""
    assert await client.authorization() == "Bearer t1"
    clock.now += 3600
    assert await client.authorization() == "Bearer t2"


async def test_one_request_at_a_time(client, site, endpoint):
    """All waiting scrapes share one token request. A scrape that leaves does not stop it."""
    endpoint.authorizer.clear()
    waiting = [asyncio.create_task(client.authorization()) for _ in range(20)]
    await until(lambda: asyncio.sleep(0, len(site.seen)))
    waiting[0].cancel()
    endpoint.authorizer.set()
    assert await asyncio.gather(*waiting[1:]) == ["Bearer t1"] * 19
    assert len(site.seen) == 1


async def test_a_refused_token(client, site, clock):
    """A refused token is replaced at once, unless it is new: the next would be refused too."""
    assert await client.authorization() == "Bearer t1"
    assert await client.authorization(anew=True) == "Bearer t1"
    clock.now += SETTLED
    assert await client.authorization(anew=True) == "Bearer t2"
    assert len(site.seen) == 2


async def test_the_way_of_the_secret(client, site, endpoint, clock):
    """The secret is sent in the header first, then in the form. The accepted way is kept."""
    endpoint.by_header = False
    assert await client.authorization() == "Bearer t1"
    assert [("Authorization" in seen.headers) for seen in site.seen] == [True, False]
    clock.now += 3600
    assert await client.authorization() == "Bearer t2"
    assert "Authorization" not in site.seen[2].headers
    assert len(site.seen) == 3


async def test_a_secret_rotates(client, endpoint, mount, clock, own_metrics):
    """A new secret is used for a new token within a minute. A bad secret is not used."""
    assert await client.authorization() == "Bearer t1"
    endpoint.secret = "other"
    mount.swap(secret="")
    clock.now += TOKEN_AGE
    assert await client.authorization() == "Bearer t1"
    assert credential_failures(own_metrics, "client_secret") == 1
    mount.swap(secret="other")
    clock.now += TOKEN_AGE

    async def renewed():
        return await client.authorization() == "Bearer t2"

    await until(renewed)


async def test_scopes_and_parameters(site, clock, own_metrics):
    """Scopes and parameters are form fields."""
    params = (("audience", Secret("kubelet")),)
    made = make(
        site, Secret("p:ss w"), clock, own_metrics, scopes=("a", "b"), endpoint_params=params
    )
    async with open_session() as session:
        assert await made(session).authorization() == "Bearer t1"
    (seen,) = site.seen
    assert seen.form == {
        "grant_type": "client_credentials",
        "scope": "a b",
        "audience": "kubelet",
    }
    assert (seen.method, seen.path) == ("POST", "/token")


@pytest.mark.parametrize("life", [None, 0, "", "soon"])
async def test_a_token_without_an_end(client, site, endpoint, clock, life):
    """A token without an end is used until it is refused."""
    endpoint.life = life
    assert await client.authorization() == "Bearer t1"
    clock.now += 10**6
    assert await client.authorization() == "Bearer t1"
    assert await client.authorization(anew=True) == "Bearer t2"


async def test_an_end_as_text(client, endpoint, clock):
    """Some servers send the number as text."""
    endpoint.life = "60"
    assert await client.authorization() == "Bearer t1"
    clock.now += 60
    assert await client.authorization() == "Bearer t2"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda: web.Response(status=500, text="planted"), "answered 500,"),
        (lambda: web.json_response({"error": "invalid_scope"}, status=400), "answered 400 invalid_scope,"),
        (lambda: web.json_response({"error": "planted"}, status=401), "answered 401,"),
        (lambda: web.Response(status=302, headers={"Location": "/planted"}), "answered 302,"),
        (lambda: web.json_response({}), "answered 200,"),
        (lambda: web.json_response({"error": "invalid_client"}), "answered 200 invalid_client,"),
        (lambda: web.Response(text="planted"), "holds no token"),
        (lambda: web.json_response(["planted"]), "holds no token"),
        (lambda: web.json_response({"access_token": "planted\r\nx"}), "holds no valid token"),
        (lambda: web.json_response({"access_token": "planted", "token_type": "mac"}), "not a bearer token"),
        (lambda: web.Response(body=b"x" * (2 << 20)), "too long"),
        (lambda: web.Response(body=b'{"error":' + b"[" * 100_000), "holds no token"),
        (lambda: web.Response(status=400, body=b'{"error":' + b"[" * 100_000), "answered 400,"),
    ],
)  # fmt: skip
async def test_no_token(client, endpoint, own_metrics, caplog, answer, says):
    """Each failure has the reason `oauth2`, is counted and logged, and shows no answer."""
    endpoint.broken = answer
    with pytest.raises(UpstreamError) as raised:
        await client.authorization()
    assert raised.value.reason == "oauth2"
    assert says in str(raised.value)
    assert credential_failures(own_metrics, "oauth2") == 1
    assert says in caplog.text
    for text in (str(raised.value), caplog.text, repr(client)):
        assert "planted" not in text
        assert "p:ss" not in text


async def test_a_failure_is_not_repeated_at_once(client, site, endpoint, clock):
    """Many scrapes cause one request, then a pause. Later requests succeed again."""
    endpoint.broken = lambda: web.Response(status=500)
    for _ in range(5):
        with pytest.raises(UpstreamError, match="answered 500"):
            await client.authorization()
    assert len(site.seen) == 1
    endpoint.broken = None
    clock.now += PAUSE
    assert await client.authorization() == "Bearer t1"


async def test_a_good_token_outlives_a_failed_renewal(client, endpoint, clock, own_metrics):
    """A token is used until its end, and no longer."""
    assert await client.authorization() == "Bearer t1"
    endpoint.broken = lambda: web.Response(status=500)
    clock.now += 3600 - 60
    assert await client.authorization() == "Bearer t1"
    await until(lambda: asyncio.sleep(0, credential_failures(own_metrics, "oauth2")))
    assert await client.authorization() == "Bearer t1"
    clock.now += 60
    with pytest.raises(UpstreamError):
        await client.authorization()


def test_repr(site, clock, own_metrics):
    """The repr shows the client and the host, without path and query."""
    made = make(site, Secret("planted"), clock, own_metrics, url=f"{site.url}/planted?planted")
    assert repr(made(None)) == "<ClientCredentials my client at 127.0.0.1>"


async def test_an_endpoint_that_is_not_there(site, clock, own_metrics):
    """The error names the problem of the connection."""
    made = make(site, Secret("s"), clock, own_metrics, url="https://127.0.0.1:1/token")
    async with open_session() as session:
        with pytest.raises(UpstreamError, match="cannot be reached") as raised:
            await made(session).authorization()
    assert raised.value.reason == "oauth2"


@pytest.mark.parametrize("begins", [False, True])
async def test_an_endpoint_that_hangs(site, endpoint, clock, own_metrics, monkeypatch, begins):
    """A hanging request times out, before the answer or within it."""
    monkeypatch.setattr("kmproxy.client.oauth2.TIMEOUT", 0.2)

    async def trickle():
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    if begins:
        endpoint.broken = lambda: web.Response(body=trickle())
    else:
        endpoint.authorizer.clear()
    async with open_session() as session:
        client = make(site, Secret("s"), clock, own_metrics)(session)
        with pytest.raises(UpstreamError, match="no OAuth2 token: the ") as raised:
            await asyncio.wait_for(client.authorization(), 30)
    assert (raised.value.reason, raised.value.status) == ("oauth2", 504)
    endpoint.authorizer.set()


async def test_it_can_be_given_up(client, site, endpoint):
    """At the daemon's end a request is cancelled, and no task is left."""
    endpoint.authorizer.clear()
    waiting = asyncio.create_task(client.authorization())
    await until(lambda: asyncio.sleep(0, len(site.seen)))
    await client.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    endpoint.authorizer.set()
