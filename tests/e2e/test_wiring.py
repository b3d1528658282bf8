"""The three wirings with a real Prometheus: the shipped file, the manifests' pods, the samples."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.programs import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.program("prometheus")]

MEMORY = "container_memory_working_set_bytes"
TEAMS = {"frontend-service1": "frontend", "frontend-service2": "frontend", "payments": "payments"}


async def teams_are_stored(prometheus, job, node="node"):
    """On both nodes exactly the containers of namespaces with a team have one.

    A target is up a moment before its samples can be queried, so callers wait for this.
    """
    found = await prometheus.query(f'{MEMORY}{{job="{job}",namespace!="",container!=""}}')
    assert {labels[node] for labels, _ in found} == {"node-a", "node-b"}
    for labels, _ in found:
        assert labels.get("team") == TEAMS.get(labels["namespace"]), labels
    assert {labels["namespace"] for labels, _ in found} >= set(TEAMS)
    return [labels for labels, _ in found]


async def test_beside(stage):
    """A job of its own, one series per container, and kmproxy's own metrics."""
    await stage.deploy("daemonset")
    prometheus = await stage.prometheus(stage.shipped("beside"))
    await prometheus.up("kmproxy", 2)
    await prometheus.up("kmproxy-telemetry", 2)
    found = await eventually(lambda: teams_are_stored(prometheus, "kmproxy"))
    nodes = {(each["node"], each["instance"]) for each in found}
    assert nodes == {("node-a", "node-a"), ("node-b", "node-b")}
    each = f'count by (namespace, pod, container) ({MEMORY}{{container!=""}})'
    assert not await prometheus.query(f"{each} > 1")

    async def namespaces_are_counted():
        namespaces = await prometheus.query("kmproxy_namespaces")
        assert [value for _, value in namespaces] == [len(stage.cluster.api.namespaces)] * 2

    await eventually(namespaces_are_counted)


async def test_instead(stage):
    """Every series has the labels of a direct scrape and its team."""
    await stage.deploy("daemonset")
    config = stage.shipped("instead")
    through, direct = await asyncio.gather(
        stage.prometheus(config), stage.prometheus(stage.direct())
    )
    await asyncio.gather(through.up("kubelet-cadvisor", 2), direct.up("kubelet", 2))

    async def same():
        await teams_are_stored(through, "kubelet")
        expression = '{__name__=~"container_.*|machine_.*|cadvisor_.*",job="kubelet"}'
        enriched = [labels for labels, _ in await through.query(expression)]
        plain = [labels for labels, _ in await direct.query(expression)]
        teams = [labels.pop("team", None) for labels in enriched]
        assert any(teams)
        assert sorted(map(sorted_pairs, enriched)) == sorted(map(sorted_pairs, plain))
        assert {labels["metrics_path"] for labels in plain} == {"/metrics/cadvisor"}
        assert {labels["instance"] for labels in plain} == {
            f"{each.host}:{each.port}" for each in stage.cluster.kubelets.values()
        }
        assert {labels["node"] for labels in plain} == set(stage.cluster.kubelets)

    await eventually(same)


def sorted_pairs(labels):
    """Labels in a fixed order, to be compared."""
    return sorted(labels.items())


@pytest.mark.parametrize("overlay", ["deployment", "deployment-direct"])
async def test_central(stage, overlay):
    """The usual job with only its address changed: every node through one kmproxy."""
    await stage.deploy(overlay)
    prometheus = await stage.prometheus(stage.shipped("central"))
    targets = await prometheus.up("kubernetes-cadvisor", 2)
    assert {each["scrapeUrl"] for each in targets} == {
        f"http://{stage.address}/api/v1/nodes/{node}/proxy/metrics/cadvisor"
        for node in stage.cluster.kubelets
    }
    await eventually(
        lambda: teams_are_stored(prometheus, "kubernetes-cadvisor", "kubernetes_io_hostname")
    )
    await prometheus.up("kmproxy-telemetry", 2)


async def test_gzip(stage):
    """Prometheus gets gzip, as seen on the wire, and reads it."""
    await stage.deploy("deployment-direct")
    wire = Wire(stage.address)
    async with await asyncio.start_server(wire.carry, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        config = stage.shipped("central", address=f"127.0.0.1:{port}")
        prometheus = await stage.prometheus(config)
        await prometheus.up("kubernetes-cadvisor", 2)
        await eventually(
            lambda: teams_are_stored(prometheus, "kubernetes-cadvisor", "kubernetes_io_hostname")
        )
        await prometheus.stop()
    assert b"accept-encoding: gzip" in wire.asked.lower()
    assert b"content-encoding: gzip" in wire.answered.lower()
    assert b"container_memory_working_set_bytes" not in wire.answered


class Wire:
    """A relay to a server that keeps the bytes."""

    def __init__(self, address):
        self._host, _, self._port = address.rpartition(":")
        self.asked = b""
        self.answered = b""

    async def carry(self, reader, writer):
        """Joins a connection with one to the server until either ends."""
        there, here = await asyncio.open_connection(self._host, int(self._port))

        async def pass_on(source, target, field):
            try:
                while piece := await source.read(65536):
                    setattr(self, field, getattr(self, field) + piece)
                    target.write(piece)
                    await target.drain()
            except ConnectionError:
                pass
            finally:
                target.close()

        await asyncio.gather(pass_on(reader, here, "asked"), pass_on(there, writer, "answered"))
