"""The manifests: Kubernetes accepts every overlay, and its objects follow the common rules."""

from __future__ import annotations

import json
import subprocess
from functools import cache

import kubernetes_validate
import pytest
import yaml

from kmproxy.web.listener import SHUTDOWN_TIMEOUT
from tests.support.documents import PAGES
from tests.support.manifests import by_name, every_overlay, every_pair
from tests.support.overlays import (
    MANIFESTS,
    ON_DAEMONSETS,
    OVERLAYS,
    TOGETHER,
    built,
    configuration,
    of_kind,
    pod_of,
    variables,
    workload,
)

VERSIONS = ("1.31", "1.36")
"""The oldest and the newest Kubernetes whose kubelets' answers are recorded and tested."""

OF_CUSTOM_KINDS = ("monitoring.coreos.com/", "cert-manager.io/")


@cache
def validated(text, version):
    """The version whose schemas accept an object; cached, because overlays share objects."""
    return kubernetes_validate.validate(json.loads(text), version, strict=True)


@pytest.mark.program("kubectl")
@every_pair
def test_kubectl_builds_what_the_other_tests_look_at(overlay, components, tmp_path):
    """`kubectl kustomize` builds the same objects as our reader."""
    folder = MANIFESTS / "overlays" / overlay
    if components:
        copy = tmp_path / "manifests"
        copy.symlink_to(MANIFESTS)
        document = {
            "resources": [f"manifests/overlays/{overlay}"],
            "components": [f"manifests/components/{name}" for name in components],
        }
        folder = tmp_path
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(document))
    done = subprocess.run(
        ["kubectl", "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert by_name(yaml.safe_load_all(done.stdout)) == by_name(built(overlay, components))


@every_pair
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_it(overlay, components, version):
    """Strict validation, with unknown fields as errors, in the oldest and newest version."""
    for one in built(overlay, components):
        if not one["apiVersion"].startswith(OF_CUSTOM_KINDS):
            assert validated(json.dumps(one, sort_keys=True), version) == version


@every_pair
def test_every_setting_is_taken(overlay, components):
    """No variable causes a warning, and the container has no arguments: `check` cannot see them."""
    assert "args" not in pod_of(built(overlay, components))[1]
    config, warnings = configuration(built(overlay, components))
    assert warnings == []
    assert [rule.name for rule in config.labels.rules] == ["team"]
    assert config.kubelet.all_nodes == (overlay not in ON_DAEMONSETS)


@every_pair
def test_what_is_mounted_is_there(overlay, components):
    """Each volume is mounted once at its own path, and its ConfigMap is built with it."""
    objects = built(overlay, components)
    pod, container = pod_of(objects)
    volumes = [volume["name"] for volume in pod["volumes"]]
    mounts = container["volumeMounts"]
    assert sorted(volumes) == sorted({mount["name"] for mount in mounts})
    assert len({mount["mountPath"] for mount in mounts}) == len(mounts) == len(volumes)
    maps = {one["metadata"]["name"] for one in of_kind(objects, "ConfigMap")}
    assert {
        volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume
    } <= maps
    written = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
    assert all(mount.get("readOnly", mount["name"] in written) for mount in mounts)


@every_pair
def test_everything_has_its_place(overlay, components):
    """Namespaced objects are in our namespace, but for those that Prometheus mounts or needs."""
    cluster_wide = {"Namespace", "ClusterRole", "ClusterRoleBinding"}
    for one in built(overlay, components):
        metadata = one["metadata"]
        if one["kind"] not in cluster_wide:
            there = metadata["name"] in {"kmproxy-rules", "kmproxy-to-kube-state-metrics"}
            assert metadata["namespace"] == ("monitoring" if there else "kmproxy-system")
        if one["kind"] != "Namespace":
            assert metadata["labels"]["app.kubernetes.io/name"] == "kmproxy", one["kind"]


@every_overlay
def test_ports_probes_and_the_end(overlay):
    """Probes use the telemetry port, Services name the pod's ports, and the end has time."""
    objects = built(overlay)
    pod, container = pod_of(objects)
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {
        "metrics": 8080,
        "telemetry": 8081,
    }
    probes = {
        kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")
    }
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    assert {probe["port"] for probe in probes.values()} == {"telemetry"}
    template = workload(objects)["spec"]["template"]
    for service in of_kind(objects, "Service"):
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        (port,) = service["spec"]["ports"]
        assert port["name"] == port["targetPort"]
    before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert pod["terminationGracePeriodSeconds"] >= before + 2 * SHUTDOWN_TIMEOUT + 5


@every_overlay
def test_how_a_pod_begins_and_ends(overlay):
    """No probe before a start, no variables of Services, the last log line in the status.

    A failed probe is an event of type Warning, even if the next one passes.
    """
    pod, container = pod_of(built(overlay))
    assert pod["enableServiceLinks"] is False
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert container["startupProbe"]["initialDelaySeconds"] == 3


def test_overlays_do_not_mix():
    """Selectors of one kind match no pods of the other, and each has its own role."""
    of_nodes, central = built("daemonset", ["discovery", "podmonitor"]), built("deployment")
    labels = [workload(each)["spec"]["template"]["metadata"]["labels"] for each in (of_nodes, central)]  # fmt: skip
    for objects, own, other in ((of_nodes, *labels), (central, *labels[::-1])):
        selectors = [one["spec"]["selector"] for one in of_kind(objects, "Service")]
        selectors += [
            one["spec"]["selector"]["matchLabels"]
            for one in of_kind(objects, "DaemonSet", "Deployment", "PodDisruptionBudget", "PodMonitor")
        ]  # fmt: skip
        assert len(selectors) >= 4
        for selector in selectors:
            assert selector.items() <= own.items()
            assert not selector.items() <= other.items()
    roles = {
        overlay: {one["metadata"]["name"]: one["rules"] for one in of_kind(built(overlay), "ClusterRole")}
        for overlay in OVERLAYS
    }  # fmt: skip
    for overlay, mine in roles.items():
        for name, rules in mine.items():
            assert all(rules == theirs.get(name, rules) for theirs in roles.values()), name
        kubelets = [name for name in mine if name.startswith("kmproxy-kubelets-")]
        assert kubelets == [f"kmproxy-kubelets-{overlay.replace('recommended', 'daemonset')}"]


@pytest.mark.parametrize("overlay", sorted(set(OVERLAYS) - ON_DAEMONSETS))
def test_replicas_do_not_take_turns(overlay):
    """A scraper keeps to one replica. Each replica knows its peers, and a maximum label age."""
    objects = built(overlay)
    services = {one["metadata"]["name"]: one for one in of_kind(objects, "Service")}
    assert services["kmproxy"]["spec"]["sessionAffinity"] == "ClientIP"
    config, _ = configuration(objects)
    assert config.apiserver.max_label_age == 180.0
    telemetry = services["kmproxy-telemetry"]
    assert telemetry["spec"]["clusterIP"] == "None"  # so that its name leads to each of them
    (port,) = telemetry["spec"]["ports"]
    assert str(config.apiserver.peers) == f"kmproxy-telemetry.kmproxy-system.svc:{port['port']}"


@every_overlay
def test_requests_and_limits(overlay):
    """Memory has both, above the measured peak. CPU has no limit, which would delay scrapes."""
    _, container = pod_of(built(overlay))
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert container["resources"]["requests"]["memory"] == "64Mi"
    assert container["resources"]["limits"] == {"memory": "128Mi"}


@pytest.mark.parametrize("overlay", sorted(ON_DAEMONSETS & set(OVERLAYS)))
def test_the_daemonset_reaches_every_node(overlay):
    """On all taints, with priority, a tenth at a time, and each pod asks its own node."""
    objects = built(overlay)
    daemonset, (pod, container) = workload(objects), pod_of(objects)
    assert daemonset["kind"] == "DaemonSet"
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["priorityClassName"] == "system-node-critical"
    assert daemonset["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": "10%"}
    source = {"fieldRef": {"fieldPath": "status.hostIP"}}
    assert {"name": "KMPROXY_NODE_NAME_OR_IP", "valueFrom": source} in container["env"]


@pytest.mark.parametrize("overlay", sorted(set(OVERLAYS) - ON_DAEMONSETS))
def test_the_deployment_is_never_without_a_pod(overlay):
    """Two replicas over zones and nodes, a budget, and updates that keep both."""
    objects = built(overlay)
    deployment, (pod, _) = workload(objects), pod_of(objects)
    assert deployment["kind"] == "Deployment"
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert pod["priorityClassName"] == "system-cluster-critical"
    spread = {each["topologyKey"] for each in pod["topologySpreadConstraints"]}
    assert spread == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    (budget,) = of_kind(objects, "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]


@every_pair
def test_the_usual_annotations(overlay, components):
    """On Services and pods, with an existing port that speaks plain HTTP.

    The usual job knows no CA, so a TLS port has no annotations.
    """
    objects = built(overlay, components)
    _, container = pod_of(objects)
    ports = {str(port["containerPort"]): port["name"] for port in container["ports"]}
    tls = "KMPROXY_WEB_CONFIG_FILE" in variables(objects)
    services = [one for one in of_kind(objects, "Service") if one["metadata"].get("annotations")]
    names = [] if tls else ["kmproxy"]
    assert [one["metadata"]["name"] for one in services] == [*names, "kmproxy-telemetry"]
    template = workload(objects)["spec"]["template"]
    bare = tls and overlay in ON_DAEMONSETS
    assert bool(template["metadata"]["annotations"]) is not bare
    for one in [*services, *([] if bare else [template])]:
        annotations = one["metadata"]["annotations"]
        told = {each: annotations[f"prometheus.io/{each}"] for each in ("scrape", "scheme", "path", "port")}  # fmt: skip
        assert told["scheme"] == "http"
        assert not (tls and ports[told["port"]] == "metrics")
        expected = {"metrics": "/metrics/cadvisor", "telemetry": "/metrics"}
        assert told["path"] == expected[ports[told["port"]]]
        # A path without a node is of use only where there is one node.
        central = overlay not in ON_DAEMONSETS
        assert told["scrape"] == ("false" if central and told["path"] != "/metrics" else "true")


@pytest.mark.parametrize(("overlay", "components"), TOGETHER[-2:])
def test_the_label_of_the_release(overlay, components):
    """All objects that the Prometheus Operator selects have it. Others are unchanged."""
    assert components[-1] == "release"
    before, after = by_name(built(overlay, components[:-1])), by_name(built(overlay, components))
    selected = [each for each in after if each[0].startswith("monitoring.coreos.com/")]
    assert len(selected) >= 4
    for each in selected:
        assert after[each]["metadata"]["labels"].pop("release") == "kube-prometheus-stack"
    assert before == after
    assert "release: kube-prometheus-stack" in PAGES["docs/prometheus.md"]
