"""The StatefulSet of `kmproxy logs --source api`: its settings, its permissions, its security."""

import pytest

from kmproxy.cli.read import read_logs
from kmproxy.kube.permissions import needed_by_logs, rules
from tests.support.kustomize import build
from tests.support.overlays import MANIFESTS, of_kind

OBJECTS = build(MANIFESTS / "logs-api")
(SET,) = of_kind(OBJECTS, "StatefulSet")
SPEC = SET["spec"]["template"]["spec"]
(CONTAINER,) = SPEC["containers"]


def environment(number):
    """The settings of the pod with this number."""
    found = {each["name"]: each.get("value") for each in CONTAINER["env"]}
    path = CONTAINER["env"][list(found).index("POD_INDEX")]["valueFrom"]["fieldRef"]["fieldPath"]
    assert path == "metadata.labels['apps.kubernetes.io/pod-index']"
    assert found.pop("POD_INDEX") is None
    assert list(found).index("KMPROXY_SHARD") > 0
    return {name: value.replace("$(POD_INDEX)", str(number)) for name, value in found.items()}


def test_the_settings():
    """The variables are settings, without a warning; the pods share the work."""
    shards = []
    for number in range(SET["spec"]["replicas"]):
        command, warnings = read_logs([], environment(number))
        assert warnings == []
        assert command.logs.source == "api"
        shards.append(str(command.logs.shard))
    assert shards == [f"{number}/{len(shards)}" for number in range(len(shards))]


def test_the_permissions():
    """The role grants what this source needs, and nothing else."""
    command, _ = read_logs([], environment(0))
    (role,) = of_kind(OBJECTS, "ClusterRole")
    granted = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    wanted = {
        (rule["apiGroups"][0], rule["resources"][0], verb)
        for rule in rules(needed_by_logs(command.config, "api"))
        for verb in rule["verbs"]
    }
    assert granted == wanted
    assert not any(resource.startswith("nodes") for _, resource, _ in granted)


def test_the_security():
    """It runs without root, host paths and capabilities, in a restricted namespace."""
    assert SPEC["securityContext"]["runAsNonRoot"]
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & set(SPEC)
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    (namespace,) = of_kind(OBJECTS, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_positions_stay_with_the_number_of_a_pod():
    """They are on a claimed volume, whose group does not change the mode of the file."""
    (mount,) = CONTAINER["volumeMounts"]
    (claim,) = SET["spec"]["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == mount["name"]
    assert environment(0)["KMPROXY_POSITIONS"].startswith(f"{mount['mountPath']}/")
    assert SPEC["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


@pytest.mark.parametrize("kind", ["ServiceAccount", "StatefulSet"])
def test_the_namespace(kind):
    """Everything lives in a namespace of its own."""
    (one,) = of_kind(OBJECTS, kind)
    assert one["metadata"]["namespace"] == "kmproxy-logs-api"
