"""Applies a selection to one exposition.

Knows lines and the names of their samples. Must not know where a selection comes from. A line that
is not selected leaves no byte in the output. A line that passes is unchanged, except for the labels
and timestamps that are removed. A line that is not understood passes unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from kmproxy.exposition.finder import STAMP, sample_finder
from kmproxy.exposition.grammar import METADATA, Sample, by_lines, unescape, unquote
from kmproxy.exposition.lines import MAX_LINE, LineFilter
from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.selection import Selection
from kmproxy.exposition.series import Label, SeriesError, SeriesRoom, digest

_METADATA = re.compile(METADATA)

_FAMILY = re.compile(rb'[ \t]*+\#[ \t]++[A-Z]++[ \t]++([a-zA-Z0-9_:]++|"(?:[^"\\\n]|\\[^\n])*+")')

_SUFFIXES = (b"_total", b"_bucket", b"_count", b"_sum", b"_created", b"_info", b"_gcount", b"_gsum")

MAX_REMEMBERED = 4 << 20
"""Bytes of names whose verdicts are remembered."""

_LONG = 1 << 16  # bytes of a line whose labels take too much memory, if all are held

_NAME_SIZE = 250  # bytes for the verdict of a name besides the name, approximately


class Selector(LineFilter):
    """Applies a selection to one exposition.

    `dropped` counts samples left out, by `metric`, `namespace` or `merged`. When
    labels are removed, two series may become one. The first series passes. The
    others would be mistaken for it, so they are left out as `merged`. For this the
    selector remembers the series of its exposition, by digests of 15 bytes, in the
    `room` that it shares with others, until it is told to `forget` them. From then
    on `feed` and `finish` raise SeriesError, because a series served twice would be
    a wrong sample.

    A sample passes if each namespace that it names by `namespace_labels` is selected. A
    sample that bears one of these labels twice passes as if it was not understood.

    One expression splits a block. Another one splits the text between its matches.
    """

    __slots__ = (
        "_family",
        "_finder",
        "_here",
        "_metrics",
        "_namespace_labels",
        "_namespaces",
        "_room",
        "_selection",
        "_series",
        "_series_room",
        "dropped",
        "series",
    )

    def __init__(
        self,
        selection: Selection,
        *,
        max_line: int = MAX_LINE,
        room: SeriesRoom | None = None,
        namespace_labels: NamespaceLabels | None = None,
    ) -> None:
        super().__init__(max_line)
        self._namespace_labels = namespace_labels or NamespaceLabels()
        self._finder = sample_finder(frozenset(self._namespace_labels.names))
        self._selection = selection
        self._family = b""
        self._here: dict[bytes, bool] = {}  # verdicts by name, within the lines of this family
        self._metrics: dict[tuple[bytes, bytes], bool] = {}
        self._namespaces: dict[bytes, bool] = {}
        self._room = MAX_REMEMBERED  # bytes left for these two
        self._series: dict[bytes, bytes] | None = {}  # digest without removed labels -> with them
        self.series = 0
        self._series_room = room or SeriesRoom()
        self._series_room.enter(self)
        self.dropped = {"metric": 0, "namespace": 0, "merged": 0}

    def __repr__(self) -> str:
        return f"<Selector dropped {self.dropped}>"

    def _block(self, block: bytes) -> bytes:
        lines = by_lines(block)
        if self._selection.drop_labels:
            return self._lines(lines)[1:]
        parts = self._finder.plain.split(lines)
        passed = []
        for at in range(0, len(parts) - 1, 4):
            between, head, namespace, rest = parts[at : at + 4]
            if between:
                passed.append(self._lines(between + b"\n")[:-1])
            if self._wants(head[1 : head.index(b"{")], namespace):
                if self._selection.strip_timestamps:
                    rest = _without_stamp(rest)
                passed += (head, namespace, b'"', rest)
        passed.append(self._lines(parts[-1]))
        return b"".join(passed)[1:]

    def _wants(self, name: bytes, namespace: bytes) -> bool:
        """Whether a sample of this name and this namespace passes. Counts it if not.

        Both are spelled as in the line: the name with its quotes, if it has quotes.
        """
        wanted = self._here.get(name)
        if wanted is None:
            plain = unquote(name) if name[0] == 0x22 else name
            wanted = self._here[name] = self.wants_metric(plain, self._family_of(plain))
        if not wanted:
            self.dropped["metric"] += 1
            return False
        wanted = self._namespaces.get(namespace)
        if wanted is None:
            wanted = self.wants_namespace(namespace)
        if not wanted:
            self.dropped["namespace"] += 1
        return wanted

    def _lines(self, text: bytes) -> bytes:
        """Selects lines of any kind, each led by its newline, with a newline at the end."""
        passed: list[bytes] = []
        add, here, spaces = passed.append, self._here, self._namespaces
        strip, drop_labels = self._selection.strip_timestamps, self._selection.drop_labels
        unwanted = {False: 0, True: 0}  # False: the metric is unwanted, True: only the namespace
        for found in self._finder.lines.findall(text):
            front, name, space, before, quoted, behind, end, tiny, others, line = found
            if others:
                add(others)
                continue
            if line or drop_labels:
                kept = self._select(line or front[1:] + end)
                if kept is not None:
                    passed += (b"\n", kept)
            else:
                name, space = name or quoted, space or before or behind
                wanted = here.get(name)
                spaced = spaces.get(space)
                if wanted is None or spaced is None:
                    wanted = self._wants(name, space)
                elif not (wanted and spaced):
                    unwanted[wanted] += 1
                    wanted = False
                if wanted:
                    add(front)
                    if end:
                        add(_after_stamp(end) if strip else end)
            if tiny:
                add(tiny)
        self.dropped["metric"] += unwanted[False]
        self.dropped["namespace"] += unwanted[True]
        add(b"\n")
        return b"".join(passed)

    def _line(self, line: bytes) -> bytes:
        if len(line) > self._max_line:
            return line
        return self._block(line + b"\n")[:-1]

    def _select(self, line: bytes) -> bytes | None:
        """Returns the line as it passes, or None if it does not pass."""
        sample = None if line.startswith(b"#") else Sample.parse(line)
        if sample is None:
            return line if self._wants_metadata(line) else None
        family = self._family_of(sample.name)
        if not self.wants_metric(sample.name, family):
            self.dropped["metric"] += 1
            return None
        selection = self._selection
        edits: list[tuple[int, int]] = []
        if selection.strip_timestamps and sample.stamp:
            edits.append(sample.stamp)
        labels = list(sample.labels()) if len(line) <= _LONG else _LongLabels(sample)
        named = self._namespace_labels.named(labels)
        if named is None:
            return line  # its namespace is unclear: it passes as if not understood
        if not all(map(self.wants_namespace, named or [b""])):
            self.dropped["namespace"] += 1
            return None
        if selection.drop_labels:
            edits += _cuts(sample, labels, selection.drop_labels)
            if self._is_merged(sample.name, labels):
                self.dropped["merged"] += 1
                return None
        pieces, at = [], 0
        for start, end in sorted(edits):
            pieces.append(line[at:start])
            at = end
        return b"".join([*pieces, line[at:]])

    def _wants_metadata(self, line: bytes) -> bool:
        """Whether a line that is no sample passes. Its family is that of the lines that follow."""
        if _METADATA.fullmatch(line) is None or (match := _FAMILY.match(line)) is None:
            return True
        name: bytes = match[1]
        self._family = unquote(name) if name[0] == 0x22 else name
        self._here.clear()
        return self.wants_metric(self._family, self._family)

    @property
    def family(self) -> bytes:
        """The family of the lines that follow."""
        return self._family

    @family.setter
    def family(self, family: bytes) -> None:
        if family != self._family:
            self._family = family
            self._here.clear()

    def _family_of(self, name: bytes) -> bytes:
        family = self._family
        if name == family or (name.startswith(family) and name[len(family) :] in _SUFFIXES):
            return family
        return name

    def wants_metric(self, name: bytes, family: bytes) -> bool:
        """Whether a metric passes, by its name and its family's. Both are unescaped."""
        wanted = self._metrics.get((name, family))
        if wanted is None:
            self._make_room(len(name) + len(family))
            names = [name.decode(errors="replace")]
            if family != name:
                names.append(family.decode(errors="replace"))
            wanted = self._metrics[name, family] = self._selection.wants_metric(names)
        return wanted

    def wants_namespace(self, namespace: bytes) -> bool:
        """Whether samples of a namespace pass. It is spelled as in the line, without quotes."""
        wanted = self._namespaces.get(namespace)
        if wanted is None:
            self._make_room(len(namespace))
            text = unescape(namespace).decode(errors="replace")
            wanted = self._namespaces[namespace] = self._selection.wants_namespace(text)
        return wanted

    def _make_room(self, size: int) -> None:
        """Reserves bytes for a name to be remembered. Forgets the others if they are too many."""
        self._room -= size + _NAME_SIZE
        if self._room < 0:
            self._metrics.clear()
            self._here.clear()
            self._namespaces.clear()
            self._room = MAX_REMEMBERED - size - _NAME_SIZE

    def _is_merged(self, name: bytes, labels: Iterable[Label]) -> bool:
        """Whether an earlier, other series equals this one without the removed labels."""
        merged = None
        if self._series is not None and (merged := self._enter(name, labels)) is None:
            self.series += 1
            self._series_room.take()
        if self._series is None:
            raise self._too_many()
        return merged is True

    def _enter(self, name: bytes, labels: Iterable[Label]) -> bool | None:
        """Returns None for a new series, which is remembered; else whether it is merged.

        The labels are read several times.
        """
        series = self._series if self._series is not None else {}
        removed = self._selection.drop_labels
        key = whole = digest(name, labels)
        if any(each[0] in removed for each in labels):
            key = digest(name, (each for each in labels if each[0] not in removed))
        known = series.setdefault(key, b"")
        if not known:
            series[key] = whole
            return None
        return known != whole

    def _too_many(self) -> SeriesError:
        return SeriesError(
            f"the answer has over {self.series - 1} series, the most of all under way: too "
            "many for --drop-label to keep apart: narrow it by --namespace, --keep-metric or "
            "--drop-metric",
        )

    def forget(self) -> None:
        """Forgets all series and remembers no more: the exposition ends, or has to end."""
        self._series_room.leave(self, self.series)
        self._series = None


def _without_stamp(rest: bytes) -> bytes:
    """Returns the rest of a plain line, which begins in its pairs, without its timestamp."""
    value = rest.rindex(b"}") + 2
    blank = rest.find(b" ", value)
    return rest if blank < 0 else rest[:blank]


def _after_stamp(end: bytes) -> bytes:
    """Returns the text behind a sample's value without the timestamp."""
    stamp = STAMP.match(end)
    return end[stamp.end() :] if stamp else end


class _LongLabels:
    """The labels of a long line. Each loop reads them from the line, so they take no memory."""

    def __init__(self, sample: Sample) -> None:
        self._sample = sample

    def __iter__(self) -> Iterator[Label]:
        return self._sample.labels()


def _spans(
    sample: Sample, labels: Iterable[Label], names: frozenset[bytes]
) -> Iterator[tuple[int, int, bool]]:
    """Yields where pairs, and a name in quotes, begin and end, and whether they are taken off."""
    named = sample.named
    for name, pair in labels:
        start, end = pair.span()
        if named and named[0] < start:
            yield *named, False
            named = None
        yield start, end, name in names
    if named:
        yield *named, False


def _cuts(
    sample: Sample, labels: Iterable[Label], names: frozenset[bytes]
) -> list[tuple[int, int]]:
    """Returns the spans to cut so that the pairs of these names are gone, each with one comma.

    The name of a metric that stands between the pairs stays.
    """
    cuts = []
    kept = cut_from = cut_to = None
    for start, end, taken_off in _spans(sample, labels, names):
        if taken_off:
            cut_from = start if cut_from is None else cut_from
            cut_to = end
        else:
            if cut_from is not None:
                cuts.append((cut_from, start))
            kept, cut_from = end, None
    if cut_from is not None and cut_to is not None:
        cuts.append((cut_from, sample.pairs_end) if kept is None else (kept, cut_to))
    return cuts
