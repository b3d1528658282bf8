"""The grammar of sample lines, and the parts of a sample.

Knows the Prometheus text format (0.0.4 and 1.0.0, with quoted UTF-8 names) and
the sample lines of OpenMetrics 1.0. Must not know what is done with samples.

A metric's name stands before the braces, or quoted between the pairs in the
braces: first, last or anywhere, once. A comma or `}` follows it. A comma may
follow a pair. No comma stands alone.

A line is understood if it is one whole sample line of the grammar below. Where
the published grammar and the parser of the Prometheus server differ, a line is
understood only if the server accepts it too. The exceptions fail a scrape as a
whole: a label twice, bytes that are not UTF-8, an empty name, a number out of
range, and a timestamp or exemplar of OpenMetrics between blanks that only the
text format allows. Of the lines that the server takes, one kind is not
understood: a number right behind a name, such as `m+1`.
tests/e2e/test_server_parser.py holds both lists to the server's parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

# Every repetition is possessive or bounded by a byte that it cannot take
# itself, so one attempt is linear in the length of the line. Alternatives begin
# with different bytes, or read a number again: that is a factor, not a power.
#
# A search is linear if its attempts read disjoint text, up to a factor. Where
# this needs a proof, the proof stands at the expression.
_WS = rb"[ \t]*+"
_GAP = rb"[ \t]++"
METRIC = rb"[a-zA-Z_:][a-zA-Z0-9_:]*+"
_TEXT = rb'[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+'
_STRING = b'"' + _TEXT + b'"'
_PAIR = rb"(?:[a-zA-Z_][a-zA-Z0-9_]*+|%(s)b)%(w)b=%(w)b%(s)b" % {b"s": _STRING, b"w": _WS}
_COMMA = rb"(?:,%(w)b|%(g)b(?:,%(w)b)?+|)" % {b"g": _GAP, b"w": _WS}  # the comma may be absent
_PAIRS = rb"%(p)b(?:%(w)b,%(w)b%(p)b)*+(?:%(w)b,)?+" % {b"p": _PAIR, b"w": _WS}  # OpenMetrics


def list_of(pair: bytes) -> bytes:
    """Returns an expression for the pairs in braces, possibly none, each with its separator."""
    return rb"(?:%(p)b%(c)b)*+" % {b"p": pair, b"c": _COMMA}


# A number as the server reads it: strconv.ParseFloat without hexadecimal and underscores.
NUMBER = (
    rb"(?:[+-]?+(?:[0-9]++\.?+[0-9]*+(?:[eE][+-]?+[0-9]++)?+|\.[0-9]++(?:[eE][+-]?+[0-9]++)?+"
    rb"|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?+)|[nN][aA][nN])"
)
_EXEMPLAR = rb"%(g)b\#%(w)b\{%(w)b(?:%(p)b)?+%(w)b\}%(w)b%(f)b(?:%(g)b%(f)b)?+" % {
    b"g": _GAP,
    b"w": _WS,
    b"p": _PAIRS,
    b"f": NUMBER,
}
PARTS = {
    b"w": _WS,
    b"p": _PAIR,
    b"m": METRIC,
    b"l": list_of(_PAIR),
    b"c": _COMMA,
    b"g": _GAP,
    b"s": _STRING,
    b"t": _TEXT,
    b"f": NUMBER,
    b"e": _EXEMPLAR,
}
"""The parts of which expressions for lines are made, each linear by itself."""
SAMPLE = (
    rb"%(w)b(?:(?P<name>%(m)b)(?:%(w)b\{%(w)b(?P<pairs>%(l)b)\}%(w)b|%(g)b)"
    rb"|\{%(w)b(?P<front>%(l)b)(?P<quoted>%(s)b)%(w)b(?:,%(w)b(?P<more>%(l)b))?+\}%(w)b)"
    rb"%(f)b(?P<stamp>%(g)b%(f)b)?+(?:%(e)b)*+%(w)b" % PARTS
)
"""Expression for a sample line."""

_SAMPLE = re.compile(SAMPLE)
# One pair, of a list of pairs that was understood or of the bytes to be added.
PAIR = re.compile(
    rb"(?P<name>[a-zA-Z_][a-zA-Z0-9_]*+|%(s)b)%(w)b=%(w)b(?P<value>%(s)b)"
    % {b"s": _STRING, b"w": _WS}
)
# For the text in the braces of a line that was understood. It matches one pair after the other,
# and the metric's name. It splits the text: the text between, then name, equals sign and value,
# repeatedly. For the metric's name, equals sign and value are empty.
_PAIR_PARTS = re.compile(
    rb"([a-zA-Z_][a-zA-Z0-9_]*+(?=%(w)b=)|%(s)b)(%(w)b=%(w)b|)(%(s)b|)" % PARTS
)


def pair_parts(pairs: bytes) -> list[bytes]:
    """Splits the text in braces: other text, then name, equals sign and value, repeatedly.

    The parts joined are the text. The value of the last pair may be cut off.
    """
    parts = _PAIR_PARTS.split(pairs)
    if b"" in parts[2::4]:  # the metric's name
        at = 4 * parts[2::4].index(b"")
        parts[at : at + 5] = [b"".join(parts[at : at + 5])]
    return parts


def named_pairs(pairs: bytes) -> Iterator[re.Match[bytes]]:
    """Yields a match for each pair in the text in braces: group 1 is its name, 3 its value."""
    return (found for found in _PAIR_PARTS.finditer(pairs) if found[3])


PLAIN_TEXT = rb"[\]-\xff\#-\[\x0b-!\x00-\t]*+"
"""Expression for the text of a value without a quote, backslash or newline. It is fast: a set of
bytes is faster than its complement, and frequent bytes come first."""

WORD = rb"[a-zA-Z_][a-zA-Z0-9_]*+"
"""Expression for a label name."""


def plain_pair(borne: AbstractSet[bytes] = frozenset()) -> bytes:
    """Returns an expression for a pair of a plain line whose name is not in `borne`."""
    others = rb"(?!(?:%b)=)" % b"|".join(map(re.escape, sorted(borne))) if borne else b""
    return rb'%b%b="%b"' % (others, WORD, PLAIN_TEXT)


def by_lines(text: bytes) -> bytes:
    """Returns whole lines, each led by its newline instead of ended by it, and a last newline.

    An expression that begins with a newline finds its lines by that byte.
    """
    return b"\n" + text


def bare_name(name: bytes) -> bytes:
    """Returns the text of a pair's name if it is a word, else bytes that are not a word."""
    return name[1:-1] if name[0] == 0x22 else name


METADATA = rb"[ \t]*+\#[ \t]++(?:HELP|TYPE|UNIT)[ \t]++(?:%(m)b|%(s)b)(?:[ \t][^\n]*+)?+" % PARTS
"""Expression for a HELP, TYPE or UNIT line of a family."""


class Sample:
    """A sample line that was understood: its name, the pairs in its braces, its timestamp.

    `name` is the metric's name, unquoted. `named` is the span of that name if it
    stands in the braces, else None. `stamp` is the span of the timestamp and the
    blanks before it, or None without a timestamp.
    """

    __slots__ = ("_line", "_spans", "name", "named", "stamp")

    def __init__(self, match: re.Match[bytes]) -> None:
        self._line = match.string
        quoted = match["quoted"]
        groups = ("pairs",) if quoted is None else ("front", "more")
        self.name: bytes = match["name"] if quoted is None else unquote(quoted)
        self.named = None if quoted is None else match.span("quoted")
        self._spans = [match.span(group) for group in groups if match[group]]
        self.stamp = match.span("stamp") if match["stamp"] else None

    @classmethod
    def parse(cls, line: bytes) -> Sample | None:
        """Reads a line without its newline. Returns None if it is not a sample."""
        match = _SAMPLE.fullmatch(line)
        return cls(match) if match else None

    def labels(self) -> Iterator[tuple[bytes, re.Match[bytes]]]:
        """Yields each pair's unquoted name, and its match with the groups `name` and `value`."""
        for span in self._spans:
            for pair in PAIR.finditer(self._line, *span):
                name = pair["name"]
                yield (unquote(name) if name[0] == 0x22 else name), pair

    @property
    def pairs_end(self) -> int:
        """The position where the pairs, and a comma that may follow, end; 0 without pairs."""
        return len(self._line[: self._spans[-1][1]].rstrip(b" \t")) if self._spans else 0


def unquote(string: bytes) -> bytes:
    """Returns the text of a quoted string, unescaped."""
    return unescape(string[1:-1])


def unescape(text: bytes) -> bytes:
    """Returns the value that is spelled as `text` between quotes.

    A backslash before other bytes stands for itself. The text has no newline.
    """
    if b"\\" not in text:
        return text
    # A newline marks what an escape stands for: first for pairs of backslashes, so that none of
    # their second ones begins an escape.
    marked = text.replace(b"\\\\", b"\nb").replace(b'\\"', b'"').replace(b"\\n", b"\nn")
    return marked.replace(b"\nb", b"\\").replace(b"\nn", b"\n")


def escape(value: bytes) -> bytes:
    """Returns the value of a label as it is spelled between quotes. `unescape` is the inverse."""
    return value.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
