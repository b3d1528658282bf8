"""Counts what is done to the samples of an exposition, and holds back lines that are too long.

Knows the counts that every enricher has. Must not know how labels are added.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping

from kmproxy.exposition.lines import LineFilter
from kmproxy.exposition.remembered import RememberedLabels


class BaseEnricher(LineFilter, ABC):
    """The part that all enrichers have in common: the labels that were looked up, and the counts.

    `samples` counts sample lines that were understood. `enriched` counts samples that
    got a label or a new value. `unparsed` counts lines that were not understood or are
    longer than `max_line`. `conflicts` counts labels to be added that a sample
    already bore. `unknown_pods` counts samples that were left out because their pod is not known.
    """

    __slots__ = ("_labels", "conflicts", "enriched", "samples", "unknown_pods", "unparsed")

    def __init__(self, labels: RememberedLabels, max_line: int) -> None:
        super().__init__(max_line)
        self._labels = labels
        self.samples = 0
        self.enriched = 0
        self.unparsed = 0
        self.conflicts = 0
        self.unknown_pods = 0

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.samples} samples, {self.enriched} enriched, "
            f"{self.unparsed} unparsed, {self.conflicts} conflicts>"
        )

    @property
    def seen(self) -> Mapping[bytes, bytes]:
        """The remembered namespaces of the samples, unescaped, each with the bytes that it adds."""
        return self._labels.rendered

    def _line(self, line: bytes) -> bytes:
        if len(line) <= self._max_line:
            return self._block(line + b"\n")[:-1]
        # How much of an overlong line is here depends on how the input was cut.
        if not line[: self._max_line].lstrip(b" \t").startswith(b"#"):
            self.unparsed += 1
        return line
