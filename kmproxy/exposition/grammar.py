"""The grammar of sample lines, and what can be told of one.

Knows the Prometheus text format (0.0.4 and 1.0.0, with quoted UTF-8 names) and
the sample lines of OpenMetrics 1.0. Must not know what is done with them.

A metric's name stands before the braces, or quoted between the pairs in them:
first, last or anywhere, once. A comma or `}` follows it. A comma may follow a
pair, and none stands alone.

What counts as understood is one whole sample line of the grammar below; where
the published grammar and the parser of the Prometheus server differ, a line is
understood only if the server takes it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from functools import cached_property, lru_cache

# Every repetition is possessive or bounded by a byte that it cannot take
# itself, so one attempt is linear in the length of the line. Alternatives begin
# with different bytes, or read a number again: a factor, not a power.
#
# A search is linear if what its attempts read is disjoint, up to a factor. Where
# that takes an argument, it stands at the expression.
_WS = rb"[ \t]*+"
_GAP = rb"[ \t]++"
_METRIC = rb"[a-zA-Z_:][a-zA-Z0-9_:]*+"
_TEXT = rb'[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+'
_STRING = b'"' + _TEXT + b'"'
_PAIR = rb"(?:[a-zA-Z_][a-zA-Z0-9_]*+|%(s)b)%(w)b=%(w)b%(s)b" % {b"s": _STRING, b"w": _WS}
_COMMA = rb"(?:,%(w)b|%(g)b(?:,%(w)b)?+|)" % {b"g": _GAP, b"w": _WS}  # none is enough
_PAIRS = rb"%(p)b(?:%(w)b,%(w)b%(p)b)*+(?:%(w)b,)?+" % {b"p": _PAIR, b"w": _WS}  # OpenMetrics


def _list(pair: bytes) -> bytes:
    """Pairs in the braces of a sample, or none, each with what separates it from the next one."""
    return rb"(?:%(p)b%(c)b)*+" % {b"p": pair, b"c": _COMMA}


# strconv.ParseFloat without hexadecimal and underscores, as the server calls it.
_FLOAT = (
    rb"(?:[+-]?+(?:[0-9]++\.?+[0-9]*+(?:[eE][+-]?+[0-9]++)?+|\.[0-9]++(?:[eE][+-]?+[0-9]++)?+"
    rb"|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?+)|[nN][aA][nN])"
)
_EXEMPLAR = rb"%(g)b\#%(w)b\{%(w)b(?:%(p)b)?+%(w)b\}%(w)b%(f)b(?:%(g)b%(f)b)?+" % {
    b"g": _GAP,
    b"w": _WS,
    b"p": _PAIRS,
    b"f": _FLOAT,
}
_PARTS = {
    b"w": _WS,
    b"m": _METRIC,
    b"l": _list(_PAIR),
    b"c": _COMMA,
    b"g": _GAP,
    b"s": _STRING,
    b"t": _TEXT,
    b"f": _FLOAT,
    b"e": _EXEMPLAR,
}
_SAMPLE = re.compile(
    rb"%(w)b(?:(?P<name>%(m)b)(?:%(w)b\{%(w)b(?P<pairs>%(l)b)\}%(w)b|%(g)b)"
    rb"|\{%(w)b(?P<front>%(l)b)(?P<quoted>%(s)b)%(w)b(?:,%(w)b(?P<more>%(l)b))?+\}%(w)b)"
    rb"%(f)b(?P<stamp>%(g)b%(f)b)?+(?:%(e)b)*+%(w)b" % _PARTS
)
# One pair of a list of pairs that was understood, or of what is to be added.
PAIR = re.compile(
    rb"(?P<name>[a-zA-Z_][a-zA-Z0-9_]*+|%(s)b)%(w)b=%(w)b(?P<value>%(s)b)"
    % {b"s": _STRING, b"w": _WS}
)
# For what is in braces and was understood: there it matches one pair after the other, and the
# metric's name. It takes them apart: what is between, then name, equals sign and value, over and
# over; the metric's name has neither.
_PAIR_PARTS = re.compile(
    rb"([a-zA-Z_][a-zA-Z0-9_]*+(?=%(w)b=)|%(s)b)(%(w)b=%(w)b|)(%(s)b|)" % _PARTS
)


def pair_parts(pairs: bytes) -> list[bytes]:
    """What is in braces: something, then name, equals sign and value of a pair, over and over.

    Joined it is the same. The value of the last pair may be cut off.
    """
    parts = _PAIR_PARTS.split(pairs)
    if b"" in parts[2::4]:  # the metric's name
        at = 4 * parts[2::4].index(b"")
        parts[at : at + 5] = [b"".join(parts[at : at + 5])]
    return parts


# What follows is of plain lines, which nearly all are: no blanks but before the value and the
# timestamp, no escapes, no quoted names, no exemplars. Spelled for speed, as each byte of such a
# line is read: a set of bytes is faster than its complement, what is frequent comes first.
_PLAIN = rb"[\]-\xff\#-\[\x0b-!\x00-\t]*+"  # of a value: neither quote, backslash nor newline
_NAME = rb"[a-zA-Z_][a-zA-Z0-9_]*+"
_STAMPED = rb"(?:\n| [0-9]++\n)"
_PLAIN_END = (
    rb"\} (?:[0-9]++(?:%(e)b|\.[0-9]++(?:%(e)b|e\+[0-9]++%(e)b)|e\+[0-9]++%(e)b)|%(f)b%(e)b)"
    % {b"e": _STAMPED, b"f": _FLOAT}
)
_COMMENTS = rb"(?:\#[^\n]*+\n){0,4}+"  # between two lines: HELP, TYPE, UNIT and one more
_OPENING = re.compile(rb"(?:\#[^\n]*+\n)*+%b\{" % _METRIC)
# Lines that pass as they are: comments, and plain samples without a namespace. It is matched once
# at the beginning of a text.
PASSING = re.compile(
    rb"(?:%(m)b(?:\{(?:%(p)b(?:,%(p)b)*+,?+)?+\})?+ %(f)b(?: [0-9]++)?+\n|\#[^\n]*+\n)*+"
    % {b"m": _METRIC, b"p": rb'(?!namespace=)%b="%b"' % (_NAME, _PLAIN), b"f": _FLOAT}
)

MAX_PROVEN = 3 << 20
"""Bytes that the heads a splitter remembers take at most."""

_OVERHEAD = 100  # bytes that one takes besides its text, about


def _plain_pair(borne: AbstractSet[bytes]) -> bytes:
    """A pair of a plain line, named as none of `borne`."""
    return rb'(?!(?:%b)=)%b="%b"' % (b"|".join(map(re.escape, sorted(borne))), _NAME, _PLAIN)


_PLAIN_OTHER = _plain_pair({b"namespace"})
# A plain line with one pair named `namespace`: what stands before the namespace's value, the value,
# and, behind a quote, the rest. Whatever matches is a line that _SAMPLE matches. For `by_lines`:
# an attempt begins at a newline and reads to the next one at most, so attempts are disjoint.
_PLAIN_PARTS = (
    rb'\n%(m)b\{(?:%(p)b,)*+namespace="' % {b"m": _METRIC, b"p": _PLAIN_OTHER},
    _PLAIN,
    rb"(?:,%(p)b)*+\} %(f)b(?: [0-9]++|)(?=\n)" % {b"p": _PLAIN_OTHER, b"f": _FLOAT},
)
NAMESPACED = re.compile(rb'(%b)(%b)"(%b)' % _PLAIN_PARTS)
PLAIN_LINE = re.compile(rb'(%b(%b)"%b)' % _PLAIN_PARTS)
"""The same line as a whole, from its newline on, and in it the namespace's value."""


def by_lines(text: bytes) -> bytes:
    """Whole lines, each led by its newline instead of ended by it, and a newline at the end.

    So an expression that begins with a newline finds its lines by that byte.
    """
    return b"\n" + text


def _other_pair(names: AbstractSet[bytes]) -> bytes:
    """A pair of any spelling, named as none of `names`, each of which is a word."""
    words = b"|".join(sorted(names))
    return rb'(?!(?:%b)[ \t=]|"(?:%b)")%b' % (words, words, _PAIR)


def of_namespace(names: frozenset[bytes]) -> re.Pattern[bytes]:
    """A sample with one pair named `namespace`, and none named as one of `names`, in `by_lines`.

    Its groups are what stands before the namespace's text, something for itself,
    that text, and, behind its quote, the rest without the newline. As NAMESPACED,
    but any spelling that _SAMPLE matches. The group for itself is there if the
    metric's name has not stood yet: then the rest has it.
    """
    parts = _PARTS | {b"l": _list(_other_pair(names | {b"namespace"}))}
    return re.compile(
        rb"(\n%(w)b(?:%(m)b%(w)b\{%(w)b%(l)b|\{%(w)b%(l)b(?:%(s)b%(w)b,%(w)b%(l)b|()))"
        rb'(?:namespace|"namespace")%(w)b=%(w)b")(%(t)b)"'
        rb"(%(c)b%(l)b(?(2)%(s)b%(w)b(?:,%(w)b%(l)b)?+)\}%(w)b"
        rb"%(f)b(?:%(g)b%(f)b)?+(?:%(e)b)*+%(w)b)(?=\n)" % parts
    )


def split_at(samples: re.Pattern[bytes], lines: bytes) -> list[bytes]:
    """Lines in `by_lines`: something, then what stands before, text and rest, over and over.

    `samples` is an expression of `of_namespace`.
    """
    parts = samples.split(lines)
    del parts[2::5]
    return parts


ANY_OF_NAMESPACE = of_namespace(frozenset())
_IN_BRACES = re.compile(rb"%(c)b%(l)b(?:%(s)b%(w)b(?:,%(w)b%(l)b)?+)?+" % _PARTS)


def pairs_of_namespace(head: bytes, rest: bytes) -> tuple[int, int]:
    """Where the braces begin in what stands before a namespace's text, and end in the rest.

    Both are groups of `of_namespace`.
    """
    end = len(rest)
    if b"#" in rest:  # an exemplar has pairs of its own
        end = _IN_BRACES.match(rest).end()  # type: ignore[union-attr] # they may be empty
    return head.index(b"{") + 1, end


def bare_name(name: bytes) -> bytes:
    """The text of a pair's name, if that is a word; else something that is none."""
    return name[1:-1] if name[0] == 0x22 else name


METADATA = rb"[ \t]*+\#[ \t]++(?:HELP|TYPE|UNIT)[ \t]++(?:%(m)b|%(s)b)(?:[ \t][^\n]*+)?+" % _PARTS
"""A line that says something of a family."""

# The lines of a text in `by_lines`, in turn. A sample with one namespace at most: what stands
# before its timestamp, its name with the namespace behind it, or that of the other form with the
# namespace before and the one behind it, and the rest, and lines of two bytes that follow; or a run
# of lines that are neither samples nor metadata; or a line of another kind. Each match begins where
# the last one ended, and what an alternative reads in vain is one line at most.
_BARE_LIST = _list(_other_pair({b"namespace"}))
_SPACE = rb"(?:(?:namespace|\"namespace\")%(w)b=%(w)b\"(%(t)b)\"%(c)b%(b)b)?+" % (
    _PARTS | {b"b": _BARE_LIST}
)
LINES = re.compile(
    rb"(\n%(w)b(?:(%(m)b)(?:%(w)b\{%(w)b%(b)b%(n)b\}%(w)b|%(g)b)"
    rb"|\{%(w)b%(b)b%(n)b(%(s)b)%(w)b(?:,%(w)b%(b)b(?(4)|%(n)b))?+\}%(w)b)%(f)b)"
    rb"((?:%(g)b%(f)b)?+(?:%(e)b)*+%(w)b)(?=\n)"
    rb"((?:\n[^\n]{0,2}+(?=\n))*+)|((?:\n(?:|[^\n]{1,2}+|(?!%(x)b\n|%(d)b\n)[^\n]++)(?=\n))++)|\n([^\n]++)(?=\n)"
    % (
        _PARTS
        | {
            b"b": _BARE_LIST,
            b"n": _SPACE,
            b"x": re.sub(rb"\?P<[a-z]+>", rb"?:", _SAMPLE.pattern),
            b"d": METADATA,
        }
    )
)
STAMP = re.compile(rb"(?:%(g)b%(f)b)?+" % _PARTS)
"""A timestamp, at the beginning of the rest of a sample that LINES finds."""

# The same for counting: a run of samples that have no namespace, or a run of others; and
# a run of comments and blank lines, or of others. Each match begins where the last one ended,
# and what an alternative reads in vain is one line at most. Lines of two bytes are no samples.
_BARE_SAMPLES = re.compile(
    rb"(?:((?:%(w)b(?:%(m)b(?:%(w)b\{%(w)b%(l)b\}%(w)b|%(g)b)"
    rb"|\{%(w)b%(l)b%(s)b%(w)b(?:,%(w)b%(l)b)?+\}%(w)b)"
    rb"%(f)b(?:%(g)b%(f)b)?+(?:%(e)b)*+%(w)b\n)++)|[^\n]*+\n)(?:\n++|[^\n]{1,2}+\n)*+"
    % (_PARTS | {b"l": _BARE_LIST})
)
_SILENT = re.compile(rb"((?:\n++|[ \t]*+(?:\#[^\n]*+)?+\n)++)|[^\n]*+\n(?:[^\#\n \t][^\n]*+\n)*+")


def count_kinds(text: bytes) -> tuple[int, int]:
    """How many of whole lines are samples, and how many are not understood.

    No line may be one that ANY_OF_NAMESPACE finds. Two namespaces are not understood.
    """
    samples = b"".join(_BARE_SAMPLES.findall(text)).count(b"\n")
    if any(start in b"\n" + text for start in (b"\n\n", b"\n ", b"\n\t")):
        silent = b"".join(_SILENT.findall(text)).count(b"\n")
    else:
        silent = text.count(b"\n#") + text.startswith(b"#")
    return samples, text.count(b"\n") - samples - silent


class PlainSplitter:
    """Splits whole lines at the namespaces of the plain ones that bear none of `names`.

    The lines of a family bear the same pairs before the namespace as those of
    the family before. So what a plain line is taken apart into is its head,
    which is the pairs before the namespace, and the rest, from behind the
    namespace through the newline and comments to the brace that opens the next
    line's pairs. The rest is read each time; that a head is made of whole plain
    pairs is proven once, and remembered.

    That is exact: a rest begins behind `namespace="` and a value, reads pairs,
    value and timestamp up to a newline, and ends in comments and `metric{` at
    the beginning of a line, or at the end. What stands between two of them is
    the next head with `namespace="`, if it is proven to be pairs and commas
    only: then these are one line, and one that _SAMPLE matches. If it is
    anything else, nothing is taken for granted of it.

    It is linear. An attempt at a rest reads a value, which has no quote in it and
    so is read by one attempt only, then 10 pairs at most, then a number, 4
    comments and a name. So within a line a byte is read by no more than 11
    attempts, those that begin at the last pairs before it; and of a comment by as
    many of each of the 4 lines before it. Lines with more pairs or comments are
    odd. The other expressions are matched at the beginning of what they read.
    """

    def __init__(self, names: frozenset[bytes]) -> None:
        pair = _plain_pair(names | {b"namespace"})
        self._rest = re.compile(
            rb'namespace="(%(v)b)"'
            rb"((?:,%(p)b){0,10}+%(e)b(?:[a-z_]++\{|%(c)b(?:%(m)b\{|\Z)))"
            % {b"v": _PLAIN, b"p": pair, b"e": _PLAIN_END, b"c": _COMMENTS, b"m": _METRIC}
        )
        self._head = re.compile(rb"(?:%b,)*+" % pair)
        self._heads = re.compile(rb"(?:(?:%b,)*+\n)*+" % pair)
        self._names = names
        self._proven: set[bytes] = set()
        self._size = 0

    @cached_property
    def of_namespace(self) -> re.Pattern[bytes]:
        """Finds samples of any spelling that have a namespace and bear none of the names."""
        return of_namespace(self._names)

    @cached_property
    def conflicting(self) -> re.Pattern[bytes]:
        """Finds plain lines in `by_lines` that bear one of the names, behind their namespace.

        Its groups are what stands before the namespace's value, that, what is
        between, the name with the quote that follows, its value, and, from the
        quote on, the rest without the newline. As NAMESPACED, an attempt reads one line.
        """
        return re.compile(
            rb'(\n%(m)b\{(?:%(p)b,)*+namespace=")(%(v)b)("(?:,%(p)b)*+,)((?:%(n)b)=")(%(v)b)'
            rb'("(?:,%(p)b)*+\} %(f)b(?: [0-9]++|))(?=\n)'
            % {
                b"m": _METRIC,
                b"p": _plain_pair(self._names | {b"namespace"}),
                b"v": _PLAIN,
                b"n": b"|".join(map(re.escape, sorted(self._names - {b"namespace"}))) or b"(?!)",
                b"f": _FLOAT,
            }
        )

    def __repr__(self) -> str:
        return f"<PlainSplitter {len(self._proven)} heads proven, {self._size} bytes>"

    def split(self, block: bytes) -> tuple[list[bytes], list[int]]:
        """Split whole lines: something, then head, namespace and rest, over and over.

        Returns the parts, and the indexes of those that hold whole lines of
        other kinds instead of a head: there the namespace is empty. With
        `namespace="` and a quote around each other namespace, the parts joined
        are the block.
        """
        parts = self._rest.split(block)
        opening = _OPENING.match(parts[0])
        start = opening.end() if opening else 0
        parts[:1] = parts[0][:start], parts[0][start:]
        heads = parts[1:-1:3]
        odd = []
        if unproven := self._unproven(heads):
            odd = [3 * at + 1 for at, head in enumerate(heads) if head in unproven]
        if not opening and heads and odd[:1] != [1]:
            odd.insert(0, 1)
        for at in odd:
            rest = parts[at + 2]
            end = rest.index(b"\n") + 1
            parts[at] += b'namespace="%b"%b' % (parts[at + 1], rest[:end])
            parts[at + 1], parts[at + 2] = b"", rest[end:]
        if parts[-1]:
            odd.append(len(parts) - 1)
            parts += (b"", b"")
        for at in odd:
            before = parts[at - 1]
            line = before.find(b"\n") + 1
            parts[at - 1], parts[at] = before[:line], before[line:] + parts[at]
        return parts, odd

    def _unproven(self, heads: list[bytes]) -> set[bytes]:
        """Those that are not made of whole plain pairs; the others are remembered."""
        if self._proven.issuperset(heads):
            return set()
        new = set(heads) - self._proven
        text = b"\n".join([*new, b""])
        # All at once, if each is a line of it; one by one only where that is not so.
        if text.count(b"\n") == len(new) and self._heads.fullmatch(text):
            proven = new
        else:
            proven = {head for head in new if self._head.fullmatch(head)}
        self._proven |= proven
        self._size += sum(map(len, proven)) + len(proven) * _OVERHEAD
        if self._size > MAX_PROVEN:
            self._proven.clear()
            self._size = 0
        return new - proven


plain_splitter = lru_cache(maxsize=2)(PlainSplitter)
"""The splitter for some names, with what it has proven before: the same for all expositions."""


class Sample:
    """A sample line that was understood: its name, what is in its braces, its timestamp.

    `name` is the metric's, unquoted. `named` is its span if it stands in the
    braces, else None; `stamp` is the span of its timestamp and the blanks before
    it, None where it has none.
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
        """Read a line without its newline; None if it is no sample."""
        match = _SAMPLE.fullmatch(line)
        return cls(match) if match else None

    def labels(self) -> Iterator[tuple[bytes, re.Match[bytes]]]:
        """Each pair's unquoted name, and its match with the groups `name` and `value`."""
        for span in self._spans:
            for pair in PAIR.finditer(self._line, *span):
                name = pair["name"]
                yield (unquote(name) if name[0] == 0x22 else name), pair

    @property
    def pairs_end(self) -> int:
        """Where the pairs end, with the comma that may follow; 0 if there are none."""
        return len(self._line[: self._spans[-1][1]].rstrip(b" \t")) if self._spans else 0


def unquote(string: bytes) -> bytes:
    """The text of a quoted string; a backslash before another byte stands for itself."""
    text = string[1:-1]
    if b"\\" in text:
        # The first two of a run of backslashes are one, so that none is left behind another.
        parts = text.split(b"\\\\")
        parts = [part.replace(b'\\"', b'"').replace(b"\\n", b"\n") for part in parts]
        return b"\\".join(parts)
    return text
