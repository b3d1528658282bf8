"""The manifests: what they build, that Kubernetes takes it, and the rules they keep to."""

from __future__ import annotations

import json
import re
import subprocess
from base64 import b64encode
from functools import cache
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from kmproxy.config.web import parse_web_config
from kmproxy.kube.permissions import needed
from kmproxy.web.listener import SHUTDOWN_TIMEOUT
from tests.support.documents import PAGES, block, section
from tests.support.overlays import (
    COMPONENTS,
    MANIFESTS,
    ON_DAEMONSETS,
    OVERLAYS,
    ROOT,
    TOGETHER,
    built,
    configuration,
    of_kind,
    pairs,
    pod_of,
    variables,
    workload,
)

VERSIONS = ("1.31", "1.36")
"""The oldest and the newest Kubernetes whose kubelets' answers are recorded and tested."""

OF_CUSTOM_KINDS = ("monitoring.coreos.com/", "cert-manager.io/")


def permissions(objects):
    """All that the service account may do, as (group, resource, verb)."""
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


def by_name(objects):
    """The objects by what identifies them."""
    return {(one["apiVersion"], one["kind"], one["metadata"]["name"]): one for one in objects}


every_pair = pytest.mark.parametrize(
    ("overlay", "components"),
    [pytest.param(*pair, id="+".join([pair[0], *pair[1]])) for pair in pairs()],
)
every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


@cache
def validated(text, version):
    """The version by whose schemas an object is valid: once for what many overlays share."""
    return kubernetes_validate.validate(json.loads(text), version, strict=True)


@pytest.mark.program("kubectl")
@every_pair
def test_kubectl_builds_what_the_other_tests_look_at(overlay, components, tmp_path):
    """`kubectl kustomize` builds every overlay, and the same objects as our reader."""
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
    """Strictly: an unknown field is an error, in the oldest and the newest version."""
    for one in built(overlay, components):
        if not one["apiVersion"].startswith(OF_CUSTOM_KINDS):
            assert validated(json.dumps(one, sort_keys=True), version) == version


@every_pair
def test_every_setting_is_taken(overlay, components):
    """Every variable, without a warning; there is no argument, which `check` would not see."""
    assert "args" not in pod_of(built(overlay, components))[1]
    config, warnings = configuration(built(overlay, components))
    assert warnings == []
    assert [rule.name for rule in config.labels.rules] == ["team"]
    assert config.kubelet.all_nodes == (overlay not in ON_DAEMONSETS)


@every_pair
def test_the_roles_grant_what_is_needed_and_no_more(overlay, components):
    """Exactly what `kmproxy check` asks for with the same arguments."""
    objects = built(overlay, components)
    config, _ = configuration(objects)
    wanted = {(each.group, each.resource, each.verb) for each in needed(config)}
    assert permissions(objects) == wanted


@every_pair
def test_pod_security_restricted(overlay, components):
    """The namespace demands it, and the pod has it with a read-only root besides."""
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


@every_pair
def test_what_is_mounted_is_there(overlay, components):
    """Each volume once, at a place of its own, and of a ConfigMap that is built with it."""
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


@pytest.mark.parametrize("overlay", sorted(ON_DAEMONSETS))
@pytest.mark.parametrize("component", ["tls-secret", "tls-cert-manager"])
def test_the_web_config(overlay, component):
    """It is one, and names files of the mounted Secret by which cert-manager fills it."""
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
    """It is the daemonset with TLS, and lets in only whom the cluster's RBAC does."""
    config, _ = configuration(built("recommended"))
    assert config.authorization.mode == "kubernetes"
    assert config.server.web_config_file
    before, after = built("daemonset"), by_name(built("recommended"))
    assert set(by_name(before)) < set(after)


@every_pair
def test_everything_has_its_place(overlay, components):
    """All that lives in a namespace lives in ours, but for what Prometheus mounts, and is named."""
    cluster_wide = {"Namespace", "ClusterRole", "ClusterRoleBinding"}
    for one in built(overlay, components):
        metadata = one["metadata"]
        if one["kind"] not in cluster_wide:
            mounted = metadata["name"] == "kmproxy-rules"
            assert metadata["namespace"] == ("monitoring" if mounted else "kmproxy-system")
        if one["kind"] != "Namespace":
            assert metadata["labels"]["app.kubernetes.io/name"] == "kmproxy", one["kind"]


NAMESPACES = {("", "namespaces", "list"), ("", "namespaces", "watch")}
KUBELETS = {
    "daemonset": {("", "nodes/metrics", "get")},
    "deployment": {("", "nodes/proxy", "get"), ("", "nodes", "get")},
    "deployment-direct": {("", "nodes/metrics", "get"), ("", "nodes", "get")},
}


@pytest.mark.parametrize("overlay", KUBELETS)
def test_what_the_service_account_may_do(overlay):
    """Namespaces, and one way to the kubelets; nothing more."""
    objects = built(overlay)
    assert permissions(objects) == NAMESPACES | KUBELETS[overlay]
    assert not of_kind(objects, "Role", "RoleBinding")


@every_overlay
def test_ports_probes_and_the_end(overlay):
    """Probes ask the telemetry port, Services name the pod's ports, the end has its time."""
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
    """No probe before the daemon can answer, no variable of a Service, its last line in its status.

    A probe that fails is an event of type Warning, even where the next one is soon to pass.
    """
    pod, container = pod_of(built(overlay))
    assert pod["enableServiceLinks"] is False
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert container["startupProbe"]["initialDelaySeconds"] == 3


def test_overlays_do_not_mix():
    """What selects the pods of one kind selects none of the other; each has a role of its own."""
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
    """A scraper keeps to one replica, and one with old labels leaves it to the others."""
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
def test_the_network_policy(overlay):
    """It is of our pods, opens their ports to Prometheus alone, and leads where they must go."""
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


@every_overlay
def test_requests_and_limits(overlay):
    """Memory has both, above what is measured; CPU has no limit, which would delay scrapes."""
    _, container = pod_of(built(overlay))
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert container["resources"]["requests"]["memory"] == "64Mi"
    assert container["resources"]["limits"] == {"memory": "128Mi"}


@pytest.mark.parametrize("overlay", sorted(ON_DAEMONSETS & set(OVERLAYS)))
def test_the_daemonset_reaches_every_node(overlay):
    """Whatever the taints, before other pods, a tenth at a time, asking its own node."""
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
    """Two replicas over zones and nodes, a budget, and no update that leaves fewer."""
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
    """On Services and pods, naming a port that is there and speaks plain HTTP.

    The usual job knows no CA, so what is served over TLS has none.
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


@pytest.mark.parametrize("overlay", sorted(set(OVERLAYS) - {"deployment"}))
def test_the_one_patch_for_kubelets_with_certificates(overlay):
    """Without it the first certificate is pinned, with it a CA verifies; nothing else changes."""
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
    """It is switched on, and may read the pods of a kubelet besides: never write, never exec."""
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
    """Where the kubelets are asked themselves their certificates are pinned or verified."""
    config, _ = configuration(built(overlay))
    assert not config.kubelet.insecure_tls
    assert config.kubelet.tls_pin == (not config.kubelet.apiserver)


@pytest.mark.parametrize(("overlay", "components"), TOGETHER[-2:])
def test_the_label_of_the_release(overlay, components):
    """All that the Prometheus Operator selects has it, and nothing else changes."""
    assert components[-1] == "release"
    before, after = by_name(built(overlay, components[:-1])), by_name(built(overlay, components))
    selected = [each for each in after if each[0].startswith("monitoring.coreos.com/")]
    assert len(selected) >= 4
    for each in selected:
        assert after[each]["metadata"]["labels"].pop("release") == "kube-prometheus-stack"
    assert before == after
    assert "release: kube-prometheus-stack" in PAGES["docs/prometheus.md"]


def test_the_documents_name_every_overlay_and_component():
    """Each has its row, and no other has."""
    for title, names in (("Overlays", OVERLAYS), ("Components", COMPONENTS)):
        table = section("docs/install.md", title)
        assert set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == set(names)


@pytest.mark.program("kubectl")
def test_the_example_of_a_component(tmp_path):
    """The kustomization that is shown builds beside our manifests."""
    example = block("apiVersion: kustomize")
    (tmp_path / "manifests").symlink_to(MANIFESTS)
    (tmp_path / "kustomization.yaml").write_text(example)
    done = subprocess.run(["kubectl", "kustomize", tmp_path], capture_output=True, check=True)
    shown = by_name(yaml.safe_load_all(done.stdout))
    assert shown == by_name(built("daemonset", ["kubelet-certificates"]))


@pytest.mark.program("kubectl", "openssl")
def test_the_example_of_a_certificate(tmp_path):
    """What is shown makes a Secret whose certificate names the Service, and verifies itself."""
    commands = block("openssl req ")
    commands = commands.rstrip("\n") + " --dry-run=client --output=yaml"
    done = subprocess.run(
        ["bash", "-euc", commands], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    secret = yaml.safe_load(done.stdout)
    assert (secret["metadata"]["name"], secret["metadata"]["namespace"]) == (
        "kmproxy-tls",
        "kmproxy-system",
    )
    assert secret["type"] == "kubernetes.io/tls"
    assert set(secret["data"]) == {"tls.crt", "tls.key", "ca.crt"}
    verify = ["openssl", "verify", "-CAfile", "tls.crt"]
    name = ["-verify_hostname", "kmproxy.kmproxy-system.svc"]
    subprocess.run([*verify, *name, "tls.crt"], cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.program("kubectl")
def test_the_example_of_the_ca(tmp_path):
    """The CA alone goes to Prometheus' namespace, as it is in the Secret; the key stays.

    There is no cluster here, so the Secret comes from a file.
    """
    pem = "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n"
    data = {"ca.crt": pem, "tls.crt": pem, "tls.key": "the key"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kmproxy-tls"},
              "data": {key: b64encode(value.encode()).decode() for key, value in data.items()}}  # fmt: skip
    (tmp_path / "secret.json").write_text(json.dumps(secret))
    first, second = block("kubectl get secret kmproxy-tls ").splitlines()
    start = "kubectl get secret kmproxy-tls --namespace=kmproxy-system "
    assert first.startswith(start)
    local = "kubectl annotate --local --filename=secret.json a=b "
    commands = f"{local}{first.removeprefix(start)}\n{second} --dry-run=client --output=yaml"
    done = subprocess.run(
        ["bash", "-euc", commands], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    created = yaml.safe_load(done.stdout)
    assert (created["kind"], created["metadata"]["namespace"]) == ("ConfigMap", "monitoring")
    assert created["data"] == {"ca.crt": pem}
    lines = re.search(r"ca_file: (\S+) # of the ConfigMap (\S+),", PAGES["docs/prometheus.md"])
    assert (Path(lines[1]).name, lines[2]) == ("ca.crt", created["metadata"]["name"])


KUBECTL = """#!/bin/sh
[ "$1" = kustomize ] && exec kubectl "$@"
echo "$@" >>asked
[ "$1" != get ] || cat there
"""


def make(folder, *arguments, there=(), check=True):
    """Run make in a folder that has our manifests, beside a cluster that has these ClusterRoles.

    Its kubectl but writes down what else it is given.
    """
    (folder / "manifests").symlink_to(MANIFESTS)
    roles = "".join(f"clusterrole.rbac.authorization.k8s.io/{each}\n" for each in there)
    (folder / "there").write_text(roles)
    recorder = folder / "kubectl"
    recorder.write_text(KUBECTL, "utf-8")
    recorder.chmod(0o755)
    return subprocess.run(
        ["make", "-C", folder, "-f", ROOT / "Makefile", f"KUBECTL={recorder}", *arguments],
        check=check,
        capture_output=True,
        text=True,
    )


LOOK = "get clusterroles --selector=app.kubernetes.io/name=kmproxy --output=name\n"
APPLY = "apply -f dist/install.yaml\n"


@pytest.mark.program("kubectl", "make")
@every_overlay
def test_make_deploy(overlay, tmp_path):
    """The overlay with the image is written to dist/install.yaml, and applied."""
    make(tmp_path, "deploy", f"OVERLAY={overlay}", "IMG=registry.example.com:5000/kmproxy:1.2.3")
    installer = list(yaml.safe_load_all((tmp_path / "dist/install.yaml").read_text("utf-8")))
    expected = built(overlay)
    pod_of(expected)[1]["image"] = "registry.example.com:5000/kmproxy:1.2.3"
    assert by_name(installer) == by_name(expected)
    assert [path.name for path in (tmp_path / "dist").iterdir()] == ["install.yaml"]
    assert (tmp_path / "asked").read_text() == LOOK + APPLY


@pytest.mark.program("kubectl", "make")
@pytest.mark.parametrize(
    ("running", "overlay"),
    [("deployment", "daemonset"), ("daemonset", "deployment"), ("deployment", "deployment-direct"),
     ("deployment-direct", "deployment"), ("daemonset", "deployment-direct")],
)  # fmt: skip
def test_make_deploy_beside_another_overlay(running, overlay, tmp_path):
    """It refuses, says what to do, and applies nothing: both would run, with the rights of both."""
    roles = [one["metadata"]["name"] for one in of_kind(built(running), "ClusterRole")]
    done = make(tmp_path, "deploy", f"OVERLAY={overlay}", there=roles, check=False)
    assert done.returncode != 0
    assert f"make undeploy OVERLAY={running}" in done.stderr
    assert (tmp_path / "asked").read_text() == LOOK


@pytest.mark.program("kubectl", "make")
@pytest.mark.parametrize(
    ("running", "overlay"),
    [("daemonset", "daemonset"), ("daemonset", "recommended"), ("recommended", "daemonset"),
     ("deployment", "deployment"), ("deployment-direct", "deployment-direct")],
)  # fmt: skip
def test_make_deploy_over_itself(running, overlay, tmp_path):
    """The same overlay once more, and the safe one in the place of the simple one, are applied."""
    roles = [one["metadata"]["name"] for one in of_kind(built(running), "ClusterRole")]
    make(tmp_path, "deploy", f"OVERLAY={overlay}", there=roles)
    assert (tmp_path / "asked").read_text() == LOOK + APPLY


@pytest.mark.program("kubectl", "make")
def test_make_deploy_without_a_cluster(tmp_path):
    """What cannot be looked at is not applied over."""
    (tmp_path / "kubectl-false").write_text(
        '#!/bin/sh\n[ "$1" = kustomize ] && exec kubectl "$@"\nexit 1\n'
    )
    (tmp_path / "kubectl-false").chmod(0o755)
    done = make(tmp_path, "deploy", f"KUBECTL={tmp_path / 'kubectl-false'}", check=False)
    assert done.returncode != 0
    assert "undeploy" not in done.stderr


@pytest.mark.program("kubectl", "make")
def test_make_undeploy(tmp_path):
    """What was applied is deleted, and what is gone already does no harm."""
    make(tmp_path, "undeploy")
    assert (tmp_path / "asked").read_text() == "delete --ignore-not-found -f dist/install.yaml\n"


@pytest.mark.program("make")
def test_make_help():
    """Every target that is no file is listed, with what it does."""
    done = subprocess.run(
        ["make", "-s", "-C", ROOT, "help"], capture_output=True, text=True, check=True
    )
    listed = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    phony = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert list(listed) == phony
    assert {"docker-build", "docker-push", "deploy", "undeploy", "build-installer"} < set(listed)
