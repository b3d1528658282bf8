"""Roles and bindings."""

from __future__ import annotations

VERSION = "rbac.authorization.k8s.io/v1"


def role(name, *rules, namespace=None):
    """A ClusterRole, or a Role of a namespace."""
    kind = "Role" if namespace else "ClusterRole"
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": VERSION, "kind": kind, "metadata": metadata, "rules": list(rules)}


def binding(kind, name, *subjects, namespace=None):
    """Binds subjects to a role, in the cluster or in a namespace."""
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {
        "apiVersion": VERSION,
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": list(subjects),
    }
