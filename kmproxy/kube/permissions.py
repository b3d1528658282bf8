"""The permissions that kmproxy may need, and the ClusterRole rules that grant them.

Knows which setting needs which permission, which permissions are dangerous if no setting needs
them, and how a ClusterRole grants one. Must not know how the API server is asked about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from kmproxy.config.sections import Config

_EXEC = "it can run commands in every pod"


@dataclass(frozen=True, slots=True)
class Permission:
    """The right to use a verb on a resource in the whole cluster, or in one namespace.

    `resource` may have a subresource, as in `nodes/metrics`. `group` is the API group, empty for
    the core group. `name` is the name of the only object that is meant, empty for all objects.
    `namespace` is empty for the whole cluster.
    `why` says what kmproxy needs the permission for, or its danger if it is not needed.
    """

    verb: str
    resource: str
    why: str = field(compare=False)
    group: str = ""
    name: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        everything = self.group == self.resource == self.verb == "*"
        dotted = f".{self.group}" if self.group and not everything else ""
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{dotted}{f' {self.name}' if self.name else ''}{where}"

    @property
    def kind(self) -> tuple[str, str, str]:
        """The verb, group and resource, without the name of an object."""
        return self.verb, self.group, self.resource

    def attributes(self) -> dict[str, str]:
        """Return the resourceAttributes of an access review for this permission."""
        resource, _, subresource = self.resource.partition("/")
        given = {"group": self.group, "resource": resource, "subresource": subresource}
        given |= {"verb": self.verb, "name": self.name, "namespace": self.namespace}
        return {key: value for key, value in given.items() if value}


NAMESPACES = (
    Permission("list", "namespaces", "the labels to add"),
    Permission("watch", "namespaces", "labels that change"),
)
NODE_METRICS = Permission("get", "nodes/metrics", "the metrics, with direct access to the kubelet")
NODE_PROXY = Permission("get", "nodes/proxy", "the metrics, through the API server's node proxy")
NODES = Permission("get", "nodes", "the address of a node that a path names")
NODE_PODS = Permission(
    "get", "nodes/pods", "the pods, with direct access to a kubelet of Kubernetes 1.33 or newer"
)
NODE_LOG = Permission(
    "get", "nodes/log", "the log files of a kubelet: it reads the whole /var/log of the node"
)
NODES_LISTED = Permission("list", "nodes", "the nodes as scrape targets")

PODS = (
    Permission("list", "pods", "the containers whose logs are read"),
    Permission("watch", "pods", "containers that come, restart and go"),
)
EVENTS = (
    Permission("list", "events", "the events of the cluster", "events.k8s.io"),
    Permission("watch", "events", "events that come and change", "events.k8s.io"),
)
POD_LOG = Permission("get", "pods/log", "the logs of containers, through the API server")

TOKEN_REVIEWS = Permission(
    "create", "tokenreviews", "the review of callers' tokens", "authentication.k8s.io"
)
ACCESS_REVIEWS = Permission(
    "create", "subjectaccessreviews", "the review of callers' rights", "authorization.k8s.io"
)


class _Need(NamedTuple):
    """Permissions that a configuration needs if a condition holds. `when` names the condition."""

    when: str
    holds: Callable[[Config], bool]
    permissions: tuple[Permission, ...]


def _through_the_api_server(config: Config) -> bool:
    """Tell whether the node proxy is used with a credential. Over plain HTTP none is sent."""
    server = config.kubelet.apiserver
    return server is not None and not server.startswith("http:")


def _direct(config: Config) -> bool:
    """Tell whether kubelets are asked directly, with the identity for the API server."""
    if config.access is not None and config.access.identifies:
        return False
    return config.kubelet.apiserver is None and config.kubelet.scheme == "https"


_NEEDS = (
    _Need("always", lambda _: True, NAMESPACES),
    _Need("without --kube-apiserver or an identity of its own", _direct, (NODE_METRICS,)),
    _Need("with --kube-apiserver", _through_the_api_server, (NODE_PROXY,)),
    _Need(
        "with --authorization",
        lambda config: config.authorization.mode != "none",
        (TOKEN_REVIEWS, ACCESS_REVIEWS),
    ),
    _Need("with --all-nodes", lambda config: config.kubelet.all_nodes, (NODES,)),
    _Need(
        "with --discovery, --pod-label or --workload, and without --kube-apiserver",
        lambda config: (config.discovery.enabled or config.pods.enabled) and _direct(config),
        (NODE_PODS,),
    ),
    _Need(
        "with --discovery and --all-nodes",
        lambda config: config.discovery.enabled and config.kubelet.all_nodes,
        (NODES_LISTED,),
    ),
)

EVERYTHING = Permission("*", "*", "a thief of its token controls the cluster", "*")

_DANGEROUS = (
    EVERYTHING,
    replace(NODE_PROXY, why=_EXEC),
    Permission("create", "nodes/proxy", _EXEC),
    Permission("create", "pods/exec", _EXEC),
    Permission("get", "pods/exec", _EXEC),
    Permission("get", "secrets", "it can read every secret"),
    Permission("list", "secrets", "it can read every secret"),
    Permission("create", "pods", "a pod can use every secret and service account"),
    Permission("create", "serviceaccounts/token", "it can become every service account"),
)


def needed(config: Config) -> tuple[Permission, ...]:
    """Return the permissions that this configuration needs, each once."""
    found: dict[tuple[str, str, str], Permission] = {}
    for need in _NEEDS:
        if need.holds(config):
            found |= {each.kind: each for each in need.permissions if each.kind not in found}
    if NODE_PROXY.kind in found and not config.kubelet.all_nodes:
        # With the node proxy a role may name the only node. With direct access its name is unknown.
        found[NODE_PROXY.kind] = replace(found[NODE_PROXY.kind], name=config.kubelet.node)
    return tuple(found.values())


def lease(namespace: str, name: str) -> tuple[Permission, ...]:
    """Return the permissions to take and hold one Lease. No role can bound `create` by a name."""
    group, why = "coordination.k8s.io", "one replica of all sends events, and keeps the position"
    return (
        Permission("get", "leases", why, group, name, namespace),
        Permission("update", "leases", why, group, name, namespace),
        Permission("create", "leases", "the Lease, if it is not there", group, "", namespace),
    )


def needed_by_logs(config: Config, source: str = "files") -> tuple[Permission, ...]:
    """Return the permissions that `kmproxy logs` needs to read containers' logs of the source."""
    if source == "none":
        return NAMESPACES
    if source == "api":
        return (*NAMESPACES, *PODS, POD_LOG)
    if _through_the_api_server(config):
        return (*NAMESPACES, replace(NODE_PROXY, name=config.kubelet.node))
    return (*NAMESPACES, NODE_LOG, NODE_PODS) if _direct(config) else NAMESPACES


def unneeded(config: Config) -> tuple[Permission, ...]:
    """Return the permissions that this configuration does not need and should not have.

    They are dangerous, or only another configuration needs them.
    """
    found = {each.kind: each for each in _DANGEROUS}
    for need in _NEEDS:
        for each in need.permissions:
            found.setdefault(each.kind, replace(each, why=f"needed only {need.when}"))
    for each in needed(config):
        found.pop(each.kind, None)
    return tuple(found.values())


def unneeded_by_logs(config: Config, source: str = "files") -> tuple[Permission, ...]:
    """Return the permissions that `kmproxy logs` does not need and should not have."""
    wanted = {each.kind for each in needed_by_logs(config, source)}
    return tuple(each for each in _DANGEROUS if each.kind not in wanted)


def rules(permissions: Iterable[Permission]) -> list[dict[str, list[str]]]:
    """Return rules that grant permissions. Those of a ClusterRole are for all objects."""
    verbs: dict[tuple[str, str, str], list[str]] = {}
    for each in permissions:
        name = each.name if each.namespace else ""
        known = verbs.setdefault((each.group, each.resource, name), [])
        if each.verb not in known:
            known.append(each.verb)
    return [
        {"apiGroups": [group], "resources": [resource]}
        | ({"resourceNames": [name]} if name else {})
        | {"verbs": granted}
        for (group, resource, name), granted in verbs.items()
    ]


def rules_yaml(permissions: Iterable[Permission]) -> str:
    """Return the rules of `rules` as YAML, to be written under `rules:` of a role."""
    lines = []
    for rule in rules(permissions):
        groups = ", ".join(group or '""' for group in rule["apiGroups"])
        lines.append(f"- apiGroups: [{groups}]")
        lines.append(f"  resources: [{', '.join(rule['resources'])}]")
        if names := rule.get("resourceNames"):
            lines.append(f"  resourceNames: [{', '.join(names)}]")
        lines.append(f"  verbs: [{', '.join(rule['verbs'])}]")
    return "\n".join(lines)


def advice(*permissions: Permission) -> str:
    """Return one line that tells how to grant missing permissions to one resource."""
    (rule,) = rules(permissions)
    (where,) = {each.namespace for each in permissions}
    role = f"a Role rule in the namespace {where}" if where else "a ClusterRole rule"
    groups = f"apiGroups [{', '.join(rule['apiGroups'])}], " if any(rule["apiGroups"]) else ""
    resources, verbs = (", ".join(rule[key]) for key in ("resources", "verbs"))
    names = rule.get("resourceNames")
    only = f", resourceNames [{', '.join(names)}]" if names else ""
    return f"add {role} with {groups}resources [{resources}]{only} and verbs [{verbs}]"
