"""The simulated kubelet answers as a real one does: endpoints, codings and permissions."""

import asyncio
import gzip
import json
import ssl

import aiohttp
import pytest

from kmproxy.simulator.cadvisor import simulate_node
from kmproxy.simulator.wire import HOST, Payload
from tests.support.kubelets import NOW, TEXT, context, fetch, make

PROTOBUF = (
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; "
    "encoding=delimited; escaping=underscores"
)
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


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


async def test_dangerous_endpoints_are_recorded(authority, session):
    """What nobody must reach answers that it was reached, and is on record."""
    kubelet = make(authority)
    kubelet._authorize = lambda *_: True
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
