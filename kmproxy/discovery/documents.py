"""The JSON documents of Prometheus' HTTP service discovery, with pods as scrape targets.

Knows the form of a document, and how many bytes of it are held. Must not know how targets are
made, the source of a list, the caller, or the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kmproxy.discovery.fitting import Fitting

MAX_POD = 1 << 20
"""Bytes of all targets of one pod, each with the pod's labels: over 100 usual targets."""

MAX_LIST = 4 << 20
"""Bytes of memory for the held targets of one node's pods: the usual targets of 500 pods."""

MAX_DOCUMENT = 32 << 20
"""Bytes of a JSON document of pods' targets."""

LIMITS = ("value", "pod", "targets", "list")
"""The limits of a list of pods. Data beyond a limit is left out, and counted for that limit."""

_AROUND = 8  # bytes of a document for each target, in addition to the held bytes


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
        return json_list(self._groups())

    def _groups(self) -> Iterator[bytes]:
        for pod in self.pods:
            after = b"%b%b}}" % (pod.labels, self.spaces[pod.namespace])
            for group in pod.groups:
                yield group + after


def json_list(items: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces of a JSON list, one for each item, and its end."""
    before = b"["
    for item in items:
        yield before + item
        before = b",\n"
    yield b"]\n" if before != b"[" else b"[]\n"
