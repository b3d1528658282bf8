"""The labels that one exposition has looked up, with their names, bounded in bytes.

Knows the form of the bytes to add. Must not know the source of the labels, or lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kmproxy.exposition.grammar import PAIR

MAX_NAMESPACE = 63
"""Bytes of the longest namespace name (an RFC 1123 label). A longer name gets defaults only."""

MAX_REMEMBERED = 4 << 20
"""Bytes that an enricher may remember about namespaces: far more than those of one node take."""

_OVERHEAD = 400  # bytes for a namespace besides its name and its labels, approximately


class RememberedLabels:
    """The labels of the namespaces of one exposition, each looked up once.

    So an exposition shows one state of each namespace, even if the labels change
    meanwhile. This holds for `MAX_REMEMBERED` bytes of namespaces, and for names that a
    namespace can have. Other names are looked up again each time.

    `rendered` holds the remembered namespaces, unescaped, each with the bytes to add.
    `names` are the names of the labels that may be added, known so far.
    """

    __slots__ = ("_lookup", "_pairs", "names", "rendered", "room")

    def __init__(self, lookup: Callable[[bytes], bytes], names: Iterable[bytes]) -> None:
        self._lookup = lookup
        self._pairs: dict[bytes, dict[bytes, bytes]] = {}  # bytes to add -> name -> quoted value
        self.rendered: dict[bytes, bytes] = {}
        self.names = frozenset(names)
        self.room = MAX_REMEMBERED  # bytes left

    def __repr__(self) -> str:
        return f"<RememberedLabels {len(self.rendered)} namespaces, {self.room} bytes left>"

    def of(self, namespace: bytes) -> bytes:
        """Returns the bytes to add to the samples of a namespace, remembered if they fit."""
        rendered = self.rendered.get(namespace)
        if rendered is None:
            if not namespace:
                return b""
            rendered = self._lookup(namespace)
            size = 3 * (len(namespace) + len(rendered)) + _OVERHEAD
            fits = size <= self.room
            if rendered not in self._pairs:
                pairs = read_pairs(rendered)
                if fits:
                    self._pairs[rendered] = pairs
                if not self.names.issuperset(pairs):
                    self.names = self.names.union(pairs)
            if fits and len(namespace) <= MAX_NAMESPACE:
                self.rendered[namespace] = rendered
                self.room -= size
        return rendered

    def pairs(self, rendered: bytes) -> dict[bytes, bytes]:
        """Returns the label names in the bytes to add, with their quoted values."""
        pairs = self._pairs.get(rendered)
        return read_pairs(rendered) if pairs is None else pairs


def read_pairs(rendered: bytes) -> dict[bytes, bytes]:
    """Returns the label names in bytes to add, with their quoted values."""
    return {pair["name"]: pair["value"] for pair in PAIR.finditer(rendered)}
