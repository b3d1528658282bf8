"""The pods of a simulated cluster: as the API server has them, and as a kubelet lists them.

They are the pods whose metrics are simulated. Reads no clock and keeps no state. Must not know
requests, users, or anything of the proxy under test.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from kmproxy.simulator.cadvisor import Container, Node, Pod
from kmproxy.simulator.objects import Object, running
from kmproxy.simulator.wire import HOST


def pod_list(items: Iterable[Object]) -> Object:
    """Return the PodList of Pod objects. A kubelet without pods lists null."""
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(items) or None}


def kubelet_pods(node: Node, host: str = HOST) -> list[Object]:
    """Return the pods of a node as its kubelet lists them, in an order without a meaning.

    They have no `kind` and `apiVersion` of their own. Annotations name the source from which the
    kubelet got them.
    """
    items = []
    for pod in sorted(node.pods, key=lambda pod: pod.uid):
        item = pod_object(node, pod, host)
        seen = {
            "kubernetes.io/config.seen": _time(pod.started),
            "kubernetes.io/config.source": "api",
        }
        annotations = {"annotations": item["metadata"]["annotations"] | seen}
        item = {key: value for key, value in item.items() if key not in ("kind", "apiVersion")}
        items.append(item | {"metadata": item["metadata"] | annotations})
    return items


def pod_object(node: Node, pod: Pod, host: str = HOST) -> Object:
    """Return a running Pod of a node whose address is `host`."""
    since = _time(pod.started)
    owner = pod.name.rpartition("-")[0]
    init = ("prepare",) if pod.claim else ()
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": pod.name,
            "generateName": f"{owner}-",
            "namespace": pod.namespace,
            "uid": pod.uid,
            "creationTimestamp": since,
            "labels": {
                "app": pod.app,
                "app.kubernetes.io/name": pod.app,
                "pod-template-hash": owner.rpartition("-")[2],
            },
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9090"},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": owner,
                    "uid": f"{pod.sandbox[:8]}-0000-4000-8000-{pod.sandbox[:12]}",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            **(
                {"initContainers": [_container(name, _image(name)) for name in init]}
                if init
                else {}
            ),
            "containers": [
                _container(each.name, each.image, *(_PORTS if each.name == pod.app else ()))
                for each in pod.containers
            ],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default",
            "nodeName": node.name,
            "securityContext": {},
            "schedulerName": "default-scheduler",
            "enableServiceLinks": True,
        },
        "status": running(host, pod.ip, since)
        | {
            "startTime": since,
            **(
                {"initContainerStatuses": [_ended(name, pod, since) for name in init]}
                if init
                else {}
            ),
            "containerStatuses": [_state(each, since) for each in pod.containers],
            "qosClass": pod.qos,
        },
    }


_PORTS = (("http", 8080), ("metrics", 9090))


def _image(name: str) -> str:
    return f"registry.example.com/{name}:1"


def _container(name: str, image: str, *ports: tuple[str, int]) -> Object:
    listed = [{"name": port, "containerPort": at, "protocol": "TCP"} for port, at in ports]
    return {
        "name": name,
        "image": image,
        **({"ports": listed} if listed else {}),
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    }


def _state(container: Container, since: str) -> Object:
    return {
        "name": container.name,
        "state": {"running": {"startedAt": since}},
        "lastState": {},
        "ready": True,
        "restartCount": 0,
        "image": container.image,
        "imageID": f"sha256:{container.id}",
        "containerID": f"containerd://{container.id}",
        "started": True,
    }


def _ended(name: str, pod: Pod, since: str) -> Object:
    times = {"startedAt": since, "finishedAt": since}
    container = f"containerd://{pod.sandbox[::-1]}"
    ended = {"exitCode": 0, "reason": "Completed", **times, "containerID": container}
    return {
        "name": name,
        "state": {"terminated": ended},
        "lastState": {},
        "ready": True,
        "restartCount": 0,
        "image": _image(name),
        "imageID": f"sha256:{pod.sandbox}",
        "containerID": container,
        "started": False,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
