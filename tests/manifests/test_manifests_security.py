"""Security of the manifests: only needed permissions, and no overlay that is open to all."""

from __future__ import annotations

import pytest
import yaml

from kmproxy.config.web import parse_web_config
from kmproxy.kube.permissions import needed
from tests.support.manifests import by_name, every_overlay, every_pair
from tests.support.overlays import (
    ON_DAEMONSETS,
    OVERLAYS,
    built,
    configuration,
    of_kind,
    permissions,
    pod_of,
    variables,
    workload,
)


@every_pair
def test_the_roles_grant_what_is_needed_and_no_more(overlay, components):
    """The roles grant exactly the rights that `kmproxy check` asks for."""
    objects = built(overlay, components)
    config, _ = configuration(objects)
    wanted = {(each.group, each.resource, each.verb) for each in needed(config)}
    assert permissions(objects) == wanted


@every_pair
def test_pod_security_restricted(overlay, components):
    """The namespace demands it, and the pod fulfils it with a read-only root file system."""
    objects = built(overlay, components)
    (namespace,) = of_kind(objects, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pod, container = pod_of(objects)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
    allowed = {"configMap", "emptyDir", "secret"}
    assert all(set(volume) - {"name"} <= allowed for volume in pod["volumes"])


@pytest.mark.parametrize("overlay", sorted(ON_DAEMONSETS))
@pytest.mark.parametrize("component", ["tls-secret", "tls-cert-manager"])
def test_the_web_config(overlay, component):
    """It is valid, and names the files that cert-manager puts into the Secret."""
    objects = built(overlay, () if overlay == "recommended" else (component,))
    _, container = pod_of(objects)
    path = variables(objects)["KMPROXY_WEB_CONFIG_FILE"]
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert path == f"{places['web-config']}/web.yml"
    (config,) = [one for one in of_kind(objects, "ConfigMap") if "web.yml" in one["data"]]
    web = parse_web_config(yaml.safe_load(config["data"]["web.yml"]), places["web-config"])
    assert web.tls.certificate.path == f"{places['tls']}/tls.crt"
    assert web.tls.key.path == f"{places['tls']}/tls.key"


def test_the_recommended_overlay_is_not_open():
    """It is the daemonset with TLS, and admits callers by the cluster's RBAC."""
    config, _ = configuration(built("recommended"))
    assert config.authorization.mode == "kubernetes"
    assert config.server.web_config_file
    before, after = built("daemonset"), by_name(built("recommended"))
    assert set(by_name(before)) < set(after)


NAMESPACES = {("", "namespaces", "list"), ("", "namespaces", "watch")}
KUBELETS = {
    "daemonset": {("", "nodes/metrics", "get")},
    "deployment": {("", "nodes/proxy", "get"), ("", "nodes", "get")},
    "deployment-direct": {("", "nodes/metrics", "get"), ("", "nodes", "get")},
}


@pytest.mark.parametrize("overlay", KUBELETS)
def test_what_the_service_account_may_do(overlay):
    """Namespaces and one route to the kubelets, nothing more."""
    objects = built(overlay)
    assert permissions(objects) == NAMESPACES | KUBELETS[overlay]
    assert not of_kind(objects, "Role", "RoleBinding")


@every_overlay
def test_the_network_policy(overlay):
    """It selects our pods, admits only Prometheus, and allows the needed outgoing traffic."""
    objects = built(overlay, ["networkpolicy"])
    (policy,) = of_kind(objects, "NetworkPolicy")
    spec, template = policy["spec"], workload(objects)["spec"]["template"]
    assert spec["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    ours = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "kmproxy"}}}
    ingress, peers = spec["ingress"]
    assert peers == {"from": [ours], "ports": [{"port": "telemetry"}]}
    ports = {port["name"] for port in pod_of(objects)[1]["ports"]}
    assert {port["port"] for port in ingress["ports"]} == ports
    (prometheus,) = ingress["from"]
    assert set(prometheus) == {"namespaceSelector", "podSelector"}
    led = {port["port"] for way in spec["egress"] for port in way["ports"]}
    assert led == {443, 6443, 10250, 53, "telemetry"}
    assert {"to": [ours], "ports": [{"port": "telemetry"}]} in spec["egress"]


@pytest.mark.parametrize("overlay", sorted(set(OVERLAYS) - {"deployment"}))
def test_the_one_patch_for_kubelets_with_certificates(overlay):
    """The patch replaces pinning by verification, and changes nothing else."""
    before, after = built(overlay), built(overlay, ["kubelet-certificates"])
    first = {"name": "KMPROXY_KUBELET_TLS_PIN", "value": "true"}
    assert pod_of(before)[1]["env"].pop(0) == first
    assert before == after


@pytest.mark.parametrize(
    ("overlay", "component", "more"),
    [
        ("daemonset", "discovery", {("", "nodes/pods", "get")}),
        (
            "deployment-direct",
            "discovery-all-nodes",
            {("", "nodes/pods", "get"), ("", "nodes", "list")},
        ),
    ],
)
def test_discovery(overlay, component, more):
    """It is on, and adds the right to read a kubelet's pods: never write, never exec."""
    before, after = built(overlay), built(overlay, [component])
    assert variables(after) == variables(before) | {"KMPROXY_DISCOVERY": "true"}
    assert permissions(after) == permissions(before) | more
    added = set(by_name(after)) - set(by_name(before))
    services = {name for _, kind, name in added if kind == "Service"}
    assert services == ({"kmproxy-local"} if component == "discovery" else set())
    for one in of_kind(after, "Service"):
        if one["metadata"]["name"] == "kmproxy-local":
            assert one["spec"]["internalTrafficPolicy"] == "Local"


@pytest.mark.parametrize("overlay", sorted(OVERLAYS))
def test_no_overlay_believes_every_certificate(overlay):
    """With direct access, certificates of kubelets are pinned or verified."""
    config, _ = configuration(built(overlay))
    assert not config.kubelet.insecure_tls
    assert config.kubelet.tls_pin == (not config.kubelet.apiserver)
