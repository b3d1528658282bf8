"""Labels of pods beside tenants, upstreams, targets and shared reads."""

from __future__ import annotations

import pytest

from kmproxy.simulator.kubelet import Fault
from tests.support.exporters import Exporter, answer, config_file
from tests.support.node_pods import add_pod, bear, listed, lists
from tests.support.pods import flat
from tests.support.sharing import Clock
from tests.support.targets import answer as discovered
from tests.support.tenants import bearer, grant


async def test_a_tenant(front, cluster):
    """It gets the labels of its own pods. An unknown pod of others is not counted."""
    kubelet = cluster.kubelets["node-a"]
    now = kubelet.clock()
    kubelet.clock = lambda: now  # so that two scrapes have the same values
    grant(cluster, "payments")
    proxy = await front("--authorization=tenant", "--workload")
    token = bearer(cluster)
    status, text = await proxy.get(**token)
    assert status == 200
    assert {namespace for namespace, _ in bear(text)} == {"payments"}
    add_pod(kubelet, "web-5d4f-zzzzz", namespace="default")
    kubelet.pods = [
        item for item in listed(kubelet) if item["metadata"]["name"] != "web-5d4f-zzzzz"
    ]
    assert await proxy.get(**token) == (200, text)
    assert await proxy.metric("kmproxy_samples_dropped_total", by="unknown_pod") == 0


async def test_an_upstream(front, cluster, tmp_path):
    """It knows pods of all nodes: its samples get no labels of pods, and none is left out."""
    text = b'kube_pod_info{namespace="payments",pod="elsewhere-1"} 1\n'
    async with Exporter(answer(text)) as exporter:
        config = config_file(tmp_path, {"name": "ksm", "url": exporter.url})
        proxy = await front(config, "--workload", "--pod-label=app")
        assert await proxy.get("/upstreams/ksm/metrics") == (
            200,
            'kube_pod_info{namespace="payments",team="payments",pod="elsewhere-1"} 1\n',
        )
        assert (await proxy.get())[0] == 200
    assert await proxy.metric("kmproxy_samples_dropped_total", by="unknown_pod") == 0


@pytest.mark.parametrize("flag", [True, False])
async def test_targets(front, cluster, flag):
    """With `--workload` they have the same labels as the samples; a namespace's own do not clash."""
    cluster.api.namespaces.apply("payments", {"workload": "x", "team": "payments"})
    proxy = await front("--discovery", "--label=*", *(["--workload"] if flag else []))
    _, _, body = await discovered(proxy)
    for target in flat(body):
        if flag:
            name = target["__meta_kubernetes_pod_name"].rsplit("-", 2)[0]
            assert (target["workload"], target["workload_type"]) == (name, "deployment")
            assert target["__meta_kubernetes_pod_deployment_name"] == name
        else:
            assert "workload_type" not in target


async def test_a_shared_read(front, cluster):
    """Each scraper of it has the labels of the pods that ran then, not of those made since."""
    clock, kubelet = Clock(), cluster.kubelets["node-a"]
    kubelet.pods = items = listed(kubelet)
    for item in items:
        item["metadata"]["labels"] = {"tier": "old"}
    proxy = await front("--share-reads=20s", "--pod-label=tier", clock=clock)

    async def tiers(path="/metrics/cadvisor"):
        clock.now += 3
        found = bear((await proxy.get(path))[1])
        assert len(found) == len(kubelet.node.pods)
        return set.union(*found.values())

    assert await tiers() == {'tier="old"'}
    for item in items:
        item["metadata"] |= {"labels": {"tier": "new"}, "uid": f"other-{item['metadata']['uid']}"}
    before = lists(kubelet)
    assert await tiers() == {'tier="old"'}
    assert lists(kubelet) == before
    assert await tiers("/metrics/resource") == {'tier="new"'}
    assert lists(kubelet) == before + 1
    assert await tiers() == {'tier="old"'}
    assert sum(record.path == "/metrics/cadvisor" for record in kubelet.requests) == 1
    clock.now += 20
    assert await tiers() == {'tier="new"'}


async def test_a_shared_read_whose_list_failed(front, cluster):
    """Its next scrape asks for the list again."""
    clock, kubelet = Clock(), cluster.kubelets["node-a"]
    proxy = await front("--share-reads=1m", "--workload", clock=clock)
    clock.now += 2
    assert (await proxy.get("/metrics/resource"))[0] == 200  # from now on all pods are known
    add_pod(kubelet, "web-5d4f-zzzzz", namespace="default")
    kubelet.fail(Fault.STATUS, path="/pods", status=500)
    clock.now += 2
    assert (await proxy.get("/metrics/cadvisor?namespace=payments"))[0] == 200
    kubelet.recover()
    clock.now += 2
    assert ("default", "web-5d4f-zzzzz") in bear((await proxy.get())[1])
    assert await proxy.metric("kmproxy_shared_reads_total", result="hit") == 1
