"""The labels that one exposition has looked up, with their names, bounded in bytes.

Knows the form of the bytes to add. Must not know the source of the labels, or lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kmproxy.exposition.grammar import PAIR
from kmproxy.exposition.pods import PodLookup

MAX_NAMESPACE = 63
"""Bytes of the longest namespace name (an RFC 1123 label). A longer name gets defaults only."""

MAX_POD = 253
"""Bytes of the longest name of a pod. The labels of a longer name are not remembered."""

MAX_REMEMBERED = 4 << 20
"""Bytes that an enricher may remember about namespaces and pods: far more than one node's take."""

MAX_NAMES = 128
"""Label names that are searched for together, at most. With more, lines are read one by one."""

_OVERHEAD = 400  # bytes for a namespace or pod besides names and labels, approximately


class RememberedLabels:
    """The labels of the namespaces and pods of one exposition, each looked up once.

    So an exposition shows one state of each namespace and pod, even if labels change
    meanwhile. This holds for `MAX_REMEMBERED` bytes, and for names that a namespace or
    a pod can have. Other names are looked up again each time.

    `rendered` holds the remembered namespaces, unescaped, each with the bytes to add.
    `names` are the names of the labels that may be added, known so far. As soon as they
    are more than `MAX_NAMES`, no more join them.
    """

    __slots__ = ("_lookup", "_of_pods", "_pairs", "_pods", "_room", "names", "rendered")

    def __init__(
        self,
        lookup: Callable[[bytes], bytes],
        names: Iterable[bytes],
        pods: PodLookup | None = None,
    ) -> None:
        self._lookup = lookup
        self._pods = pods
        self._pairs: dict[bytes, dict[bytes, bytes]] = {}  # bytes to add -> name -> quoted value
        self._of_pods: dict[tuple[bytes, bytes], bytes | None] = {}
        self._room = MAX_REMEMBERED  # bytes left
        self.rendered: dict[bytes, bytes] = {}
        self.names = frozenset(names)

    def __repr__(self) -> str:
        return (
            f"<RememberedLabels {len(self.rendered)} namespaces, {len(self._of_pods)} pods, "
            f"{self._room} bytes left>"
        )

    @property
    def pods(self) -> bool:
        """Whether the labels of pods are looked up."""
        return self._pods is not None

    def of(self, namespace: bytes) -> bytes:
        """Returns the bytes to add to the samples of a namespace, remembered if they fit."""
        rendered = self.rendered.get(namespace)
        if rendered is None:
            if not namespace:
                return b""
            rendered = self._lookup(namespace)
            size = 3 * (len(namespace) + len(rendered)) + _OVERHEAD
            fits = size <= self._room
            if rendered not in self._pairs:
                self._learn(rendered, fits=fits)
            if fits and len(namespace) <= MAX_NAMESPACE:
                self.rendered[namespace] = rendered
                self._room -= size
        return rendered

    def of_pod(self, namespace: bytes, pod: bytes) -> bytes | None:
        """Returns the bytes to add to the samples of a pod; None if the pod is not known.

        Neither name is empty. Raises PodsNeededError, as the look-up does.
        """
        key = namespace, pod
        if key in self._of_pods:
            return self._of_pods[key]
        rendered = self._pods(namespace, pod) if self._pods else b""
        size = 3 * (len(namespace) + len(pod) + len(rendered or b"")) + _OVERHEAD
        fits = size <= self._room
        if rendered and rendered not in self._pairs:
            self._learn(rendered, fits=fits)
        if fits and len(namespace) <= MAX_NAMESPACE and len(pod) <= MAX_POD:
            self._of_pods[key] = rendered
            self._room -= size
        return rendered

    def _learn(self, rendered: bytes, *, fits: bool) -> None:
        """Reads the names in bytes to add, which are remembered if they fit."""
        pairs = read_pairs(rendered)
        if fits:
            self._pairs[rendered] = pairs
        if len(self.names) <= MAX_NAMES and not self.names.issuperset(pairs):
            self.names = self.names.union(pairs)

    def pairs(self, rendered: bytes) -> dict[bytes, bytes]:
        """Returns the label names in the bytes to add, with their quoted values."""
        pairs = self._pairs.get(rendered)
        return read_pairs(rendered) if pairs is None else pairs


def read_pairs(rendered: bytes) -> dict[bytes, bytes]:
    """Returns the label names in bytes to add, with their quoted values."""
    return {pair["name"]: pair["value"] for pair in PAIR.finditer(rendered)}
