"""Hands whole lines to the compiled engine, and the rest of the work to the pure one.

Knows the interface of `kmproxy_engine`. Must not know the grammar. The compiled engine changes only
samples that it has read whole. The lines that it takes for no samples are read again here, by the
expression of the grammar. If one of them is a sample after all, the pure engine works on the whole
block instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import kmproxy_engine

from kmproxy.exposition.base_enricher import BaseEnricher, OnConflict
from kmproxy.exposition.grammar import SAMPLE, unescape, unquote
from kmproxy.exposition.lines import LineFilter
from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.pods import PodsNeededError
from kmproxy.exposition.selection import Selection
from kmproxy.exposition.selector import Label, Selector

# Whole lines without a sample, a comment or a blank line. An attempt reads one line, twice.
_NO_SAMPLES = re.compile(
    rb"(?:(?!%b\n|[ \t]*+[#\n])[^\n]++\n)*+" % re.sub(rb"\?P<[a-z]+>", rb"?:", SAMPLE)
)

_Labels = tuple[bytes, list[tuple[bytes, bytes]]]
"""The bytes to add to a sample, and the names with the quoted values in them."""


class CompiledSelector(Selector):
    """A selector whose series the compiled engine remembers.

    It selects the lines of a block itself only if the compiled engine misread it.
    """

    __slots__ = ("engine", "reading")

    engine: kmproxy_engine.Engine
    reading: bool
    """Whether the engine reads. It cannot forget series meanwhile."""

    def _enter(self, name: bytes, labels: Sequence[Label], kept: Sequence[Label]) -> bool | None:
        dropped = [each for each in labels if each[0] in self._selection.drop_labels]
        return self.engine.enter([name, *_parts(kept)], _parts(dropped))

    @property
    def room(self) -> int:
        """The number of series for which there is room."""
        return 0 if self._series is None else self._series_room.left

    def take(self, series: int) -> None:
        """Takes room for new series. There is room for all of them, or for all but one.

        Raises SeriesError if this exposition has to end.
        """
        if self._series is not None:
            self.series += series
            self._series_room.take(series)
        if self._series is None:
            raise self._too_many()

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

    __slots__ = ("_engine", "_enricher", "_labels", "_pods", "_prefixes", "_selector")

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
        self._prefixes = [prefix for _, prefix in namespace_labels.with_prefixes]
        self._engine = kmproxy_engine.Engine(
            naming=list(namespace_labels.names),
            each=bool(namespace_labels.prefixes),
            pods=self._pods,
            overwrite=on_conflict == "overwrite",
            metrics=selection.by_metric,
            namespaces=selection.by_namespace,
            drop=sorted(selection.drop_labels),
            strip=selection.strip_timestamps,
            ask_labels=self._labels_of,
            ask_pod=self._labels_of_pod,
            ask_metric=selector.wants_metric if selector else _unasked,
            ask_namespace=selector.wants_namespace if selector else _unasked,
            ask_room=self._take_room,
        )
        if selector is not None:
            selector.engine, selector.reading = self._engine, False

    def feed(self, data: bytes) -> bytes:
        """Takes the next piece. Returns the bytes that can be passed on already."""
        if not self._pods:
            return super().feed(data)
        counts = self._counts()
        try:
            return super().feed(data)
        except PodsNeededError:
            self._restore(counts)
            raise

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
        family = self._engine.family
        passed, odd, counts = self._read(block)
        if odd and _NO_SAMPLES.fullmatch(odd) is None:
            self._engine.family = family
            return self._pure(block)
        enricher = self._enricher
        samples, enriched, unparsed, conflicts, unknown, metric, namespace, merged, _ = counts
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

    def _read(self, block: bytes) -> tuple[bytes, bytes, kmproxy_engine.Counts]:
        """Reads a block with the compiled engine, and takes room for its series."""
        selector = self._selector
        if selector is None:
            return self._engine.read(block, 0)
        selector.reading = True
        try:
            found = self._engine.read(block, selector.room)
        finally:
            selector.reading = False
        if series := found[2][-1]:
            selector.take(series)
        return found

    def _pure(self, block: bytes) -> bytes:
        """Works on whole lines with the pure engine."""
        if self._selector:
            self._selector.family = self._engine.family
            block = self._selector.feed(block)
            self._engine.family = self._selector.family
        return self._enricher.feed(block)

    def _labels_of(self, label: int, namespace: bytes) -> _Labels:
        rendered = self._labels.of(unescape(namespace))
        pairs = list(self._labels.pairs(rendered).items())
        if prefix := self._prefixes[label]:
            pairs = [(prefix + name, value) for name, value in pairs]
            rendered = b"".join([b",%b=%b" % pair for pair in pairs])
        return rendered, pairs

    def _labels_of_pod(self, namespace: bytes, pod: bytes) -> _Labels | None:
        rendered = self._labels.of_pod(unescape(namespace), unescape(pod))
        if rendered is None:
            return None
        return rendered, list(self._labels.pairs(rendered).items())

    def _take_room(self, series: int) -> int:
        if self._selector is None:
            return _unasked(series)
        self._selector.take(series)
        return self._selector.room


def _unasked(*_: object) -> bool:
    """Stands for a question that the engine does not ask without a selection."""
    raise AssertionError


def _parts(labels: Sequence[Label]) -> list[bytes]:
    """The names and values of labels that are not empty, in order."""
    values = sorted((label, unquote(pair["value"])) for label, pair in labels)
    return [part for label, value in values if value for part in (label, value)]
