"""The preflight of `kmproxy logs`: its permissions, and whether the kubelet serves log files."""

import pytest

from kmproxy.simulator.logs import SimLogs

URL = "--loki-url=http://127.0.0.1:9/loki/api/v1/push"


@pytest.fixture
def logs(cluster, tmp_path):
    """The log files of node-a, with one container."""
    with SimLogs(tmp_path / "log") as made:
        made.start("payments", "web-0").containers["app"].write("hello")
        cluster.kubelets["node-a"].logs = made
        yield made


def allow(cluster):
    """Grant what `kmproxy logs` needs, and no metrics."""
    for resource in ("nodes/log", "nodes/pods"):
        cluster.api.allow("get", resource)
    cluster.api.deny("get", "nodes/metrics")


async def test_all_is_well(preflight, cluster, logs):
    """Exactly the permissions of `logs` are wanted; a line's file was read."""
    allow(cluster)
    status, shown, _ = await preflight.process("--logs", URL)
    assert status == 0, shown
    assert "get nodes/log" in shown
    assert "nodes/metrics" not in shown
    assert "1 containers to read" in shown
    assert "bytes of web-0/app were read" in shown


async def test_a_missing_permission(preflight, cluster, logs):
    """The row names it, and the rule that grants it."""
    allow(cluster)
    cluster.api.deny("get", "nodes/log")
    status, shown, _ = await preflight.process("--logs", URL)
    assert status == 1
    assert "resources [nodes/log]" in shown
    assert "resources: [nodes/log]" in shown


async def test_a_kubelet_that_serves_no_logs(preflight, cluster, logs):
    """The setting that is off is named."""
    allow(cluster)
    cluster.kubelets["node-a"].serves_logs = False
    status, shown, _ = await preflight.process("--logs", URL)
    assert status == 1
    assert "enableSystemLogHandler" in shown


async def test_docker(preflight, cluster, logs):
    """Its format is named, and is not supported."""
    allow(cluster)
    (pod,) = logs.pods
    pod.containers["app"].path.write_text('{"log":"x","stream":"stdout"}\n')
    status, shown, _ = await preflight.process("--logs", URL)
    assert status == 1
    assert "docker's JSON lines" in shown


async def test_the_flags_of_logs(preflight):
    """Without the URL of an endpoint the command line is wrong."""
    status, _, said = await preflight.process("--logs")
    assert status == 2
    assert "--loki-url is missing" in said
