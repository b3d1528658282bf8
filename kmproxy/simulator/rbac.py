"""RBAC objects, and the rights that they grant, as the API server's own authorizer finds them.

Knows roles, bindings, subjects and rules, but no aggregation. Must not know tokens, requests, or
anything of the proxy under test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

AUTHENTICATED = "system:authenticated"
"""The group of all authenticated users."""
UNAUTHENTICATED = "system:unauthenticated"
MONITORING = "system:monitoring"
MASTERS = "system:masters"

_GROUP = "rbac.authorization.k8s.io"
_VERSION = f"{_GROUP}/v1"
_ROLES = {"ClusterRole", "Role"}
_BINDINGS = {"ClusterRoleBinding", "RoleBinding"}
_CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding"}


@dataclass(frozen=True, slots=True)
class Attributes:
    """The attributes of a request: a verb, and a `path` that is no resource, or a `resource`.

    `resource` includes the subresource (`pods/log`). `group` is its API group. An empty
    `namespace` means the cluster, or every namespace. An empty `name` means no single object.
    """

    verb: str
    path: str = ""
    resource: str = ""
    group: str = ""
    namespace: str = ""
    name: str = ""

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Attributes:
        """Read the attributes of an access review's `spec`. Raises ValueError unless it has one."""
        kinds = {"nonResourceAttributes", "resourceAttributes"} & spec.keys()
        if len(kinds) != 1:
            raise ValueError("exactly one of the two kinds of attributes must be specified")
        what = spec[kinds.pop()]
        names = (what.get("resource"), what.get("subresource"))
        return cls(
            what.get("verb", ""),
            path=what.get("path", ""),
            resource="/".join(filter(None, names)),
            group=what.get("group", ""),
            namespace=what.get("namespace", ""),
            name=what.get("name", ""),
        )


class Rbac:
    """The RBAC objects of a cluster. They can change at any time."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str, str], Object] = {}

    def __repr__(self) -> str:
        return f"<Rbac {len(self._objects)} objects>"

    def __len__(self) -> int:
        return len(self._objects)

    def apply(self, *documents: Object) -> None:
        """Create or replace objects, as `kubectl apply` does.

        Raises ValueError for an object that is not an RBAC object.
        """
        for document in documents:
            if document.get("kind") not in _ROLES | _BINDINGS:
                raise ValueError(f"not an RBAC object: {document.get('kind')}")
            if document.get("apiVersion") != _VERSION:
                raise ValueError(f"not a version of RBAC: {document.get('apiVersion')}")
            self._objects[_key(document)] = document

    def delete(self, *documents: Object) -> None:
        """Delete objects. Raises KeyError if one does not exist."""
        for document in documents:
            del self._objects[_key(document)]

    def allows(self, user: str, groups: tuple[str, ...], wanted: Attributes) -> bool:
        """Tell whether a binding of `user` or of `groups` allows the wanted request."""
        return any(_covers(rule, wanted) for rule in self._rules(user, groups, wanted))

    def _rules(self, user: str, groups: tuple[str, ...], wanted: Attributes) -> Iterator[Object]:
        """The rules that apply to the user or the groups in the wanted namespace."""
        for (kind, namespace, _), binding in tuple(self._objects.items()):
            if kind not in _BINDINGS or (kind == "RoleBinding" and namespace != wanted.namespace):
                continue
            if kind == "RoleBinding" and wanted.path:
                continue
            subjects = binding.get("subjects") or []
            if not any(_is(subject, namespace, user, groups) for subject in subjects):
                continue
            ref = binding["roleRef"]
            where = "" if ref["kind"] == "ClusterRole" else namespace
            role = self._objects.get((ref["kind"], where, ref["name"]), {})
            yield from role.get("rules") or []


_HEALTH = ("/healthz", "/livez", "/readyz")
_ABOUT = ("/version", "/version/")
_DISCOVERY = ("/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*")
_PROBES = ("/healthz/*", "/livez/*", "/readyz/*")
_WHO = "selfsubjectreviews"
_SELF = ("selfsubjectaccessreviews", "selfsubjectrulesreviews")
_ANYTHING = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}


def _get(*urls: str) -> Object:
    return {"nonResourceURLs": list(urls), "verbs": ["get"]}


def _create(group: str, *resources: str) -> Object:
    return {"apiGroups": [group], "resources": list(resources), "verbs": ["create"]}


_DEFAULTS: dict[str, tuple[tuple[Object, ...], tuple[str, ...]]] = {
    "cluster-admin": ((_ANYTHING, {"nonResourceURLs": ["*"], "verbs": ["*"]}), (MASTERS,)),
    "system:discovery": ((_get(*_DISCOVERY, *_HEALTH, *_ABOUT),), (AUTHENTICATED,)),
    "system:basic-user": (
        (_create("authorization.k8s.io", *_SELF), _create("authentication.k8s.io", _WHO)),
        (AUTHENTICATED,),
    ),
    "system:public-info-viewer": (
        (_get(*_HEALTH, *_ABOUT),),
        (AUTHENTICATED, UNAUTHENTICATED),
    ),
    "system:monitoring": (
        (
            _get("/metrics", "/metrics/slis", *_HEALTH, *_PROBES),
            {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
        ),
        (MONITORING,),
    ),
}
"""Default roles: for each its rules, and the groups to which it is bound."""


def default_objects() -> Iterator[Object]:
    """Some of the roles that every cluster has from the beginning, and their bindings.

    They are the roles for all users, for monitoring, and for all rights.
    """
    for name, (rules, groups) in _DEFAULTS.items():
        metadata = {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}
        head = {"apiVersion": _VERSION, "metadata": metadata}
        yield head | {"kind": "ClusterRole", "rules": [dict(rule) for rule in rules]}
        yield head | {
            "kind": "ClusterRoleBinding",
            "roleRef": {"apiGroup": _GROUP, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "Group", "name": group} for group in groups],
        }


def _key(document: Object) -> tuple[str, str, str]:
    metadata = document["metadata"]
    namespace = "" if document["kind"] in _CLUSTER_WIDE else metadata["namespace"]
    return document["kind"], namespace, metadata["name"]


def _is(subject: Object, namespace: str, user: str, groups: tuple[str, ...]) -> bool:
    match subject["kind"]:
        case "User":
            return bool(subject["name"] == user)
        case "Group":
            return subject["name"] in groups
        case "ServiceAccount":
            where = subject.get("namespace") or namespace
            return user == f"system:serviceaccount:{where}:{subject['name']}"
        case _:
            return False


def _covers(rule: Object, wanted: Attributes) -> bool:
    if not {"*", wanted.verb} & set(rule.get("verbs") or ()):
        return False
    if wanted.path:
        urls = rule.get("nonResourceURLs") or ()
        return any(
            url in {"*", wanted.path}
            or (url.endswith("*") and wanted.path.startswith(url.rstrip("*")))
            for url in urls
        )
    _, slash, subresource = wanted.resource.partition("/")
    resources = {"*", wanted.resource} | ({f"*/{subresource}"} if slash else set())
    names = rule.get("resourceNames") or ()
    return (
        bool({"*", wanted.group} & set(rule.get("apiGroups") or ()))
        and bool(resources & set(rule.get("resources") or ()))
        and (not names or wanted.name in names)
    )
