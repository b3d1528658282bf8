"""The URLs of a node's endpoints, direct and through the node proxy; and their answers."""

from __future__ import annotations

import asyncio
import gzip
import time

import pytest
from aiohttp import web

from kmproxy.client.pins import Peer
from kmproxy.client.session import open_session
from kmproxy.client.tls import TlsContext, Trust
from kmproxy.client.upstream import Upstream
from kmproxy.config.sections import KubeletConfig
from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.errors import UpstreamError
from kmproxy.kube.nodes import Node
from kmproxy.sources.answer import TURN
from kmproxy.sources.endpoints import ENDPOINTS
from kmproxy.sources.kubelet import Kubelet
from tests.support.sites import Site


def url(endpoint, config, node=None):
    """The URL of an endpoint; by default of the configured node."""
    kubelet = Kubelet(KubeletConfig(**config), None)
    return kubelet.url(node or kubelet.configured, endpoint)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "https://localhost:10250/metrics/cadvisor"),
        ({"node": "10.0.0.1"}, "https://10.0.0.1:10250/metrics/cadvisor"),
        ({"node": "fd00::1"}, "https://[fd00::1]:10250/metrics/cadvisor"),
        ({"scheme": "http", "port": 10255}, "http://localhost:10255/metrics/cadvisor"),
        ({"cadvisor_path": "/c"}, "https://localhost:10250/c"),
        ({"apiserver": "api"}, "https://api:443/api/v1/nodes/localhost/proxy/metrics/cadvisor"),
        (
            {"apiserver": "api", "port": 6443, "node": "n"},
            "https://api:6443/api/v1/nodes/n/proxy/metrics/cadvisor",
        ),
        (
            {"apiserver": "api:7443", "port": 6443, "node": "n"},
            "https://api:7443/api/v1/nodes/n/proxy/metrics/cadvisor",
        ),
        (
            {"apiserver": "http://127.0.0.1", "node": "n"},
            "http://127.0.0.1:80/api/v1/nodes/n/proxy/metrics/cadvisor",
        ),
        (
            {"apiserver": "https://[fd00::1]:6443", "node": "fd00::2"},
            "https://[fd00::1]:6443/api/v1/nodes/fd00%3A%3A2/proxy/metrics/cadvisor",
        ),
    ],
)
def test_the_configured_node(config, expected):
    """Direct access and the node proxy; IPv6 addresses in brackets."""
    assert url("/metrics/cadvisor", config) == expected


@pytest.mark.parametrize(
    ("node", "config", "expected"),
    [
        (Node("a", "10.0.0.1", 10350), {"port": 1}, "https://10.0.0.1:10350/metrics"),
        (Node("a", "10.0.0.1"), {"port": 10251}, "https://10.0.0.1:10251/metrics"),
        (Node("a", "10.0.0.1"), {}, "https://10.0.0.1:10250/metrics"),
        (
            Node("a", "10.0.0.1", 1),
            {"apiserver": "api"},
            "https://api:443/api/v1/nodes/a/proxy/metrics",
        ),
    ],
)
def test_a_node_by_name(node, config, expected):
    """A Node object's own port has precedence. The node proxy needs only the name."""
    assert url("/metrics", config, node) == expected


@pytest.mark.parametrize(
    "endpoint", ["/pods", "/exec/a/b/c", "/metrics/", "", "/metrics/cadvisor?x"]
)
def test_nothing_else_is_ever_asked(endpoint):
    """Only the four endpoints have URLs."""
    assert endpoint not in ENDPOINTS
    with pytest.raises(ValueError):
        url(endpoint, {})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "https://10.0.0.1:10350/pods"),
        ({"cadvisor_path": "/c"}, "https://10.0.0.1:10350/pods"),
        ({"apiserver": "api"}, "https://api:443/api/v1/nodes/a/proxy/pods"),
    ],
)
async def test_where_pods_are_asked_for(config, expected):
    """Pods have a call of their own that takes no path, for both routes."""
    asked = []

    class Nowhere:
        name = "kubelet"

        def get(self, url, **headers):
            asked.append((url, headers))
            raise UpstreamError("refused", "nobody is there")

    with pytest.raises(UpstreamError):
        await Kubelet(KubeletConfig(**config), Nowhere()).pods(Node("a", "10.0.0.1", 10350), None)
    peer = None if "apiserver" in config else Peer("a", "address:10.0.0.1:10350")
    assert asked == [(expected, {"accept": "application/json", "peer": peer})]


async def test_a_list_of_pods_that_does_not_end(cluster, front, monkeypatch):
    """A list over the limit fails, whatever length was announced."""
    monkeypatch.setattr("kmproxy.sources.kubelet.MAX_PODS", 1000)
    proxy = await front("--discovery")
    status, text = await proxy.get("/sd/pods")
    assert status == 502
    assert "the kubelet's list of pods is over 1000 bytes" in text


async def test_nothing_waits_for_the_end_of_a_large_answer():
    """The event loop runs between decoded pieces of at most 128 KiB that take long to work on."""
    packed = gzip.compress(b"zero_bytes 0\n" * 200_000, 9)
    assert len(packed) < 1 << 16  # so that nothing is waited for on the way
    headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
    turns = 0

    async def turn():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    tls = TlsContext(Trust, "CA", clock=lambda: 0.0, errors=OwnMetrics().credential_errors)
    async with (
        Site(lambda _: web.Response(body=packed, headers=headers)) as site,
        open_session() as session,
    ):
        config = KubeletConfig(scheme="http", node="127.0.0.1", port=site.port)
        kubelet = Kubelet(config, Upstream("kubelet", session, None, tls))
        others = asyncio.create_task(turn())
        async with kubelet.fetch(kubelet.configured, "/metrics") as exposition:
            seen = []
            async for piece in exposition.pieces:
                seen.append((turns, len(piece)))
                time.sleep(TURN)  # noqa: ASYNC251 - the work
        others.cancel()
    assert sum(size for _, size in seen) == 2_600_000
    assert max(size for _, size in seen) <= 1 << 17
    assert len({when for when, _ in seen}) == len(seen)
