"""An alert goes to the team of the namespace, also after a change of the team."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from tests.support.programs import eventually

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.program("prometheus", "prometheus-alertmanager"),
]

MEMORY = 'container_memory_working_set_bytes{container!=""}'
EACH = f"count by (namespace, pod, container) ({MEMORY})"
TEAMS = {"frontend": "frontend-team", "backend": "backend-team", "payments": "payments-team"}


def fill(kubelet, namespace):
    """Lowers the memory limit of a namespace's containers to their use."""
    pods = []
    for pod in kubelet.node.pods:
        tight = tuple(replace(each, memory_limit=int(3e7 * each.weight)) for each in pod.containers)
        pods.append(replace(pod, containers=tight) if pod.namespace == namespace else pod)
    kubelet.node = replace(kubelet.node, pods=tuple(pods))


async def test_an_alert_follows_its_namespace(stage):
    """To frontend-team only. After the change to backend-team, with one series each."""
    alertmanager, receivers = await stage.alertmanager()
    await stage.deploy("daemonset")
    prometheus = await stage.prometheus(
        stage.shipped("instead", alertmanager=alertmanager.url.removeprefix("http://"))
    )
    start = time.time()
    await prometheus.up("kubelet-cadvisor", 2)
    await prometheus.scraped("kubelet-cadvisor", 3)
    assert receivers.alerts == []
    for kubelet in stage.cluster.kubelets.values():
        fill(kubelet, "frontend-service2")
    alert = {"alertname": "ContainerMemoryNearLimit", "namespace": "frontend-service2"}

    async def told(team):
        assert receivers.firing(team=team, **alert), receivers.alerts

    await eventually(lambda: told("frontend"))
    assert receivers.firing() == {"frontend-team"}

    path = f"{stage.cluster.api.plain_url}/api/v1/namespaces/frontend-service2"
    headers = {"Content-Type": "application/merge-patch+json"}
    patch = {"metadata": {"labels": {"team": "backend"}}}
    async with stage.session.patch(path, json=patch, headers=headers) as response:
        assert response.status == 200
    await prometheus.scraped("kubelet-cadvisor", 2)
    containers = {
        (pod.namespace, pod.name, container.name)
        for kubelet in stage.cluster.kubelets.values()
        for pod in kubelet.node.pods
        for container in pod.containers
    }

    async def one_each():  # at some time: a scrape of a busy machine may come too late
        counted = {
            (labels["namespace"], labels["pod"], labels["container"]): count
            for labels, count in await prometheus.query(EACH)
        }
        assert counted == dict.fromkeys(containers, 1)
        owners = await prometheus.query(f"count by (namespace, team) ({MEMORY})")
        assert {
            labels["team"] for labels, _ in owners if labels["namespace"] == "frontend-service2"
        } == {"backend"}

    await eventually(one_each)
    await eventually(lambda: told("backend"))
    assert receivers.firing() == {"frontend-team", "backend-team"}
    for receiver, _, labels in receivers.alerts:
        assert receiver == TEAMS[labels["team"]], labels
        assert labels["namespace"] == "frontend-service2"
    history = await prometheus.history(EACH, start, time.time())
    assert history
    assert {float(value) for _, points in history for _, value in points} == {1}
