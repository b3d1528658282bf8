"""The objects of a simulated cluster: their kinds, and the documents of nodes.

Reads no clock and keeps no state. Must not know requests, versions, users, or anything of the
proxy under test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kmproxy.simulator.wire import HOST

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object: its name, its API version, and whether it lives in namespaces.

    Of most kinds the API server has a cache. Without one, a watch gets no bookmarks and waits for a
    version of the future, and a list of any version has pages.
    """

    name: str
    version: str = "v1"
    short: str = ""
    namespaced: bool = True
    cached: bool = True


KINDS = {
    "namespaces": Kind("Namespace", short="ns", namespaced=False),
    "nodes": Kind("Node", short="no", namespaced=False),
    "endpoints": Kind("Endpoints", short="ep"),
    "pods": Kind("Pod", short="po"),
    "services": Kind("Service", short="svc"),
    "endpointslices": Kind("EndpointSlice", "discovery.k8s.io/v1"),
    "events": Kind("Event", "events.k8s.io/v1", short="ev", cached=False),
    "leases": Kind("Lease", "coordination.k8s.io/v1"),
}
"""The kinds of objects, by resource."""


def key(item: Object) -> str:
    """Return the key of an object, unique among its kind: NAME, or NAMESPACE/NAME."""
    metadata = item["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


def node_object(name: str, port: int, host: str = HOST) -> Object:
    """Return a Node whose kubelet listens on `port` of `host`."""
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    addresses = [{"type": "InternalIP", "address": host}, {"type": "Hostname", "address": name}]
    conditions = [
        {"type": kind, "status": status, "reason": f"Kubelet{kind}"}
        for kind, status in (
            ("MemoryPressure", "False"),
            ("DiskPressure", "False"),
            ("Ready", "True"),
        )
    ]
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": name, "labels": labels},
        "spec": {},
        "status": {
            "capacity": {"cpu": "4", "memory": "24684084Ki", "pods": "110"},
            "conditions": conditions,
            "addresses": addresses,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "nodeInfo": {"kubeletVersion": "v1.36.2", "operatingSystem": "linux"},
        },
    }


def running(host: str, ip: str, since: str) -> Object:
    """Return the status of a pod that is ready at `ip` on a node at `host`."""
    return {
        "phase": "Running",
        "conditions": [
            {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": since}
            for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
        ],
        "hostIP": host,
        "podIP": ip,
        "hostIPs": [{"ip": host}],
        "podIPs": [{"ip": ip}],
    }
