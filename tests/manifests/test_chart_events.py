"""The events of the cluster in the chart: alone, and beside logs and metrics."""

from __future__ import annotations

import pytest

from kmproxy.cli.read import read_logs
from kmproxy.kube.permissions import EVENTS, lease, needed_by_logs, rules
from tests.support.charts import NOTES, check_pod, ci_values, helm, rendered, texts
from tests.support.manifests import by_name
from tests.support.overlays import of_kind

pytestmark = [helm]

URL = "https://logs.example.com/loki/api/v1/push"
ON = {"enabled": True, "lokiUrl": URL}
BESIDE = {"logs": {"enabled": True, "lokiUrl": "http://loki/loki/api/v1/push"}}


def events_of(values, **release):
    """The objects for events, and their Deployment."""
    suffix = "-logs-events"
    objects = [
        one
        for one in rendered(values, **release)
        if one["metadata"]["labels"].get("app.kubernetes.io/name", "").endswith(suffix)
    ]
    (one,) = of_kind(objects, "Deployment")
    return objects, one


def command(deployment):
    """The settings of the pods."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    found, warnings = read_logs([], {each["name"]: each["value"] for each in container["env"]})
    assert warnings == []
    return found


def normal(found):
    """Rules in an order of their own."""
    return sorted(str(sorted(rule.items())) for rule in found)


@pytest.mark.parametrize("name", ["kmproxy", "other"])
@pytest.mark.parametrize("beside", [{}, BESIDE], ids=["alone", "beside logs"])
def test_the_rights_are_those_of_the_settings(name, beside):
    """Events and one Lease, which has the name of the release: two releases share none."""
    values = {"mode": "none", "events": ON} | beside
    objects, one = events_of(values, name=name, namespace="ops")
    found = command(one)
    assert (found.logs.source, found.logs.events, found.logs.loki_url) == ("none", True, URL)
    wanted = (*needed_by_logs(found.config, "none"), *EVENTS)
    (cluster,) = of_kind(objects, "ClusterRole")
    assert normal(cluster["rules"]) == normal(rules(wanted))
    (role,) = of_kind(objects, "Role")
    where = found.logs.events_lease
    assert where.namespace is None
    assert where.name == one["metadata"]["name"]
    assert normal(role["rules"]) == normal(rules(lease("ops", where.name)))
    assert role["metadata"]["namespace"] == "ops"
    account = one["spec"]["template"]["spec"]["serviceAccountName"]
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        (binding,) = of_kind(objects, kind)
        assert [each["name"] for each in binding["subjects"]] == [account]


def test_beside_logs_and_metrics():
    """Each of the three changes no object of the others, and no selector finds pods of another."""
    policy = {"networkPolicy": {"enabled": True, "logsEgress": [{"ports": [{"port": 3100}]}]}}
    both = by_name(rendered({"events": ON} | BESIDE | policy))
    logs = by_name(rendered(BESIDE | policy))
    events = by_name(rendered({"events": ON} | policy))
    assert both == logs | events
    templates = [
        one["spec"]["template"]["metadata"]["labels"]
        for one in both.values()
        if one["kind"] in {"DaemonSet", "Deployment"}
    ]
    assert len(templates) == 3
    for one in both.values():
        spec = one.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector") or {}
        if labels := selector.get("matchLabels"):
            assert sum(labels.items() <= each.items() for each in templates) == 1


def test_the_settings_of_a_config():
    """They reach the pods, which start anew when they change; so do its volumes."""
    config = {"tenant-label": "team", "loki": {"authorization": {"credentials_file": "/a/token"}}}
    volumes = {
        "extraVolumes": [{"name": "token", "secret": {"secretName": "loki"}}],
        "extraVolumeMounts": [{"name": "token", "mountPath": "/a", "readOnly": True}],
    }
    objects, one = events_of({"events": ON | volumes | {"config": config}, "label": ["owner"]})
    (written,) = of_kind(objects, "ConfigMap")
    assert "tenant-label: team" in written["data"]["config.yml"]
    template = one["spec"]["template"]
    assert template["metadata"]["annotations"]["checksum/config"]
    assert {each["name"] for each in template["spec"]["volumes"]} == {"config", "token"}
    (container,) = template["spec"]["containers"]
    assert {"name": "KMPROXY_LABEL", "value": "owner"} in container["env"]


def test_the_pods_run_on_several_nodes():
    """One works and the others take over; the spread can be replaced."""
    spec = events_of({"events": ON | {"replicaCount": 3}})[1]["spec"]
    assert spec["replicas"] == 3
    (spread,) = spec["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == spec["selector"]["matchLabels"]
    without = events_of({"events": ON | {"topologySpreadConstraints": []}})[1]["spec"]
    assert "topologySpreadConstraints" not in without["template"]["spec"]


def test_its_own_metrics_are_scraped():
    """By a PodMonitor of its own."""
    prometheus = {"annotations": False, "logs": {"enabled": True}}
    objects, one = events_of({"events": ON, "prometheus": prometheus} | BESIDE)
    (monitor,) = of_kind(objects, "PodMonitor")
    assert monitor["spec"]["selector"] == one["spec"]["selector"]
    assert "annotations" not in one["spec"]["template"]["metadata"]


@pytest.mark.parametrize("beside", [{}, BESIDE], ids=["alone", "beside logs"])
def test_the_next_commands(beside):
    """The preflight in the pod, and the Lease that names the pod at work."""
    values = ci_values("logs-events") | beside
    said = texts(values)[NOTES]
    where = "-n kmproxy-logs-events"
    assert f"kubectl exec {where} deploy/kmproxy-logs-events -- kmproxy check --logs" in said
    assert f"kubectl get lease {where} kmproxy-logs-events" in said
    assert said.count("1. Look whether") == 1 + bool(beside)
    assert ("\n\nkmproxy logs" in said) is bool(beside)


def test_the_pod_of_helm_test():
    """It has the settings and rights of the pods that send."""
    values = ci_values("logs-events")
    _, one = events_of(values)
    (container,) = one["spec"]["template"]["spec"]["containers"]
    check = check_pod(values, "--logs")
    (tester,) = check["spec"]["containers"]
    assert tester["env"] == container["env"]
    assert check["spec"]["serviceAccountName"] == one["spec"]["template"]["spec"]["serviceAccountName"]  # fmt: skip
    assert not one["spec"]["selector"]["matchLabels"].items() <= check["metadata"]["labels"].items()
