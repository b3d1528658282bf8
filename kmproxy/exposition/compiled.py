"""Hands whole lines to the compiled engine, and the rest of the work to the pure one.

Knows the interface of `kmproxy_engine`. Must not know the grammar. The compiled engine changes only
samples that it has read whole. The lines that it takes for no samples are read again here, by the
expression of the grammar. If one of them is a sample after all, the pure engine works on the whole
block instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NoReturn

import kmproxy_engine

from kmproxy.exposition.base_enricher import BaseEnricher, OnConflict
from kmproxy.exposition.errors import RepeatedLabelError
from kmproxy.exposition.grammar import SAMPLE, unquote
from kmproxy.exposition.lines import LineFilter
from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.pods import PodsNeededError
from kmproxy.exposition.selection import Selection
from kmproxy.exposition.selector import Selector
from kmproxy.exposition.series import Label

# Whole lines without a sample, a comment or a blank line. An attempt reads one line, twice.
NO_SAMPLES = re.compile(
    rb"(?:(?!%b\n|[ \t]*+[#\n])[^\n]++\n)*+" % re.sub(rb"\?P<[a-z]+>", rb"?:", SAMPLE)
)
"""Expression for whole lines that are no samples, comments or blank."""


class CompiledSelector(Selector):
    """A selector whose series the compiled engine remembers.

    It selects the lines of a block itself only if the compiled engine misread it.
    """

    __slots__ = ("engine", "reading")

    engine: kmproxy_engine.Engine
    reading: bool
    """Whether the engine reads. It cannot forget series meanwhile."""

    def _enter(self, name: bytes, labels: Iterable[Label]) -> bool | None:
        kept: list[tuple[bytes, bytes]] = []
        dropped: list[tuple[bytes, bytes]] = []
        for label, pair in labels:
            if value := unquote(pair["value"]):
                (dropped if label in self._selection.drop_labels else kept).append((label, value))
        return self.engine.enter(name, kept, dropped)

    @property
    def room(self) -> int:
        """The number of series for which there is room."""
        return 0 if self._series is None else self._series_room.left

    def require_series(self) -> None:
        """Raises SeriesError if the series were forgotten: then this exposition has ended."""
        if self._series is None and self._selection.drop_labels:
            raise self._too_many()

    def take(self, series: int) -> None:
        """Takes room for new series. There is room for all of them, or for all but one.

        Raises SeriesError if this exposition has to end.
        """
        if self._series is not None:
            self.series += series
            self._series_room.take(series)
        self.require_series()

    def forget(self) -> None:
        """Forgets all series and remembers no more: the exposition ends, or has to end."""
        super().forget()
        if not self.reading:
            self.engine.forget()


class CompiledLines(LineFilter):
    """Selects and enriches the lines of one exposition in one pass.

    The counts are those of `enricher` and `selector`, which look up labels and give
    verdicts. They are asked once for each name, as far as names are remembered. If a
    look-up raises PodsNeededError, `feed` and `finish` raise it, nothing was taken and
    nothing was counted.
    """

    # The engine asks the methods of others by names of this object, without a step between.
    __slots__ = (
        "_engine",
        "_enricher",
        "_labels",
        "_pods",
        "_selector",
        "ask_labels",
        "ask_metric",
        "ask_namespace",
        "ask_pod",
    )

    def __init__(
        self,
        enricher: BaseEnricher,
        selector: CompiledSelector | None,
        *,
        selection: Selection,
        namespace_labels: NamespaceLabels,
        on_conflict: OnConflict,
        max_line: int,
    ) -> None:
        super().__init__(max_line)
        self._enricher = enricher
        self._selector = selector
        self._labels = enricher.labels
        self._pods = self._labels.pods
        self.ask_labels, self.ask_pod = self._labels.of, self._labels.of_pod
        self._engine = kmproxy_engine.Engine(
            naming=list(namespace_labels.names),
            prefixes=list(namespace_labels.prefixes),
            pods=self._pods,
            overwrite=on_conflict == "overwrite",
            metrics=selection.by_metric,
            namespaces=selection.by_namespace,
            drop=sorted(selection.drop_labels),
            strip=selection.strip_timestamps,
            tenant=False,
        )
        if selector is not None:
            selector.engine, selector.reading = self._engine, False
            self.ask_metric, self.ask_namespace = selector.wants_metric, selector.wants_namespace

    def feed(self, data: bytes) -> bytes:
        """Takes the next piece. Returns the bytes that can be passed on already."""
        counts = self._counts() if self._pods else None
        try:
            return self._feed(data)
        except PodsNeededError:
            if counts:
                self._restore(counts)
            raise

    def _feed(self, data: bytes) -> bytes:
        first, end = data.find(b"\n") + 1, data.rfind(b"\n") + 1
        most = max(len(self._tail) + first, end - first)
        if self._overlong or not end or most > self._max_line:
            return super().feed(data)
        # All lines are short: those behind the first need not be copied.
        passed = self._pass(bytes(self._tail) + data[:first], data, first, end)
        self._tail = bytearray(memoryview(data)[end:])
        if len(self._tail) > self._max_line:
            return passed + super().feed(b"")
        return passed

    def finish(self) -> bytes:
        """Ends the input. Returns the rest, which may be a line without a newline."""
        counts = self._counts()
        try:
            return super().finish()
        except PodsNeededError:
            self._restore(counts)
            raise

    def _counts(self) -> tuple[tuple[int, ...], dict[str, int], bytes]:
        dropped = dict(self._selector.dropped) if self._selector else {}
        return self._enricher.counts(), dropped, self._engine.family

    def _restore(self, counts: tuple[tuple[int, ...], dict[str, int], bytes]) -> None:
        kept, dropped, self._engine.family = counts
        self._enricher.restore(kept)
        if self._selector:
            self._selector.dropped.update(dropped)

    def _line(self, line: bytes) -> bytes:
        if len(line) > self._max_line:
            return self._enricher.unread(line)
        return self._block(line + b"\n")[:-1]

    def _block(self, block: bytes) -> bytes:
        return self._pass(b"", block, 0, len(block))

    def _pass(self, first: bytes, data: bytes, start: int, end: int) -> bytes:
        """Works on whole lines of at most `max_line` bytes: `first`, and those in a span of `data`.

        Each has its newline.
        """
        family = self._engine.family
        passed, odd, counts = self._read(first, data, start, end)
        if odd and NO_SAMPLES.fullmatch(odd) is None:
            self._engine.family = family
            return self._pure(first + data[start:end])
        enricher = self._enricher
        samples, enriched, unparsed, conflicts, unknown, metric, namespace, merged = counts[:8]
        enricher.samples += samples
        enricher.enriched += enriched
        enricher.unparsed += unparsed
        enricher.conflicts += conflicts
        enricher.unknown_pods += unknown
        if self._selector:
            dropped = self._selector.dropped
            dropped["metric"] += metric
            dropped["namespace"] += namespace
            dropped["merged"] += merged
        return passed

    def _read(
        self, first: bytes, data: bytes, start: int, end: int
    ) -> tuple[bytes, bytes, kmproxy_engine.Counts]:
        """Reads lines with the compiled engine, and takes room for their series."""
        selector = self._selector
        if selector is None:
            return self._engine.read(first, data, start, end, 0, self)
        selector.require_series()
        selector.reading = True
        try:
            return self._engine.read(first, data, start, end, selector.room, self)
        finally:
            # A look-up that fails leaves the series that came before it.
            selector.reading = False
            selector.take(self._engine.take_series())

    def _pure(self, block: bytes) -> bytes:
        """Works on whole lines with the pure engine."""
        if self._selector:
            self._selector.family = self._engine.family
            block = self._selector.feed(block)
            self._engine.family = self._selector.family
        return self._enricher.feed(block)

    def refuse_repeats(self, metric: bytes, label: bytes) -> NoReturn:
        """Raises RepeatedLabelError for a sample."""
        raise RepeatedLabelError(label, metric)

    def ask_room(self, series: int) -> int:
        """Takes room for new series. Raises SeriesError."""
        if self._selector is None:
            return 0
        self._selector.take(series)
        return self._selector.room
