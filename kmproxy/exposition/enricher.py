"""Adds namespace labels to the samples of an exposition.

Knows which labels the samples of a namespace get. Must not know HTTP, configuration, the time or
the source of the labels. A line that is neither a sample, a comment nor blank passes unchanged,
and is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from kmproxy.exposition.base_enricher import BaseEnricher, OnConflict
from kmproxy.exposition.errors import RepeatedLabelError, require_few_repeats
from kmproxy.exposition.finder import NAMESPACE, pairs_of_namespace, split_at
from kmproxy.exposition.grammar import bare_name, by_lines, pair_parts, unescape
from kmproxy.exposition.lines import MAX_LINE
from kmproxy.exposition.remembered import RememberedLabels
from kmproxy.exposition.splitter import PlainSplitter, plain_splitter

_Edit = Callable[
    [bytes, bytes, bytes, bytes, Mapping[bytes, bytes]], tuple[bytes, bytes, bytes]
]  # edits a sample: (head, value, rest, bytes to add, their pairs) -> new head, value, rest


class Enricher(BaseEnricher):
    """Adds labels to the samples of one exposition, as it streams through.

    `lookup` maps the value of a `namespace` label, unescaped, to the pairs to
    add: ready-made bytes such as `,team="a",tier="b"`, or `b""`. The enricher calls
    it once per namespace. So an exposition shows one state of each namespace, even
    if the labels change meanwhile. This holds for `MAX_REMEMBERED` bytes of
    namespaces, and for names that a namespace can have. For other names the
    enricher calls `lookup` again each time.

    `names` are labels that may be added. Other names are discovered on the way;
    each costs one more pass over a piece.

    The joined output does not depend on how the input is cut into pieces. Where
    nothing is added, the output is the input.

    `PlainSplitter` reads a block, at most twice. Then a fixed number of expressions
    read the lines that are not plain. Each expression is linear. Only a sample that
    already bears a label to be added is read by itself.
    """

    __slots__ = ("_overwrite", "_tagged")

    def __init__(
        self,
        lookup: Callable[[bytes], bytes],
        *,
        names: frozenset[bytes] = frozenset(),
        on_conflict: OnConflict = "keep",
        max_line: int = MAX_LINE,
    ) -> None:
        super().__init__(RememberedLabels(lookup, names | {b"namespace"}), max_line)
        self._overwrite = on_conflict == "overwrite"
        self._tagged: dict[bytes, bytes] = {}  # namespace -> its pair and the bytes to add

    def _block(self, block: bytes) -> bytes:
        """Enriches whole lines, each ending in a newline.

        A plain line costs one look-up of its namespace in a dictionary. Unless most
        of the block is plain, the whole block is read as lines of any shape.
        """
        if b'namespace="' not in block or (found := self._split(block)) is None:
            return self._between(block)
        parts, odd, counts = found
        tagged = self._tagged
        parts[2::3] = map(tagged.__getitem__, parts[2::3])
        for at in odd:
            parts[at], parts[at + 1] = self._between(parts[at]), b""
        self.samples += counts.total() - len(odd)
        for namespace, count in counts.items():
            if len(tagged[namespace]) > len(namespace) + len(b'namespace=""'):
                self.enriched += count
        for namespace in tagged.keys() - self._labels.rendered.keys():
            del tagged[namespace]
        return b"".join(parts)

    def _split(self, block: bytes) -> tuple[list[bytes], list[int], Counter[bytes]] | None:
        """Splits the block with `PlainSplitter`, and looks up each of its namespaces.

        A sample is not plain if it bears a label name that one of the namespaces
        adds. So the split is repeated when a look-up brings a new name. Returns None
        if the second split brings a new name too, or if the split finds too many
        lines that are not plain.
        """
        for _ in range(2):
            if (splitter := self._splitter()) is None:
                return None
            parts, odd = splitter.split(block)
            if len(odd) > 8 + len(block) // 512:
                return None
            counts = Counter(parts[2::3])
            for namespace in counts.keys() - self._tagged.keys():
                self._tagged[namespace] = _tag(namespace, self._labels.of(namespace))
            if self._searched == self._labels.names:
                return parts, odd, counts
        return None

    def _splitter(self) -> PlainSplitter | None:
        """Returns the splitter for the names known so far; None if they are or grow too many."""
        names = self._labels.names
        return plain_splitter(names) if self._search(names) else None

    def _between(self, text: bytes) -> bytes:
        """Enriches whole lines of any shape. Mostly they are passing lines and one odd line."""
        passed, at = [], 0
        for _ in range(2):
            end = NAMESPACE.passing.match(text, at).end()  # type: ignore[union-attr] # it may be empty
            run = text[at:end]
            self.samples += run.count(b"\n") - run.count(b"\n#") - run.startswith(b"#")
            passed.append(run)
            if end == len(text):
                return b"".join(passed)
            at = text.index(b"\n", end) + 1
            passed.append(self._one(text[end:at]))
            if at == len(text):
                return b"".join(passed)
        return b"".join([*passed, self._strict(text[at:])])

    def _one(self, line: bytes) -> bytes:
        """Enriches one whole line of any shape. Mostly it is the first of a run of plain lines."""
        if b"\\" not in line and (splitter := self._splitter()) is not None:
            found = splitter.of_namespace.match(by_lines(line))
            rendered = self._labels.rendered.get(found[3]) if found else None
            if found and rendered is not None:
                self.samples += 1
                self.enriched += rendered != b""
                return b'%b%b"%b%b\n' % (found[1][1:], found[3], rendered, found[4])
        return self._strict(line)

    def _strict(self, text: bytes) -> bytes:
        """Enriches whole lines of any shape.

        All samples that have a namespace and bear no label name to be added are
        handled together.
        """
        lines = by_lines(text)
        parts = [lines[:-1]]
        for _ in range(2 if b"namespace" in text else 0):
            if (splitter := self._splitter()) is None:
                break
            found = split_at(splitter.of_namespace, lines)
            counts = Counter(found[2::4])
            pasted = {value: value + b'"' + self._labels_at(value) for value in counts}
            if self._searched == self._labels.names:
                self.samples += counts.total()
                for value, count in counts.items():
                    self.enriched += count * (len(pasted[value]) > len(value) + 1)
                found[2::4] = map(pasted.__getitem__, found[2::4])
                found[-1] = found[-1][:-1]
                parts = found
                break
        others = b"".join([*parts[::4], b"\n"])
        if self._may_conflict(others) and NAMESPACE.any_spelling.search(others):
            parts[::4] = map(self._conflicts_in, parts[::4])
        else:
            self._count_lines(others)
        return b"".join([*parts, b"\n"])[1:]

    def _may_conflict(self, lines: bytes) -> bool:
        """Whether a sample among these lines may bear a label name that is added.

        With more than 8 names, or without a splitter, the lines are not searched: then
        the answer is True.
        """
        if len(self._labels.names) > 8 or self._splitter() is None:
            return True
        return any(name in lines for name in self._labels.names if name != b"namespace")

    def _conflicts_in(self, lines: bytes) -> bytes:
        """Enriches samples that may bear a label name to be added. A newline leads each line."""
        parts = self._usual_conflicts(lines)
        if len(parts) == 1:
            return self._other_conflicts(lines)
        between = b"".join([*parts[::7], b"\n"])
        if NAMESPACE.any_spelling.search(between):
            parts[::7] = map(self._other_conflicts, parts[::7])
        else:
            self._count_lines(between)
        return b"".join(parts)

    def _usual_conflicts(self, lines: bytes) -> list[bytes]:
        """Edits the plain lines that bear one label name to be added, behind their namespace.

        A newline leads each line. Returns the text split at these plain lines. The parts
        between them are still to be handled. All lines with the same namespace and the
        same name are edited alike.
        """
        if (splitter := self._splitter()) is None:
            return [lines]
        parts = splitter.conflicting.split(lines + b"\n")
        kinds = list(zip(parts[2::7], parts[4::7], strict=True))
        edits: dict[tuple[bytes, bytes], tuple[bytes, bytes | None]] = {}
        conflicts = enriched = 0
        for kind, count in Counter(kinds).items():
            value, name = kind[0], kind[1][: -len(b'="')]
            rendered = self._labels.of(value)
            pairs = self._labels.pairs(rendered)
            new = None
            if name in pairs:
                conflicts += count
                rendered = b"".join([b",%b=%b" % pair for pair in pairs.items() if pair[0] != name])
                new = pairs[name][1:-1] if self._overwrite else None
            enriched += count * (rendered != b"" or new is not None)
            # The pairs to add begin behind a quote. The quote of the last one is there already.
            edits[kind] = b'%b"%b' % (value, rendered[:-1]) if rendered else value, new
        if self._searched != self._labels.names:
            return [lines]
        self.samples += len(kinds)
        self.conflicts += conflicts
        self.enriched += enriched
        parts[2::7] = [edits[kind][0] for kind in kinds]
        if self._overwrite:
            values = zip(kinds, parts[5::7], strict=True)
            parts[5::7] = [old if (new := edits[kind][1]) is None else new for kind, old in values]
        parts[-1] = parts[-1][:-1]
        return parts

    def _other_conflicts(self, lines: bytes) -> bytes:
        """Edits conflicting samples with other bytes, in another order or with more such names."""
        if len(self._labels.names) == 2 and not self._overwrite:
            parts = split_at(NAMESPACE.any_spelling, lines + b"\n")
            counts = Counter(parts[2::4])
            known = {value: self._labels_at(value) for value in counts}
            if len(self._labels.names) == 2:  # at most one name is added, and each sample bears it
                self.samples += counts.total()
                self.conflicts += sum(count for value, count in counts.items() if known[value])
                parts[2::4] = [value + b'"' for value in parts[2::4]]
                parts[-1] = parts[-1][:-1]
                self._count_lines(b"".join([*parts[::4], b"\n"]))
                return b"".join(parts)
        parts = self._one_by_one(NAMESPACE.plain.split(lines + b"\n"), self._plain_conflict)
        between = b"".join([*parts[::4], b"\n"])
        if NAMESPACE.any_spelling.search(between):
            parts[::4] = map(self._odd_conflicts, parts[::4])
        else:
            self._count_lines(between)
        return b"".join(parts)

    def _odd_conflicts(self, lines: bytes) -> bytes:
        """Edits conflicting samples that are not plain."""
        parts = self._one_by_one(split_at(NAMESPACE.any_spelling, lines + b"\n"), self._conflict)
        self._count_lines(b"".join([*parts[::4], b"\n"]))
        return b"".join(parts)

    def _one_by_one(self, parts: list[bytes], edit: _Edit) -> list[bytes]:
        """Edits each of the samples at which lines, led by newlines, are split into `parts`."""
        adds: dict[bytes, tuple[bytes, dict[bytes, bytes]]] = {}  # by value of namespace
        for value in parts[2::4]:
            if value not in adds:
                rendered = self._labels_at(value)
                adds[value] = rendered, self._labels.pairs(rendered)
        self.samples += len(parts) // 4
        for at in range(1, len(parts), 4):
            head, value, rest = parts[at : at + 3]
            try:
                parts[at : at + 3] = edit(head, value, rest, *adds[value])
            except RepeatedLabelError as error:
                raise error.of(b'%b%b"%b' % (head[1:], value, rest)) from None
        parts[-1] = parts[-1][:-1]
        return parts

    def _plain_conflict(
        self, head: bytes, value: bytes, rest: bytes, _: bytes, pairs: Mapping[bytes, bytes]
    ) -> tuple[bytes, bytes, bytes]:
        """Edits a sample, split as a plain line, that may bear a label name to be added.

        The sample has no escapes, so every quote begins or ends a value. A split at
        the quotes gives names and values in turn. Each name stands between its comma or
        brace and its `=`.
        """
        pieces = (b'%b%b"%b' % (head, value, rest)).split(b'"')
        names = [piece[1:-1] for piece in pieces[2:-1:2]]
        names.insert(0, pieces[0][pieces[0].index(b"{") + 1 : -1])
        conflicts = pairs.keys() & names
        added = [b'",%b=%b' % (name, pairs[name][:-1]) for name in pairs if name not in conflicts]
        self.conflicts += len(conflicts)
        self.enriched += bool(added or (conflicts and self._overwrite))
        pieces[2 * names.index(b"namespace") + 1] += b"".join(added)
        if self._overwrite and conflicts:
            require_few_repeats(names, conflicts)
            for at, name in enumerate(names):
                if name in conflicts:
                    pieces[2 * at + 1] = pairs[name][1:-1]
        return b'"'.join(pieces), b"", b""

    def _labels_at(self, value: bytes) -> bytes:
        """Returns the bytes to add for the value of a namespace, as a sample writes it."""
        return self._labels.of(unescape(value))

    def _conflict(
        self, head: bytes, value: bytes, rest: bytes, rendered: bytes, pairs: Mapping[bytes, bytes]
    ) -> tuple[bytes, bytes, bytes]:
        """Edits a sample of any spelling that may bear a label name to be added."""
        start, end = pairs_of_namespace(head, rest)
        before, behind = pair_parts(head[start:]), pair_parts(rest[:end])
        names = [bare_name(name) for name in before[1::4] + behind[1::4]]
        conflicts = pairs.keys() & names
        if not conflicts:
            self.enriched += rendered != b""
            return head, b'%b"%b' % (value, rendered), rest
        if self._overwrite:
            require_few_repeats(names, conflicts)
        self.conflicts += len(conflicts)
        added = b""
        if len(conflicts) < len(pairs):
            left = [name for name in pairs if name not in conflicts]
            added = b"".join([b",%b=%b" % (name, pairs[name]) for name in left])
        self.enriched += self._overwrite or added != b""
        if self._overwrite:
            head = head[:start] + _overwritten(before, pairs)
            rest = _overwritten(behind, pairs) + rest[end:]
        return head, b'%b"%b' % (value, added), rest


def _overwritten(parts: list[bytes], pairs: Mapping[bytes, bytes]) -> bytes:
    """Joins the pairs of a sample, split by `pair_parts`, with the values of `pairs` put in."""
    for at in range(1, len(parts), 4):
        if value := pairs.get(bare_name(parts[at])):
            parts[at + 2] = value
    return b"".join(parts)


def _tag(namespace: bytes, rendered: bytes) -> bytes:
    return b'namespace="%b"%b' % (namespace, rendered)
