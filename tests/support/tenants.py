"""Tenants of a simulated cluster."""

from __future__ import annotations

from tests.support.rbac import binding, role

PODS = {"apiGroups": ["metrics.k8s.io"], "resources": ["pods/metrics"], "verbs": ["get"]}


def grant(cluster, *namespaces, user="ann", rule=PODS):
    """Let a user see namespaces, or with none given all of them; returns the bindings."""
    subject = {"kind": "User", "name": user}
    bound = [binding("ClusterRole", "t", subject, namespace=each) for each in namespaces or [None]]
    cluster.authority.rbac.apply(role("t", rule), *bound)
    return bound


def bearer(cluster, user="ann"):
    """The header of a user."""
    return {"Authorization": f"Bearer {cluster.authority.issue(user)}"}
