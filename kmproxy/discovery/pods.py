"""Pods as scrape targets, made from a kubelet's PodList while it arrives.

Knows the labels that Prometheus' own role gives to pods. Must not know the source of a list, the
caller, or the time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property

import msgspec

from kmproxy.discovery.documents import MAX_LIST, MAX_POD, PodTargets, TargetList
from kmproxy.discovery.fitting import Fitting
from kmproxy.discovery.target_labels import (
    MAX_METADATA,
    MAX_VALUE,
    META,
    encode,
    metadata,
    more_pairs,
)
from kmproxy.kube.pod_list import CONFIG_SOURCE, Owner, PodListReader, PodMeta, texts
from kmproxy.labels.rendering import Choice
from kmproxy.labels.workloads import STATIC_SOURCES, cronjob, deployment, workload

_HELD = 48  # bytes of memory for each held piece, in addition to its content
_OF_THE_KUBELET = ("kubernetes.io/config.seen", CONFIG_SOURCE)
"""Annotations that a kubelet adds to its own copy of a pod. They do not become labels: the API
server's pod does not have them, and the first one changes with each restart of the kubelet."""


MAX_TEXTS = 2 << 20
"""Bytes of JSON of the labels and annotations of one pod. The API server takes annotations of 256
KiB, which are at most 1.5 MiB with the escapes of JSON."""


class _Meta(PodMeta, rename="camel"):
    raw_annotations: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw, name="annotations")

    def __post_init__(self) -> None:
        PodMeta.__post_init__(self)
        _ = self.annotations

    @cached_property
    def annotations(self) -> dict[str, str]:
        """The annotations."""
        return texts(self.raw_annotations, MAX_TEXTS - len(self.raw_labels))

    @property
    def source(self) -> str:
        """The source from which the kubelet has the pod."""
        return self.annotations.get(CONFIG_SOURCE, "")


class _Port(msgspec.Struct, rename="camel", gc=False):
    container_port: int
    name: str = ""
    protocol: str = ""


class _Container(msgspec.Struct, gc=False):
    name: str
    image: str = ""
    ports: list[_Port] | None = None


class _Spec(msgspec.Struct, rename="camel"):
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None
    node_name: str = ""


class _ContainerStatus(msgspec.Struct, gc=False):
    name: str
    container_id: str = msgspec.field(default="", name="containerID")


class _Condition(msgspec.Struct, gc=False):
    type: str
    status: str = ""


class _Status(msgspec.Struct, rename="camel"):
    phase: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    host_ip: str = msgspec.field(default="", name="hostIP")
    conditions: list[_Condition] | None = None
    container_statuses: list[_ContainerStatus] | None = None
    init_container_statuses: list[_ContainerStatus] | None = None


class _Pod(msgspec.Struct):
    metadata: _Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


_POD = msgspec.json.Decoder(_Pod)


class PodReader:
    """Reads a PodList in pieces, and makes the targets of pods in `wanted` namespaces.

    It keeps only the data of targets. With `workloads` they get the labels `workload` and
    `workload_type`. Both methods raise UpstreamError if the data is not a PodList.
    """

    def __init__(self, wanted: Callable[[str], bool], *, workloads: bool = False) -> None:
        self._wanted = wanted
        self._workloads = workloads
        self._reader = PodListReader(_POD)
        self._pods: Fitting[PodTargets] = Fitting(MAX_LIST)
        self._left_out: Counter[str] = Counter()

    def feed(self, data: bytes) -> None:
        """Read the next piece."""
        for pod in self._reader.feed(data):
            self._add(pod)

    def _add(self, pod: _Pod) -> None:
        meta = pod.metadata
        if self._wanted(meta.namespace) and pod.status.pod_ip:
            targets = _pod_targets(pod, self._left_out, workloads=self._workloads)
            size = targets.size + _HELD * (len(targets.groups) + 2)
            self._pods.add((meta.namespace, meta.name, meta.uid), size, targets)

    def finish(self) -> TargetList:
        """End the list. Returns its targets."""
        for pod in self._reader.finish():
            self._add(pod)
        self._left_out["list"] = self._pods.left_out
        return TargetList(tuple(self._pods.in_order()), self._left_out)


def parse_pods(
    body: bytes | bytearray, wanted: Callable[[str], bool], *, workloads: bool = False
) -> TargetList:
    """The targets of a whole PodList, read by a `PodReader`."""
    reader = PodReader(wanted, workloads=workloads)
    reader.feed(bytes(body))
    return reader.finish()


def _pod_targets(pod: _Pod, left_out: Counter[str], *, workloads: bool) -> PodTargets:
    """One target for each port of a container, or one for a container without ports.

    Init containers are included, ephemeral containers are not. Prometheus' pod role
    (discovery/kubernetes/pod.go) and discovery.kubelet do the same.
    """
    groups: list[bytes] = []
    labels = _pod_labels(pod, left_out)
    if workloads:
        found = workload(pod.metadata, pod.metadata.source)
        given = {"workload": found.name, "workload_type": found.type}
        labels |= {name: value for name, value in given.items() if value}
    more = more_pairs(labels)
    left = MAX_POD
    for init, containers, statuses in (
        ("false", pod.spec.containers, pod.status.container_statuses),
        ("true", pod.spec.init_containers, pod.status.init_container_statuses),
    ):
        ids = {status.name: status.container_id for status in reversed(statuses or ())}
        for container in containers or ():
            own = {
                f"{META}pod_container_id": ids.get(container.name, ""),
                f"{META}pod_container_image": container.image,
                f"{META}pod_container_init": init,
                f"{META}pod_container_name": container.name,
            }
            for address, port in _addresses(pod.status.pod_ip, container.ports):
                group = b'{"targets":%b,"labels":{%b' % (
                    encode([address]),
                    more_pairs(own | port)[1:],
                )
                left -= len(group) + len(more)
                if left < 0 and groups:  # a pod always keeps one target
                    left_out["targets"] += 1
                else:
                    groups.append(group)
    return PodTargets(pod.metadata.namespace, more, tuple(groups))


def _addresses(ip: str, ports: list[_Port] | None) -> Iterator[tuple[str, dict[str, str]]]:
    """The addresses of a container with the labels of their ports. Without ports, just the IP."""
    host = f"[{ip}]" if ":" in ip else ip
    for port in ports or ():
        yield (
            f"{host}:{port.container_port}",
            {
                f"{META}pod_container_port_name": port.name,
                f"{META}pod_container_port_number": str(port.container_port),
                f"{META}pod_container_port_protocol": port.protocol,
            },
        )
    if not ports:
        yield ip, {}


def _pod_labels(pod: _Pod, left_out: Counter[str]) -> dict[str, str]:
    meta, status = pod.metadata, pod.status
    conditions = (each.status for each in status.conditions or () if each.type == "Ready")
    labels = {
        f"{META}namespace": meta.namespace,
        f"{META}pod_host_ip": status.host_ip,
        f"{META}pod_ip": status.pod_ip,
        f"{META}pod_name": meta.name,
        f"{META}pod_node_name": pod.spec.node_name,
        f"{META}pod_phase": status.phase,
        f"{META}pod_ready": next(conditions, "unknown").lower(),
        f"{META}pod_uid": meta.uid,
    }
    labels |= _controller_labels(meta, pod.spec.node_name)
    annotations = dict(meta.annotations)
    for key in _OF_THE_KUBELET:
        annotations.pop(key, None)
    chosen = Choice(MAX_VALUE, MAX_METADATA)
    pairs = metadata("pod", meta.labels, annotations)
    labels |= {name: value for name, value in pairs.items() if chosen.admits(name, value)}
    left_out["value"] += chosen.too_long
    left_out["pod"] += chosen.too_many
    return labels


def _controller_labels(meta: _Meta, node: str) -> dict[str, str]:
    """The labels of a pod's controller, as with `attach_metadata` for Deployments and Jobs.

    Prometheus reads ReplicaSets and Jobs for them. Here the names of these are enough, as for
    `workload`.
    """
    owner = meta.controller
    if owner is None and meta.source in STATIC_SOURCES and node:
        owner = Owner("Node", node)
    if owner is None:
        return {}
    given = {"controller_kind": owner.kind, "controller_name": owner.name}
    if owner.kind == "ReplicaSet":
        given["deployment_name"] = deployment(owner.name, meta.labels)
    elif owner.kind == "Job":
        given |= {"job_name": owner.name, "cronjob_name": cronjob(owner.name)}
    return {f"{META}pod_{key}": value for key, value in given.items() if value}
