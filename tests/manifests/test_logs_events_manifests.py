"""The manifests of `kmproxy logs --events`: settings, permissions, security."""

from kmproxy.cli.read import read_logs
from kmproxy.kube.permissions import EVENTS, lease, needed_by_logs, rules
from tests.support.kustomize import build
from tests.support.overlays import MANIFESTS, of_kind

OBJECTS = build(MANIFESTS / "logs-events")
NAME = "kmproxy-logs-events"

(DEPLOYMENT,) = of_kind(OBJECTS, "Deployment")
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
COMMAND, WARNINGS = read_logs([], {each["name"]: each["value"] for each in CONTAINER["env"]})


def normal(found):
    """Rules in an order of their own."""
    return sorted(str(sorted(rule.items())) for rule in found)


def test_the_settings():
    """The variables are settings: events alone, from one of two pods."""
    assert WARNINGS == []
    assert (COMMAND.logs.source, COMMAND.logs.events) == ("none", True)
    assert DEPLOYMENT["spec"]["replicas"] == 2


def test_the_permissions():
    """The roles grant what is needed and nothing else; of Leases only the one of the settings."""
    (cluster,) = of_kind(OBJECTS, "ClusterRole")
    wanted = (*needed_by_logs(COMMAND.config, COMMAND.logs.source), *EVENTS)
    assert normal(cluster["rules"]) == normal(rules(wanted))
    (role,) = of_kind(OBJECTS, "Role")
    assert role["metadata"]["namespace"] == NAME
    name = COMMAND.logs.events_lease
    assert name.namespace is None
    assert normal(role["rules"]) == normal(rules(lease(NAME, name.name)))
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        (binding,) = of_kind(OBJECTS, kind)
        subjects = [{"kind": "ServiceAccount", "name": NAME, "namespace": NAME}]
        assert binding["subjects"] == subjects


def test_the_security():
    """It runs without root, volumes and capabilities, in a restricted namespace."""
    assert POD["securityContext"]["runAsNonRoot"]
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & set(POD)
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    (namespace,) = of_kind(OBJECTS, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_other_manifests_do_not_read_events():
    """The right to events, and to a Lease, is optional."""
    for folder in ("logs", "logs-api", "base"):
        for role in of_kind(build(MANIFESTS / folder), "ClusterRole", "Role"):
            named = {name for rule in role["rules"] for name in rule.get("resources", ())}
            assert not {"events", "leases"} & named
