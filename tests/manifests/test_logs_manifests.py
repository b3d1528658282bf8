"""The manifests of `kmproxy logs`, for both sources: settings, permissions, security."""

import pytest

from kmproxy.cli.read import read_logs
from kmproxy.kube.permissions import needed_by_logs, rules
from tests.support.kustomize import build
from tests.support.overlays import MANIFESTS, of_kind

FOLDERS = {"files": "logs", "api": "logs-api"}
OBJECTS = {source: build(MANIFESTS / folder) for source, folder in FOLDERS.items()}

every_source = pytest.mark.parametrize("source", FOLDERS)


def workload_of(source):
    """The DaemonSet or the StatefulSet."""
    (one,) = of_kind(OBJECTS[source], "DaemonSet", "StatefulSet")
    return one["spec"]


def pod_of(source):
    """The pod's spec and its only container."""
    spec = workload_of(source)["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


def environment(source, number=0):
    """The settings of the pod with this number. A DaemonSet's pods have none."""
    given = {each["name"]: each.get("value", "") for each in pod_of(source)[1]["env"]}
    given.pop("POD_INDEX", None)
    given["KMPROXY_NODE_NAME_OR_IP"] = "10.0.0.7" if source == "files" else ""
    return {
        name: value.replace("$(POD_INDEX)", str(number)) for name, value in given.items() if value
    }


@every_source
def test_the_settings(source):
    """The variables are settings, without a warning."""
    command, warnings = read_logs([], environment(source))
    assert warnings == []
    assert command.logs.source == source
    assert command.config.kubelet.tls_pin == (source == "files")


@every_source
def test_the_permissions(source):
    """The role grants what the source needs, and nothing else."""
    command, _ = read_logs([], environment(source))
    (role,) = of_kind(OBJECTS[source], "ClusterRole")
    assert kinds(role["rules"]) == kinds(rules(needed_by_logs(command.config, source)))


def kinds(found):
    """The rights of rules, as (group, resource, verb)."""
    return {
        (group, resource, verb)
        for rule in found
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_api_needs_no_right_to_nodes():
    """The role for `--source api` names no resource of nodes."""
    (role,) = of_kind(OBJECTS["api"], "ClusterRole")
    assert not any(resource.startswith("nodes") for _, resource, _ in kinds(role["rules"]))


@every_source
def test_the_security(source):
    """It runs without root, host paths and capabilities, in a restricted namespace."""
    spec, container = pod_of(source)
    assert spec["securityContext"]["runAsNonRoot"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert all(set(volume) == {"name", "emptyDir"} for volume in spec.get("volumes", ()))
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    (namespace,) = of_kind(OBJECTS[source], "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@every_source
def test_the_positions_are_on_the_volume(source):
    """The only writable path is the volume's."""
    command, _ = read_logs([], environment(source))
    (mount,) = pod_of(source)[1]["volumeMounts"]
    assert command.logs.positions.startswith(f"{mount['mountPath']}/")


@every_source
def test_the_namespace(source):
    """The account and the pods are in a namespace of their own."""
    found = of_kind(OBJECTS[source], "ServiceAccount", "DaemonSet", "StatefulSet")
    assert len(found) == 2
    assert {one["metadata"]["namespace"] for one in found} == {f"kmproxy-{FOLDERS[source]}"}


def test_the_pods_of_the_statefulset_share_the_work():
    """Each has a shard by the number in its name, which is set before it is used."""
    variables = {each["name"]: each for each in pod_of("api")[1]["env"]}
    path = variables["POD_INDEX"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert path == "metadata.labels['apps.kubernetes.io/pod-index']"
    assert list(variables).index("POD_INDEX") < list(variables).index("KMPROXY_SHARD")
    count = workload_of("api")["replicas"]
    commands = [read_logs([], environment("api", number))[0] for number in range(count)]
    shards = [str(command.logs.shard) for command in commands]
    assert shards == [f"{number}/{count}" for number in range(count)]


def test_the_positions_stay_with_the_number_of_a_pod():
    """They are on a claimed volume, whose group does not change the mode of the file."""
    (mount,) = pod_of("api")[1]["volumeMounts"]
    (claim,) = workload_of("api")["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == mount["name"]
    assert pod_of("api")[0]["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


@every_source
def test_its_own_metrics_are_found(source):
    """The annotations name the port of the telemetry, which the alerts about logs need."""
    found = workload_of(source)["template"]["metadata"]["annotations"]
    ports = {each["name"]: each["containerPort"] for each in pod_of(source)[1]["ports"]}
    assert found["prometheus.io/scrape"] == "true"
    assert int(found["prometheus.io/port"]) == ports["telemetry"]
    assert (found["prometheus.io/scheme"], found["prometheus.io/path"]) == ("http", "/metrics")


def test_an_eviction_takes_one_pod_at_a_time():
    """The budget is for the pods of the StatefulSet."""
    (budget,) = of_kind(OBJECTS["api"], "PodDisruptionBudget")
    selector = budget["spec"]["selector"]["matchLabels"]
    assert selector.items() <= workload_of("api")["template"]["metadata"]["labels"].items()
    assert budget["spec"]["maxUnavailable"] == 1
