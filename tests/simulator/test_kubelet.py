"""The simulated kubelet answers, and fails, on the wire as a real one does."""

import asyncio
import gzip
import json
import re
import ssl
import time
import zlib

import aiohttp
import pytest
import trustme

from kmproxy.simulator.cadvisor import simulate_node
from kmproxy.simulator.kubelet import Fault, SimKubelet
from kmproxy.simulator.wire import HOST, Payload
from tests.conftest import until

NOW = 1795208090.5
TEXT = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
GOOD = {"Authorization": "Bearer good", "Accept-Encoding": "identity"}
PROTOBUF = (
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; "
    "encoding=delimited; escaping=underscores"
)
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.fixture(scope="module")
def authority():
    """Make one certificate authority for all kubelets here."""
    return trustme.CA()


def context(authority, purpose, *, common_name=None):
    """Return a context of either side, with a certificate if it is a server or has a name."""
    made = ssl.SSLContext(purpose)
    authority.configure_trust(made)
    if purpose == ssl.PROTOCOL_TLS_SERVER or common_name:
        authority.issue_cert(HOST, common_name=common_name).configure_cert(made)
    if purpose == ssl.PROTOCOL_TLS_SERVER:
        made.verify_mode = ssl.CERT_OPTIONAL
    return made


def make(authority, **more):
    """Make a kubelet that knows two tokens; only the user of one may read metrics and pods."""
    return SimKubelet(
        simulate_node("node-a", ["default", "payments"], started=NOW - 3600),
        context(authority, ssl.PROTOCOL_TLS_SERVER),
        authenticate={"good": "prometheus", "weak": "nobody"}.get,
        authorize=lambda user, verb, resource: (
            user in ("prometheus", "by-certificate")
            and (verb, resource) in {("get", "nodes/metrics"), ("get", "nodes/pods")}
        ),
        clock=lambda: NOW,
        **more,
    )


@pytest.fixture
async def kubelet(authority):
    """Run a kubelet."""
    made = make(authority)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def session(authority):
    """Make a client that trusts the authority and leaves bodies as they come."""
    connector = aiohttp.TCPConnector(ssl=context(authority, ssl.PROTOCOL_TLS_CLIENT))
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(
        connector=connector, auto_decompress=False, timeout=timeout
    ) as made:
        yield made


async def fetch(session, url, *, method="GET", **headers):
    """Return status, headers and body of an answer."""
    given = GOOD | {key.replace("_", "-"): value for key, value in headers.items()}
    async with session.request(method, url, headers=given, allow_redirects=False) as answer:
        return answer.status, answer.headers, await answer.read()


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


@pytest.mark.parametrize("path", ["/metrics/cadvisor", "/metrics", "/metrics/resource"])
async def test_metrics_endpoints(kubelet, session, path):
    """Each endpoint serves its text, chunked because it is large, without a Server header."""
    status, headers, body = await fetch(session, kubelet.url + path)
    assert (status, headers["Content-Type"]) == (200, TEXT)
    assert headers["Transfer-Encoding"] == "chunked"
    assert "Server" not in headers
    assert body == kubelet.metrics.text(path, NOW)
    assert (await fetch(session, kubelet.plain_url + path))[::2] == (200, body)


async def test_small_bodies_have_a_length(authority, session):
    """A body of up to 2048 bytes comes with a Content-Length."""
    kubelet = make(authority)
    kubelet.node = simulate_node("empty", [])
    await kubelet.start()
    _, headers, body = await fetch(session, kubelet.url + "/metrics/probes")
    assert int(headers["Content-Length"]) == len(body)
    await kubelet.stop()


@pytest.mark.parametrize(
    ("accept", "packed"),
    [
        ("gzip", True),
        ("deflate, gzip;q=1.0", True),
        ("zstd", False),
        ("deflate", False),
        ("identity", False),
        ("gzip;q=0", False),
    ],
)
async def test_gzip_is_the_only_encoding(kubelet, session, accept, packed):
    """Only a client that accepts gzip gets an encoded body."""
    url = kubelet.url + "/metrics/cadvisor"
    _, headers, body = await fetch(session, url, Accept_Encoding=accept)
    assert headers.get("Content-Encoding") == ("gzip" if packed else None)
    text = gzip.decompress(body) if packed else body
    assert text == kubelet.metrics.text("/metrics/cadvisor", NOW)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        ("application/openmetrics-text;version=1.0.0", TEXT),
        ("application/json", TEXT),
        (PROMETHEUS, TEXT.replace("underscores", "allow-utf-8")),
        (
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;q=0.7,*/*",
            PROTOBUF,
        ),
    ],
)
async def test_content_type_follows_accept(kubelet, session, accept, kind):
    """The Content-Type is the one that a real kubelet answers to this Accept."""
    _, headers, _ = await fetch(session, kubelet.url + "/metrics/probes", Accept=accept)
    assert headers["Content-Type"] == kind


@pytest.mark.parametrize("authorization", ["Bearer wrong", "Basic good", ""])
async def test_unknown_callers(kubelet, session, authorization):
    """Who is not known gets 401, plain, without WWW-Authenticate."""
    url = kubelet.url + "/metrics"
    status, headers, body = await fetch(session, url, Authorization=authorization)
    assert (status, body) == (401, b"Unauthorized")
    assert "WWW-Authenticate" not in headers


@pytest.mark.parametrize(
    ("method", "path", "token", "told"),
    [
        ("GET", "/metrics/cadvisor", "weak", "user=nobody, verb=get, subresource(s)=[metrics]"),
        ("GET", "/pods", "weak", "user=nobody, verb=get, subresource(s)=[pods proxy]"),
        ("GET", "/exec/a/b/c", "good", "user=prometheus, verb=get, subresource(s)=[proxy]"),
        ("GET", "/nowhere", "good", "user=prometheus, verb=get, subresource(s)=[proxy]"),
        ("POST", "/metrics", "good", "user=prometheus, verb=create, subresource(s)=[metrics]"),
        ("HEAD", "/metrics", "good", ""),
    ],
)
async def test_forbidden_names_user_and_subresource(kubelet, session, method, path, token, told):
    """Who may not gets 403 with the user, the verb and the subresource; HEAD is no verb."""
    url = kubelet.url + path
    status, _, body = await fetch(session, url, method=method, Authorization=f"Bearer {token}")
    assert status == 403
    expected = told.replace("subresource", "resource=nodes, subresource")
    assert body.decode() == (f"Forbidden ({expected})\n" if told else "")


async def test_client_certificate(kubelet, authority):
    """A client certificate of the cluster's authority is an identity: its common name."""
    tls = context(authority, ssl.PROTOCOL_TLS_CLIENT, common_name="by-certificate")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
        async with session.get(kubelet.url + "/metrics") as answer:
            assert answer.status == 200
        async with session.get(kubelet.url + "/exec/a") as answer:
            assert "user=by-certificate" in await answer.text()


@pytest.mark.parametrize(
    ("path", "status"), [("/metrics/cadvisor/", 404), ("/nowhere", 404), ("/exec/a/b", 404)]
)
async def test_paths_of_the_read_only_port(kubelet, session, path, status):
    """A trailing slash is another path, and the read-only port cannot exec."""
    assert (await fetch(session, kubelet.plain_url + path))[0] == status


async def test_double_slash_redirects(kubelet, session):
    """A path with an empty segment is redirected to the clean one, before anything else."""
    reader, writer = await asyncio.open_connection(HOST, int(kubelet.plain_url.rsplit(":", 1)[1]))
    writer.write(b"GET //metrics/cadvisor HTTP/1.1\r\nHost: k\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 307 ")
    assert b"\r\nLocation: /metrics/cadvisor\r\n" in answer


async def test_pods_agree_with_the_metrics(kubelet, session):
    """`/pods` lists the pods of the cAdvisor rows; JSON, never gzip, 406 when not wanted."""
    url = kubelet.url + "/pods"
    status, headers, body = await fetch(session, url, Accept_Encoding="gzip")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert "Content-Encoding" not in headers
    pods = json.loads(body)["items"]
    text = kubelet.metrics.text("/metrics/cadvisor", NOW).decode()
    assert len(pods) == 6
    for pod in pods:
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        assert f'namespace="{namespace}",pod="{name}"' in text
        assert pod["spec"]["nodeName"] == "node-a"
        for container in pod["status"]["containerStatuses"]:
            assert container["containerID"].removeprefix("containerd://") in text
    assert (await fetch(session, url, Accept="text/plain"))[0] == 406


@pytest.mark.parametrize(
    ("version", "told"),
    [((1, 32), "[proxy]"), ((1, 33), "[pods proxy]"), ((1, 36), "[pods proxy]")],
)
async def test_fine_grained_permissions(kubelet, session, version, told):
    """From 1.33 on `/pods` has a permission of its own, before that it takes `nodes/proxy`."""
    kubelet.version = version
    _, _, body = await fetch(session, kubelet.url + "/pods", Authorization="Bearer weak")
    assert body.decode().endswith(f"subresource(s)={told})\n")
    status, _, _ = await fetch(session, kubelet.url + "/pods")
    assert status == (200 if version >= (1, 33) else 403)
    assert (await fetch(session, kubelet.url + "/metrics"))[0] == 200


async def test_pods_of_ones_own(kubelet, session):
    """Any Pod objects can be served in the place of those of the metrics; none are null."""
    for pods, items in (([{"metadata": {"name": "p"}}],) * 2, ([], None)):
        kubelet.pods = pods
        _, _, body = await fetch(session, kubelet.url + "/pods")
        assert json.loads(body) == {
            "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items,
        }  # fmt: skip


async def test_a_cut_list_of_pods(kubelet, session):
    """Faults hit the list of pods as what it is: JSON."""
    kubelet.fail(Fault.CUT_CONTENT_LENGTH, path="/pods")
    headers = {"Authorization": "Bearer good"}
    async with session.get(kubelet.url + "/pods", headers=headers) as answer:
        assert answer.headers["Content-Type"] == "application/json"
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_dangerous_endpoints_are_recorded(authority, session):
    """What nobody must reach answers that it was reached, and is on record."""
    kubelet = make(authority)
    kubelet.access.authorize = lambda *_: True
    await kubelet.start()
    for path in ("/exec/ns/pod/c?command=id", "/run/ns/pod/c", "/logs/", "/containerLogs/a/b/c"):
        assert (await fetch(session, kubelet.url + path))[2] == b"you should not be here"
        assert kubelet.requests[-1].path == path
    assert kubelet.requests[-1].method == "GET"
    assert kubelet.requests[-1].headers["authorization"] == "Bearer good"
    await kubelet.stop()


async def test_payload_is_served_as_it_is(authority, session, tmp_path):
    """A payload comes byte for byte, plain or as gzip that is made once and kept on disk."""
    path = tmp_path / "payload.prom"
    path.write_bytes(b'x{namespace="default"} 1\n' * 100_000)
    payload = Payload(path)
    kubelet = make(authority, payload=payload)
    await kubelet.start()
    url = kubelet.url + "/metrics/cadvisor"
    assert (await fetch(session, url))[2] == path.read_bytes()
    packed = [(await fetch(session, url, Accept_Encoding="gzip"))[2] for _ in range(2)]
    assert gzip.decompress(packed[0]) == path.read_bytes()
    assert packed[0] == packed[1]
    await kubelet.stop()
    payload.close()


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


async def test_restart_on_the_same_ports(kubelet, session):
    """A stopped kubelet refuses connections; started again it listens where it did."""
    url = kubelet.url
    await kubelet.stop()
    await kubelet.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await fetch(session, url + "/metrics/probes")
    await kubelet.start()
    assert kubelet.url == url
    assert (await fetch(session, url + "/metrics/probes"))[0] == 200
    assert repr(kubelet) == f"<SimKubelet node-a {url}, 1 requests>"
