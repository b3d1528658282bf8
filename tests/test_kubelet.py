"""Which URL an endpoint of a node has, in each way to it."""

from __future__ import annotations

import pytest

from kmproxy.config import KubeletConfig
from kmproxy.errors import UpstreamError
from kmproxy.kubelet import Kubelet
from kmproxy.nodes import Node
from kmproxy.routes import ENDPOINTS


def url(endpoint, config, node=None):
    """Where an endpoint is fetched; by default of the configured node."""
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
    """Direct, or through the node proxy; IPv6 addresses in brackets."""
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
    """A Node object's own port comes first; the node proxy needs only the name."""
    assert url("/metrics", config, node) == expected


@pytest.mark.parametrize(
    "endpoint", ["/pods", "/exec/a/b/c", "/metrics/", "", "/metrics/cadvisor?x"]
)
def test_nothing_else_is_ever_asked(endpoint):
    """An endpoint that is not one of the four has no URL."""
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
    """Both ways to a kubelet, by a call of its own that takes no path from anybody."""
    asked = []

    class Nowhere:
        name = "kubelet"

        def get(self, url, **headers):
            asked.append((url, headers))
            raise UpstreamError("refused", "nobody is there")

    with pytest.raises(UpstreamError):
        await Kubelet(KubeletConfig(**config), Nowhere()).pods(Node("a", "10.0.0.1", 10350))
    assert asked == [(expected, {"accept": "application/json"})]


async def test_a_list_of_pods_that_does_not_end(cluster, front, monkeypatch):
    """It is given up past the limit, whatever was announced."""
    monkeypatch.setattr("kmproxy.kubelet.MAX_PODS", 1000)
    proxy = await front("--discovery")
    status, text = await proxy.get("/sd/pods")
    assert status == 502
    assert "the kubelet's list of pods is over 1000 bytes" in text
