"""The objects of a simulated cluster: their kinds, and how nodes and pods are written.

The API server and the kubelets write them the same way. Reads no clock and keeps nothing. Must
not know requests, versions, who asks, or anything of the proxy under test.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kmproxy.simcadvisor import Container, Node, Pod
from kmproxy.simwire import HOST

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object: its name, its API version, and whether it lives in namespaces."""

    name: str
    version: str = "v1"
    short: str = ""
    namespaced: bool = True


KINDS = {
    "namespaces": Kind("Namespace", short="ns", namespaced=False),
    "nodes": Kind("Node", short="no", namespaced=False),
    "endpoints": Kind("Endpoints", short="ep"),
    "pods": Kind("Pod", short="po"),
    "services": Kind("Service", short="svc"),
    "endpointslices": Kind("EndpointSlice", "discovery.k8s.io/v1"),
}
"""The kinds of object, by their resource."""


def key(item: Object) -> str:
    """Return what tells an object from the others of its kind: NAME, or NAMESPACE/NAME."""
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


def pod_list(node: Node, host: str = HOST) -> Object:
    """Return the PodList of a kubelet: the pods of the metrics, without kinds of their own."""
    items = [pod_object(node, pod, host) for pod in node.pods]
    items = [
        {key: each[key] for key in each if key not in ("kind", "apiVersion")} for each in items
    ]
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}


def pod_object(node: Node, pod: Pod, host: str = HOST) -> Object:
    """Return a running Pod of a node whose address is `host`."""
    since = datetime.fromtimestamp(pod.started, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": pod.name,
            "namespace": pod.namespace,
            "uid": pod.uid,
            "creationTimestamp": since,
            "labels": {"app": pod.app},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9090"},
        },
        "spec": {
            "containers": [
                {
                    "name": each.name,
                    "image": each.image,
                    "ports": [
                        {"name": name, "containerPort": port, "protocol": "TCP"}
                        for name, port in (("http", 8080), ("metrics", 9090))
                        if each.name == pod.app
                    ],
                }
                for each in pod.containers
            ],
            "nodeName": node.name,
            "restartPolicy": "Always",
        },
        "status": running(host, pod.ip, since)
        | {
            "startTime": since,
            "containerStatuses": [_container_status(each, since) for each in pod.containers],
            "qosClass": pod.qos,
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
        "podIPs": [{"ip": ip}],
    }


def _container_status(container: Container, since: str) -> Object:
    return {
        "name": container.name,
        "state": {"running": {"startedAt": since}},
        "ready": True,
        "restartCount": 0,
        "image": container.image,
        "imageID": f"sha256:{container.id}",
        "containerID": f"containerd://{container.id}",
        "started": True,
    }
