"""The exposition format: bytes in, the same bytes with namespace labels out.

Knows the Prometheus text format (0.0.4 and 1.0.0, with quoted UTF-8 names) and
the sample lines of OpenMetrics 1.0. Must not know HTTP, configuration, the time
or where labels come from.

What counts as understood is one whole sample line of the grammar below; where
the published grammar and the parser of the Prometheus server differ, a line is
understood only if the server takes it too. A line that is neither a sample, a
comment nor blank passes as it came, and is counted.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Literal

OnConflict = Literal["keep", "overwrite"]

MAX_LINE = 1 << 20
"""Bytes of the longest line that is looked into, its newline not counted."""

MAX_NAMESPACES = 1 << 16
"""Look-ups remembered at most: far over what a node runs, a bound on what a payload can cost."""

# Every repetition is possessive or bounded by a byte that it cannot take
# itself, so matching is linear in the length of the line.
_WS = rb"[ \t]*+"
_GAP = rb"[ \t]++"
_METRIC = rb"[a-zA-Z_:][a-zA-Z0-9_:]*+"
_STRING = rb'"(?:[^"\\\n]|\\[^\n])*+"'
_PAIR = rb"(?:[a-zA-Z_][a-zA-Z0-9_]*+|%(s)b)%(w)b=%(w)b%(s)b" % {b"s": _STRING, b"w": _WS}
_PAIRS = rb"%(p)b(?:%(w)b,%(w)b%(p)b)*+(?:%(w)b,)?+" % {b"p": _PAIR, b"w": _WS}
# strconv.ParseFloat without hexadecimal and underscores, as the server calls it.
_FLOAT = (
    rb"(?:[+-]?+(?:[0-9]++\.?+[0-9]*+|\.[0-9]++)(?:[eE][+-]?+[0-9]++)?+"
    rb"|[+-]?+[iI][nN][fF](?:[iI][nN][iI][tT][yY])?+|[nN][aA][nN])"
)
_EXEMPLAR = rb"%(g)b\#%(w)b\{%(w)b(?:%(p)b)?+%(w)b\}%(w)b%(f)b(?:%(g)b%(f)b)?+" % {
    b"g": _GAP,
    b"w": _WS,
    b"p": _PAIRS,
    b"f": _FLOAT,
}
_SAMPLE = re.compile(
    rb"%(w)b(?:(?P<name>%(m)b)(?:%(w)b\{%(w)b(?P<pairs>%(p)b)?+%(w)b\}%(w)b|%(g)b)"
    rb"|\{%(w)b(?P<quoted>%(s)b)%(w)b(?:,%(w)b(?P<more>%(p)b)?+)?+%(w)b\}%(w)b)"
    rb"%(f)b(?P<stamp>%(g)b%(f)b)?+(?:%(e)b)*+%(w)b"
    % {
        b"w": _WS,
        b"m": _METRIC,
        b"p": _PAIRS,
        b"g": _GAP,
        b"s": _STRING,
        b"f": _FLOAT,
        b"e": _EXEMPLAR,
    }
)
_EACH_PAIR = re.compile(
    rb"(?P<name>[a-zA-Z_][a-zA-Z0-9_]*+|%(s)b)%(w)b=%(w)b(?P<value>%(s)b)"
    % {b"s": _STRING, b"w": _WS}
)
# Lines that pass as they are: comments, and samples without a namespace that have no blanks but
# before the value and the timestamp, no escapes and no quoted names.
_NAME = rb"[a-zA-Z_][a-zA-Z0-9_]*+"
_RUN = re.compile(
    rb"(?:%(m)b(?:\{(?:%(p)b(?:,%(p)b)*+,?+)?+\})?+ %(f)b(?: [0-9]++)?+\n|\#[^\n]*+\n)*+"
    % {b"m": _METRIC, b"p": rb'(?!namespace=)%b="[^"\\\n]*+"' % _NAME, b"f": _FLOAT}
)
_ESCAPE = re.compile(rb'\\([\\"n])')
_UNESCAPED = {b"\\": b"\\", b'"': b'"', b"n": b"\n"}


@lru_cache(maxsize=256)
def _plain(borne: frozenset[bytes], value: bytes) -> re.Pattern[bytes]:
    """A line in the shape that nearly all samples with a namespace have.

    No blanks but before the value and the timestamp, no quoted names, one pair
    named `namespace`, none named as one of `borne`. The groups are what stands
    before the namespace's value, the value, and the rest with the newline. With
    `_CAREFUL` for the value of a label, whatever matches is a line that _SAMPLE
    matches too. With `_HASTY`, which is twice as fast, that is so if
    the match has no backslash and its only newline is the last byte: then no
    value holds either, and each is a whole quoted string.
    """
    pair = rb'(?!(?:%b)=)%b="%b"' % (b"|".join(map(re.escape, sorted(borne))), _NAME, value)
    return re.compile(
        rb'^(%(m)b\{(?:%(p)b,)*+namespace=")(%(v)b)"((?:,%(p)b)*+\} %(f)b(?: [0-9]++)?+\n)'
        % {b"m": _METRIC, b"p": pair, b"v": value, b"f": _FLOAT},
        re.MULTILINE,
    )


_HASTY = rb'[^"]*+'
_CAREFUL = rb'[^"\\\n]*+'


class Sample:
    """A sample line that was understood: its name, its pairs, its timestamp.

    `name` is the metric's, unquoted. `pairs` is the span of its pairs in the
    line, empty where it has none; `stamp` that of its timestamp and the blanks
    before it, None where it has none.
    """

    __slots__ = ("_line", "name", "pairs", "stamp")

    def __init__(self, match: re.Match[bytes]) -> None:
        self._line = match.string
        quoted = match["quoted"]
        self.name: bytes = match["name"] if quoted is None else unquote(quoted)
        start, end = match.span("pairs" if quoted is None else "more")
        self.pairs = (start, end) if start >= 0 else (0, 0)
        self.stamp = match.span("stamp") if match["stamp"] else None

    @classmethod
    def parse(cls, line: bytes) -> Sample | None:
        """Read a line without its newline; None if it is no sample."""
        match = _SAMPLE.fullmatch(line)
        return cls(match) if match else None

    def labels(self) -> Iterator[tuple[bytes, re.Match[bytes]]]:
        """Each pair's unquoted name, and its match with the groups `name` and `value`."""
        for pair in _EACH_PAIR.finditer(self._line, *self.pairs):
            name = pair["name"]
            yield (unquote(name) if name[0] == 0x22 else name), pair


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
        lines = self._block(self._tail + data[:end]) if end else b""
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

    However the input is cut into pieces, the joined output is the same; where
    nothing is added it is the input.

    `samples`, `enriched`, `unparsed` and `conflicts` count sample lines
    understood, samples that were changed, lines not understood (or longer than
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
        on_conflict: OnConflict = "keep",
        max_line: int = MAX_LINE,
    ) -> None:
        super().__init__(max_line)
        self._lookup = lookup
        self._overwrite = on_conflict == "overwrite"
        self._rendered = {b"": b""}  # namespace -> what to add
        self._pairs: dict[bytes, dict[bytes, bytes]] = {}  # what to add -> name -> quoted value
        self._names = frozenset({b"namespace"})  # with all that may be added
        self._tagged = {b"": b'"'}  # namespace -> itself with its closing quote and what to add
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

        The block is split by the lines of the plain shape, which need no look
        at each but one in a dictionary; what stands between them is taken as
        whole lines of its own.
        """
        if len(self._rendered) > MAX_NAMESPACES:
            self._rendered, self._tagged = {b"": b""}, {b"": b'"'}
            self._pairs.clear()
            self.seen.clear()
        if len(block) > self._max_line and max(map(len, block.split(b"\n"))) > self._max_line:
            return b"".join([self._line(line) + b"\n" for line in block.split(b"\n")[:-1]])
        if b'namespace="' not in block:
            return self._between(block)
        parts = self._split(block, _HASTY) if b"\\" not in block else None
        if parts is None or _newlines(parts) != block.count(b"\n"):
            parts = self._split(block, _CAREFUL)
        namespaces = parts[2::4]
        parts[2::4] = map(self._tagged.__getitem__, namespaces)
        between = parts[::4]
        parts[::4] = [text and self._between(text) for text in between]
        self.samples += len(namespaces)
        self.enriched += len(namespaces)
        for namespace in set(namespaces):
            self.seen[namespace] = rendered = self._rendered[namespace]
            if not rendered:
                self.enriched -= namespaces.count(namespace)
        return b"".join(parts)

    def _split(self, block: bytes, value: bytes) -> list[bytes]:
        """The block as: between, head, namespace, rest, between, and so on.

        A sample that bears a name which one of the namespaces adds is not
        plain, so the split is done again when a look-up brings a new name.
        """
        while True:
            names = self._names
            parts = _plain(names, value).split(block)
            for namespace in set(parts[2::4]).difference(self._tagged):
                self._tagged[namespace] = namespace + b'"' + self._labels_of(namespace)
            if names == self._names:
                return parts

    def _between(self, text: bytes) -> bytes:
        """Whole lines that are not of the plain shape."""
        lines = []
        at = 0
        while at < len(text):
            if (match := _RUN.match(text, at)) is not None and match[0]:
                run, at = match[0], match.end()
                comments = run.count(b"\n#") + run.startswith(b"#")
                self.samples += run.count(b"\n") - comments
                lines.append(run)
            if at < len(text):
                end = text.index(b"\n", at)
                lines.append(self._line(text[at:end]) + b"\n")
                at = end + 1
        return b"".join(lines)

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
            pairs = {pair["name"]: pair["value"] for pair in _EACH_PAIR.finditer(rendered)}
            self._pairs[rendered] = pairs
            self._names = self._names.union(pairs)
        return rendered


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
            b",label_%b=%b" % pair.group("name", "value")
            for pair in _EACH_PAIR.finditer(seen[namespace])
        ]
        lines.append(b'kube_namespace_labels{namespace="%b"%b} 1' % (value, b"".join(pairs)))
    return b"\n".join(lines) + b"\n"


def _newlines(parts: list[bytes]) -> int:
    """Newlines in the parts of a split block if its plain lines are lines."""
    return len(parts) // 4 + sum([text.count(b"\n") for text in parts[::4] if text])


def unquote(string: bytes) -> bytes:
    """The text of a quoted string; a backslash before another byte stands for itself."""
    text = string[1:-1]
    if b"\\" in text:
        return _ESCAPE.sub(lambda escape: _UNESCAPED[escape[1]], text)
    return text
