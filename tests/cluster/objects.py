"""Objects applied to a real API server, and removed."""

APIS = {  # of other projects: this API server does not know them
    "monitoring.coreos.com/v1", "monitoring.coreos.com/v1alpha1", "cert-manager.io/v1",
}  # fmt: skip

WORKLOADS = {"DaemonSet", "Deployment", "StatefulSet"}


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


def pods(objects):
    """The Pod that each workload's controller would create."""
    for one in objects:
        if one["kind"] in WORKLOADS:
            template = one["spec"]["template"]
            claims = one["spec"].get("volumeClaimTemplates", [])
            volumes = template["spec"].get("volumes", []) + [
                {
                    "name": each["metadata"]["name"],
                    "persistentVolumeClaim": {"claimName": f"{each['metadata']['name']}-test-0"},
                }
                for each in claims
            ]
            metadata = {**template["metadata"], "name": f"{one['metadata']['name']}-test"}
            metadata["namespace"] = one["metadata"]["namespace"]
            yield {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": template["spec"] | {"volumes": volumes},
            }


def admit(plane, objects):
    """Has each workload's pod admitted under the Pod Security Standard of its namespace."""
    plane.warnings.clear()
    found = list(pods(objects))
    for pod in found:
        plane.apply(pod, dry_run=True)
    assert plane.warnings == []
    return found
