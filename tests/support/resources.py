"""The resource that tenants are reviewed for."""

from __future__ import annotations

from kmproxy.config.types import Resource

RESOURCE = Resource("pods", "metrics", "metrics.k8s.io")


PODS = {"apiGroups": ["metrics.k8s.io"], "resources": ["pods/metrics"], "verbs": ["get"]}
