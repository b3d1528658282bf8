"""The shipped manifests in a real API server: strict validation, and admission of their pods.

The chart's objects too. Helm itself installs, changes and removes a release there.
"""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.support.charts import CHART, CI, ChartError, ci_values, helm, release, rendered
from tests.support.overlays import built, pairs
from tests.support.programs import which

from .control_plane import ADMIN, RESOURCES, RequestError
from .objects import WORKLOADS, admit, apply, pods, remove

pytestmark = [pytest.mark.cluster]

HERE = "kmproxy-system"
ENFORCED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.mark.parametrize(("overlay", "components"), list(pairs()))
def test_it_is_accepted(plane, overlay, components):
    """All objects are accepted, and the pods pass in a namespace that enforces `restricted`."""
    objects = built(overlay, components)
    (space,) = [one for one in objects if one["kind"] == "Namespace"]
    assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    apply(plane, objects)
    assert admit(plane, objects)
    remove(plane, objects)


def test_a_pod_with_more_rights_is_refused(plane):
    """The same pod with a privilege is refused, so the namespace does enforce."""
    objects = built("daemonset")
    apply(plane, objects)
    (pod,) = pods(objects)
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(RequestError, match="restricted"):
        plane.apply(pod, dry_run=True)
    remove(plane, objects)


def test_an_unknown_field_is_refused(plane):
    """A misspelt field is an error, so the validation is strict."""
    (daemons,) = [one for one in built("daemonset") if one["kind"] == "DaemonSet"]
    daemons["spec"]["template"]["spec"]["hostNetwrk"] = True
    with pytest.raises(RequestError, match="hostNetwrk"):
        plane.apply(daemons, dry_run=True)
    assert set(RESOURCES) >= WORKLOADS


@helm
@pytest.mark.parametrize("way", CI)
def test_the_chart_is_accepted(plane, way):
    """All objects of a way, and its pods in a namespace that enforces `restricted`."""
    values = ci_values(way)
    objects = rendered(values)
    plane.namespace(values.get("namespaceOverride", HERE), **ENFORCED)
    apply(plane, objects)
    assert admit(plane, objects)
    for check in rendered(values, tests=True):
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


@helm
@pytest.mark.program("helm")
def test_the_program_helm_installs_and_removes_it(plane, tmp_path):
    """Helm 3, which the package is not: from metrics to metrics and logs, and nothing is left."""
    (tmp_path / "kubeconfig").write_text("")
    flags = (
        "--namespace=observability", f"--kubeconfig={tmp_path / 'kubeconfig'}",
        f"--kube-apiserver={plane.url}", f"--kube-token={ADMIN}",
        f"--kube-ca-file={plane.directory / 'ca.crt'}",
    )  # fmt: skip

    def ran(*arguments):
        command = [which("helm"), *map(str, arguments), *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def expected(values):
        objects = rendered(values, name="metrics", namespace="observability")
        return {(one["kind"], one["metadata"]["name"]) for one in objects}

    url = "https://loki.example.com/loki/api/v1/push"
    with_logs = {"mode": "central", "logs": {"enabled": True, "source": "api", "lokiUrl": url}}
    for values, action in (({}, ("install", "--create-namespace")), (with_logs, ("upgrade",))):
        (tmp_path / "values.yaml").write_text(json.dumps(values))
        shown = ran(*action, "metrics", CHART, f"--values={tmp_path / 'values.yaml'}")
        assert "STATUS: deployed" in shown
        assert "kmproxy check" in shown
        assert ours(plane) == expected(values)
    assert ("StatefulSet", "metrics-kmproxy-logs-api") in ours(plane)
    assert "kmproxy check --logs" in ran("get", "notes", "metrics")
    ran("uninstall", "metrics")
    assert ours(plane) == set()


@helm
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

    logs = {
        "enabled": True, "source": "api", "lokiUrl": "https://loki.example.com/loki/api/v1/push"
    }  # fmt: skip
    central = values | {"mode": "central", "networkPolicy": {"enabled": True}, "logs": logs}
    release(cluster, "upgrade", "metrics", central, namespace="observability")
    second = ours(plane)
    assert second == expected(central)
    assert ("ClusterRole", "metrics-kmproxy-kubelets-daemonset") in first - second
    assert ("StatefulSet", "metrics-kmproxy-logs-api") in second - first

    with pytest.raises(ChartError, match="tenant needs TLS"):
        release(
            cluster, "upgrade", "metrics", values | {"authorization": {"mode": "tenant"}},
            namespace="observability",
        )  # fmt: skip
    assert ours(plane) == second
    release(cluster, "uninstall", "metrics")
    assert ours(plane) == set()
