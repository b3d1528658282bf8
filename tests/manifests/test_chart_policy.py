"""Every supported way of the chart: Kubernetes accepts it, and it follows the common rules."""

from __future__ import annotations

import itertools

import kubernetes_validate
import pytest
import yaml

from kmproxy.config.web import parse_web_config
from kmproxy.kube.permissions import needed
from tests.support.charts import (
    CI,
    METRICS,
    check_pod,
    ci_values,
    helm,
    linted,
    parts,
    rendered,
)
from tests.support.manifests import by_name
from tests.support.overlays import configuration, of_kind, permissions, pod_of, workload

pytestmark = [helm]

VERSIONS = ("1.31", "1.36")
OF_CUSTOM_KINDS = ("monitoring.coreos.com/", "cert-manager.io/")

every_way = pytest.mark.parametrize("way", CI)
every_way_with_metrics = pytest.mark.parametrize("way", METRICS)


def objects_of(way):
    """What the chart renders for the metrics of a file in ci/, with the names of the overlays."""
    return parts(ci_values(way))[0]


@every_way
@pytest.mark.parametrize("version", VERSIONS)
def test_helm_finds_no_fault(way, version):
    """`helm lint --strict`, for the oldest and the newest supported Kubernetes."""
    assert linted(ci_values(way), version) == []


@every_way
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_it(way, version):
    """Strict validation, with unknown fields as errors, of the pod of `helm test` too."""
    values = ci_values(way)
    for one in [*rendered(values), *rendered(values, tests=True)]:
        if not one["apiVersion"].startswith(OF_CUSTOM_KINDS):
            assert kubernetes_validate.validate(one, version, strict=True) == version


@every_way_with_metrics
def test_the_roles_grant_what_is_needed_and_no_more(way):
    """The roles grant exactly the rights that `kmproxy check` asks for."""
    config, _ = configuration(objects_of(way))
    wanted = {(each.group, each.resource, each.verb) for each in needed(config)}
    assert permissions(objects_of(way)) == wanted


FOLLOWING = {
    "mode": ({"mode": "daemonset"}, {"mode": "central"}),
    "access": ({}, {"kubelet": {"access": "proxy"}}),
    "discovery": ({}, {"discovery": {"enabled": True}}),
    "pods": ({}, {"workload": {"enabled": True}}, {"workload": {"podLabel": ["app"]}}),
    "scrapers": ({}, {"authorization": {"mode": "kubernetes"}, "tls": {"mode": "certManager"}}),
    "kubelet": (
        {},
        {"config": {"kubelet-scheme": "http"}},
        {"config": {"kubelet": {"basic_auth": {"username": "a", "password_file": "/b"}}}},
        {"config": {"kubelet": {"tls_config": {"server_name": "kubelet"}}}},
    ),
}


def combinations():
    """Every combination of these values that the chart accepts."""
    for chosen in itertools.product(*FOLLOWING.values()):
        values = {key: value for part in chosen for key, value in part.items()}
        proxied = values.get("kubelet", {}).get("access") == "proxy"
        if not (proxied and (values["mode"] == "daemonset" or "config" in values)):
            yield values


def bound(objects):
    """Holds that each binding names a rendered role, and each role is bound."""
    roles = {one["metadata"]["name"] for one in of_kind(objects, "ClusterRole")}
    assert roles == {one["roleRef"]["name"] for one in of_kind(objects, "ClusterRoleBinding")}


@every_way
def test_every_role_is_bound(way):
    """No role is left that nobody has, and no binding of a role that is not there."""
    bound(rendered(ci_values(way)))


@pytest.mark.parametrize("mode", ["daemonset", "central"])
def test_the_roles_follow_from_the_values(mode):
    """For every combination, without a warning of kmproxy about its settings."""
    seen = set()
    for values in combinations():
        if values["mode"] == mode:
            objects = rendered(values)
            config, warnings = configuration(objects)
            wanted = {(each.group, each.resource, each.verb) for each in needed(config)}
            assert permissions(objects) == wanted, values
            assert warnings == [], values
            bound(objects)
            seen.add(frozenset(wanted))
    assert len(seen) >= 6  # so the values matter


@every_way_with_metrics
def test_every_setting_is_taken(way):
    """No variable and no key causes a warning, and `check` sees all: there are no arguments."""
    objects = objects_of(way)
    assert "args" not in pod_of(objects)[1]
    config, warnings = configuration(objects)
    assert warnings == []
    values = ci_values(way)

    def given(part, key, default):
        return values.get(part, {}).get(key, default)

    assert config.labels.rules[0].name == "team"
    assert config.kubelet.all_nodes == (values["mode"] == "central")
    assert not config.kubelet.insecure_tls
    assert bool(config.kubelet.apiserver) == (given("kubelet", "access", "direct") == "proxy")
    assert config.authorization.mode == given("authorization", "mode", "none")
    assert config.discovery.enabled == given("discovery", "enabled", False)
    assert config.pods.workload == given("workload", "enabled", False)
    assert len(config.pods.rules) == len(given("workload", "podLabel", []))
    assert bool(config.apiserver.label_snapshot) == given("labelSnapshot", "enabled", False)
    assert bool(config.server.web_config_file) == (given("tls", "mode", "none") != "none")
    more = given("kubeStateMetrics", "mode", "none") != "none"
    assert len(config.upstreams) == len(values.get("upstreams", [])) + more
    assert config.log.format == given("log", "format", "text")


@every_way_with_metrics
def test_what_is_mounted_is_there(way):
    """Each volume is mounted once at its own path, and its ConfigMap is rendered with it."""
    objects = objects_of(way)
    pod, container = pod_of(objects)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = container["volumeMounts"]
    assert sorted(volumes) == sorted(mount["name"] for mount in mounts)
    assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
    maps = {one["metadata"]["name"] for one in of_kind(objects, "ConfigMap")}
    brought = ci_values(way).get("extraVolumes", [])
    maps |= {each["configMap"]["name"] for each in brought if "configMap" in each}
    assert {each["configMap"]["name"] for each in volumes.values() if "configMap" in each} <= maps
    assert all(
        mount.get("readOnly", "emptyDir" in volumes[mount["name"]]) is True for mount in mounts
    )


@every_way_with_metrics
def test_pod_security_restricted(way):
    """The pods fulfil it with a read-only root file system: those that serve, and the test's."""
    values = ci_values(way)
    check = check_pod(values)
    for pod in (pod_of(objects_of(way))[0], check["spec"]):
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
        allowed = {"configMap", "emptyDir", "secret"}
        assert all(set(volume) - {"name"} <= allowed for volume in pod["volumes"])


@every_way_with_metrics
def test_everything_has_its_place(way):
    """Namespaced objects are in the namespace of the release. All have the chart's labels."""
    for one in objects_of(way):
        metadata = one["metadata"]
        if one["kind"] not in {"ClusterRole", "ClusterRoleBinding"}:
            beside = metadata["name"] == "kmproxy-to-kube-state-metrics"
            assert metadata["namespace"] == ("monitoring" if beside else "kmproxy-system")
        assert metadata["labels"]["app.kubernetes.io/name"] == "kmproxy", one["kind"]


@every_way_with_metrics
def test_selectors_match_the_pods(way):
    """Those of the Services, the budget, the monitors and the policy; and none the test's pod."""
    objects = objects_of(way)
    labels = workload(objects)["spec"]["template"]["metadata"]["labels"]
    check = check_pod(ci_values(way))
    found = [one["spec"]["selector"] for one in of_kind(objects, "Service")]
    kinds = ("DaemonSet", "Deployment", "PodDisruptionBudget", "PodMonitor")
    found += [one["spec"]["selector"]["matchLabels"] for one in of_kind(objects, *kinds)]
    assert len(found) >= 3
    for selector in found:
        assert selector.items() <= labels.items()
        assert not selector.items() <= check["metadata"]["labels"].items()
    policies = of_kind(objects, "NetworkPolicy")
    for policy in [one for one in policies if one["metadata"]["name"] == "kmproxy"]:
        selector = policy["spec"]["podSelector"]["matchLabels"]
        assert selector.items() <= labels.items()
        assert selector.items() <= check["metadata"]["labels"].items()


@every_way_with_metrics
def test_the_web_config(way):
    """It is valid, and names the files of the mounted Secret."""
    objects = objects_of(way)
    found = [one for one in of_kind(objects, "ConfigMap") if "web.yml" in one["data"]]
    assert bool(found) == (ci_values(way).get("tls", {}).get("mode", "none") != "none")
    for one in found:
        web = parse_web_config(yaml.safe_load(one["data"]["web.yml"]), "/etc/kmproxy/web")
        assert web.tls.certificate.path == "/etc/kmproxy/tls/tls.crt"
        assert web.tls.key.path == "/etc/kmproxy/tls/tls.key"


@every_way_with_metrics
def test_the_pod_of_helm_test(way):
    """It runs `kmproxy check` with the settings, the files and the rights of the daemon."""
    objects = objects_of(way)
    check = check_pod(ci_values(way))
    assert check["metadata"]["annotations"]["helm.sh/hook"] == "test"
    pod, (container,) = check["spec"], check["spec"]["containers"]
    serving, daemon = pod_of(objects)
    assert container["args"] == ["check"]
    assert pod["restartPolicy"] == "Never"
    for key in ("image", "env", "volumeMounts", "resources", "securityContext"):
        assert container[key] == daemon[key], key
    for key in ("serviceAccountName", "volumes", "securityContext", "nodeSelector"):
        assert pod[key] == serving[key], key


def test_monitors_reach_what_the_values_make():
    """A monitor verifies the certificate's name by its Secret, with a token that may scrape."""
    for way, kind in (("kube-prometheus-stack", "PodMonitor"), ("central-secure", "ScrapeConfig")):
        objects = by_name(objects_of(way))
        (monitor,) = [
            one for (_, *key), one in objects.items() if key == [kind, "kmproxy"]
        ]  # fmt: skip
        spec = monitor["spec"]
        scrape = spec["podMetricsEndpoints"][0] if kind == "PodMonitor" else spec
        assert scrape["scheme"].lower() == "https"
        assert scrape["tlsConfig"]["serverName"] == "kmproxy.kmproxy-system.svc"
        secrets = [
            volume["secret"]["secretName"]
            for volume in pod_of(objects.values())[0]["volumes"]
            if "secret" in volume
        ]
        assert secrets == [scrape["tlsConfig"]["ca"]["secret"]["name"]]
        assert scrape["authorization"]["credentials"]["name"] == "kmproxy-scraper"
        assert ("v1", "Secret", "kmproxy-scraper") in objects
        bindings = of_kind(objects.values(), "ClusterRoleBinding")
        (binding,) = [one for one in bindings if one["metadata"]["name"] == "kmproxy-scraper"]
        assert binding["roleRef"]["name"] == "kmproxy-scrape"


def test_links_of_alerts():
    """They lead to the runbooks that the values name, and keep their anchors."""
    objects = objects_of("kube-prometheus-stack")
    links = [
        rule["annotations"]["runbook_url"]
        for one in of_kind(objects, "PrometheusRule")
        for group in one["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert len(links) > 5
    assert all(link.startswith("https://runbooks.example.com/kmproxy.md#") for link in links)
