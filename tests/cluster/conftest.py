"""Fixtures of these tests: a real API server, and a daemon in front of it."""

from __future__ import annotations

from contextlib import AsyncExitStack

import aiohttp
import pytest

from kmproxy.cli.read import read_config
from kmproxy.daemon.daemon import Daemon
from tests.conftest import Front

from .control_plane import HOST, TOOLS, ControlPlane

READS_NAMESPACES = {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]}
READS_METRICS = {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    """A real API server for all tests of a file."""
    missing = [name for name in ("etcd", "kube-apiserver") if not (TOOLS / name).exists()]
    if missing:
        pytest.skip(f"not built by make cluster-tools: {', '.join(missing)}")
    running = ControlPlane(tmp_path_factory.mktemp("plane"))
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture
async def real_front(plane, tmp_path):
    """A function that starts daemons with flags in front of a kubelet of the real cluster.

    The daemon is the service account `kmproxy` of `kmproxy-system`, with the rights of a
    DaemonSet's and those in `rules`; `token` takes the place of its token.
    """
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        spaces = {"payments": {"team": "payments"}, "default": {}, "kube-system": {}}
        kubelet = plane.kubelet("node-a", **spaces)
        await kubelet.start()
        stack.push_async_callback(kubelet.stop)
        plane.register("node-a", kubelet)
        plane.namespace("payments", team="payments")

        async def start(*flags, rules=(), token=None):
            user = plane.account("kmproxy-system", "kmproxy")
            plane.grant(user, READS_NAMESPACES, READS_METRICS, *rules)
            directory = tmp_path / "sa"
            plane.write_service_account(
                directory, token or plane.token("kmproxy-system", "kmproxy")
            )
            config, _ = read_config(
                [
                    "--listen=127.0.0.1:0",
                    "--telemetry-listen=127.0.0.1:0",
                    f"--service-account-dir={directory}",
                    f"--node-name-or-ip={kubelet.host}",
                    f"--node-port={kubelet.port}",
                    *flags,
                ]
            )
            environment = {
                "KUBERNETES_SERVICE_HOST": HOST,
                "KUBERNETES_SERVICE_PORT": str(plane.port),
            }
            daemon = Daemon(config, environment)
            stack.push_async_callback(daemon.stop)
            await daemon.start()
            front = Front(daemon, session)
            front.kubelet = kubelet
            return front

        yield start
