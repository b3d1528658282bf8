"""The preflight with labels from pods: the permission, the list, and the samples."""

from __future__ import annotations

import pytest

from tests.support.node_pods import listed
from tests.support.preflight import message, results, row, to_add


@pytest.mark.parametrize("flag", ["--workload", "--pod-label=app"])
async def test_the_permission(preflight, flag):
    """Without it the rule that grants it is shown; the labels of namespaces are tried all the same."""
    report, shown = await preflight.run(flag)
    found = results(report, but=("ok",))
    assert found == {"get nodes/pods": "failed", "pods": "failed"}
    assert {"apiGroups": [""], "resources": ["nodes/pods"], "verbs": ["get"]} in to_add(shown)
    assert "resources [nodes/pods] and verbs [get]" in message(report, "pods")
    assert row(report, "metrics")[0] == "ok"


async def test_samples_with_labels_of_pods(preflight, cluster):
    """They are shown as the daemon would serve them."""
    cluster.api.allow("get", "nodes/pods")
    report, shown = await preflight.run("--workload")
    assert results(report, but=("ok",)) == {}
    count = len(cluster.kubelets["node-a"].node.pods)
    assert message(report, "pods") == f"{count} of {count} pods have a value"
    assert 'workload_type="deployment"' in shown


@pytest.mark.parametrize("keep", [False, True])
async def test_samples_of_an_unknown_pod(preflight, cluster, keep):
    """A warning says how many are left out."""
    cluster.api.allow("get", "nodes/pods")
    kubelet = cluster.kubelets["node-a"]
    kubelet.pods = listed(kubelet)[1:]
    report, _ = await preflight.run("--workload", *(["--unknown-pod=keep"] if keep else []))
    found = row(report, "unknown-pod")
    if keep:
        assert found is None
    else:
        assert found[0] == "warning"
        assert "are left out: their pods are not in the kubelet's list" in found[1]


async def test_pods_without_the_label(preflight, cluster):
    """The row says how many have it."""
    cluster.api.allow("get", "nodes/pods")
    report, _ = await preflight.run("--pod-label=nobody.has.it")
    count = len(cluster.kubelets["node-a"].node.pods)
    assert message(report, "pods") == f"0 of {count} pods have a value"
