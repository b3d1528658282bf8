"""The part that all enrichers have in common: the counts, and the label names that are searched.

A line that is too long passes unread. Must not know how labels are added.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Literal

from kmproxy.exposition.finder import NAMESPACE
from kmproxy.exposition.lines import LineFilter
from kmproxy.exposition.remembered import MAX_NAMES, RememberedLabels

OnConflict = Literal["keep", "overwrite"]
"""The label that stays if a sample already bears one to be added: its own, or the added one."""

MAX_TURNS = 8
"""How often new label names may join the search in one exposition. After that, lines are read one
by one."""


class BaseEnricher(LineFilter, ABC):
    """Remembers the labels that were looked up, and counts samples.

    `samples` counts sample lines that were understood. `enriched` counts samples that
    got a label or a new value. `unparsed` counts lines that were not understood or are
    longer than `max_line`. `conflicts` counts labels to be added that a sample
    already bore. `unknown_pods` counts samples that were left out because their pod is not known.
    """

    __slots__ = (
        "_labels",
        "_searched",
        "_turns",
        "conflicts",
        "enriched",
        "samples",
        "unknown_pods",
        "unparsed",
    )

    def __init__(self, labels: RememberedLabels, max_line: int) -> None:
        super().__init__(max_line)
        self._labels = labels
        self._searched = labels.names  # the names that the last splitter knew
        self._turns = 0  # how often new names joined these
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
    def labels(self) -> RememberedLabels:
        """The labels that were looked up."""
        return self._labels

    def counts(self) -> tuple[int, ...]:
        """Returns all counts."""
        return self.samples, self.enriched, self.unparsed, self.conflicts, self.unknown_pods

    def restore(self, counts: tuple[int, ...]) -> None:
        """Sets all counts to those of an earlier time."""
        self.samples, self.enriched, self.unparsed, self.conflicts, self.unknown_pods = counts

    @property
    def seen(self) -> Mapping[bytes, bytes]:
        """The remembered namespaces of the samples, unescaped, each with the bytes that it adds."""
        return self._labels.rendered

    def _line(self, line: bytes) -> bytes:
        if len(line) <= self._max_line:
            return self._block(line + b"\n")[:-1]
        return self.unread(line)

    def unread(self, line: bytes) -> bytes:
        """Counts the beginning of a line that is too long, which passes unread."""
        # How much of the line is here depends on how the input was cut.
        if not line[: self._max_line].lstrip(b" \t").startswith(b"#"):
            self.unparsed += 1
        return line

    def _search(self, names: frozenset[bytes]) -> bool:
        """Whether a splitter may search for these names. Not if they are or grow too many."""
        if names != self._searched:
            self._searched = names
            self._turns += 1
        return self._turns <= MAX_TURNS and len(names) <= MAX_NAMES

    def _count_lines(self, lines: bytes) -> None:
        """Counts lines without a namespace. A newline leads each, and one more ends the text."""
        if len(lines) > 1:
            samples, unparsed = NAMESPACE.count_kinds(lines[1:])
            self.samples += samples
            self.unparsed += unparsed
