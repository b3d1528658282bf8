"""Pods and nodes as scrape targets, in the JSON of Prometheus' HTTP service discovery.

Knows a kubelet's PodList, and the labels that Prometheus' own roles give to what
is in it. Must not know where a list comes from, who asks, or what time it is.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from kmproxy.config.label_rules import Namespace
from kmproxy.errors import ApiError, UpstreamError
from kmproxy.kube.object_list import Frame, Splitter
from kmproxy.labels.label_map import LabelMap, Listing
from kmproxy.labels.rendering import Choice, Rendering

MAX_VALUE = 4096
"""Bytes of the longest value of a pod's or node's label or annotation that a target gets."""

MAX_METADATA = 32 << 10
"""Bytes that all of these of one pod or node take at most; a usual pod has 5,000."""

MAX_POD = 1 << 20
"""Bytes of all targets of one pod, which repeat what is the pod's: over 100 of usual ones."""

MAX_LIST = 4 << 20
"""Bytes of memory of the targets of one node's pods, which are held: usual ones of 500 pods."""

MAX_DOCUMENT = 32 << 20
"""Bytes of a document of pods' targets."""

MAX_NODES = 16 << 20
"""Bytes of the metadata of all nodes together, as JSON: those of 5,000 usual ones."""

LIMITS = ("value", "pod", "targets", "list")
"""The limits beyond which something of a list of pods is left out."""

_META = "__meta_kubernetes_"
_AROUND = 8  # bytes of a document for each target beside what is held
_HELD = 48  # bytes of memory for each piece that is held beside its own
_T = TypeVar("_T")
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


_POD = msgspec.json.Decoder(_Pod)
_FRAME = msgspec.json.Decoder(Frame)
_CHOSEN = msgspec.json.Decoder(tuple[dict[str, str], dict[str, str]])
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

    @property
    def size(self) -> int:
        """The bytes that are held."""
        return len(self.labels) + sum(map(len, self.groups))


@dataclass(frozen=True, slots=True)
class TargetList:
    """The targets of a node's pods, ready but for what their namespaces add.

    They stand in the order of namespace, pod and container, whatever order the
    kubelet lists them in. `left_out` counts what is not there, by the limit in
    bytes (`LIMITS`): values over that of a 'value' and beyond those of a 'pod',
    'targets' beyond those of a pod, and pods beyond those of the 'list'.
    """

    pods: tuple[PodTargets, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    count: int = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        """`count` is of targets, `size` of the bytes that are held."""
        object.__setattr__(self, "count", sum(len(pod.groups) for pod in self.pods))
        object.__setattr__(self, "size", sum(pod.size for pod in self.pods))

    def __repr__(self) -> str:
        return f"<TargetList {self.count} targets of {len(self.pods)} pods, {self.size} bytes>"

    def document(
        self, lookup: Callable[[bytes], bytes], wanted: Callable[[str], bool] | None = None
    ) -> Document:
        """The JSON document, with the labels that `lookup` has for each namespace now.

        `lookup` is that of a `TargetLabelMap`. Pods of namespaces that are not
        `wanted` are left out.
        """
        spaces = {
            space: lookup(space.encode())
            for space in {pod.namespace: None for pod in self.pods}
            if wanted is None or wanted(space)
        }
        shown: Fitting[PodTargets] = Fitting(MAX_DOCUMENT)
        for place, pod in enumerate(self.pods):
            if (added := spaces.get(pod.namespace)) is not None:
                each = len(pod.labels) + len(added) + _AROUND
                shown.add((f"{place:09}",), sum(map(len, pod.groups)) + each * len(pod.groups), pod)
        return Document(shown.in_order(), spaces, shown.left_out)

    def render(
        self, lookup: Callable[[bytes], bytes], wanted: Callable[[str], bool] | None = None
    ) -> bytes:
        """The same in one piece."""
        return b"".join(self.document(lookup, wanted))


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON document of targets, each time that it is iterated over: in small pieces."""

    pods: Sequence[PodTargets]
    spaces: Mapping[str, bytes]
    left_out: int
    """Pods that are not there: the document would be too long."""

    def __iter__(self) -> Iterator[bytes]:
        """The pieces of the document, always the same."""
        before = b"["
        for pod in self.pods:
            after = b"%b%b}}" % (pod.labels, self.spaces[pod.namespace])
            for group in pod.groups:
                yield before + group + after
                before = b",\n"
        yield b"]\n" if before != b"[" else b"[]\n"


class Fitting(Generic[_T]):
    """Items that together take at most `budget` bytes: the largest are left out.

    Of equal ones the first by key is. Nothing depends on the order of their coming.
    """

    def __init__(self, budget: int) -> None:
        self._left = budget
        self._held: list[tuple[int, tuple[str, ...], _T]] = []  # a heap, the largest first
        self.left_out = 0

    def add(self, key: tuple[str, ...], size: int, item: _T) -> _T | None:
        """Take an item; returns the last one that went for it, if any."""
        heapq.heappush(self._held, (-size, key, item))
        self._left -= size
        gone = None
        while self._left < 0:
            negative, _, gone = heapq.heappop(self._held)
            self._left -= negative
            self.left_out += 1
        return gone

    def in_order(self) -> list[_T]:
        """What fits, by key."""
        return [item for _, _, item in sorted(self._held, key=lambda held: held[1])]


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


@dataclass(frozen=True, slots=True)
class ListedNode:
    """What matters of a node of the cluster as a target: `pairs` are labels of it, as JSON."""

    name: str
    pairs: bytes = b"{}"

    @classmethod
    def of(
        cls,
        name: str,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> ListedNode:
        """A node with as many of its labels and annotations as a target has."""
        kept = Choice(MAX_VALUE, MAX_METADATA)
        chosen = [
            {key: each[key] for key in sorted(each) if kept.admits(key, each[key])}
            for each in (labels or {}, annotations or {})
        ]
        return cls(name, _encode(chosen)) if any(chosen) else cls(name)

    def labels(self) -> dict[str, str]:
        """The labels that it gives to a target."""
        if self.pairs == b"{}":
            return {}
        return _metadata("node", *_CHOSEN.decode(self.pairs))


class NodeList:
    """All nodes, while they are listed: the metadata of all take at most `MAX_NODES` bytes.

    Beyond it the nodes with the most have none.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._fitting: Fitting[ListedNode] = Fitting(MAX_NODES)

    def add(self, node: ListedNode) -> None:
        """Take a node."""
        self._names.append(node.name)
        self._fitting.add((node.name,), len(node.pairs), node)

    def finish(self) -> list[ListedNode]:
        """All nodes, in the order of their coming."""
        held = {node.name: node for node in self._fitting.in_order()}
        return [held.get(name) or ListedNode(name) for name in self._names]


class PodReader:
    """Reads a PodList as it comes: the targets of the pods of namespaces that are `wanted`.

    Of each pod it keeps what a target has of it. Both methods raise
    UpstreamError if it is no PodList: what is not understood whole is not taken
    for the absence of pods.
    """

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        self._splitter = Splitter()
        self._pods: Fitting[PodTargets] = Fitting(MAX_LIST)
        self._left_out: Counter[str] = Counter()

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        with _garbage():
            for each in self._splitter.split(data):
                pod = _POD.decode(each)
                meta = pod.metadata
                if self._wanted(meta.namespace) and pod.status.pod_ip:
                    targets = _pod_targets(pod, self._left_out)
                    size = targets.size + _HELD * (len(targets.groups) + 2)
                    self._pods.add((meta.namespace, meta.name, meta.uid), size, targets)

    def finish(self) -> TargetList:
        """The list is complete: its targets."""
        with _garbage():
            self._splitter.finish(_FRAME)
            self._left_out["list"] = self._pods.left_out
            return TargetList(tuple(self._pods.in_order()), self._left_out)


@contextmanager
def _garbage() -> Iterator[None]:
    try:
        yield
    except (ApiError, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise UpstreamError("garbage", "the kubelet's list of pods is not one") from error


def parse_pods(body: bytes | bytearray, wanted: Callable[[str], bool]) -> TargetList:
    """The targets of a PodList, as a `PodReader` reads it."""
    reader = PodReader(wanted)
    reader.feed(bytes(body))
    return reader.finish()


@dataclass(frozen=True, slots=True)
class NodeDocument:
    """The JSON document of nodes that are scraped at one address, each at a path of its own."""

    nodes: Sequence[ListedNode]
    address: str
    path: Callable[[str], str]

    def __iter__(self) -> Iterator[bytes]:
        """The pieces of the document, always the same."""
        before = b"["
        for node in sorted(self.nodes, key=lambda node: node.name):
            labels = {
                "__metrics_path__": self.path(node.name),
                f"{_META}node_name": node.name,
                "instance": node.name,
                "node": node.name,
                **node.labels(),
            }
            yield before + _encode({"targets": [self.address], "labels": labels})
            before = b",\n"
        yield b"]\n" if before != b"[" else b"[]\n"


def _pod_targets(pod: _Pod, left_out: Counter[str]) -> PodTargets:
    """One target per port of a container, or one for a container without ports.

    Init containers are containers, ephemeral ones are not: so it is in
    Prometheus' pod role (discovery/kubernetes/pod.go) and discovery.kubelet.
    """
    groups: list[bytes] = []
    more = _more(_pod_labels(pod, left_out))
    left = MAX_POD
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
            for address, port in _addresses(pod.status.pod_ip, container.ports):
                group = b'{"targets":%b,"labels":{%b' % (
                    _encode([address]),
                    _more(labels | port)[1:],
                )
                left -= len(group) + len(more)
                if left < 0 and groups:  # one there is in any case
                    left_out["targets"] += 1
                else:
                    groups.append(group)
    return PodTargets(pod.metadata.namespace, more, tuple(groups))


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


def _pod_labels(pod: _Pod, left_out: Counter[str]) -> dict[str, str]:
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
    chosen = Choice(MAX_VALUE, MAX_METADATA)
    pairs = _metadata("pod", meta.labels or {}, annotations)
    labels |= {name: value for name, value in pairs.items() if chosen.admits(name, value)}
    left_out["value"] += chosen.too_long
    left_out["pod"] += chosen.too_many
    return labels


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
