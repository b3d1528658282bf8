"""The grammar of sample lines, and what can be told of one.

Knows the Prometheus text format (0.0.4 and 1.0.0, with quoted UTF-8 names) and
the sample lines of OpenMetrics 1.0. Must not know what is done with them.

What counts as understood is one whole sample line of the grammar below; where
the published grammar and the parser of the Prometheus server differ, a line is
understood only if the server takes it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

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
# One pair of a list of pairs, or of what is to be added.
PAIR = re.compile(
    rb"(?P<name>[a-zA-Z_][a-zA-Z0-9_]*+|%(s)b)%(w)b=%(w)b(?P<value>%(s)b)"
    % {b"s": _STRING, b"w": _WS}
)
# Lines that pass as they are: comments, and samples without a namespace that have no blanks but
# before the value and the timestamp, no escapes and no quoted names.
_NAME = rb"[a-zA-Z_][a-zA-Z0-9_]*+"
PASSING = re.compile(
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


NAMESPACED = _plain(frozenset({b"namespace"}), _CAREFUL)


def split_plain(block: bytes, names: frozenset[bytes]) -> list[bytes]:
    """Split whole lines by those of the plain shape: between, head, namespace, rest, and so on.

    A plain line is `head`, the raw value of its only `namespace` pair, a quote,
    and `rest`; it bears none of `names`, and _SAMPLE matches it. `between` holds
    whole lines of any other kind, or nothing.

    The hasty expression is exact under two conditions, and these are tested:
    the block holds no backslash, and no match more than one newline. Each match
    ends in one, so the second holds if there are just as many newlines as
    matches and lines between them.
    """
    if b"\\" not in block:
        parts = _plain(names, _HASTY).split(block)
        between = sum([text.count(b"\n") for text in parts[::4] if text])
        if len(parts) // 4 + between == block.count(b"\n"):
            return parts
    return _plain(names, _CAREFUL).split(block)


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
        for pair in PAIR.finditer(self._line, *self.pairs):
            name = pair["name"]
            yield (unquote(name) if name[0] == 0x22 else name), pair


def unquote(string: bytes) -> bytes:
    """The text of a quoted string; a backslash before another byte stands for itself."""
    text = string[1:-1]
    if b"\\" in text:
        return _ESCAPE.sub(lambda escape: _UNESCAPED[escape[1]], text)
    return text
