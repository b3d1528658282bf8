"""`kmproxy logs --source api` in front of a real API server, which passes on a kubelet's logs."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from kmproxy.simulator.logs import SimLogs
from tests.support.loki import shipping

from .control_plane import HOST

pytestmark = [pytest.mark.cluster]

NODE, SPACE = "node-logs", "billing"
READS = [
    {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
]


def show(plane, pod):
    """Bring the Pod of the API server to the state of a simulated one, as a kubelet does."""
    path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
    kind = "application/merge-patch+json"
    plane.request("PATCH", f"{path}/status", {"status": pod.document()["status"]}, kind=kind)


def create(plane, pod):
    """Create the Pod of a simulated one, bound to its node."""
    spec = {
        "nodeName": NODE,
        "automountServiceAccountToken": False,
        "containers": [{"name": name, "image": "none"} for name in pod.containers],
    }
    metadata = {"name": pod.name, "namespace": pod.namespace}
    plane.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    show(plane, pod)


@pytest.fixture
async def kubelet(plane, tmp_path):
    """A kubelet whose Node the API server knows, with log files."""
    plane.account(SPACE, "default")  # the admission of pods wants it
    plane.namespace(SPACE, team="billing")
    plane.let_read_kubelets()
    running = plane.kubelet(NODE)
    await running.start()
    with SimLogs(tmp_path / "log", NODE) as logs:
        running.logs = logs
        await asyncio.to_thread(plane.register, NODE, running)
        yield running
    await running.stop()


@pytest.fixture
def command(plane, loki, tmp_path):
    """The environment and the command line of a service account with the rights of logs-api."""
    user = plane.account("kmproxy-logs", "kmproxy")
    plane.grant(user, *READS)
    plane.write_service_account(tmp_path / "sa", plane.token("kmproxy-logs", "kmproxy"))
    environment = {
        **os.environ,
        "KUBERNETES_SERVICE_HOST": HOST,
        "KUBERNETES_SERVICE_PORT": str(plane.port),
    }
    return environment, [
        "logs",
        "--source=api",
        f"--service-account-dir={tmp_path / 'sa'}",
        "--listen=127.0.0.1:0",
        "--telemetry-listen=127.0.0.1:0",
        f"--loki-url={loki.url}",
        f"--positions={tmp_path / 'positions.json'}",
        "--batch-wait=100ms",
    ]


async def test_logs_through_the_api_server(plane, kubelet, loki, command):
    """Lines are followed over a move, a crash, ends of answers and a restart of kmproxy."""
    pod = kubelet.logs.start(SPACE, "web-0", ["app", "sidecar"])
    app, sidecar = pod.containers["app"], pod.containers["sidecar"]
    sidecar.restart()
    (sidecar.folder / "0.log").unlink()  # previous=true is answered 400
    await asyncio.to_thread(create, plane, pod)
    app.write("early " + "x" * 40_000)  # of three parts
    sidecar.write("beside", "stderr")
    async with shipping(*command) as (process, _):
        await loki.has("early " + "x" * 40_000, "beside")
        app.write("followed")
        await loki.has("followed")
        await asyncio.to_thread(plane.namespace, SPACE, team="moved")
        await asyncio.sleep(0.5)
        app.write("after the move")
        await loki.has("after the move")
        kubelet.pod_logs.end_all()  # as after 4 hours
        app.write("after the end of the answer")
        await loki.has("after the end of the answer")
        app.write("last of the first instance")
        app.restart()
        app.write("first of the second instance")
        await asyncio.to_thread(show, plane, pod)
        await loki.has("last of the first instance", "first of the second instance")
        process.terminate()
        assert await process.wait() == 0
    app.write("while kmproxy was away")
    async with shipping(*command) as (process, _):
        await loki.has("while kmproxy was away")
        process.terminate()
        assert await process.wait() == 0
    assert loki.repeated() == {}
    found = {entry.text: entry for entry in loki.entries}
    assert found["followed"].stream == {
        "namespace": SPACE, "container": "app", "team": "billing",
    }  # fmt: skip
    assert found["after the move"].stream["team"] == "moved"
    assert found["first of the second instance"].metadata["instance"] == "1"
    assert found["beside"].metadata["node"] == NODE
    assert all(abs(entry.time / 1e9 - time.time()) < 60 for entry in loki.entries)
