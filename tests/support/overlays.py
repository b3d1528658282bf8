"""The objects that kustomize builds from the overlays."""

from __future__ import annotations

from pathlib import Path

from kmproxy.cli.read import read_config
from tests.support.kustomize import build

ROOT = Path(__file__).parents[2]


MANIFESTS = ROOT / "manifests"


OVERLAYS = sorted(path.name for path in (MANIFESTS / "overlays").iterdir())


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
}


TOGETHER = (
    ("recommended", ("podmonitor-instead", "monitor-tls")),
    ("recommended", ("servicemonitor", "monitor-tls", "discovery")),
    (
        "deployment-direct",
        ("tls-secret", "authorization", "scrapeconfig", "monitor-tls", "discovery-all-nodes"),
    ),
    ("deployment", ("tls-cert-manager", "label-snapshot", "networkpolicy")),
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
    (one,) = of_kind(objects, "DaemonSet", "Deployment")
    return one


def pod_of(objects):
    """The pod of the workload, and its one container."""
    spec = workload(objects)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


FIELDS = {"status.hostIP": "10.0.0.7", "spec.nodeName": "node-a"}
"""Values of pod fields, as Kubernetes would set them in variables."""


def variables(objects, fields=FIELDS):
    """The environment of the daemon's container."""
    return {
        each["name"]: each.get("value") or fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
        for each in pod_of(objects)[1]["env"]
    }


def configuration(objects):
    """The daemon's settings and warnings, from its arguments and environment."""
    return read_config(pod_of(objects)[1].get("args", []), variables(objects))
