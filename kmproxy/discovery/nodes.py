"""Nodes as scrape targets.

Knows the labels that Prometheus' own role gives to nodes. Must not know the source of a list, the
caller, or the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from kmproxy.discovery.documents import json_list
from kmproxy.discovery.fitting import Fitting
from kmproxy.discovery.target_labels import MAX_METADATA, MAX_VALUE, META, encode, metadata
from kmproxy.labels.rendering import Choice

MAX_NODES = 16 << 20
"""Bytes of the metadata of all nodes together, as JSON: that of 5,000 usual nodes."""

_CHOSEN = msgspec.json.Decoder(tuple[dict[str, str], dict[str, str]])


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
        return cls(name, encode(chosen)) if any(chosen) else cls(name)

    def labels(self) -> dict[str, str]:
        """The labels that the node gives to its target."""
        if self.pairs == b"{}":
            return {}
        return metadata("node", *_CHOSEN.decode(self.pairs))


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


@dataclass(frozen=True, slots=True)
class NodeDocument:
    """The JSON document of nodes that are scraped at one address, each with its own path."""

    nodes: Sequence[ListedNode]
    address: str
    path: Callable[[str], str]

    def __iter__(self) -> Iterator[bytes]:
        """The pieces of the document, always the same."""
        return json_list(self._groups())

    def _groups(self) -> Iterator[bytes]:
        for node in sorted(self.nodes, key=lambda node: node.name):
            labels = {
                "__metrics_path__": self.path(node.name),
                f"{META}node_name": node.name,
                "instance": node.name,
                "node": node.name,
                **node.labels(),
            }
            yield encode({"targets": [self.address], "labels": labels})
