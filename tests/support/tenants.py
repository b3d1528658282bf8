"""Tenants of a simulated cluster."""

from __future__ import annotations

from tests.support.rbac import binding, role

PODS = {"apiGroups": ["metrics.k8s.io"], "resources": ["pods/metrics"], "verbs": ["get"]}


def grant(cluster, *namespaces, user="ann", rule=PODS):
    """Lets a user see these namespaces, or all if none is given; returns the bindings."""
    subject = {"kind": "User", "name": user}
    bound = [binding("ClusterRole", "t", subject, namespace=each) for each in namespaces or [None]]
    cluster.authority.rbac.apply(role("t", rule), *bound)
    return bound


def bearer(cluster, user="ann"):
    """The Authorization header of a user."""
    return {"Authorization": f"Bearer {cluster.authority.issue(user)}"}
