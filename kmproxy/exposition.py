"""The exposition format: bytes in, the same bytes with namespace labels out.

Knows how a stream falls into lines, and what the samples of a namespace get.
Must not know HTTP, configuration, the time or where labels come from. A line
that is neither a sample, a comment nor blank passes as it came, and is counted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal

from kmproxy.grammar import NAMESPACED, PAIR, PASSING, Sample, plain_splitter, unquote

OnConflict = Literal["keep", "overwrite"]

MAX_LINE = 1 << 20
"""Bytes of the longest line that is looked into, its newline not counted."""

MAX_NAMESPACES = 1 << 16
"""Look-ups remembered at most: far over what a node runs, a bound on what a payload can cost."""


class LineFilter(ABC):
    """Takes an exposition in pieces of any size and works on its lines.

    Between calls at most one unfinished line is held, `max_line` bytes and one
    piece at most: what belongs to a longer line is passed on as it comes.
    """

    __slots__ = ("_max_line", "_overlong", "_tail")

    def __init__(self, max_line: int) -> None:
        self._max_line = max_line
        self._tail = b""  # the beginning of a line, without a newline
        self._overlong = False  # inside a line that is passed on unread

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; return what can be passed on already."""
        if self._overlong:
            end = data.find(b"\n") + 1
            if not end:
                return data
            self._overlong = False
            return data[:end] + self.feed(data[end:])
        end = data.rfind(b"\n") + 1
        lines = self._block(self._tail + memoryview(data)[:end]) if end else b""
        self._tail = data[end:] if end else self._tail + data
        if len(self._tail) > self._max_line:
            lines, self._tail = lines + self._line(self._tail), b""
            self._overlong = True
        return lines

    def finish(self) -> bytes:
        """The input is complete: return the rest, which may be a line without a newline."""
        tail, self._tail = self._tail, b""
        self._overlong = False
        return self._line(tail) if tail else b""

    def _has_overlong(self, block: bytes) -> bool:
        limit = self._max_line
        return len(block) > limit and max(map(len, block.split(b"\n"))) > limit

    @abstractmethod
    def _block(self, block: bytes) -> bytes:
        """Whole lines, each ending in a newline."""

    @abstractmethod
    def _line(self, line: bytes) -> bytes:
        """One line without its newline, or the beginning of one that is too long."""


class Enricher(LineFilter):
    """Puts labels on the samples of one exposition, as it streams through.

    `lookup` maps the value of a `namespace` label, unescaped, to the pairs to
    add: ready-made bytes such as `,team="a",tier="b"`, or `b""`. It is asked
    once per namespace (up to `MAX_NAMESPACES`), so an exposition shows one
    state of each namespace even if the labels change while it passes.

    `names` are labels that may be added: others are found out, each at the cost
    of going over a piece once more.

    However the input is cut into pieces, the joined output is the same; where
    nothing is added it is the input.

    `samples`, `enriched`, `unparsed` and `conflicts` count sample lines
    understood, samples that got a label or a new value, lines not understood (or longer than
    `max_line`), and labels that a sample bore already. `seen` holds the
    namespaces of the samples, unescaped, with what each adds.
    """

    __slots__ = (
        "_lookup",
        "_names",
        "_overwrite",
        "_pairs",
        "_rendered",
        "_tagged",
        "conflicts",
        "enriched",
        "samples",
        "seen",
        "unparsed",
    )

    def __init__(
        self,
        lookup: Callable[[bytes], bytes],
        *,
        names: frozenset[bytes] = frozenset(),
        on_conflict: OnConflict = "keep",
        max_line: int = MAX_LINE,
    ) -> None:
        super().__init__(max_line)
        self._lookup = lookup
        self._overwrite = on_conflict == "overwrite"
        self._rendered = {b"": b""}  # namespace -> what to add
        self._pairs: dict[bytes, dict[bytes, bytes]] = {}  # what to add -> name -> quoted value
        self._names = names | {b"namespace"}  # with all that may be added
        self._tagged = {b"": _tag(b"", b"")}  # namespace -> its pair and what to add
        self.samples = 0
        self.enriched = 0
        self.unparsed = 0
        self.conflicts = 0
        self.seen: dict[bytes, bytes] = {}

    def __repr__(self) -> str:
        return (
            f"<Enricher {self.samples} samples, {self.enriched} enriched, "
            f"{self.unparsed} unparsed, {self.conflicts} conflicts>"
        )

    def _block(self, block: bytes) -> bytes:
        """Whole lines, each ending in a newline.

        Of the plain ones, each costs a look in a dictionary for its namespace;
        the others are taken one by one.
        """
        if len(self._rendered) > MAX_NAMESPACES:
            self._rendered, self._tagged = {b"": b""}, {b"": _tag(b"", b"")}
            self._pairs.clear()
            self.seen.clear()
        if self._has_overlong(block):
            return b"".join([self._line(line) + b"\n" for line in block.split(b"\n")[:-1]])
        if b'namespace="' not in block:
            return self._between(block)
        parts, odd, counts = self._split(block)
        parts[2::3] = map(self._tagged.__getitem__, parts[2::3])
        for at in odd:
            parts[at], parts[at + 1] = self._between(parts[at]), b""
        self.samples += counts.total() - len(odd)
        for namespace, count in counts.items():
            rendered = self._rendered[namespace]
            if rendered:
                self.enriched += count
            if namespace:
                self.seen[namespace] = rendered
        return b"".join(parts)

    def _split(self, block: bytes) -> tuple[list[bytes], list[int], Counter[bytes]]:
        """The block split by `PlainSplitter`, with its namespaces, each of which was looked up.

        A sample that bears a name which one of the namespaces adds is not
        plain, so the split is done again when a look-up brings a new name.
        """
        while True:
            names = self._names
            parts, odd = plain_splitter(names).split(block)
            counts = Counter(parts[2::3])
            for namespace in counts.keys() - self._tagged.keys():
                self._tagged[namespace] = _tag(namespace, self._labels_of(namespace))
            if names == self._names:
                return parts, odd, counts

    def _between(self, text: bytes) -> bytes:
        """Whole lines that are not of the plain shape."""
        lines = []
        at = 0
        while at < len(text):
            if (match := PASSING.match(text, at)) is not None and match[0]:
                run, at = match[0], match.end()
                comments = run.count(b"\n#") + run.startswith(b"#")
                self.samples += run.count(b"\n") - comments
                lines.append(run)
            if at < len(text):
                end = text.index(b"\n", at) + 1
                plain = NAMESPACED.match(text, at, end)
                if plain is not None:
                    lines.append(self._conflict(*plain.groups()))
                else:
                    lines.append(self._line(text[at : end - 1]) + b"\n")
                at = end
        return b"".join(lines)

    def _conflict(self, head: bytes, namespace: bytes, rest: bytes) -> bytes:
        """A plain line that bears a name which one of the namespaces adds, perhaps its own.

        Without escapes every quote begins or ends a value, so that splitting by
        them gives the names, each between its comma or brace and its `=`, and
        the values in turn.
        """
        pieces = (head + namespace + b'"' + rest).split(b'"')
        names = [piece[1:-1] for piece in pieces[2:-1:2]]
        names.insert(0, pieces[0][pieces[0].index(b"{") + 1 : -1])
        pairs = self._pairs[self._labels_of(namespace)]
        conflicts = pairs.keys() & set(names)
        added = [b'",%b=%b' % (name, pairs[name][:-1]) for name in pairs if name not in conflicts]
        if namespace:
            self.seen[namespace] = self._rendered[namespace]
        self.samples += 1
        self.conflicts += len(conflicts)
        self.enriched += bool(added or (conflicts and self._overwrite))
        pieces[2 * names.index(b"namespace") + 1] += b"".join(added)
        if self._overwrite:
            for at, name in enumerate(names):
                if name in conflicts:
                    pieces[2 * at + 1] = pairs[name][1:-1]
        return b'"'.join(pieces)

    def _line(self, line: bytes) -> bytes:
        overlong = len(line) > self._max_line
        sample = None if overlong else Sample.parse(line)
        if sample is None:
            # How much of an overlong line is at hand depends on how it was cut.
            text = line[: self._max_line].lstrip(b" \t")
            if not text.startswith(b"#") and (text or overlong):
                self.unparsed += 1
            return line
        if b"namespace" not in line:
            self.samples += 1
            return line
        return self._enrich(line, sample)

    def _enrich(self, line: bytes, sample: Sample) -> bytes:
        """A sample that may have a namespace."""
        namespace, after = None, 0
        borne: dict[bytes, list[tuple[int, int]]] = {}  # name -> where its values stand
        for name, pair in sample.labels():
            if name != b"namespace":
                borne.setdefault(name, []).append(pair.span("value"))
            elif namespace is None:
                namespace, after = unquote(pair["value"]), pair.end()
            else:
                self.unparsed += 1  # two namespaces: whose sample it is cannot be known
                return line
        self.samples += 1
        if not namespace:
            return line
        self.seen[namespace] = rendered = self._labels_of(namespace)
        pairs = self._pairs[rendered]
        conflicts = pairs.keys() & borne.keys()
        if not conflicts:
            self.enriched += rendered != b""
            return line[:after] + rendered + line[after:]
        self.conflicts += len(conflicts)
        added = [b",%b=%b" % pair for pair in pairs.items() if pair[0] not in conflicts]
        edits = [(after, after, b"".join(added))]
        if self._overwrite:
            edits += [(*span, pairs[name]) for name in conflicts for span in borne[name]]
        self.enriched += self._overwrite or added != []
        for begin, stop, text in sorted(edits, reverse=True):
            line = line[:begin] + text + line[stop:]
        return line

    def _labels_of(self, namespace: bytes) -> bytes:
        """What to add to the samples of a namespace, looked up once."""
        rendered = self._rendered.get(namespace)
        if rendered is None:
            rendered = self._rendered[namespace] = self._lookup(namespace)
        if rendered not in self._pairs:
            pairs = {pair["name"]: pair["value"] for pair in PAIR.finditer(rendered)}
            self._pairs[rendered] = pairs
            self._names = self._names.union(pairs)
        return rendered


def _tag(namespace: bytes, rendered: bytes) -> bytes:
    return b'namespace="%b"%b' % (namespace, rendered)


def info_metric(seen: Mapping[bytes, bytes]) -> bytes:
    """A family with a sample per namespace, spelled as kube-state-metrics does.

    `seen` maps namespaces to what is added to their samples, as
    `Enricher.seen` does; each name becomes `label_` and the name.
    """
    lines = [
        b"# HELP kube_namespace_labels Kubernetes labels converted to Prometheus labels.",
        b"# TYPE kube_namespace_labels gauge",
    ]
    for namespace in sorted(seen):
        value = namespace.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
        pairs = [
            b",label_%b=%b" % pair.group("name", "value") for pair in PAIR.finditer(seen[namespace])
        ]
        lines.append(b'kube_namespace_labels{namespace="%b"%b} 1' % (value, b"".join(pairs)))
    return b"\n".join(lines) + b"\n"
