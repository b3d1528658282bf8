"""The objects that kustomize builds from the overlays."""

from __future__ import annotations

import tempfile
from pathlib import Path

from kmproxy.cli.read import read_config
from tests.support.kustomize import build

ROOT = Path(__file__).parents[2]


MANIFESTS = ROOT / "manifests"


# `development` is `daemonset` with another image, which `test_make_deploy` shows.
OVERLAYS = sorted({path.name for path in (MANIFESTS / "overlays").iterdir()} - {"development"})


COMPONENTS = sorted(path.name for path in (MANIFESTS / "components").iterdir())


# What a component cannot be put on: these overlays bring it, or have nothing for it to change.
ON_DAEMONSETS = {"daemonset", "recommended"}


NOT_ON = {
    "kubelet-certificates": {"deployment"},
    "podmonitor": set(OVERLAYS) - ON_DAEMONSETS,
    "podmonitor-instead": set(OVERLAYS) - ON_DAEMONSETS,
    "servicemonitor": set(OVERLAYS) - ON_DAEMONSETS,
    "scrapeconfig": ON_DAEMONSETS,
    "discovery": set(OVERLAYS) - ON_DAEMONSETS,
    "discovery-all-nodes": ON_DAEMONSETS | {"deployment"},
    "tls-secret": {"recommended"},
    "tls-cert-manager": {"recommended"},
    "authorization": {"recommended"},
    "label-snapshot": {"recommended"},
    "workload-labels": {"deployment"},
}


TOGETHER = (
    ("recommended", ("podmonitor-instead", "monitor-tls")),
    ("recommended", ("servicemonitor", "monitor-tls", "discovery")),
    (
        "deployment-direct",
        ("tls-secret", "authorization", "scrapeconfig", "monitor-tls", "discovery-all-nodes"),
    ),
    ("deployment", ("tls-cert-manager", "label-snapshot", "networkpolicy")),
    ("recommended", ("networkpolicy", "kube-state-metrics", "discovery", "workload-labels")),
    ("recommended", ("upstreams-scrapeconfig", "kube-state-metrics-tls", "monitor-tls")),
    ("daemonset", ("podmonitor", "servicemonitor", "prometheusrule", "release")),
    ("deployment-direct", ("scrapeconfig", "prometheusrule", "release")),
)


def pairs():
    """Every overlay alone, with each fitting component, and with some of them together."""
    for overlay in OVERLAYS:
        yield overlay, ()
        for component in COMPONENTS:
            if overlay not in NOT_ON.get(component, ()):
                yield overlay, (component,)
    yield from TOGETHER


def built(overlay, components=()):
    """The objects of an overlay with components."""
    folders = [MANIFESTS / "components" / name for name in components]
    return build(MANIFESTS / "overlays" / overlay, *folders)


def of_kind(objects, *kinds):
    """The objects of these kinds."""
    return [one for one in objects if one["kind"] in kinds]


def workload(objects):
    """The one object that runs pods."""
    (one,) = of_kind(objects, "DaemonSet", "Deployment", "StatefulSet")
    return one


def pod_of(objects):
    """The pod of the workload, and its one container."""
    spec = workload(objects)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


INDEX = "metadata.labels['apps.kubernetes.io/pod-index']"
FIELDS = {"status.hostIP": "10.0.0.7", "spec.nodeName": "node-a", INDEX: "0"}
"""Values of pod fields, as Kubernetes would set them in variables."""


def variables(objects, fields=FIELDS):
    """The environment of the daemon's container."""
    given = {
        each["name"]: each.get("value") or fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
        for each in pod_of(objects)[1]["env"]
    }
    index = given.pop("POD_INDEX", "")
    return {name: value.replace("$(POD_INDEX)", index) for name, value in given.items()}


def file_of(objects, path):
    """The text of a file that a ConfigMap puts into the daemon's container."""
    pod, container = pod_of(objects)
    folder, name = path.rsplit("/", 1)
    (mount,) = [each for each in container["volumeMounts"] if each["mountPath"] == folder]
    (volume,) = [each for each in pod["volumes"] if each["name"] == mount["name"]]
    (found,) = [
        one
        for one in of_kind(objects, "ConfigMap")
        if one["metadata"]["name"] == volume["configMap"]["name"]
    ]
    return found["data"][name]


def configuration(objects):
    """The settings of the daemon, and the warnings: from its arguments and its environment."""
    environment = variables(objects)
    with tempfile.TemporaryDirectory() as folder:
        if path := environment.get("KMPROXY_CONFIG"):
            file = Path(folder) / "config.yml"
            file.write_text(file_of(objects, path), "utf-8")
            environment["KMPROXY_CONFIG"] = str(file)
        return read_config(pod_of(objects)[1].get("args", []), environment)


def permissions(objects):
    """All rights of the service account, as (group, resource, verb)."""
    bound = {
        binding["roleRef"]["name"]
        for binding in of_kind(objects, "ClusterRoleBinding")
        if binding["subjects"]
        == [{"kind": "ServiceAccount", "name": "kmproxy", "namespace": "kmproxy-system"}]
    }
    return {
        (group, resource, verb)
        for role in of_kind(objects, "ClusterRole")
        if role["metadata"]["name"] in bound
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
