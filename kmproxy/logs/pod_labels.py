"""The labels of the pods whose logs are read, from the same lists of pods.

Knows when a list replaces the last one. Must not know what a rule makes of a pod, or files.
"""

from __future__ import annotations

from collections import deque

import msgspec

from kmproxy.config.pod_labels import PodConfig
from kmproxy.labels.pods import RETENTION, PodLabelReader, PodMap

MAX_WATCHED = 32 << 20
"""Bytes of the labels of all watched pods. Further pods have none."""

_COST = 256


class NodePodLabels:
    """The labels of one node's pods. A pod that left the list keeps its labels for 5 minutes."""

    def __init__(self, config: PodConfig, max_value: int) -> None:
        self._config = config
        self._max_value = max_value
        self._map = PodMap()

    def __repr__(self) -> str:
        return f"<NodePodLabels {self._map!r}>"

    def lookup(self, namespace: bytes, pod: bytes) -> bytes | None:
        """Return the rendered labels of a pod, or None for a pod that is not known."""
        return self._map.lookup(namespace, pod)

    def reader(self) -> PodLabelReader:
        """Return a reader for the next list."""
        return PodLabelReader(self._config, max_value=self._max_value)

    def take(self, reader: PodLabelReader, now: float) -> None:
        """Replace the pods by those of a whole list. Raises UpstreamError if it is none."""
        self._map.swap(reader.finish(), now)


class WatchedPodLabels:
    """The labels of pods that are watched. A deleted pod keeps its labels for 5 minutes."""

    def __init__(self, config: PodConfig, max_value: int) -> None:
        self._config = config
        self._max_value = max_value
        self._labels: dict[tuple[bytes, bytes], tuple[str, bytes]] = {}
        self._gone: deque[tuple[float, tuple[bytes, bytes], str]] = deque()
        self._size = 0

    def __repr__(self) -> str:
        return f"<WatchedPodLabels {len(self._labels)} pods, {self._size} bytes>"

    def lookup(self, namespace: bytes, pod: bytes) -> bytes | None:
        """Return the rendered labels of a pod, or None for a pod that is not known."""
        found = self._labels.get((namespace, pod))
        return found[1] if found else None

    def put(self, data: bytes | msgspec.Raw, uid: str) -> None:
        """Take the labels of a pod. Raises UpstreamError if it is none."""
        listing = PodLabelReader(self._config, max_value=self._max_value).add(data)
        for namespace, names in listing.rendered.items():
            for pod, labels in names.items():
                key = namespace, pod
                self._forget(key)
                size = _COST + sum(map(len, (*key, labels)))
                kept = labels if self._size + size <= MAX_WATCHED else b""
                self._labels[key] = uid, kept
                self._size += _COST + sum(map(len, (*key, kept)))

    def delete(self, namespace: str, pod: str, uid: str, now: float) -> None:
        """Forget a pod, after a while, unless another one has its name by then."""
        key = namespace.encode(errors="replace"), pod.encode(errors="replace")
        self._gone.append((now + RETENTION, key, uid))
        while self._gone and self._gone[0][0] <= now:
            _, key, uid = self._gone.popleft()
            if (found := self._labels.get(key)) and found[0] == uid:
                self._forget(key)

    def _forget(self, key: tuple[bytes, bytes]) -> None:
        if found := self._labels.pop(key, None):
            self._size -= _COST + sum(map(len, (*key, found[1])))
