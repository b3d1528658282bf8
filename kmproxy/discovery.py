"""Pods and nodes as scrape targets, in the JSON of Prometheus' HTTP service discovery.

Knows a kubelet's PodList, and the labels that Prometheus' own roles give to what
is in it. Must not know where a list comes from, who asks, or what time it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kmproxy.errors import UpstreamError
from kmproxy.labelmap import LabelMap, Listing
from kmproxy.labels import Namespace
from kmproxy.objectlist import ListedNode
from kmproxy.rendering import Choice, Rendering

_META = "__meta_kubernetes_"
_OF_THE_KUBELET = ("kubernetes.io/config.seen", "kubernetes.io/config.source")
"""Annotations that a kubelet puts on its own copy of a pod. They are no labels: the API server's
pod has none, and the first is another one after each restart of the kubelet."""

_STATIC = frozenset({"file", "http"})
"""Where static pods come from. In the API server a mirror of each has its node for a controller."""

_OUTSIDE_NAME = re.compile(r"[^a-zA-Z0-9_]", re.ASCII)


class _Owner(msgspec.Struct):
    kind: str = ""
    name: str = ""
    controller: bool | None = None


class _Meta(msgspec.Struct, rename="camel"):
    name: str
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[_Owner] | None = None


class _Port(msgspec.Struct, rename="camel"):
    container_port: int
    name: str = ""
    protocol: str = ""


class _Container(msgspec.Struct):
    name: str
    image: str = ""
    ports: list[_Port] | None = None


class _Spec(msgspec.Struct, rename="camel"):
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None
    node_name: str = ""


class _ContainerStatus(msgspec.Struct):
    name: str
    container_id: str = msgspec.field(default="", name="containerID")


class _Condition(msgspec.Struct):
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


class _PodList(msgspec.Struct):
    items: list[_Pod] | None


_PODS = msgspec.json.Decoder(_PodList)
_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class PodTargets:
    """The targets of one pod, each as the beginning of its target group.

    What a target has of its container is in `groups`, up to where the labels go
    on; `labels` is what all of them have of their pod.
    """

    namespace: str
    labels: bytes
    groups: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class TargetList:
    """The targets of a node's pods, ready but for what their namespaces add.

    They stand in the order of namespace, pod and container, whatever order the
    kubelet lists them in.
    """

    pods: tuple[PodTargets, ...]
    count: int = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        """`count` is of targets, `size` of the bytes that are held."""
        size = sum(len(pod.labels) + sum(map(len, pod.groups)) for pod in self.pods)
        object.__setattr__(self, "count", sum(len(pod.groups) for pod in self.pods))
        object.__setattr__(self, "size", size)

    def __repr__(self) -> str:
        return f"<TargetList {self.count} targets of {len(self.pods)} pods, {self.size} bytes>"

    def render(
        self, lookup: Callable[[bytes], bytes], wanted: Callable[[str], bool] | None = None
    ) -> bytes:
        """The JSON document, with the labels that `lookup` has for each namespace.

        `lookup` is that of a `TargetLabelMap`. Pods of namespaces that are not
        `wanted` are left out.
        """
        pieces: list[bytes] = []
        spaces: dict[str, bytes | None] = {}
        for pod in self.pods:
            if pod.namespace not in spaces:
                taken = wanted is None or wanted(pod.namespace)
                spaces[pod.namespace] = lookup(pod.namespace.encode()) if taken else None
            if (added := spaces[pod.namespace]) is not None:
                for group in pod.groups:
                    pieces += (b",\n", group, pod.labels, added, b"}}")
        return b"[%b]\n" % b"".join(pieces[1:])


class TargetLabelMap(LabelMap):
    """From a namespace's name to the labels that its pods' targets get, as JSON.

    They are the namespace's own labels and annotations under the names that
    Prometheus' `attach_metadata` gives them, and what the rules make of them.
    Values over the rules' limit are left out, but not their marks of presence;
    past twice the bytes that the rules may make, the last of these in sorted
    order are.
    """

    loaded = False
    """Whether the namespaces have been listed once."""

    def swap(self, listing: Listing, now: float) -> None:
        """Take a listing for all the namespaces there are, and own it."""
        super().swap(listing, now)
        self.loaded = True

    def render(self, namespace: Namespace) -> Rendering:
        """The pairs of one namespace, each with its leading comma."""
        chosen = Choice(self.renderer.max_value, 2 * self.renderer.budget)
        pairs = _metadata("namespace", namespace.labels, namespace.annotations)
        pairs = {name: value for name, value in pairs.items() if chosen.admits(name, value)}
        return Rendering(_more(pairs | self.renderer.choose(namespace).pairs))


def parse_pods(body: bytes | bytearray, wanted: Callable[[str], bool]) -> TargetList:
    """The targets of a PodList, of the namespaces that are `wanted`.

    Raises UpstreamError if it is no PodList: what is not understood whole is
    not taken for the absence of pods.
    """
    try:
        pods = _PODS.decode(body).items or []
        chosen = [pod for pod in pods if wanted(pod.metadata.namespace)]
        chosen.sort(key=lambda pod: (pod.metadata.namespace, pod.metadata.name, pod.metadata.uid))
        return TargetList(tuple(_pod_targets(pod) for pod in chosen if pod.status.pod_ip))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise UpstreamError("garbage", "the kubelet's list of pods is not one") from error


def node_targets(nodes: Iterable[ListedNode], address: str, path: Callable[[str], str]) -> bytes:
    """The JSON document of nodes that are scraped at one address, each at a path of its own."""
    groups = [
        {
            "targets": [address],
            "labels": {
                "__metrics_path__": path(node.name),
                f"{_META}node_name": node.name,
                "instance": node.name,
                "node": node.name,
                **_metadata("node", node.labels, node.annotations),
            },
        }
        for node in sorted(nodes, key=lambda node: node.name)
    ]
    return b"[%b]\n" % b",\n".join(map(_encode, groups))


def _pod_targets(pod: _Pod) -> PodTargets:
    """One target per port of a container, or one for a container without ports.

    Init containers are containers, ephemeral ones are not: so it is in
    Prometheus' pod role (discovery/kubernetes/pod.go) and discovery.kubelet.
    """
    groups = []
    for init, containers, statuses in (
        ("false", pod.spec.containers, pod.status.container_statuses),
        ("true", pod.spec.init_containers, pod.status.init_container_statuses),
    ):
        ids = {status.name: status.container_id for status in reversed(statuses or ())}
        for container in containers or ():
            labels = {
                f"{_META}pod_container_id": ids.get(container.name, ""),
                f"{_META}pod_container_image": container.image,
                f"{_META}pod_container_init": init,
                f"{_META}pod_container_name": container.name,
            }
            groups += [
                b'{"targets":%b,"labels":{%b' % (_encode([address]), _more(labels | port)[1:])
                for address, port in _addresses(pod.status.pod_ip, container.ports)
            ]
    return PodTargets(pod.metadata.namespace, _more(_pod_labels(pod)), tuple(groups))


def _addresses(ip: str, ports: list[_Port] | None) -> Iterator[tuple[str, dict[str, str]]]:
    """Addresses with what they have of their port: just the IP where there is none."""
    host = f"[{ip}]" if ":" in ip else ip
    for port in ports or ():
        yield (
            f"{host}:{port.container_port}",
            {
                f"{_META}pod_container_port_name": port.name,
                f"{_META}pod_container_port_number": str(port.container_port),
                f"{_META}pod_container_port_protocol": port.protocol,
            },
        )
    if not ports:
        yield ip, {}


def _pod_labels(pod: _Pod) -> dict[str, str]:
    meta, status = pod.metadata, pod.status
    conditions = (each.status for each in status.conditions or () if each.type == "Ready")
    labels = {
        f"{_META}namespace": meta.namespace,
        f"{_META}pod_host_ip": status.host_ip,
        f"{_META}pod_ip": status.pod_ip,
        f"{_META}pod_name": meta.name,
        f"{_META}pod_node_name": pod.spec.node_name,
        f"{_META}pod_phase": status.phase,
        f"{_META}pod_ready": next(conditions, "unknown").lower(),
        f"{_META}pod_uid": meta.uid,
    }
    annotations = dict(meta.annotations or {})
    source = [annotations.pop(key, "") for key in _OF_THE_KUBELET][-1]
    controllers = [owner for owner in meta.owner_references or () if owner.controller]
    if source in _STATIC and pod.spec.node_name:
        controllers.append(_Owner("Node", pod.spec.node_name))
    if owner := next(iter(controllers), None):
        given = {"kind": owner.kind, "name": owner.name}
        labels |= {f"{_META}pod_controller_{key}": value for key, value in given.items() if value}
    return labels | _metadata("pod", meta.labels or {}, annotations)


def _metadata(
    role: str, labels: Mapping[str, str], annotations: Mapping[str, str]
) -> dict[str, str]:
    """An object's labels and annotations, each with its mark of presence.

    Of two keys that become one name it is the first in sorted order; in
    Prometheus it is either of them.
    """
    pairs: dict[str, str] = {}
    for kind, metadata in (("label", labels), ("annotation", annotations)):
        for key in sorted(metadata):
            name = _OUTSIDE_NAME.sub("_", key)
            pairs.setdefault(f"{_META}{role}_{kind}_{name}", metadata[key])
            pairs[f"{_META}{role}_{kind}present_{name}"] = "true"
    return pairs


def _more(pairs: Mapping[str, Any]) -> bytes:
    """The pairs of a JSON object without its braces, after a comma."""
    return b"," + _encode(pairs)[1:-1] if pairs else b""
