"""Nothing else is reachable: request forms on raw sockets, and the requests that they cause."""

from __future__ import annotations

import asyncio
import base64
import re
import sys
from pathlib import Path

import pytest

from kmproxy.simulator.cadvisor import ENDPOINTS
from kmproxy.simulator.kubelet import Fault
from tests.conftest import until
from tests.support.process import in_a_pod
from tests.support.smuggling import CHUNKED, GET, POST, SMUGGLING
from tests.support.tls import HASHES, Authority, write_config

NEXT = b"GET /metrics/resource HTTP/1.1\r\nHost: x\r\n\r\n"
"""Bytes that a smuggler wants to be read as a separate request."""


BODIES = {
    "a chunk size with 0x": POST + CHUNKED + b"\r\n0x0\r\n\r\n",
    "a chunk extension with a bare LF": POST + CHUNKED + b"\r\n0;\n\r\n\r\n",
    "a negative chunk": POST + CHUNKED + b"\r\n-1\r\n\r\n",
    "the body of another request": POST + CHUNKED + b"\r\n" + NEXT,
}


def statuses(answer):
    """The statuses of all answers in a stream."""
    return [int(status) for status in re.findall(rb"(?:^|\n)HTTP/\d\.\d (\d{3}) ", answer)]


def asked(cluster):
    """The paths that were requested from the kubelets."""
    return [record.path for kubelet in cluster.kubelets.values() for record in kubelet.requests]


def looked_up(cluster):
    """The paths requested from the API server, without the namespaces."""
    paths = [record.path.partition("?")[0] for record in cluster.api.requests]
    return [path for path in paths if path != "/api/v1/namespaces"]


@pytest.mark.parametrize("shape", SMUGGLING.values(), ids=SMUGGLING)
async def test_refused_and_over(front, cluster, shape):
    """400 or 431 with one plain line. The connection ends, and later bytes are not read."""
    proxy = await front("--all-nodes")
    answer, _ = await proxy.raw(shape + NEXT)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert statuses(answer) in ([400], [431])
    assert body.startswith(b"the request is refused: ")
    assert body.count(b"\n") == 1
    assert b"Server: kmproxy" in head
    assert asked(cluster) == []
    assert looked_up(cluster) == []
    assert await proxy.metric("kmproxy_refused_total", reason="form") == 1


@pytest.mark.parametrize("shape", BODIES.values(), ids=BODIES)
async def test_a_body_is_not_read(front, cluster, shape):
    """A request with a body of any framing is answered. Then the connection ends."""
    proxy = await front("--all-nodes")
    answer, _ = await proxy.raw(shape + NEXT)
    assert statuses(answer) == [405]
    assert asked(cluster) == []
    assert looked_up(cluster) == []


async def test_pipelining_is_no_smuggling(front, cluster):
    """Two complete requests in one piece are two scrapes, in order."""
    proxy = await front()
    close = NEXT.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    answer, _ = await proxy.raw(GET + b"\r\n" + close)
    assert statuses(answer) == [200, 200]
    assert asked(cluster) == ["/metrics/probes", "/metrics/resource"]


NO_PATH = [
    *("/metrics/", "/metrics/cadvisor/", "//metrics", "///metrics/cadvisor", "/metrics//cadvisor"),
    *(
        "/./metrics",
        "/metrics/.",
        "/metrics/..",
        "/x/../metrics",
        "/metrics/../pods",
        "/metrics/cadvisor/../../pods",
    ),
    *(
        "/%2e/metrics",
        "/metrics/%2e%2e/pods",
        "/metrics/%2E%2E%2Fpods",
        "/metrics%2fcadvisor",
        "/metrics%2Fcadvisor",
    ),
    *(
        "/%6detrics",
        "/metrics%00",
        "/metrics%0a",
        "/metrics%0d%0aX:%20y",
        "/metrics%20",
        "/metrics;a=b",
        "/metrics,",
    ),
    *(
        "/metrics\\..\\pods",
        "/metrics%5c..%5cpods",
        "/metrics#x",
        "/metrics%23",
        "/metrics%3fx",
        "/METRICS",
        "/metrics%c0%af",
    ),
    *(
        "/pods",
        "/runningpods/",
        "/exec/default/p/c?command=id",
        "/run/default/p/c",
        "/attach/a/b/c",
    ),
    *(
        "/portForward/a/b",
        "/containerLogs/a/b/c",
        "/logs/",
        "/stats/summary",
        "/configz",
        "/healthz",
        "/readyz",
    ),
    *(
        "/debug/pprof/",
        "/api",
        "/api/v1/namespaces",
        "/api/v1/nodes",
        "/api/v1/nodes/node-a",
        "/version",
        "/openapi/v2",
    ),
]
NO_NODE = [
    *(
        "",
        ".",
        "..",
        "%2e%2e",
        "node-a%2f..",
        "node-a%00",
        "node-a/..",
        "NODE-A",
        "node_a",
        "no-such-node",
    ),
    *(
        "127.0.0.1",
        "[::1]",
        "https:node-a:1",
        "node-a:10250",
        "a@node-a",
        "node-a%20",
        "node-a?x",
        "node-a%23",
        "*",
        "%6eode-a",
    ),
    "a" * 300,
]


@pytest.mark.parametrize("path", NO_PATH)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
async def test_no_such_path(front, cluster, method, path):
    """Every other spelling of a path gets 404, and nothing is requested upstream."""
    proxy = await front("--all-nodes")
    answer, _ = await proxy.raw(b"%b %b HTTP/1.0\r\n\r\n" % (method, path.encode()))
    assert statuses(answer) == [404]
    assert asked(cluster) == []
    assert looked_up(cluster) == []


@pytest.mark.parametrize("node", NO_NODE)
async def test_no_such_node(front, cluster, node):
    """404. The API server is not asked about an invalid node name."""
    proxy = await front("--all-nodes")
    path = f"/api/v1/nodes/{node}/proxy/metrics/cadvisor"
    answer, _ = await proxy.raw(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    assert statuses(answer) == [404]
    assert asked(cluster) == []
    names = looked_up(cluster)
    assert all(re.fullmatch(r"/api/v1/nodes/[a-z0-9.-]{1,253}", name) for name in names)


@pytest.mark.parametrize("way", ["direct", "proxy"])
async def test_no_header_of_a_client_goes_upstream(front, cluster, way):
    """Kubelet and API server receive only kmproxy's five headers, with its own token."""
    through = [f"--kube-apiserver={cluster.api.url}", "--node-name-or-ip=node-a"]
    proxy = await front("--all-nodes", *(through if way == "proxy" else []))
    sent = {
        "Authorization": "Bearer canary", "Cookie": "canary=1", "X-Canary": "canary",
        "X-Forwarded-For": "canary", "X-Forwarded-Host": "canary", "Forwarded": "for=canary",
        "Impersonate-User": "canary", "Impersonate-Group": "system:masters", "X-Remote-User": "canary",
        "X-Original-URL": "/canary", "X-HTTP-Method-Override": "DELETE", "Accept": "canary/x",
        "Accept-Language": "canary", "If-None-Match": "canary", "Range": "bytes=0-1",
        "User-Agent": "canary", "Referer": "http://canary/", "Origin": "http://canary", "Via": "canary",
        "TE": "trailers", "Proxy-Authorization": "canary", "Accept-Encoding": "gzip;q=0.1",
    }  # fmt: skip
    paths = [
        "/metrics/probes?metric=canary&namespace=canary",
        "/api/v1/nodes/node-b/proxy/metrics/probes?metric=canary",
    ]
    for path in paths:
        async with proxy.session.get(proxy.url + path, headers=sent) as response:
            assert response.status == 200
            assert "canary" not in str(response.headers)
    kubelets = [record for kubelet in cluster.kubelets.values() for record in kubelet.requests]
    assert [record.path for record in kubelets] == ["/metrics/probes"] * 2
    for record in [*cluster.api.requests, *(kubelets if way == "direct" else [])]:
        assert "canary" not in record.path + str(dict(record.headers))
        assert record.method == "GET"
        assert {name.lower() for name in record.headers} == {
            "host", "authorization", "accept", "accept-encoding", "user-agent",
        }  # fmt: skip
        assert record.headers["Authorization"] == f"Bearer {cluster.token}"


@pytest.mark.parametrize("way", ["direct", "proxy"])
async def test_a_redirect_is_not_followed(front, cluster, way):
    """No connection is opened to the server that a redirect names."""
    visitors = []

    async def note(_, writer):
        visitors.append(writer)
        writer.close()

    elsewhere = await asyncio.start_server(note, "127.0.0.1", 0)
    port = elsewhere.sockets[0].getsockname()[1]
    flags = [f"--kube-apiserver={cluster.api.url}", "--node-name-or-ip=node-a"]
    proxy = await front(*(flags if way == "proxy" else []))
    for location in (f"http://127.0.0.1:{port}/", f"https://127.0.0.1:{port}/", "/pods", "//x/"):
        cluster.kubelets["node-a"].fail(Fault.REDIRECT, location=location, times=1)
        status, text = await proxy.get()
        assert status == 502
        assert "not followed" in text
        assert str(port) not in text
    assert not visitors
    assert set(asked(cluster)) == {"/metrics/cadvisor"}
    elsewhere.close()


async def test_the_address_of_a_node_is_that_of_its_object(front, cluster):
    """A client can only name a node. Host and port come from the API server."""
    proxy = await front("--all-nodes")
    port = cluster.kubelets["node-a"].port
    for query in (f"?port={port}", "?host=10.0.0.1", "?address=10.0.0.1&scheme=http"):
        status, _ = await proxy.get("/api/v1/nodes/node-b/proxy/metrics/probes" + query)
        assert status == 400
    assert (await proxy.get("/api/v1/nodes/node-b/proxy/metrics/probes"))[0] == 200
    assert asked(cluster) == ["/metrics/probes"]
    assert len(cluster.kubelets["node-b"].requests) == 1


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_what_is_reachable(front, cluster, path):
    """The documented paths are served, so the refusals above come from a working daemon."""
    proxy = await front("--all-nodes")
    for prefix in ("", "/api/v1/nodes/node-a/proxy"):
        assert (await proxy.get(prefix + path))[0] == 200
    assert asked(cluster) == [path] * 2


async def test_the_telemetry_port_shows_no_node_and_no_namespace(front, cluster):
    """The open port names no node and no namespace, whatever failed."""
    proxy = await front("--all-nodes", "--label=*", "--annotation=*", "--node-name-or-ip=127.0.0.1")
    for path in (
        "/metrics",
        "/api/v1/nodes/node-b/proxy/metrics",
        "/api/v1/nodes/planted/proxy/metrics",
    ):
        await proxy.get(path + "?namespace=payments")
    cluster.kubelets["node-b"].fail(Fault.STATUS, status=403, body=b"node-b payments")
    await proxy.get("/api/v1/nodes/node-b/proxy/metrics")
    await cluster.kubelets["node-a"].stop()
    await proxy.get("/metrics")
    await cluster.api.stop()
    await proxy.get("/api/v1/nodes/node-c/proxy/metrics")
    shown = ""
    for path in ("/metrics", "/healthz", "/readyz", "/", "/nothing/node-a"):
        shown += (await proxy.probe(path))[1]
    hidden = {"node-a", "node-b", "node-c", "planted", "127.0.0.1", *cluster.api.namespaces}
    words = set(re.findall(r"[\w.-]+", shown))
    assert not words & {str(name) for name in hidden}
    for kubelet in cluster.kubelets.values():
        assert str(kubelet.port) not in words


async def test_an_unready_daemon_names_no_host(front, cluster):
    """The readiness probe names no host. The log and --listen give the reason."""
    await cluster.api.stop()
    proxy = await front(loaded=False)

    async def told():
        return (await proxy.get())[1].count(":") > 1

    await until(told)
    assert await proxy.probe("/readyz") == (503, "namespaces are not loaded yet\n")


_NO_PROGRAM = """
import sys

def refuse(event, arguments):
    if event in {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty"}:
        print("started", event, arguments, file=sys.stderr, flush=True)
        raise RuntimeError(event)

sys.addaudithook(refuse)
from kmproxy.cli.main import main
sys.exit(main())
"""


async def test_no_other_program_is_started(cluster, tmp_path):
    """The daemon starts no shell and no program while it serves scrapes with TLS and passwords."""
    ours = Authority()
    ours.write_pair(tmp_path)
    document = {
        "tls_server_config": {"cert_file": "tls.crt", "key_file": "tls.key"},
        "basic_auth_users": HASHES,
    }
    path = write_config(tmp_path / "web.yaml", document)
    environment, flags = in_a_pod(cluster, tmp_path / "sa")
    environment = {
        key: value for key, value in environment.items() if key.startswith("KUBERNETES_")
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _NO_PROGRAM, *flags, f"--web-config-file={path}",
        env=environment, cwd=Path(__file__).parents[2], stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    log = b""
    async with asyncio.timeout(60):
        while b"namespaces loaded" not in log:
            log += (line := await process.stderr.readline())
            assert line, log
        port = int(re.search(rb"metrics on port (\d+)", log)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ours.client())
        login = base64.b64encode(b"alice:alice")
        writer.write(b"GET /metrics/probes HTTP/1.0\r\nAuthorization: Basic %b\r\n\r\n" % login)
        answer = await reader.read()
        writer.close()
        process.terminate()
        log += (await process.communicate())[1]
    assert answer.startswith(b"HTTP/1.0 200 OK")
    assert b"started" not in log
    assert process.returncode == 0
