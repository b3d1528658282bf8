"""`kmproxy logs` in the chart: settings, rights, volumes and network, of every way that sends logs."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pytest

from kmproxy.cli.read import read_logs
from kmproxy.kube.permissions import needed_by_logs
from tests.support.charts import LOGS, check_pod, ci_values, helm, parts
from tests.support.overlays import of_kind

pytestmark = [helm]

URL = "http://loki.example.com/loki/api/v1/push"
NODE = "10.0.0.7"

every_way = pytest.mark.parametrize("way", LOGS)


def logs_of(values):
    """The objects for logs, their one workload, and the container of its pods."""
    objects = parts(values)[1]
    (one,) = of_kind(objects, "DaemonSet", "StatefulSet")
    (container,) = one["spec"]["template"]["spec"]["containers"]
    return objects, one, container


def command(values, number="0"):
    """The settings of the pod with this number, and the warnings."""
    objects, _, container = logs_of(values)
    given = {each["name"]: each.get("value", NODE) for each in container["env"]}
    index = number if given.pop("POD_INDEX", None) else ""
    given = {name: value.replace("$(POD_INDEX)", index) for name, value in given.items()}
    with tempfile.TemporaryDirectory() as folder:
        for one in of_kind(objects, "ConfigMap"):
            path = Path(folder) / "config.yml"
            path.write_text(one["data"]["config.yml"], "utf-8")
            assert given["KMPROXY_CONFIG"] == "/etc/kmproxy/config/config.yml"
            given["KMPROXY_CONFIG"] = str(path)
        return read_logs(container["args"][1:], given)


def rights(objects):
    """What the role grants, as (group, resource, verb); the binding gives it to the pods' account."""
    (role,) = of_kind(objects, "ClusterRole")
    (binding,) = of_kind(objects, "ClusterRoleBinding")
    (account,) = of_kind(objects, "ServiceAccount")
    (one,) = of_kind(objects, "DaemonSet", "StatefulSet")
    metadata = account["metadata"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": metadata["name"], "namespace": metadata["namespace"]}
    ]
    assert one["spec"]["template"]["spec"]["serviceAccountName"] == metadata["name"]
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def wanted(values):
    """What `kmproxy check --logs` asks for."""
    config = command(values)[0]
    return {
        (each.group, each.resource, each.verb)
        for each in needed_by_logs(config.config, config.logs.source)
    }


@every_way
def test_the_settings_are_taken(way):
    """No variable and no key causes a warning, and each reaches `kmproxy logs`."""
    values = ci_values(way)["logs"]
    found, warnings = command(ci_values(way))
    assert warnings == []
    assert found.logs.source == values["source"]
    assert found.config.kubelet.tls_pin == (values["source"] == "files")
    assert found.config.labels.rules[0].name == "team"
    given = values.get("config", {})
    assert list(found.logs.exclude_namespace) == given.get("exclude-namespace", [])
    assert dict(found.tenants) == given.get("tenants", {})
    assert (found.loki is not None) == ("loki" in given)


@every_way
def test_the_pods_share_the_work(way):
    """Through the API server, each pod has the shard of its number; on nodes there is one shard."""
    values = ci_values(way)
    one = logs_of(values)[1]
    count = one["spec"].get("replicas", 1)
    assert count == (values["logs"].get("replicaCount", 2) if one["kind"] == "StatefulSet" else 1)
    shards = [str(command(values, str(number))[0].logs.shard) for number in range(count)]
    assert shards == [f"{number}/{count}" for number in range(count)]


@every_way
def test_the_role_grants_what_is_needed_and_no_more(way):
    """The rights are those that `kmproxy check --logs` asks for."""
    assert rights(logs_of(ci_values(way))[0]) == wanted(ci_values(way))


def test_the_role_follows_from_the_values():
    """For every mode, source and way in which a kubelet knows kmproxy."""
    kubelets = {
        "as itself": {},
        "by a server name": {"kubelet": {"tls_config": {"server_name": "kubelet"}}},
        "by a token": {"kubelet": {"authorization": {"credentials_file": "/a"}}},
    }
    seen = set()
    for mode, source, config in itertools.product(
        ("none", "daemonset", "central"), ("files", "api"), kubelets.values()
    ):
        if source == "api" and config:
            continue
        logs = {"enabled": True, "source": source, "lokiUrl": URL, "config": config}
        values = {"mode": mode, "logs": logs}
        assert rights(logs_of(values)[0]) == wanted(values), values
        assert command(values)[1] == []
        seen.add(frozenset(wanted(values)))
    assert len(seen) == 3  # so the values matter


@pytest.mark.parametrize("source", ["files", "api"])
def test_an_account_of_its_own(source):
    """It is not that of the metrics, and another one gets the role, or nobody."""
    logs = {"enabled": True, "source": source, "lokiUrl": URL}
    other = {"serviceAccount": {"create": False, "name": "other"}}
    for values, name in (({}, logs_of({"logs": logs})[1]["metadata"]["name"]), (other, "other")):
        objects, one, _ = logs_of({"logs": logs | values})
        (binding,) = of_kind(objects, "ClusterRoleBinding")
        assert one["spec"]["template"]["spec"]["serviceAccountName"] == name != "kmproxy"
        assert [each["name"] for each in binding["subjects"]] == [name]
        assert len(of_kind(objects, "ServiceAccount")) == (name != "other")
    objects = logs_of({"logs": logs, "rbac": {"create": False}})[0]
    assert of_kind(objects, "ClusterRole", "ClusterRoleBinding") == []


@pytest.mark.parametrize("mode", ["daemonset", "central", "none"])
def test_where_the_positions_are(mode):
    """On a claimed volume that stays, or on one of the pod, and nowhere else is it writable."""
    for source, claimed in (("files", True), ("api", True), ("api", False)):
        logs = {
            "enabled": True, "source": source, "lokiUrl": URL,
            "persistence": {
                "enabled": claimed, "size": "1Gi", "storageClass": "fast", "annotations": {"a": "b"}
            },
        }  # fmt: skip
        _, one, container = logs_of({"mode": mode, "logs": logs})
        spec = one["spec"]["template"]["spec"]
        (mount,) = container["volumeMounts"]
        assert command({"mode": mode, "logs": logs})[0].logs.positions.startswith(
            mount["mountPath"]
        )
        claims = one["spec"].get("volumeClaimTemplates", [])
        if source == "api" and claimed:
            assert "volumes" not in spec
            assert claims == [
                {
                    "metadata": {"name": mount["name"], "annotations": {"a": "b"}},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
                        "resources": {"requests": {"storage": "1Gi"}},
                    },
                }
            ]  # fmt: skip
            assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"]
            assert spec["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
        else:
            assert claims == []
            assert [set(volume) for volume in spec["volumes"]] == [{"name", "emptyDir"}]
            assert "fsGroup" not in spec["securityContext"]


def test_the_group_of_the_volume_can_be_chosen():
    """With the cluster's own security context, as in OpenShift, no group is set."""
    for given, expected in (({"runAsUser": None, "runAsGroup": None}, None), ({"fsGroup": 7}, 7)):
        values = ci_values("logs-api") | {"podSecurityContext": given}
        context = logs_of(values)[1]["spec"]["template"]["spec"]["securityContext"]
        assert context.get("fsGroup") == expected


@every_way
def test_pod_security_restricted(way):
    """The pods that read and that of `helm test` fulfil it, with a read-only root file system."""
    values = ci_values(way)
    specs = [logs_of(values)[1]["spec"]["template"]["spec"], check_pod(values, "--logs")["spec"]]
    for spec in specs:
        (container,) = spec["containers"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec)
        allowed = {"configMap", "emptyDir", "secret"}
        assert all(set(each) - {"name"} <= allowed for each in spec.get("volumes", ()))


@every_way
def test_the_pod_of_helm_test(way):
    """It has the settings and rights of the pods that read, a shard, and belongs to nothing."""
    values = ci_values(way)
    objects, one, container = logs_of(values)
    check = check_pod(values, "--logs")
    spec, (tester,) = check["spec"], check["spec"]["containers"]
    pod = one["spec"]["template"]["spec"]
    for key in ("image", "env", "volumeMounts", "resources", "securityContext"):
        assert tester[key] == container[key], key
    assert spec["serviceAccountName"] == pod["serviceAccountName"]
    assert spec["restartPolicy"] == "Never"
    labels = check["metadata"]["labels"]
    assert labels["apps.kubernetes.io/pod-index"] == "0"
    mounted = {each["name"] for each in tester["volumeMounts"]}
    assert mounted == {each["name"] for each in spec["volumes"]}
    for selector in selectors(objects):
        assert not selector.items() <= labels.items()


def selectors(objects):
    """The selectors of the workload, its budget, its policy and its monitor."""
    for one in of_kind(objects, "DaemonSet", "StatefulSet", "PodDisruptionBudget", "PodMonitor"):
        yield one["spec"]["selector"]["matchLabels"]
    for one in of_kind(objects, "NetworkPolicy"):
        yield one["spec"]["podSelector"]["matchLabels"]


@every_way
def test_selectors_match_the_pods(way):
    """Those of logs match the pods of logs, and none is matched by those of the metrics."""
    metrics, logs = parts(ci_values(way))
    _, one, _ = logs_of(ci_values(way))
    labels = one["spec"]["template"]["metadata"]["labels"]
    found = list(selectors(logs))
    assert all(selector.items() <= labels.items() for selector in found)
    assert len(found) == {"logs": 1, "logs-api": 2, "metrics-and-logs": 4}[way]
    services = [each["spec"]["selector"] for each in of_kind(metrics, "Service")]
    for selector in [*selectors(metrics), *services]:
        assert not selector.items() <= labels.items()


@pytest.mark.parametrize("source", ["files", "api"])
def test_the_network(source):
    """Only Prometheus connects; lines go to the endpoint's pods; kubelets are asked for files only."""
    egress = {"to": [{"podSelector": {}}], "ports": [{"port": 3100}]}
    policy = {"enabled": True, "logsEgress": [egress], "prometheusNamespace": "watch"}
    logs = {"enabled": True, "source": source, "lokiUrl": URL}
    objects = logs_of({"logs": logs, "networkPolicy": policy})[0]
    (one,) = of_kind(objects, "NetworkPolicy")
    (ingress,) = one["spec"]["ingress"]
    assert ingress["ports"] == [{"port": "telemetry"}]
    assert ingress["from"][0]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "watch"
    }
    ports, dns, last = one["spec"]["egress"]
    kubelets = [{"port": 10250}] if source == "files" else []
    assert ports == {"ports": [{"port": 443}, {"port": 6443}, *kubelets]}
    assert {each["port"] for each in dns["ports"]} == {53}
    assert last == egress
    (metrics,) = of_kind(parts({"logs": logs, "networkPolicy": policy})[0], "NetworkPolicy")
    assert egress not in metrics["spec"]["egress"]


def test_its_own_metrics_are_scraped():
    """By the annotations of pods, or by a PodMonitor of the port `telemetry`."""
    logs = {"enabled": True, "lokiUrl": URL}
    for annotated in (True, False):
        prometheus = {"annotations": annotated, "release": "stack", "logs": {"enabled": True}}
        objects, one, container = logs_of({"logs": logs, "prometheus": prometheus})
        found = one["spec"]["template"]["metadata"].get("annotations", {})
        assert found.get("prometheus.io/port") == ("8081" if annotated else None)
        (monitor,) = of_kind(objects, "PodMonitor")
        assert monitor["metadata"]["labels"]["release"] == "stack"
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] in {each["name"] for each in container["ports"]}


def test_what_is_left_out_is_not_what_is_empty():
    """Left out, a DaemonSet is on every taint with priority; empty, it is not."""
    logs = {"enabled": True, "lokiUrl": URL}
    spec = logs_of({"logs": logs})[1]["spec"]["template"]["spec"]
    assert (spec["tolerations"], spec["priorityClassName"]) == ([{"operator": "Exists"}], "system-node-critical")  # fmt: skip
    logs |= {"tolerations": [], "priorityClassName": "", "resources": {}}
    _, one, container = logs_of({"logs": logs})
    assert not {"tolerations", "priorityClassName"} & set(one["spec"]["template"]["spec"])
    assert container["resources"] == {}


def test_another_config_takes_new_pods():
    """The file is read at the start, so a change of it restarts the pods."""
    sums = []
    for age in ("1h", "1h", "2h"):
        logs = {"enabled": True, "lokiUrl": URL, "config": {"max-age": age}}
        template = logs_of({"logs": logs})[1]["spec"]["template"]
        sums.append(template["metadata"]["annotations"]["checksum/config"])
    assert sums[0] == sums[1] != sums[2]
