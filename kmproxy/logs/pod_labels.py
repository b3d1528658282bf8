"""The labels of the pods whose logs are read, from the same lists of pods.

Knows when a list replaces the last one. Must not know what a rule makes of a pod, or files.
"""

from __future__ import annotations

from kmproxy.config.pod_labels import PodConfig
from kmproxy.labels.pods import PodLabelReader, PodMap


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
