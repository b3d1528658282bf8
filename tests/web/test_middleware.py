"""Checks before routing: form, basic authentication and rate limits; and headers of answers."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp.test_utils import make_mocked_request

from kmproxy.config.web import RateLimit
from kmproxy.errors import ConfigError
from kmproxy.web.middleware import TokenBucket, basic_credentials
from tests.conftest import until
from tests.support.clients import KEPT, answers, connected
from tests.support.login import basic
from tests.support.tls import HASHES, write_config


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (basic("alice:secret"), ("alice", b"secret")),
        (basic("alice:a:b"), ("alice", b"a:b")),
        (basic(":"), ("", b"")),
        (basic("alice:é").replace("Basic", "bAsIc"), ("alice", "é".encode())),
        (basic("alice"), None),
        ("Basic !!!!", None),
        ("Basic", None),
        ("Bearer " + basic("alice:secret")[6:], None),
        ("", None),
        (None, None),
    ],
)
def test_basic_credentials(header, found):
    """A user and a password of RFC 7617, or None."""
    headers = {} if header is None else {"Authorization": header}
    assert basic_credentials(make_mocked_request("GET", "/", headers)) == found


def test_two_authorization_headers():
    """Two Authorization headers give no credentials."""
    request = make_mocked_request("GET", "/", [("Authorization", basic("alice:alice"))] * 2)
    assert basic_credentials(request) is None


def test_the_token_bucket():
    """A burst at once, then one request per interval, and never more than a burst."""
    now = [0.0]
    bucket = TokenBucket(RateLimit(interval=2.0, burst=3), lambda: now[0])
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now[0] = 1.9
    assert not bucket.take()
    now[0] = 2.0
    assert [bucket.take() for _ in range(2)] == [True, False]
    now[0] = 100.0
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def web(directory, document):
    """Write a web config; returns the flag that names it."""
    return f"--web-config-file={write_config(directory / 'web.yaml', document)}"


@pytest.mark.parametrize(
    ("auth", "status"),
    [
        (("alice", "alice"), 200),
        (("bob", "bob"), 200),
        (("alice", "bob"), 401),
        (("nobody", "alice"), 401),
        (None, 401),
    ],
)
@pytest.mark.parametrize("path", ["/metrics/probes", "/", "/no/such/path", "/%0a"])
async def test_basic_auth(front, cluster, tmp_path, auth, status, path):
    """A known user is served. Others are asked for a password on every path."""
    proxy = await front(web(tmp_path, {"basic_auth_users": HASHES}))
    headers = {"Authorization": basic(":".join(auth))} if auth else {}
    async with proxy.session.get(proxy.url + path, headers=headers) as response:
        if path in {"/no/such/path", "/%0a"} and status == 200:
            assert response.status == 404
            return
        assert response.status == status
        if status == 401:
            assert response.headers["WWW-Authenticate"] == "Basic"
            assert (await response.text()).count("\n") == 1
            assert await proxy.metric("kmproxy_refused_total", reason="password") == 1
    kubelet = cluster.kubelets["node-a"]
    assert len(kubelet.requests) == (1 if status == 200 and path != "/" else 0)
    assert all("Basic" not in record.headers["Authorization"] for record in kubelet.requests)


async def test_passwords_beside_tokens(front, tmp_path, caplog):
    """Users and token reviews need the same header: both together are refused."""
    flags = [web(tmp_path, {"basic_auth_users": HASHES}), "--authorization=kubernetes"]
    with pytest.raises(ConfigError, match="basic_auth_users makes no sense beside --authorization"):
        await front(*flags)
    web(tmp_path, {})
    proxy = await front(*flags)
    web(tmp_path, {"basic_auth_users": HASHES})

    async def told():
        assert (await proxy.get())[0] == 401  # a bearer token is needed
        return "makes no sense beside --authorization" in caplog.text

    await until(told)


async def test_a_user_who_is_taken_away(front, tmp_path):
    """A removed user is refused, on kept connections too, despite remembered passwords."""
    proxy = await front(web(tmp_path, {"basic_auth_users": HASHES}))
    alice = basic("alice:alice")
    assert (await proxy.get("/metrics/probes", Authorization=alice))[0] == 200
    web(tmp_path, {"basic_auth_users": {"bob": HASHES["bob"]}})

    async def gone():
        return (await proxy.get("/metrics/probes", Authorization=alice))[0] == 401

    await until(gone)
    assert (await proxy.get("/metrics/probes", Authorization=basic("bob:bob")))[0] == 200


async def test_a_flood_of_wrong_passwords(front, tmp_path):
    """Wrong passwords get 401 or 503, and a known user is served meanwhile."""
    proxy = await front(web(tmp_path, {"basic_auth_users": HASHES}))
    alice = basic("alice:alice")
    assert (await proxy.get("/metrics/probes", Authorization=alice))[0] == 200
    flood = [proxy.get("/", Authorization=basic(f"x:{number}")) for number in range(60)]
    tasks = [asyncio.create_task(each) for each in flood]
    await asyncio.sleep(0.1)
    assert (await proxy.get("/metrics/probes", Authorization=alice))[0] == 200
    statuses = {status for status, _ in await asyncio.gather(*tasks)}
    assert statuses == {401, 503}


async def test_headers(front, tmp_path):
    """The configured headers are on every answer: scrapes, pages, errors and refusals."""
    document = {
        "http_server_config": {
            "headers": {
                "X-Frame-Options": "deny",
                "X-Content-Type-Options": "nosniff",
                "X-XSS-Protection": "1; mode=block",
                "Strict-Transport-Security": "max-age=60",
                "Content-Security-Policy": "default-src 'none'",
            }
        },
        "basic_auth_users": HASHES,
    }
    proxy = await front(web(tmp_path, document))
    for path in ("/metrics/probes", "/", "/x"):
        for headers in ({"Authorization": basic("bob:bob")}, {}):
            async with proxy.session.get(proxy.url + path, headers=headers) as response:
                for name, value in document["http_server_config"]["headers"].items():
                    assert response.headers[name] == value
                assert response.headers["Server"] == "kmproxy"


async def test_a_rate_limit(front, tmp_path):
    """Requests over the limit get 429 before any password check."""
    document = {"rate_limit": {"interval": "1h", "burst": 2}, "basic_auth_users": HASHES}
    proxy = await front(web(tmp_path, document))
    statuses = [(await proxy.get("/", Authorization=basic("bob:bob")))[0] for _ in range(4)]
    assert statuses == [200, 200, 429, 429]
    assert await proxy.metric("kmproxy_refused_total", reason="rate") == 2


async def test_bcrypt_is_for_who_uses_it(front, tmp_path, monkeypatch):
    """Without users no password is compared, and no verifier is made."""
    monkeypatch.setitem(__import__("sys").modules, "kmproxy.web.passwords", None)
    proxy = await front(web(tmp_path, {}))
    assert (await proxy.get("/metrics/probes", Authorization=basic("x:y")))[0] == 200


REFUSED = {
    "absolute form": b"GET http://x/metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    "authority form": b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "asterisk form": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "websocket": b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\n\r\n",
    "h2c": b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"Upgrade: h2c\r\nHTTP2-Settings: \r\n\r\n",
    "tunnel to a path": b"CONNECT /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    "expect": b"GET /metrics HTTP/1.1\r\nHost: x\r\nExpect: x\r\n\r\n",
    "continue": b"POST /metrics HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
    b"Content-Length: 5\r\n\r\n",
    "expect of a tunnel": b"CONNECT /x/../y HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
    "HTTP/2": b"GET /metrics HTTP/2.0\r\nHost: x\r\n\r\n",
    "a body": b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    "chunks": b"GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED)
async def test_forms_that_no_scraper_sends(front, cluster, request_):
    """400 with one line, and the connection ends."""
    proxy = await front()
    answer, _ = await proxy.raw(request_)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == b"400"
    assert b"Server: kmproxy" in head
    assert body.count(b"\n") == 1
    assert await proxy.metric("kmproxy_refused_total", reason="form") == 1
    assert not cluster.kubelets["node-a"].requests


@pytest.mark.parametrize("port", ["metrics_port", "telemetry_port"])
async def test_both_ports_have_the_same_forms(front, port):
    """The telemetry port refuses the same forms."""
    proxy = await front()
    reader, writer = await asyncio.open_connection("127.0.0.1", getattr(proxy.daemon, port))
    writer.write(REFUSED["absolute form"])
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_a_kept_connection_is_used_again(front):
    """A well-formed request keeps the connection open."""
    proxy = await front()
    (connection,) = await connected(proxy, 1)
    for _ in range(5):
        assert await answers(connection)
    connection[1].write(KEPT[:-2] + b"Content-Length: 0\r\n\r\n")
    assert (await connection[0].readline()).startswith(b"HTTP/1.1 200")
    connection[1].close()


@pytest.mark.parametrize(
    ("listen", "document", "warns"),
    [
        ("0.0.0.0:0", None, True),
        (":0", None, True),
        ("127.0.0.1:0", None, False),
        ("0.0.0.0:0", {"basic_auth_users": HASHES}, False),
        ("0.0.0.0:0", {}, True),
    ],
)
async def test_a_warning_at_start(front, tmp_path, caplog, listen, document, warns):
    """One line if everybody who reaches the port may read."""
    flags = [] if document is None else [web(tmp_path, document)]
    await front(f"--listen={listen}", *flags)
    lines = [record for record in caplog.records if "can read every metric" in record.getMessage()]
    assert len(lines) == int(warns)
    assert all(record.levelname == "WARNING" for record in lines)
