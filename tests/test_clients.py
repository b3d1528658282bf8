"""The ways out of the process: which are made, and of what."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from kmproxy.cli import read_config
from kmproxy.clients import open_clients
from kmproxy.errors import ConfigError
from kmproxy.routes import CADVISOR
from kmproxy.telemetry import Telemetry


@pytest.fixture
def opened(cluster, tmp_path):
    """A function that opens the clients of a pod that was given flags."""
    cluster.write_service_account(tmp_path)
    api, kubelet = urlsplit(cluster.api.url), cluster.kubelets["node-a"]
    environment = {
        "KUBERNETES_SERVICE_HOST": api.hostname,
        "KUBERNETES_SERVICE_PORT": str(api.port),
    }
    defaults = (f"--service-account-dir={tmp_path}", f"--node-port={kubelet.port}")

    def open_them(*flags):
        config, _ = read_config([*defaults, *flags])
        clock = asyncio.get_running_loop().time
        return open_clients(config, environment, clock=clock, telemetry=Telemetry())

    return open_them


async def test_direct(opened, cluster):
    """The kubelet itself is asked, and there is no directory of nodes that are not served."""
    async with opened() as clients:
        assert clients.nodes is None
        async with clients.kubelet.fetch(clients.kubelet.configured, CADVISOR) as exposition:
            assert b"container_" in b"".join([piece async for piece in exposition.pieces])
    assert cluster.api.requests == []
    assert len(cluster.kubelets["node-a"].requests) == 1


async def test_through_the_api_server(opened, cluster):
    """The node proxy is asked, verified by the cluster's CA; nodes are found by name."""
    port = urlsplit(cluster.api.url).port
    flags = (f"--kube-apiserver=127.0.0.1:{port}", "--all-nodes")
    async with opened(*flags) as clients:
        node = await clients.nodes.find("node-b")
        async with clients.kubelet.fetch(node, CADVISOR) as exposition:
            assert b"container_" in b"".join([piece async for piece in exposition.pieces])
    assert len(cluster.api.requests) == 2


async def test_a_ca_that_is_none(opened, tmp_path):
    """It is a mistake in the configuration, before anything is asked."""
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(ConfigError, match="--kubelet-ca-file"):
        async with opened(f"--kubelet-ca-file={tmp_path / 'ca'}"):
            pass
