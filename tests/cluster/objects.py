"""Objects applied to a real API server, and removed."""

APIS = {  # of other projects: this API server does not know them
    "monitoring.coreos.com/v1", "monitoring.coreos.com/v1alpha1", "cert-manager.io/v1",
}  # fmt: skip


def apply(plane, objects):
    """Apply objects as `kubectl apply --server-side --validate=strict` does; no warning comes."""
    plane.namespace("monitoring")  # is where Prometheus is: some files are for it
    plane.warnings.clear()
    for one in objects:
        if one["apiVersion"] not in APIS:
            plane.apply(one)
    assert plane.warnings == []


def remove(plane, objects):
    """Delete what was applied, but for the namespace."""
    for one in objects:
        if one["apiVersion"] not in APIS and one["kind"] != "Namespace":
            plane.request("DELETE", plane.path(one))
