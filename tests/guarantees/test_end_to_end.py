"""A namespace's labels travel from the API server to the scrape, by every configured route."""

from __future__ import annotations

import asyncio
import signal
from urllib.parse import urlsplit

import aiohttp
import pytest

from kmproxy.simulator.cluster import SimCluster
from kmproxy.simulator.kubelet import Fault
from tests.conftest import until
from tests.support.process import daemon, in_a_pod, refused

TEXT = "text/plain; version=0.0.4"
LINE = b'm{namespace="frontend-service2"} 1\n'


def serve_line(cluster):
    """Let node-a answer one sample of frontend-service2."""
    cluster.kubelets["node-a"].fail(Fault.BODY, body=LINE, content_type=TEXT)


async def shows(proxy, labels):
    """Wait until the sample has exactly these labels."""
    expected = f'm{{namespace="frontend-service2"{labels}}} 1\n'

    async def same():
        return (await proxy.get())[1] == expected

    await until(same)


async def test_a_namespace_moves(front, cluster):
    """The next scrapes show a changed, an added and a removed label, and no label at all."""
    serve_line(cluster)
    proxy = await front("--label=team", "--label=tier")
    spaces = cluster.api.namespaces
    await shows(proxy, ',team="frontend"')
    spaces.apply("frontend-service2", {"team": "backend"})
    await shows(proxy, ',team="backend"')
    spaces.apply("frontend-service2", {"team": "backend", "tier": "1"})
    await shows(proxy, ',team="backend",tier="1"')
    spaces.apply("frontend-service2", {"tier": "1"})
    await shows(proxy, ',tier="1"')
    spaces.apply("frontend-service2", {})
    await shows(proxy, "")


async def test_a_new_namespace(front, cluster):
    """The watch reports a namespace that was created after the list."""
    body = b'm{namespace="fresh"} 1\n'
    cluster.kubelets["node-a"].fail(Fault.BODY, body=body, content_type=TEXT)
    proxy = await front("--label-default=team=nobody")
    assert (await proxy.get())[1] == 'm{namespace="fresh",team="nobody"} 1\n'
    cluster.api.namespaces.apply("fresh", {"team": "new"})

    async def known():
        return (await proxy.get())[1] == 'm{namespace="fresh",team="new"} 1\n'

    await until(known)
    assert await proxy.metric("kmproxy_namespaces") == 8


async def test_a_deleted_namespace_keeps_its_labels(front, cluster):
    """The last scrapes of its pods keep their labels, but it is no longer counted."""
    serve_line(cluster)
    proxy = await front()
    cluster.api.namespaces.delete("frontend-service2")

    async def gone():
        return await proxy.metric("kmproxy_namespaces") == 6

    await until(gone)
    await shows(proxy, ',team="frontend"')


async def test_annotations_defaults_and_overwriting(front, cluster):
    """The label flags reach the samples."""
    cluster.api.namespaces.apply("payments", {"team": "payments"}, {"example.com/Owner": 'a"b\n'})
    body = b'm{namespace="payments",team="x"} 1\nm{namespace="no-team"} 1\n'
    cluster.kubelets["node-a"].fail(Fault.BODY, body=body, content_type=TEXT)
    proxy = await front(
        "--annotation=example.com/Owner=owner",
        "--label=team",
        "--label-default=team=none",
        "--on-conflict=overwrite",
    )
    assert (await proxy.get())[1] == (
        'm{namespace="payments",owner="a\\"b\\n",team="payments"} 1\nm{namespace="no-team",team="none"} 1\n'
    )
    assert await proxy.metric("kmproxy_label_conflicts_total") == 1


async def test_through_the_node_proxy(front, cluster):
    """With --kube-apiserver the node proxy serves the metrics, for kmproxy's own identity."""
    port = urlsplit(cluster.api.url).port
    proxy = await front(
        "--kube-apiserver=127.0.0.1", f"--node-port={port}", "--node-name-or-ip=node-b"
    )
    status, text = await proxy.get("/metrics/resource")
    assert status == 200
    assert 'namespace="payments",team="payments"' in text
    paths = [record.path for record in cluster.api.requests]
    assert "/api/v1/nodes/node-b/proxy/metrics/resource" in paths
    assert not cluster.kubelets["node-a"].requests


async def test_the_node_proxy_needs_a_permission(front, cluster):
    """A 403 names the missing rule of the route that was used."""
    cluster.api.deny("get", "nodes/proxy")
    proxy = await front(f"--kube-apiserver={cluster.api.url}", "--node-name-or-ip=node-a")
    status, text = await proxy.get()
    assert status == 502
    assert "resources [nodes/proxy] and verbs [get]" in text


@pytest.mark.parametrize("way", ["direct", "proxy"])
async def test_all_nodes(front, cluster, way):
    """Every node is served by name, from the address in its Node object."""
    flags = [f"--kube-apiserver={cluster.api.url}"] if way == "proxy" else []
    proxy = await front("--all-nodes", *flags)
    for node in ("node-a", "node-b"):
        status, text = await proxy.get(f"/api/v1/nodes/{node}/proxy/metrics/cadvisor")
        assert status == 200
        assert 'team="frontend"' in text
        assert len(cluster.kubelets[node].requests) == 1
    for name in ("node-c", "127.0.0.1", "https:node-a:1", "node-a%2f..", "Node-A", ".", ""):
        status, text = await proxy.get(f"/api/v1/nodes/{name}/proxy/metrics/cadvisor")
        assert status == 404
        assert text.count("\n") == 1


async def test_the_read_only_port(front, cluster):
    """Plain HTTP requests carry no credential."""
    kubelet = cluster.kubelets["node-a"]
    proxy = await front("--kubelet-scheme=http", f"--node-port={urlsplit(kubelet.plain_url).port}")
    assert (await proxy.get())[0] == 200
    assert "Authorization" not in kubelet.requests[0].headers


async def test_another_cadvisor_path(front, cluster):
    """--node-cadvisor-path changes the path at the kubelet, not the path that kmproxy serves."""
    proxy = await front("--node-cadvisor-path=/metrics/resource")
    assert (await proxy.get())[0] == 200
    assert cluster.kubelets["node-a"].requests[0].path == "/metrics/resource"


async def test_a_rotated_token_is_read_after_a_401(front, cluster, tmp_path):
    """After a 401 the new token is read from the file; the scrape succeeds without an error."""
    proxy = await front()
    assert (await proxy.get())[0] == 200
    cluster.rotate_token()
    cluster.write_service_account(tmp_path / "sa")
    assert (await proxy.get())[0] == 200
    cluster.rotate_token()
    status, text = await proxy.get()
    assert status == 502
    assert "credentials (401)" in text


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--kubelet-ca-file={other}"], "--kubelet-ca-file"),
        (["--kubelet-server-name=elsewhere"], "--kubelet-server-name"),
        (["--kubelet-insecure-tls"], None),
        (["--kubelet-server-name=node-a"], None),
        (["--kubelet-ca-file={sa}/ca.crt"], None),
    ],
)
async def test_the_kubelet_certificate(front, tmp_path, flags, says):
    """The kubelet's certificate is verified unless a flag disables it. Errors name the flag."""
    async with SimCluster(nodes=()) as other:
        (tmp_path / "other.crt").write_bytes(other.ca_pem)
    places = {"other": tmp_path / "other.crt", "sa": tmp_path / "sa"}
    proxy = await front(*(flag.format(**places) for flag in flags))
    status, text = await proxy.get()
    assert status == (502 if says else 200)
    if says:
        assert "certificate does not verify" in text
        assert says in text
        assert await proxy.metric("kmproxy_upstream_errors_total", reason="tls") == 1


async def test_plain_http_on_the_tls_port(front, cluster):
    """TLS to a port without TLS is reported as such."""
    kubelet = cluster.kubelets["node-a"]
    proxy = await front(f"--node-port={urlsplit(kubelet.plain_url).port}")
    status, text = await proxy.get()
    assert status == 502
    assert "TLS" in text


async def test_a_kubelet_that_is_not_there(front):
    """A refused connection and an unresolved name have different reasons."""
    proxy = await front("--node-port=1")
    status, text = await proxy.get()
    assert (status, "connection refused" in text) == (502, True)
    proxy = await front("--node-name-or-ip=no-such-node.invalid")
    status, text = await proxy.get()
    assert (status, "no-such-node.invalid is not known" in text) == (502, True)


# The daemon as a process of its own, as a pod runs it.


async def test_sigterm_finishes_what_is_under_way(cluster, tmp_path):
    """SIGTERM: not ready at once, the open scrape is finished, exit status 0."""
    environment, flags = in_a_pod(cluster, tmp_path / "sa")
    cluster.kubelets["node-a"].fail(Fault.SLOW, rate=50_000, times=1)
    plain = {"Accept-Encoding": "identity"}  # a compressor would hold the first bytes back
    async with (
        daemon(environment, flags) as (process, (port, telemetry)),
        aiohttp.ClientSession(headers=plain) as session,
        session.get(f"http://127.0.0.1:{port}/metrics/cadvisor") as response,
    ):
        process.send_signal(signal.SIGTERM)
        while b"SIGTERM" not in (line := await process.stderr.readline()):
            assert line, "it has ended"
        async with session.get(f"http://127.0.0.1:{telemetry}/readyz") as ready:
            assert (ready.status, await ready.text()) == (503, "stopping\n")
        await until(lambda: refused(port))
        text = await response.text()
        assert text.endswith("\n")
        assert "machine_swap_bytes" in text
        assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_sighup(cluster, tmp_path):
    """SIGHUP ends nothing. One line says that no reload is needed, and scrapes continue."""
    environment, flags = in_a_pod(cluster, tmp_path)
    async with daemon(environment, flags) as (process, ports):
        process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(60):
            while b"SIGHUP" not in (line := await process.stderr.readline()):
                assert line, "it has ended"
        assert b"has no effect" in line
        url = f"http://127.0.0.1:{ports[0]}/metrics/cadvisor"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert response.status == 200
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await process.stderr.read()
            assert await process.wait() == 0
