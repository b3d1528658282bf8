"""The DaemonSet of `kmproxy logs`: its settings, its permissions, and its security."""

import pytest

from kmproxy.cli.read import read_logs
from kmproxy.kube.permissions import needed_by_logs, rules
from tests.support.kustomize import build
from tests.support.overlays import MANIFESTS, of_kind, pod_of, variables

OBJECTS = build(MANIFESTS / "logs")


def test_the_settings():
    """The variables are settings, without a warning."""
    command, warnings = read_logs([], variables(OBJECTS))
    assert warnings == []
    assert command.logs.source == "files"
    assert command.config.kubelet.tls_pin


def test_the_permissions():
    """The role grants what the settings need, and nothing else."""
    command, _ = read_logs([], variables(OBJECTS))
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
        for rule in rules(needed_by_logs(command.config))
        for verb in rule["verbs"]
    }
    assert granted == wanted


def test_the_security():
    """It runs without root, host paths and capabilities, in a restricted namespace."""
    spec, container = pod_of(OBJECTS)
    assert spec["securityContext"]["runAsNonRoot"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert all(set(volume) == {"name", "emptyDir"} for volume in spec["volumes"])
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    (namespace,) = of_kind(OBJECTS, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_positions_are_on_the_volume():
    """The only writable path is the volume's."""
    command, _ = read_logs([], variables(OBJECTS))
    (mount,) = pod_of(OBJECTS)[1]["volumeMounts"]
    assert command.logs.positions.startswith(f"{mount['mountPath']}/")


@pytest.mark.parametrize("kind", ["ServiceAccount", "DaemonSet"])
def test_the_namespace(kind):
    """Everything lives in a namespace of its own."""
    (one,) = of_kind(OBJECTS, kind)
    assert one["metadata"]["namespace"] == "kmproxy-logs"
