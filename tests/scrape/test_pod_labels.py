"""Labels of pods on samples: whole scrapes of kubelets whose pods come and go."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from kmproxy.labels.pods import RETENTION
from kmproxy.scrape import pod_lists
from kmproxy.simulator.kubelet import Fault
from tests.conftest import until
from tests.support.documents import block
from tests.support.node_pods import add_pod, bear, listed, lists
from tests.support.pods import pod
from tests.support.sharing import Clock

UNKNOWN = {"by": "unknown_pod"}


@pytest.fixture(autouse=True)
def _short_pause(monkeypatch):
    """Lists need no pause between them, so that scrapes wait less."""
    monkeypatch.setattr(pod_lists, "INTERVAL", 0.02)


@pytest.fixture
def kubelet(cluster):
    """The kubelet of the configured node."""
    return cluster.kubelets["node-a"]


async def scraped(proxy, path="/metrics/cadvisor", **headers):
    """What the samples of each pod bear."""
    status, text = await proxy.get(path, **headers)
    assert status == 200, text
    return bear(text)


def deployments(kubelet):
    """What the samples of a simulated node's pods have to bear: each is one of a Deployment."""
    return {
        (pod.namespace, pod.name): {
            f'workload="{pod.name.rsplit("-", 2)[0]}",workload_type="deployment"'
        }
        for pod in kubelet.node.pods
    }


@pytest.mark.parametrize("path", ["/metrics/cadvisor", "/metrics/resource"])
async def test_every_sample_of_a_pod(front, kubelet, path):
    """From the first scrape on, in every family."""
    proxy = await front("--workload")
    assert await scraped(proxy, path) == deployments(kubelet)
    assert await proxy.metric("kmproxy_pods") == len(kubelet.node.pods)
    assert await proxy.metric("kmproxy_samples_dropped_total", **UNKNOWN) == 0


async def test_without_the_flags(front, kubelet):
    """No kubelet is asked for pods."""
    proxy = await front()
    await scraped(proxy)
    assert lists(kubelet) == 0
    assert await proxy.metric("kmproxy_pods") == 0


async def test_labels_of_pods(front, kubelet):
    """In the order of the rules, right behind the pod, beside the namespace's own."""
    items = listed(kubelet)
    for item in items:
        item["metadata"]["labels"] = {"app.kubernetes.io/name": "shop", "tier": 'a"b'}
    kubelet.pods = items
    proxy = await front("--pod-label=tier", "--pod-label=app.kubernetes.io/name=app")
    _, text = await proxy.get("/metrics/resource")
    name = next(pod.name for pod in kubelet.node.pods if pod.namespace == "payments")
    assert f'namespace="payments",team="payments",pod="{name}",tier="a\\"b",app="shop"}}' in text


async def test_the_example_of_the_documents(front, kubelet, cluster):
    """The command that is shown makes the sample that is shown."""
    flags = block("kmproxy serve --workload").split()[2:]
    shown = block("container_memory_working_set_bytes{")
    added = ',app="api",workload="api",workload_type="deployment"'
    assert added in shown
    text = shown.replace(added, "").replace(',team="frontend"', "")
    kubelet.fail(
        Fault.BODY, path="/metrics/cadvisor", body=text.encode(), content_type="text/plain"
    )
    owner = {"kind": "ReplicaSet", "name": "api-6d5f", "controller": True}
    labels = {"pod-template-hash": "6d5f", "app.kubernetes.io/name": "api"}
    metadata = {"namespace": "shop", "labels": labels, "ownerReferences": [owner]}
    kubelet.pods = [pod("api-6d5f-x2k9p", metadata=metadata)]
    cluster.api.namespaces.apply("shop", {"team": "frontend"})
    proxy = await front(*flags)
    assert await proxy.get() == (200, shown)


@pytest.mark.parametrize("path", ["/metrics/cadvisor", "/metrics"])
async def test_labels_of_a_namespace_with_the_same_name(front, kubelet, cluster, path):
    """`*` does not make them, also on samples without a pod. No sample bears a name twice."""
    cluster.api.namespaces.apply("payments", {"app": "all", "workload": "x", "pod": "p", "y": "z"})
    proxy = await front("--label=*", "--pod-label=app", "--workload")
    _, text = await proxy.get(path)
    bear(text)
    assert 'y="z"' in text
    for wrong in ('app="all"', 'workload="x"', 'pod="p"'):
        assert wrong not in text


async def test_a_new_pod(front, kubelet):
    """Its first samples wait for a list, which all scrapes that wait share."""
    proxy = await front("--workload")
    await scraped(proxy)
    add_pod(kubelet, "ledger-5d4f-zzzzz")
    before = lists(kubelet)
    for found in await asyncio.gather(*(scraped(proxy) for _ in range(5))):
        assert ("payments", "ledger-5d4f-zzzzz") in found
    assert 1 <= lists(kubelet) - before <= 2


async def test_a_force_deleted_pod(front, kubelet):
    """It keeps its labels for five minutes; then its samples are left out, and counted."""
    clock = Clock()
    proxy = await front("--workload", clock=clock)
    clock.now += 2
    whole = await scraped(proxy)
    victim = kubelet.node.pods[0]
    key = victim.namespace, victim.name
    kubelet.pods = [item for item in listed(kubelet) if item["metadata"]["name"] != victim.name]
    before = lists(kubelet)
    clock.now += 60

    async def refreshed():
        return lists(kubelet) > before and await proxy.metric("kmproxy_pods_gone")

    assert await until(refreshed) == 1
    assert await scraped(proxy) == whole
    assert await proxy.metric("kmproxy_samples_dropped_total", **UNKNOWN) == 0
    clock.now += RETENTION - 1
    assert await scraped(proxy) == whole
    clock.now += 1
    found = await scraped(proxy)
    assert key not in found
    assert found == {other: labels for other, labels in whole.items() if other != key}
    assert await proxy.metric("kmproxy_samples_dropped_total", **UNKNOWN) > 0
    assert await proxy.metric("kmproxy_pods_gone") == 0


async def test_an_unknown_pod_that_is_kept(front, kubelet):
    """With `--unknown-pod keep` its samples pass, after a list, without labels of pods."""
    victim = kubelet.node.pods[0]
    kubelet.pods = [item for item in listed(kubelet) if item["metadata"]["name"] != victim.name]
    proxy = await front("--workload", "--unknown-pod=keep")
    found = await scraped(proxy)
    assert found[victim.namespace, victim.name] == {""}
    assert found == deployments(kubelet) | {(victim.namespace, victim.name): {""}}
    assert await proxy.metric("kmproxy_samples_dropped_total", **UNKNOWN) == 0
    assert await proxy.metric("kmproxy_unknown_pods_total") == 1


async def test_our_own_restart_while_a_pod_is_going(front, kubelet):
    """A pod that no list has shown us is left out after one list, and counted."""
    victim = kubelet.node.pods[0]
    kubelet.pods = [item for item in listed(kubelet) if item["metadata"]["name"] != victim.name]
    proxy = await front("--workload")
    found = await scraped(proxy)
    assert (victim.namespace, victim.name) not in found
    assert len(found) == len(kubelet.node.pods) - 1
    first = await proxy.metric("kmproxy_samples_dropped_total", **UNKNOWN)
    assert first > 0
    await scraped(proxy)
    assert await proxy.metric("kmproxy_samples_dropped_total", **UNKNOWN) == 2 * first
    assert await proxy.metric("kmproxy_unknown_pods_total") == 2


async def test_a_restarted_kubelet(front, kubelet):
    """It lists nothing yet: known pods keep their labels, an unknown one waits for its list."""
    clock = Clock()
    proxy = await front("--workload", clock=clock)
    clock.now += 2
    whole = await scraped(proxy)
    kubelet.pods = []
    add_pod(kubelet, "ledger-5d4f-zzzzz")
    clock.now += 2
    assert await scraped(proxy) == whole
    assert await proxy.metric("kmproxy_pod_lists_total", result="empty") >= 1
    assert await proxy.metric("kmproxy_samples_dropped_total", **UNKNOWN) > 0
    kubelet.pods = None
    clock.now += 2
    found = await scraped(proxy)
    assert found.keys() == whole.keys() | {("payments", "ledger-5d4f-zzzzz")}
    assert await proxy.metric("kmproxy_pods_gone") == 0


async def test_a_pod_that_comes_back_under_its_name(front, kubelet):
    """It has the labels of its new self, though its old self is still remembered."""
    clock = Clock()
    items = listed(kubelet)
    for item in items:
        item["metadata"]["labels"] = {"tier": "old"}
    kubelet.pods = items
    proxy = await front("--pod-label=tier", clock=clock)
    clock.now += 2
    assert set.union(*(await scraped(proxy)).values()) == {'tier="old"'}
    for tier, path in (("new", "/metrics/cadvisor"), ("newer", "/metrics/resource")):
        for item in items:
            uid = f"{tier}-{item['metadata']['uid']}"
            item["metadata"] |= {"labels": {"tier": tier}, "uid": uid}
        clock.now += 2  # no list would be due without a scrape
        assert set.union(*(await scraped(proxy, path)).values()) == {f'tier="{tier}"'}


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"status": 500}, "the kubelet answered with HTTP status 500"),
        ({"status": 403, "body": b"Forbidden (user=x, verb=get, resource=nodes, subresource(s)=[pods proxy])"}, "resources [nodes/pods] and verbs [get]"),
        ({"status": 403, "body": b"Forbidden (user=x, verb=get, resource=nodes, subresource=proxy)"}, "resources [nodes/proxy] and verbs [get] (the kubelet is older than 1.33)"),
        ({"status": 401}, "the kubelet does not accept kmproxy's credentials (401)"),
        (Fault.CUT_CHUNKED, "the kubelet"),
        (Fault.HTML, "the kubelet answered Content-Type 'text/html', which is not JSON"),
        (Fault.EMPTY, "the kubelet"),
        (Fault.DISCONNECT, "the kubelet"),
    ],
)  # fmt: skip
async def test_a_list_that_cannot_be_had(front, kubelet, fault, says):
    """While it is needed a scrape is 502 and says why; while all pods are known it is no matter."""
    clock = Clock()
    proxy = await front("--workload", clock=clock)
    clock.now += 2
    whole = await scraped(proxy)
    if isinstance(fault, Fault):
        kubelet.fail(fault, path="/pods")
    else:
        kubelet.fail(Fault.STATUS, path="/pods", **fault)
    clock.now += 60
    failed = {"result": "failed"}
    await until(lambda: proxy.metric("kmproxy_pod_lists_total", **failed))
    assert await scraped(proxy) == whole
    add_pod(kubelet, "ledger-5d4f-zzzzz", namespace=kubelet.node.pods[0].namespace)
    kubelet.node = _first_is_new(kubelet.node)
    clock.now += 2
    status, text = await proxy.get()
    assert (status, says in text) == (502, True), text
    assert text.count("\n") == 1
    assert await proxy.metric("kmproxy_samples_dropped_total", **UNKNOWN) == 0
    kubelet.recover()
    clock.now += 2
    assert len(await scraped(proxy)) == len(whole) + 1


def _first_is_new(node):
    """The node with its last pod first, so that no byte of an answer can be sent before its list."""
    return replace(node, pods=(node.pods[-1], *node.pods[:-1]))


async def test_a_permission_that_is_missing(front, cluster):
    """Without `nodes/pods` every scrape is 502, and names it."""
    cluster.api.deny("get", "nodes/pods")
    cluster.api.deny("get", "nodes/proxy")
    proxy = await front("--workload")
    status, text = await proxy.get()
    assert status == 502
    assert "resources [nodes/pods] and verbs [get]" in text
    assert (await proxy.probe("/readyz"))[0] == 200
    assert await proxy.metric(
        "kmproxy_upstream_errors_total", upstream="kubelet", reason="forbidden"
    )


async def test_a_list_that_fails_after_the_first_byte(front, kubelet, spoken):
    """The connection is broken: what was sent can never be taken for the whole."""
    known = b'a{namespace="shop",pod="web-0"} 1\n' * 20_000
    text = known + b'a{namespace="shop",pod="new"} 1\n'
    items = [{"metadata": {"namespace": "shop", "name": "web-0"}}]
    pods = json.dumps({"items": items}).encode()
    asked = []

    async def say(writer, number):
        await asyncio.sleep(0)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
        asked.append(number)
        if len(asked) == 1:
            writer.write(head % (b"application/json", len(pods)) + pods)
        elif len(asked) == 2:
            writer.write(head % (b"text/plain", len(text)) + text)
        else:
            writer.write(b"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n")

    proxy = await spoken(say, "--workload")
    await until(lambda: proxy.metric("kmproxy_pods"))
    answer, end = await proxy.raw(b"GET /metrics/cadvisor HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"workload" in answer
    assert end == "reset"
    assert not answer.endswith(b"0\r\n\r\n")
    assert await proxy.metric("kmproxy_scrapes_total", code="broken") == 1


async def test_the_wait_is_part_of_the_scrape_time(front, kubelet):
    """A list that hangs is 504 when the scraper's time is up; readiness does not wait for it."""
    kubelet.fail(Fault.HANG_BEFORE_HEADERS, path="/pods")
    proxy = await front("--workload")
    assert (await proxy.probe("/readyz"))[0] == 200
    status, text = await proxy.get(X_Prometheus_Scrape_Timeout_Seconds="0.5")
    assert status == 504
    assert "no whole answer from the kubelet" in text
    assert await proxy.metric("kmproxy_scrapes_in_flight") == 0
    await proxy.daemon.stop()
    assert not [task for task in asyncio.all_tasks() if "NodePods" in repr(task)]


async def test_a_list_that_hangs_and_is_not_needed(front, kubelet):
    """A scrape whose pods are all known waits for it for half of its time."""
    clock = Clock()
    proxy = await front("--workload", clock=clock)
    clock.now += 2
    whole = await scraped(proxy)
    kubelet.fail(Fault.HANG_BEFORE_HEADERS, path="/pods")
    clock.now += 2
    assert await scraped(proxy, X_Prometheus_Scrape_Timeout_Seconds="1.5") == whole
    assert await proxy.metric("kmproxy_scrapes_without_pod_list_total") == 1


@pytest.mark.parametrize("limit", [1, 2])
async def test_a_list_needs_no_slot(front, kubelet, limit):
    """Scrapes that hold all slots and wait for a list do not wait for one another."""
    proxy = await front("--workload", f"--max-concurrency={limit}")
    add_pod(kubelet, "ledger-5d4f-zzzzz")
    found = await asyncio.gather(*(scraped(proxy) for _ in range(4)))
    assert all(each == found[0] for each in found)
    assert len(found[0]) == len(kubelet.node.pods)


@pytest.mark.parametrize("proxied", [False, True])
async def test_each_node_has_its_own_pods(front, cluster, proxied):
    """By their names, and through the API server: a pod of one name has its own node's labels."""
    names = {}
    pods = cluster.kubelets["node-a"].node.pods
    for name, kubelet in cluster.kubelets.items():
        kubelet.node = replace(kubelet.node, pods=pods)
        items = listed(kubelet)
        for item in items:
            item["metadata"]["labels"] = {"tier": name}
        kubelet.pods = items
        names[name] = f"/api/v1/nodes/{name}/proxy/metrics/cadvisor"
    flags = [f"--kube-apiserver={cluster.api.url}"] if proxied else []
    proxy = await front("--all-nodes", "--node-name-or-ip=localhost", "--pod-label=tier", *flags)
    for _ in range(2):
        for name, path in names.items():
            found = await scraped(proxy, path)
            assert set.union(*found.values()) == {f'tier="{name}"'}
            assert len(found) == len(pods)
    assert await proxy.metric("kmproxy_pods") == 2 * len(pods)


async def test_a_head(front, kubelet):
    """It waits for nothing more than its first bytes need."""
    proxy = await front("--workload")
    answer, _ = await proxy.raw(
        b"HEAD /metrics/cadvisor HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_selected_samples_only(front, kubelet):
    """Pods whose samples are not served need no list, but for the one at the start."""
    proxy = await front("--workload", "--namespace=nothing")
    await until(lambda: asyncio.sleep(0, lists(kubelet)))
    await scraped(proxy)
    assert lists(kubelet) == 1
