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
from collections.abc import Callable
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
    rb"%(w)b(?:%(m)b(?:%(w)b\{%(w)b(?P<pairs>%(p)b)?+%(w)b\}%(w)b|%(g)b)"
    rb"|\{%(w)b%(s)b%(w)b(?:,%(w)b(?P<more>%(p)b)?+)?+%(w)b\}%(w)b)"
    rb"%(f)b(?:%(g)b%(f)b)?+(?:%(e)b)*+%(w)b"
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
# The shape nearly all samples have: no blanks but around the value, no escapes,
# no quoted names. It matches only whole lines that _SAMPLE matches too, with
# exactly one pair named `namespace`, whose raw value needs no unescaping.
_PLAIN_PAIR = rb'(?!namespace=)[a-zA-Z_][a-zA-Z0-9_]*+="[^"\\\n]*+"'
_PLAIN = re.compile(
    rb'(%(m)b\{(?:%(p)b,)*+namespace="([^"\\\n]*+)")((?:,%(p)b)*+\} %(f)b(?: [0-9]++)?+\n)'
    rb"|([^\n]*+\n)" % {b"m": _METRIC, b"p": _PLAIN_PAIR, b"f": _FLOAT}
)
_EACH_PAIR = re.compile(
    rb"(?P<name>[a-zA-Z_][a-zA-Z0-9_]*+|%(s)b)%(w)b=%(w)b(?P<value>%(s)b)"
    % {b"s": _STRING, b"w": _WS}
)
_ESCAPE = re.compile(rb'\\([\\"n])')
_UNESCAPED = {b"\\": b"\\", b'"': b'"', b"n": b"\n"}


class Enricher:
    """Puts labels on the samples of one exposition, as it streams through.

    `lookup` maps the value of a `namespace` label, unescaped, to the pairs to
    add: ready-made bytes such as `,team="a",tier="b"`, or `b""`. It is asked
    once per namespace (up to `MAX_NAMESPACES`), so an exposition shows one
    state of each namespace even if the labels change while it passes.

    However the input is cut into pieces, the joined output is the same; where
    nothing is added it is the input. Between calls at most one unfinished line
    is held, `max_line` bytes and one piece at most: what belongs to a longer
    line is passed on as it comes.

    `samples`, `enriched`, `unparsed` and `conflicts` count sample lines
    understood, samples that were changed, lines not understood (or longer than
    `max_line`), and labels that a sample bore already.
    """

    __slots__ = (
        "_lookup",
        "_max_line",
        "_names",
        "_overlong",
        "_overwrite",
        "_pairs",
        "_rendered",
        "_tail",
        "conflicts",
        "enriched",
        "samples",
        "unparsed",
    )

    def __init__(
        self,
        lookup: Callable[[bytes], bytes],
        *,
        on_conflict: OnConflict = "keep",
        max_line: int = MAX_LINE,
    ) -> None:
        self._lookup = lookup
        self._overwrite = on_conflict == "overwrite"
        self._max_line = max_line
        self._tail = b""  # the beginning of a line, without a newline
        self._overlong = False  # inside a line that is passed on unread
        self._rendered = {b"": b""}  # namespace -> what to add
        self._pairs: dict[bytes, dict[bytes, bytes]] = {}  # what to add -> name -> quoted value
        self._names: set[bytes] = set()  # all that may be added, each with its `="`
        self.samples = 0
        self.enriched = 0
        self.unparsed = 0
        self.conflicts = 0

    def __repr__(self) -> str:
        return (
            f"<Enricher {self.samples} samples, {self.enriched} enriched, "
            f"{self.unparsed} unparsed, {self.conflicts} conflicts>"
        )

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
        """The input is complete: return the rest, a line without a newline."""
        tail, self._tail = self._tail, b""
        self._overlong = False
        return self._line(tail) if tail else b""

    def _block(self, block: bytes) -> bytes:
        """Whole lines, each ending in a newline.

        The plain samples are put together without a further look if no name
        that may be added, followed by `="`, stands anywhere in the block: then
        none of its plain samples bears such a label. Every other line, and a
        block where one does stand, is taken line by line.
        """
        if len(self._rendered) > MAX_NAMESPACES:
            self._rendered = {b"": b""}
            self._pairs.clear()
        found = _PLAIN.findall(block)
        for namespace in {namespace for _, namespace, _, _ in found}:
            self._labels_of(namespace)
        longest = len(block) > self._max_line and max(map(len, block.split(b"\n")))
        if longest > self._max_line or any(name in block for name in self._names):
            lines = block.split(b"\n")
            return b"\n".join([*map(self._line, lines[:-1]), lines[-1]])
        rendered, line = self._rendered, self._line
        plain = [rendered[namespace] for head, namespace, _, _ in found if head]
        self.samples += len(plain)
        self.enriched += len(plain) - plain.count(b"")
        return b"".join(
            [
                head + rendered[namespace] + rest if head else line(other[:-1]) + b"\n"
                for head, namespace, rest, other in found
            ]
        )

    def _line(self, line: bytes) -> bytes:
        """One line without its newline, or the beginning of one that is too long."""
        overlong = len(line) > self._max_line
        sample = None if overlong else _SAMPLE.fullmatch(line)
        if sample is None:
            # How much of an overlong line is at hand depends on how it was cut.
            text = line[: self._max_line].lstrip(b" \t")
            if not text.startswith(b"#") and (text or overlong):
                self.unparsed += 1
            return line
        start, end = sample.span("pairs" if sample["pairs"] else "more")
        if start < 0 or b"namespace" not in line:
            self.samples += 1
            return line
        return self._enrich(line, start, end)

    def _enrich(self, line: bytes, start: int, end: int) -> bytes:
        """A sample whose pairs are `line[start:end]`."""
        namespace = None
        after = end
        borne: dict[bytes, list[tuple[int, int]]] = {}  # name -> where its values stand
        for pair in _EACH_PAIR.finditer(line, start, end):
            name = pair["name"]
            if name[0] == 0x22:
                name = _unquote(name)
            if name != b"namespace":
                borne.setdefault(name, []).append(pair.span("value"))
            elif namespace is None:
                namespace, after = _unquote(pair["value"]), pair.end()
            else:
                self.unparsed += 1  # two namespaces: whose sample it is cannot be known
                return line
        self.samples += 1
        rendered = self._labels_of(namespace or b"")
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
            self._names.update(name + b'="' for name in pairs)
        return rendered


def _unquote(string: bytes) -> bytes:
    """The text of a quoted string; a backslash before another byte stands for itself."""
    text = string[1:-1]
    if b"\\" in text:
        return _ESCAPE.sub(lambda escape: _UNESCAPED[escape[1]], text)
    return text
