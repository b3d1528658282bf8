"""The chart renders what the overlays build: object by object, with the same values."""

from __future__ import annotations

import copy
import json

import pytest

from tests.support.charts import CI, ci_values, helm, rendered
from tests.support.kustomize import build
from tests.support.manifests import by_name
from tests.support.overlays import MANIFESTS, OVERLAYS, built, of_kind
from tests.support.yaml_text import read

pytestmark = [helm]

HELM_ADDS = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
    "checksum/config",
}
"""The only labels, and the annotation of pods, that objects of the chart have besides."""

MONITORED = {"release": "kube-prometheus-stack"}
TLS = {"tls": {"mode": "existingSecret", "secretName": "kmproxy-tls"}}
KUBERNETES = {"authorization": {"mode": "kubernetes"}}
UPSTREAM = {
    "name": "kube-state-metrics",
    "url": "http://kube-state-metrics.monitoring.svc:8080/metrics",
}

COMPONENTS = {
    ("daemonset", "kubelet-certificates"): {"kubelet": {"tlsPin": False}},
    ("deployment-direct", "kubelet-certificates"): {"kubelet": {"tlsPin": False}},
    ("daemonset", "discovery"): {"discovery": {"enabled": True}},
    ("deployment-direct", "discovery-all-nodes"): {"discovery": {"enabled": True}},
    ("daemonset", "tls-secret"): TLS,
    ("deployment", "tls-secret"): TLS,
    ("deployment-direct", "tls-cert-manager"): {"tls": {"mode": "certManager"}},
    ("deployment-direct", "tls-secret", "authorization"): TLS | KUBERNETES,
    ("daemonset", "label-snapshot"): {"labelSnapshot": {"enabled": True}},
    ("daemonset", "workload-labels"): {"workload": {"enabled": True}},
    ("deployment-direct", "workload-labels"): {"workload": {"enabled": True}},
    ("daemonset", "networkpolicy"): {"networkPolicy": {"enabled": True}},
    ("deployment", "networkpolicy"): {"networkPolicy": {"enabled": True}},
    ("daemonset", "kube-state-metrics"): {"kubeStateMetrics": {"mode": "http"}},
    ("recommended", "kube-state-metrics"): {"upstreams": [UPSTREAM]},
    ("daemonset", "networkpolicy", "kube-state-metrics"): {
        "kubeStateMetrics": {"mode": "http"}, "networkPolicy": {"enabled": True},
    },
    ("deployment-direct", "networkpolicy", "kube-state-metrics-tls"): {
        "kubeStateMetrics": {"mode": "tls"}, "networkPolicy": {"enabled": True},
    },
    ("recommended", "upstreams-scrapeconfig", "kube-state-metrics-tls", "monitor-tls"): {
        "kubeStateMetrics": {"mode": "tls"}, "prometheus": {"upstreams": {"enabled": True}},
    },
    ("deployment", "kube-state-metrics"): {"config": {"upstreams": [UPSTREAM]}},
    ("daemonset", "podmonitor"): {"prometheus": {"podMonitor": {"enabled": True}}},
    ("daemonset", "podmonitor-instead"): {
        "prometheus": {"podMonitor": {"enabled": True, "instead": True}},
    },
    ("daemonset", "servicemonitor"): {"prometheus": {"serviceMonitor": {"enabled": True}}},
    ("deployment", "scrapeconfig"): {"prometheus": {"scrapeConfig": {"enabled": True}}},
    ("daemonset", "kube-state-metrics", "upstreams-scrapeconfig"): {
        "upstreams": [UPSTREAM], "prometheus": {"upstreams": {"enabled": True}},
    },
    ("recommended", "podmonitor-instead", "monitor-tls"): {
        "prometheus": {"podMonitor": {"enabled": True, "instead": True}},
    },
    ("recommended", "servicemonitor", "monitor-tls", "discovery"): {
        "prometheus": {"serviceMonitor": {"enabled": True}}, "discovery": {"enabled": True},
    },
    ("recommended", "kube-state-metrics", "upstreams-scrapeconfig", "monitor-tls"): {
        "upstreams": [UPSTREAM], "prometheus": {"upstreams": {"enabled": True}},
    },
    ("deployment-direct", "tls-secret", "authorization", "scrapeconfig", "monitor-tls"): {
        **TLS, **KUBERNETES, "prometheus": {"scrapeConfig": {"enabled": True}},
    },
    ("daemonset", "prometheusrule"): {"prometheus": {"rules": {"enabled": True}}},
    ("deployment", "rules"): {"prometheus": {"rules": {"enabled": True, "form": "configMap"}}},
    ("daemonset", "dashboard"): {"prometheus": {"dashboards": {"enabled": True}}},
    ("daemonset", "podmonitor", "prometheusrule", "release"): {
        "prometheus": {"podMonitor": {"enabled": True}, "rules": {"enabled": True}, **MONITORED},
    },
    ("deployment", "scrapeconfig", "prometheusrule", "release"): {
        "prometheus": {"scrapeConfig": {"enabled": True}, "rules": {"enabled": True}, **MONITORED},
    },
}  # fmt: skip
"""The values that bring what components bring."""

FILES = (".yml", ".yaml")
ORDER_IS_NOTHING = ("env", "volumes", "volumeMounts")


def plain(one):
    """An object without what Helm adds, and with the content of its YAML files.

    Variables, volumes and mounts are sorted by name: components add theirs in another order.
    """
    if isinstance(one, list):
        return [plain(each) for each in one]
    if not isinstance(one, dict):
        return one
    found = {key: plain(value) for key, value in one.items() if key not in HELM_ADDS}
    for key, value in found.items():
        if key in ORDER_IS_NOTHING:
            found[key] = sorted(value, key=lambda each: each["name"])
        elif key.endswith(FILES):
            found[key] = read(value)
    return {key: value for key, value in found.items() if (key, value) != ("annotations", {})}


def as_text(one):
    """An object as lines, which tell a number from a text and from a switch."""
    return json.dumps(one, indent=1, sort_keys=True)


def same(ours, theirs):
    """Holds the chart's objects against those of kustomize, one by one."""
    ours = {key: plain(one) for key, one in by_name(ours).items()}
    theirs = {key: plain(one) for key, one in by_name(theirs).items()}
    assert set(ours) == set(theirs)
    for key, one in ours.items():
        assert as_text(one) == as_text(theirs[key]), key


def with_values(first, second):
    """Values with more of them, as Helm merges several files."""
    merged = copy.deepcopy(first)
    for key, value in second.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = with_values(merged[key], value) if both else value
    return merged


def test_each_overlay_has_its_values():
    """Every way of running has a file in ci/."""
    assert set(OVERLAYS) <= set(CI)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_chart_renders_what_the_overlay_builds(overlay):
    """With the values of ci/, in the namespace that the overlay names."""
    same(rendered(ci_values(overlay)), built(overlay))


@pytest.mark.parametrize("folder", ["logs", "logs-api", "logs-events"])
def test_the_chart_renders_the_manifests_of_logs(folder):
    """For both sources and for events, alone, in the namespace that the manifests name."""
    theirs = build(MANIFESTS / folder)
    ours = rendered(ci_values(folder))
    same(ours, theirs)
    kinds = "DaemonSet", "StatefulSet", "Deployment"
    sides = [of_kind(objects, *kinds)[0] for objects in (ours, theirs)]
    containers = [one["spec"]["template"]["spec"]["containers"][0] for one in sides]
    assert containers[0]["env"] == containers[1]["env"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_values_add_logs_to_an_overlay(overlay):
    """Logs beside metrics change no object of the metrics, and the other way round."""
    logs = ci_values("logs-api")["logs"]
    values = ci_values(overlay) | {"logs": logs, "namespaceOverride": "kmproxy-logs-api"}
    given = ci_values(overlay) | {"namespaceOverride": "kmproxy-logs-api"}
    beside = [one for one in build(MANIFESTS / "logs-api") if one["kind"] != "Namespace"]
    same(rendered(values), rendered(given) + beside)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_variables_are_in_the_order_of_the_overlay(overlay):
    """Of the container, which the comparison above sorts."""
    sides = [
        [one for one in objects if one["kind"] in {"DaemonSet", "Deployment"}]
        for objects in (rendered(ci_values(overlay)), built(overlay))
    ]
    names = [
        [each["name"] for each in one["spec"]["template"]["spec"]["containers"][0]["env"]]
        for (one,) in sides
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize("chosen", COMPONENTS, ids="+".join)
def test_values_stand_for_components(chosen):
    """What a component adds to an overlay, its values add to the chart."""
    overlay, *components = chosen
    values = with_values(ci_values(overlay), COMPONENTS[chosen])
    same(rendered(values), built(overlay, components))


def test_what_helm_adds_is_on_every_object():
    """So each object is found by its release, and shows by which chart it was made."""
    for one in rendered(ci_values("recommended"), name="metrics"):
        labels = one["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "metrics"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["helm.sh/chart"].startswith("kmproxy-")


def test_two_releases_have_nothing_in_common():
    """No object and no selector of one release is of another one."""
    first, second = (rendered({}, name=name, namespace="here") for name in ("first", "second"))
    assert not set(by_name(first)) & set(by_name(second))
    selectors = [str(one["spec"]["selector"]) for one in first if "selector" in one.get("spec", {})]
    assert len(selectors) == 3
    assert all("'first'" in each for each in selectors)
