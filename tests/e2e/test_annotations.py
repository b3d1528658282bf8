"""Targets found by annotations of the manifests' Services and Pods, with Prometheus' discovery."""

from __future__ import annotations

import pytest

from tests.support.programs import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.program("prometheus")]

JOB = "kubernetes-service-endpoints"


async def test_the_services_annotations(stage):
    """Scheme, path and port come from the Services, and samples have their namespaces."""
    await stage.deploy("daemonset")
    prometheus = await stage.prometheus(stage.shipped("discovery-annotations"))
    targets = await prometheus.up(JOB, 4)
    assert {each["scrapeUrl"] for each in targets} == {
        url
        for each in stage.daemons
        for url in (f"{each.url}/metrics/cadvisor", f"http://{each.telemetry}/metrics")
    }
    assert {each["labels"].get("node") for each in targets} == set(stage.cluster.kubelets)

    async def stored():
        found = await prometheus.query(
            'container_memory_working_set_bytes{namespace="payments",container!=""}'
        )
        assert found
        assert {labels["team"] for labels, _ in found} == {"payments"}
        assert len(await prometheus.query("kmproxy_build_info")) == 2

    await eventually(stored)


async def test_the_pods_annotations(stage):
    """The usual job for annotated pods finds kmproxy by its pods' annotations.

    The relabelling is that of the shipped job for applications. Samples are stored as served.
    """
    await stage.deploy("daemonset")
    config = stage.shipped("http-sd")
    (job,) = config["scrape_configs"]
    (discovery,) = stage.shipped("discovery-annotations")["scrape_configs"]
    del job["http_sd_configs"], job["relabel_configs"][0]  # which leaves kmproxy's pods out
    job |= {key: discovery[key] for key in ("honor_labels", "honor_timestamps")}
    (role,) = discovery["kubernetes_sd_configs"]
    job["kubernetes_sd_configs"] = [role | {"role": "pod"}]
    prometheus = await stage.prometheus(config)
    targets = await prometheus.up(job["job_name"], 2)
    assert {each["scrapeUrl"] for each in targets} == {
        f"{each.url}/metrics/cadvisor" for each in stage.daemons
    }

    async def stored():
        found = await prometheus.query(
            'container_memory_working_set_bytes{namespace="payments",container!=""}'
        )
        assert found
        assert {labels["team"] for labels, _ in found} == {"payments"}

    await eventually(stored)


async def test_discovery_follows_the_cluster(stage):
    """The watches report a deleted pod, and changed annotations of a Service."""
    await stage.deploy("daemonset")
    prometheus = await stage.prometheus(stage.shipped("discovery-annotations"))
    await prometheus.up(JOB, 4)
    api = stage.cluster.api
    api.services.remove("pods", "kmproxy-system/kmproxy-2")
    await prometheus.up(JOB, 2)
    path = f"{api.plain_url}/api/v1/namespaces/kmproxy-system/services/kmproxy-telemetry"
    patch = {"metadata": {"annotations": {"prometheus.io/scrape": "false"}}}
    headers = {"Content-Type": "application/merge-patch+json"}
    async with stage.session.patch(path, json=patch, headers=headers) as response:
        assert response.status == 200
    (target,) = await prometheus.up(JOB, 1)
    assert target["scrapeUrl"] == f"{stage.daemons[0].url}/metrics/cadvisor"


async def test_a_cluster_without_rights(stage):
    """Without the right to list Services no target is found, so Services are the source."""
    await stage.deploy("daemonset")
    config = stage.shipped("discovery-annotations")
    stage.cluster.api.deny("list", "services")
    prometheus = await stage.prometheus(config)

    async def refused():
        paths = [each.path.partition("?")[0] for each in stage.cluster.api.requests]
        assert "/api/v1/namespaces/kmproxy-system/services" in paths

    await eventually(refused)
    await prometheus.up(JOB, 0)
