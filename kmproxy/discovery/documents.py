"""Pods and nodes as scrape targets, in the JSON of Prometheus' HTTP service discovery.

Knows a kubelet's PodList, and the labels that Prometheus' own roles give to pods
and nodes. Must not know the source of a list, the caller, or the time.
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
from kmproxy.labels.label_map import LabelMap
from kmproxy.labels.rendering import Choice, Rendering

MAX_VALUE = 4096
"""Bytes of the longest label or annotation value of a pod or node that a target gets."""

MAX_METADATA = 32 << 10
"""Bytes that all labels and annotations of one pod or node take at most. A usual pod has 5,000."""

MAX_POD = 1 << 20
"""Bytes of all targets of one pod, each with the pod's labels: over 100 usual targets."""

MAX_LIST = 4 << 20
"""Bytes of memory for the held targets of one node's pods: the usual targets of 500 pods."""

MAX_DOCUMENT = 32 << 20
"""Bytes of a JSON document of pods' targets."""

MAX_NODES = 16 << 20
"""Bytes of the metadata of all nodes together, as JSON: that of 5,000 usual nodes."""

LIMITS = ("value", "pod", "targets", "list")
"""The limits of a list of pods. Data beyond a limit is left out, and counted for that limit."""

_META = "__meta_kubernetes_"
_AROUND = 8  # bytes of a document for each target, in addition to the held bytes
_HELD = 48  # bytes of memory for each held piece, in addition to its content
_T = TypeVar("_T")
_OF_THE_KUBELET = ("kubernetes.io/config.seen", "kubernetes.io/config.source")
"""Annotations that a kubelet adds to its own copy of a pod. They do not become labels: the API
server's pod does not have them, and the first one changes with each restart of the kubelet."""

_STATIC = frozenset({"file", "http"})
"""The sources of static pods. Their mirror pods in the API server have the node as controller."""

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
    """The targets of one pod, each as the beginning of its target group in JSON.

    `groups` has one entry for each target, with its address and the labels of its
    container and port. `labels` are the pod's labels, which follow each entry.
    """

    namespace: str
    labels: bytes
    groups: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """The number of held bytes."""
        return len(self.labels) + sum(map(len, self.groups))


@dataclass(frozen=True, slots=True)
class TargetList:
    """The targets of a node's pods, complete except for the labels of their namespaces.

    The pods are in the order of namespace and name, the containers in the order of
    their pod. The order of the kubelet's list does not matter.

    `left_out` counts omitted data by the limit in bytes (`LIMITS`): values that are
    too long ('value'), values beyond the bytes of a pod's metadata ('pod'), targets
    beyond the bytes of one pod ('targets'), and pods beyond the bytes of the list
    ('list').
    """

    pods: tuple[PodTargets, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    count: int = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        """Set `count`, the number of targets, and `size`, the number of held bytes."""
        object.__setattr__(self, "count", sum(len(pod.groups) for pod in self.pods))
        object.__setattr__(self, "size", sum(pod.size for pod in self.pods))

    def __repr__(self) -> str:
        return f"<TargetList {self.count} targets of {len(self.pods)} pods, {self.size} bytes>"

    def document(
        self, lookup: Callable[[bytes], bytes], wanted: Callable[[str], bool] | None = None
    ) -> Document:
        """The JSON document, with the labels that `lookup` has for each namespace now.

        `lookup` is the method of a `TargetLabelMap`. Pods of namespaces for which
        `wanted` returns false are left out.
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
        """The JSON document of `document`, in one piece."""
        return b"".join(self.document(lookup, wanted))


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON document of targets. Each iteration over it yields the document in small pieces."""

    pods: Sequence[PodTargets]
    spaces: Mapping[str, bytes]
    left_out: int
    """The number of omitted pods: with them, the document would be too long."""

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
    """Keeps items that together take at most `budget` bytes. The largest are left out.

    Of items of equal size, the first one by key is left out. The order of `add` has
    no effect on the result.
    """

    def __init__(self, budget: int) -> None:
        self._left = budget
        # A heap: the largest item is first. The count tells items of one size and key apart.
        self._held: list[tuple[int, tuple[str, ...], int, _T]] = []
        self._count = 0
        self.left_out = 0

    def add(self, key: tuple[str, ...], size: int, item: _T) -> _T | None:
        """Add an item. Returns the last item that was removed for it, or None."""
        self._count += 1
        heapq.heappush(self._held, (-size, key, self._count, item))
        self._left -= size
        gone = None
        while self._left < 0:
            negative, _, _, gone = heapq.heappop(self._held)
            self._left -= negative
            self.left_out += 1
        return gone

    def in_order(self) -> list[_T]:
        """The items that fit, in the order of their keys."""
        return [item for *_, item in sorted(self._held, key=lambda held: held[1:3])]


class TargetLabelMap(LabelMap):
    """Maps a namespace's name to the labels that the targets of its pods get, as JSON.

    These are the namespace's own labels and annotations, with the names of
    Prometheus' `attach_metadata`, and the labels that the rules make. Values longer
    than the rules' limit are left out, but their marks of presence stay. The
    namespace's own labels and annotations may take twice the bytes of the labels
    that the rules make. Beyond that, the last ones in sorted order are left out.
    """

    def render(self, namespace: Namespace) -> Rendering:
        """The pairs of one namespace, each with its leading comma."""
        chosen = Choice(self.renderer.max_value, 2 * self.renderer.budget)
        pairs = _metadata("namespace", namespace.labels, namespace.annotations)
        pairs = {name: value for name, value in pairs.items() if chosen.admits(name, value)}
        return Rendering(_more(pairs | self.renderer.choose(namespace).pairs))


@dataclass(frozen=True, slots=True)
class ListedNode:
    """A node of the cluster, as a target needs it. `pairs` are its metadata, as JSON."""

    name: str
    pairs: bytes = b"{}"

    @classmethod
    def of(
        cls,
        name: str,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> ListedNode:
        """A node with its labels and annotations, as far as the limits of a target allow."""
        kept = Choice(MAX_VALUE, MAX_METADATA)
        chosen = [
            {key: each[key] for key in sorted(each) if kept.admits(key, each[key])}
            for each in (labels or {}, annotations or {})
        ]
        return cls(name, _encode(chosen)) if any(chosen) else cls(name)

    def labels(self) -> dict[str, str]:
        """The labels that the node gives to its target."""
        if self.pairs == b"{}":
            return {}
        return _metadata("node", *_CHOSEN.decode(self.pairs))


class NodeList:
    """Collects all nodes during a list. Their metadata takes at most `MAX_NODES` bytes.

    Beyond that, the nodes with the most metadata lose all of it.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._fitting: Fitting[ListedNode] = Fitting(MAX_NODES)

    def add(self, node: ListedNode) -> None:
        """Add a node."""
        self._names.append(node.name)
        self._fitting.add((node.name,), len(node.pairs), node)

    def finish(self) -> list[ListedNode]:
        """All nodes, in the order of `add`."""
        held = {node.name: node for node in self._fitting.in_order()}
        return [held.get(name) or ListedNode(name) for name in self._names]


class PodReader:
    """Reads a PodList in pieces, and makes the targets of pods in `wanted` namespaces.

    It keeps only the data of targets. Both methods raise UpstreamError if the data
    is not a PodList. So a list that kmproxy does not understand completely never
    counts as an empty list.
    """

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        self._splitter = Splitter()
        self._pods: Fitting[PodTargets] = Fitting(MAX_LIST)
        self._left_out: Counter[str] = Counter()

    def feed(self, data: bytes) -> None:
        """Read the next piece."""
        with _garbage():
            for each in self._splitter.split(data):
                pod = _POD.decode(each)
                meta = pod.metadata
                if self._wanted(meta.namespace) and pod.status.pod_ip:
                    targets = _pod_targets(pod, self._left_out)
                    size = targets.size + _HELD * (len(targets.groups) + 2)
                    self._pods.add((meta.namespace, meta.name, meta.uid), size, targets)

    def finish(self) -> TargetList:
        """End the list. Returns its targets."""
        with _garbage():
            self._splitter.finish(_FRAME)
            self._left_out["list"] = self._pods.left_out
            return TargetList(tuple(self._pods.in_order()), self._left_out)


@contextmanager
def _garbage() -> Iterator[None]:
    try:
        yield
    except (ApiError, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise UpstreamError("garbage", "the kubelet's answer is not a list of pods") from error


def parse_pods(body: bytes | bytearray, wanted: Callable[[str], bool]) -> TargetList:
    """The targets of a whole PodList, read by a `PodReader`."""
    reader = PodReader(wanted)
    reader.feed(bytes(body))
    return reader.finish()


@dataclass(frozen=True, slots=True)
class NodeDocument:
    """The JSON document of nodes that are scraped at one address, each with its own path."""

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
    """One target for each port of a container, or one for a container without ports.

    Init containers are included, ephemeral containers are not. Prometheus' pod role
    (discovery/kubernetes/pod.go) and discovery.kubelet do the same.
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
    """An object's labels and annotations as labels of a target, each with its mark of presence.

    If two keys become one name, the first key in sorted order gives the value. In
    Prometheus either of them may.
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
