"""The chart in a real API server: what it renders is accepted, and Helm installs and removes it."""

from __future__ import annotations

import pytest

from tests.support.charts import CI, ChartError, ci_values, needs_helm, release, rendered

from .control_plane import ADMIN, RESOURCES
from .objects import admit, apply, remove

pytestmark = [pytest.mark.cluster]
needs_helm()

HERE = "kmproxy-system"
ENFORCED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.mark.parametrize("way", CI)
def test_it_is_accepted(plane, way):
    """All objects of a way, and its pods in a namespace that enforces `restricted`."""
    plane.namespace(HERE, **ENFORCED)
    values = ci_values(way)
    objects = rendered(values)
    apply(plane, objects)
    assert admit(plane, objects)
    (check,) = rendered(values, tests=True)
    plane.apply(check, dry_run=True)
    assert plane.warnings == []
    remove(plane, objects)


def ours(plane):
    """The objects of the release in the cluster, as (kind, name)."""
    found = set()
    for kind, (api, resource, _) in RESOURCES.items():
        query = "labelSelector=app.kubernetes.io/instance=metrics"
        for one in plane.request("GET", f"{api}/{resource}?{query}")["items"]:
            found.add((kind, one["metadata"]["name"]))
    return found


def test_helm_installs_upgrades_and_removes_it(plane):
    """From one way of running to the other, without an object or a right that is left over."""
    cluster = {
        "kube_apiserver": plane.url, "kube_token": ADMIN, "namespace": "observability",
        "kube_ca_file": str(plane.directory / "ca.crt"), "kubeconfig_content": "{}",
    }  # fmt: skip
    values = {"image": {"registry": "registry.example.com"}}
    release(cluster, "install", "metrics", values, namespace="observability", create_namespace=True)

    def expected(more):
        objects = rendered(more, name="metrics", namespace="observability")
        return {(one["kind"], one["metadata"]["name"]) for one in objects}

    first = ours(plane)
    assert first == expected(values)
    assert ("DaemonSet", "metrics-kmproxy") in first

    central = values | {"mode": "central", "networkPolicy": {"enabled": True}}
    release(cluster, "upgrade", "metrics", central, namespace="observability")
    second = ours(plane)
    assert second == expected(central)
    assert ("ClusterRole", "metrics-kmproxy-kubelets-daemonset") in first - second

    with pytest.raises(ChartError, match="tenant needs TLS"):
        release(
            cluster, "upgrade", "metrics", values | {"authorization": {"mode": "tenant"}},
            namespace="observability",
        )  # fmt: skip
    assert ours(plane) == second
    release(cluster, "uninstall", "metrics")
    assert ours(plane) == set()
