"""Joins with kube_namespace_labels in the real Prometheus, for namespaces on two nodes."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.documents import block
from tests.support.programs import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.program("prometheus")]

JOIN = block("sum by (namespace, pod) (")
AGGREGATED = JOIN.replace(
    "kube_namespace_labels", "max by (namespace, label_team) (kube_namespace_labels)"
)
TEAMS = {"frontend-service1": "frontend", "frontend-service2": "frontend", "payments": "payments"}


async def joined(prometheus, query, teams=TEAMS):
    """Waits until a join has every pod of each namespace once, with the namespace's team."""

    async def check():
        pods = "count by (namespace) (sum by (namespace, pod) (container_memory_working_set_bytes))"
        expected = {
            labels.get("namespace"): count for labels, count in await prometheus.query(pods)
        }
        found = await prometheus.query(query)
        for labels, _ in found:
            assert labels.get("label_team") == teams.get(labels["namespace"]), labels
        counted = [labels["namespace"] for labels, _ in found]
        assert {space: counted.count(space) for space in counted} == {
            space: count for space, count in expected.items() if space
        }
        assert set(teams) <= set(counted)

    await eventually(check)


async def spans_nodes(prometheus):
    """Namespaces have pods on both nodes, so both serve their labels."""
    by = "count by (namespace) (count by (namespace, node) (container_memory_working_set_bytes))"
    assert tuple(value for _, value in await prometheus.query(f"{by} == 2")) >= (2.0, 2.0)


@pytest.mark.parametrize(
    ("wiring", "job"), [("beside", "kmproxy"), ("instead", "kubelet-cadvisor")]
)
async def test_a_daemonset(stage, wiring, job):
    """Both nodes write one series, and a changed label leaves no old series."""
    await stage.deploy("daemonset", "--info-metric")
    prometheus = await stage.prometheus(stage.shipped(wiring))
    await prometheus.up(job, 2)
    await joined(prometheus, JOIN)
    await joined(prometheus, AGGREGATED)
    await spans_nodes(prometheus)
    found = await prometheus.query("kube_namespace_labels")
    assert found
    assert not any(labels.keys() & {"instance", "node", "pod"} for labels, _ in found)
    stage.cluster.api.namespaces.apply("payments", {"team": "moved"})
    await joined(prometheus, JOIN, TEAMS | {"payments": "moved"})
    await prometheus.scraped(job, 2)
    series = await prometheus.query('kube_namespace_labels{namespace="payments"}')
    assert [labels["label_team"] for labels, _ in series] == ["moved"]


async def test_without_honor_labels(stage):
    """Each node has its own series: the aggregating join works, the other one does not."""
    await stage.deploy("daemonset", "--info-metric")
    config = stage.shipped("beside")
    job = config["scrape_configs"][0]
    job["honor_labels"] = False
    job["metric_relabel_configs"] = [
        {"source_labels": ["exported_namespace"], "regex": "(.+)", "target_label": "namespace"},
        {"source_labels": ["exported_pod"], "regex": "(.+)", "target_label": "pod"},
    ]
    prometheus = await stage.prometheus(config)
    await prometheus.up("kmproxy", 2)
    await joined(prometheus, AGGREGATED)
    async with prometheus.session.get(
        f"{prometheus.url}/api/v1/query", params={"query": JOIN}
    ) as response:
        assert "many-to-many matching not allowed" in (await response.json())["error"]


async def test_central(stage):
    """One job for all namespaces, and no such series in the nodes' answers."""
    await stage.deploy("deployment", "--info-metric")
    config = stage.shipped("central")
    config["scrape_configs"].append(
        {
            "job_name": "kmproxy-namespaces",
            "metrics_path": "/metrics/namespaces",
            "honor_labels": True,
            "static_configs": [{"targets": [stage.address]}],
        }
    )
    prometheus = await stage.prometheus(config)
    await asyncio.gather(
        prometheus.up("kubernetes-cadvisor", 2), prometheus.up("kmproxy-namespaces", 1)
    )
    await joined(prometheus, JOIN)
    found = await prometheus.query("kube_namespace_labels")
    assert sorted(labels["namespace"] for labels, _ in found) == sorted(
        stage.cluster.api.namespaces
    )
    assert {labels["job"] for labels, _ in found} == {"kmproxy-namespaces"}
    stage.cluster.api.namespaces.apply("payments", {"team": "moved"})
    await joined(prometheus, JOIN, TEAMS | {"payments": "moved"})
