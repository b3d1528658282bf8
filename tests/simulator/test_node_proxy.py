"""The node proxy of the simulated API server forwards as a real one does."""

import ssl

import aiohttp
import pytest

from kmproxy.simulator.cluster import SimCluster
from kmproxy.simulator.kubelet import Fault


@pytest.fixture
async def cluster():
    """Run a cluster of one node."""
    async with SimCluster(["node-a"], {"a": {}}, pods_per_namespace=1) as made:
        yield made


@pytest.fixture
async def session(cluster):
    """Make a client with the daemon's identity, relative to the TLS listener."""
    tls = ssl.create_default_context(cadata=cluster.ca_pem.decode())
    async with aiohttp.ClientSession(
        cluster.api.url,
        connector=aiohttp.TCPConnector(ssl=tls),
        headers={"Authorization": f"Bearer {cluster.token}"},
        timeout=aiohttp.ClientTimeout(total=30),
    ) as made:
        yield made


async def get(session, path):
    """Return status and document of a GET."""
    async with session.get(path) as answer:
        return answer.status, await answer.json()


async def test_node_proxy(session, cluster):
    """The proxy forwards path, query and encoding, not the caller's token, to the kubelet."""
    kubelet = cluster.kubelets["node-a"]
    path = "/api/v1/nodes/node-a/proxy/metrics/probes"
    async with session.get(path + "?a=%26b", headers={"Accept-Encoding": "gzip"}) as answer:
        text = await answer.read()
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Cache-Control"] == "no-cache, private"
        assert answer.headers["Audit-Id"]
    assert text.startswith(b"# HELP prober_probe_duration_seconds")
    assert kubelet.requests[-1].path == "/metrics/probes?a=%26b"
    assert "Authorization" not in kubelet.requests[-1].headers
    kubelet.fail(Fault.STATUS, status=500, body=b"broken", times=1)
    async with session.get(path) as answer:
        assert (answer.status, await answer.read()) == (500, b"broken")
    status, error = await get(session, "/api/v1/nodes/node-z/proxy/metrics")
    assert (status, error["message"]) == (404, 'nodes "node-z" not found')


@pytest.mark.parametrize("fault", [Fault.CUT_CHUNKED, Fault.CUT_CONTENT_LENGTH])
async def test_node_proxy_breaks_when_the_kubelet_does(session, cluster, fault):
    """A body that the kubelet cuts has no clean end at the proxy, either."""
    cluster.kubelets["node-a"].fail(fault)
    async with session.get("/api/v1/nodes/node-a/proxy/metrics/cadvisor") as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


async def test_node_proxy_without_a_kubelet(session, cluster):
    """A stopped kubelet is a 503 Status."""
    await cluster.kubelets["node-a"].stop()
    status, error = await get(session, "/api/v1/nodes/node-a/proxy/metrics")
    assert (status, error["reason"]) == (503, "ServiceUnavailable")
    assert error["message"].startswith("error trying to reach service: ")
