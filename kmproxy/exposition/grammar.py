"""The grammar of sample lines, and the parts of a sample.

Knows the Prometheus text format (0.0.4 and 1.0.0, with quoted UTF-8 names) and
the sample lines of OpenMetrics 1.0. Must not know what is done with samples.

A metric's name stands before the braces, or quoted between the pairs in the
braces: first, last or anywhere, once. A comma or `}` follows it. A comma may
follow a pair. No comma stands alone.

A line is understood if it is one whole sample line of the grammar below. Where
the published grammar and the parser of the Prometheus server differ, a line is
understood only if the server accepts it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from functools import cached_property, lru_cache

# Every repetition is possessive or bounded by a byte that it cannot take
# itself, so one attempt is linear in the length of the line. Alternatives begin
# with different bytes, or read a number again: that is a factor, not a power.
#
# A search is linear if its attempts read disjoint text, up to a factor. Where
# this needs a proof, the proof stands at the expression.
_WS = rb"[ \t]*+"
_GAP = rb"[ \t]++"
_METRIC = rb"[a-zA-Z_:][a-zA-Z0-9_:]*+"
_TEXT = rb'[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+'
_STRING = b'"' + _TEXT + b'"'
_PAIR = rb"(?:[a-zA-Z_][a-zA-Z0-9_]*+|%(s)b)%(w)b=%(w)b%(s)b" % {b"s": _STRING, b"w": _WS}
_COMMA = rb"(?:,%(w)b|%(g)b(?:,%(w)b)?+|)" % {b"g": _GAP, b"w": _WS}  # the comma may be absent
_PAIRS = rb"%(p)b(?:%(w)b,%(w)b%(p)b)*+(?:%(w)b,)?+" % {b"p": _PAIR, b"w": _WS}  # OpenMetrics


def _list(pair: bytes) -> bytes:
    """Returns an expression for the pairs in braces, possibly none, each with its separator."""
    return rb"(?:%(p)b%(c)b)*+" % {b"p": pair, b"c": _COMMA}


# A number as the server reads it: strconv.ParseFloat without hexadecimal and underscores.
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
# One pair, of a list of pairs that was understood or of the bytes to be added.
PAIR = re.compile(
    rb"(?P<name>[a-zA-Z_][a-zA-Z0-9_]*+|%(s)b)%(w)b=%(w)b(?P<value>%(s)b)"
    % {b"s": _STRING, b"w": _WS}
)
# For the text in the braces of a line that was understood. It matches one pair after the other,
# and the metric's name. It splits the text: the text between, then name, equals sign and value,
# repeatedly. For the metric's name, equals sign and value are empty.
_PAIR_PARTS = re.compile(
    rb"([a-zA-Z_][a-zA-Z0-9_]*+(?=%(w)b=)|%(s)b)(%(w)b=%(w)b|)(%(s)b|)" % _PARTS
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


# The next expressions are for plain lines. Nearly all lines are plain: they have blanks only before
# the value and the timestamp, no escapes, no quoted names and no exemplars. These expressions are
# written for speed, because they read each byte of a plain line: a set of bytes is faster than its
# complement, and frequent cases come first.
_PLAIN = rb"[\]-\xff\#-\[\x0b-!\x00-\t]*+"  # the text of a value: no quote, backslash or newline
_NAME = rb"[a-zA-Z_][a-zA-Z0-9_]*+"
_STAMPED = rb"(?:\n| [0-9]++\n)"
_PLAIN_END = (
    rb"\} (?:[0-9]++(?:%(e)b|\.[0-9]++(?:%(e)b|e\+[0-9]++%(e)b)|e\+[0-9]++%(e)b)|%(f)b%(e)b)"
    % {b"e": _STAMPED, b"f": _FLOAT}
)
_COMMENTS = rb"(?:\#[^\n]*+\n){0,4}+"  # between two lines: HELP, TYPE, UNIT and one more
_OPENING = re.compile(rb"(?:\#[^\n]*+\n)*+%b\{" % _METRIC)
# Lines that pass unchanged: comments, and plain samples without a namespace. The expression is
# matched at a given position, not searched for.
PASSING = re.compile(
    rb"(?:%(m)b(?:\{(?:%(p)b(?:,%(p)b)*+,?+)?+\})?+ %(f)b(?: [0-9]++)?+\n|\#[^\n]*+\n)*+"
    % {b"m": _METRIC, b"p": rb'(?!namespace=)%b="%b"' % (_NAME, _PLAIN), b"f": _FLOAT}
)

MAX_PROVEN = 3 << 20
"""Bytes that the remembered heads of one splitter take, at most."""

_OVERHEAD = 100  # bytes for a head besides its text, approximately


def _plain_pair(borne: AbstractSet[bytes]) -> bytes:
    """Returns an expression for a pair of a plain line whose name is not in `borne`."""
    return rb'(?!(?:%b)=)%b="%b"' % (b"|".join(map(re.escape, sorted(borne))), _NAME, _PLAIN)


_PLAIN_OTHER = _plain_pair({b"namespace"})
# A plain line with one pair named `namespace`, in three parts: the text before the namespace's
# value, the value, and, behind a quote, the rest. Each match is a line that _SAMPLE matches. For
# text of `by_lines`: an attempt begins at a newline and reads to the next newline at most, so
# attempts are disjoint.
_PLAIN_PARTS = (
    rb'\n%(m)b\{(?:%(p)b,)*+namespace="' % {b"m": _METRIC, b"p": _PLAIN_OTHER},
    _PLAIN,
    rb"(?:,%(p)b)*+\} %(f)b(?: [0-9]++|)(?=\n)" % {b"p": _PLAIN_OTHER, b"f": _FLOAT},
)
NAMESPACED = re.compile(rb'(%b)(%b)"(%b)' % _PLAIN_PARTS)
PLAIN_LINE = re.compile(rb'(%b(%b)"%b)' % _PLAIN_PARTS)
"""The same line in two groups: the whole line, from its newline on, and the namespace's value."""


def by_lines(text: bytes) -> bytes:
    """Returns whole lines, each led by its newline instead of ended by it, and a last newline.

    An expression that begins with a newline finds its lines by that byte.
    """
    return b"\n" + text


def _other_pair(names: AbstractSet[bytes]) -> bytes:
    """Returns an expression for a pair of any spelling whose name is not one of these words."""
    words = b"|".join(sorted(names))
    return rb'(?!(?:%b)[ \t=]|"(?:%b)")%b' % (words, words, _PAIR)


def of_namespace(names: frozenset[bytes]) -> re.Pattern[bytes]:
    """Compiles an expression for samples with one pair `namespace` and no pair of `names`.

    It is for text of `by_lines`. Its groups are: the text before the namespace's
    text, a group for the expression's own use, the namespace's text, and, behind its
    quote, the rest without the newline. It is like NAMESPACED, but for any spelling
    that _SAMPLE matches. The group for its own use takes part in a match if the
    metric's name has not come yet: then the rest has the name.
    """
    parts = _PARTS | {b"l": _list(_other_pair(names | {b"namespace"}))}
    return re.compile(
        rb"(\n%(w)b(?:%(m)b%(w)b\{%(w)b%(l)b|\{%(w)b%(l)b(?:%(s)b%(w)b,%(w)b%(l)b|()))"
        rb'(?:namespace|"namespace")%(w)b=%(w)b")(%(t)b)"'
        rb"(%(c)b%(l)b(?(2)%(s)b%(w)b(?:,%(w)b%(l)b)?+)\}%(w)b"
        rb"%(f)b(?:%(g)b%(f)b)?+(?:%(e)b)*+%(w)b)(?=\n)" % parts
    )


def split_at(samples: re.Pattern[bytes], lines: bytes) -> list[bytes]:
    """Splits text of `by_lines` at samples with a namespace.

    `samples` is an expression of `of_namespace`. Returns other text, then the text
    before the namespace's text, that text and the rest, repeatedly.
    """
    parts = samples.split(lines)
    del parts[2::5]
    return parts


ANY_OF_NAMESPACE = of_namespace(frozenset())
_IN_BRACES = re.compile(rb"%(c)b%(l)b(?:%(s)b%(w)b(?:,%(w)b%(l)b)?+)?+" % _PARTS)


def pairs_of_namespace(head: bytes, rest: bytes) -> tuple[int, int]:
    """Returns where the pairs begin in `head`, and a position behind the pairs in `rest`.

    Both are groups of `of_namespace`: the text before the namespace's text, and the
    rest. An exemplar's pairs are behind the position.
    """
    end = len(rest)
    if b"#" in rest:  # an exemplar has pairs of its own
        end = _IN_BRACES.match(rest).end()  # type: ignore[union-attr] # they may be empty
    return head.index(b"{") + 1, end


def bare_name(name: bytes) -> bytes:
    """Returns the text of a pair's name if it is a word, else bytes that are not a word."""
    return name[1:-1] if name[0] == 0x22 else name


METADATA = rb"[ \t]*+\#[ \t]++(?:HELP|TYPE|UNIT)[ \t]++(?:%(m)b|%(s)b)(?:[ \t][^\n]*+)?+" % _PARTS
"""Expression for a HELP, TYPE or UNIT line of a family."""

# Finds the lines of a text of `by_lines`, one after the other. A match is one of three:
# - A sample with at most one namespace. Its groups are: the text before its timestamp; its name and
#   the namespace behind it; or, for a name in the braces, the namespace before the name, the name
#   and the namespace behind it; the rest; and the lines of at most two bytes that follow.
# - A run of lines that are neither samples nor metadata.
# - One line of another kind.
# Each match begins where the last one ended. An alternative reads at most one line in vain.
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
"""Expression for the timestamp, or nothing, at the beginning of the rest of a sample of LINES."""

# The same for counting. _BARE_SAMPLES finds runs of samples that have no namespace, and other
# lines. _SILENT finds runs of comments and blank lines, and other lines. Each match begins where
# the last one ended. An alternative reads at most one line in vain. A line of at most two bytes is
# not a sample.
_BARE_SAMPLES = re.compile(
    rb"(?:((?:%(w)b(?:%(m)b(?:%(w)b\{%(w)b%(l)b\}%(w)b|%(g)b)"
    rb"|\{%(w)b%(l)b%(s)b%(w)b(?:,%(w)b%(l)b)?+\}%(w)b)"
    rb"%(f)b(?:%(g)b%(f)b)?+(?:%(e)b)*+%(w)b\n)++)|[^\n]*+\n)(?:\n++|[^\n]{1,2}+\n)*+"
    % (_PARTS | {b"l": _BARE_LIST})
)
_SILENT = re.compile(rb"((?:\n++|[ \t]*+(?:\#[^\n]*+)?+\n)++)|[^\n]*+\n(?:[^\#\n \t][^\n]*+\n)*+")


def count_kinds(text: bytes) -> tuple[int, int]:
    """Returns how many of the whole lines are samples, and how many are not understood.

    ANY_OF_NAMESPACE must find none of these lines. A line with two namespaces is not
    understood.
    """
    samples = b"".join(_BARE_SAMPLES.findall(text)).count(b"\n")
    if any(start in b"\n" + text for start in (b"\n\n", b"\n ", b"\n\t")):
        silent = b"".join(_SILENT.findall(text)).count(b"\n")
    else:
        silent = text.count(b"\n#") + text.startswith(b"#")
    return samples, text.count(b"\n") - samples - silent


class PlainSplitter:
    """Splits whole lines at the namespaces of the plain lines that bear none of `names`.

    The lines of a family bear the same pairs before the namespace as the lines of
    the family before. So a plain line is split into two parts. Its head is the pairs
    before the namespace. Its rest goes from behind the namespace, through the newline
    and comments, to the brace that opens the next line's pairs. The rest is read each
    time. The proof that a head is made of whole plain pairs is done once, and
    remembered.

    The split is exact. A rest begins behind `namespace="` and a value, reads pairs,
    value and timestamp up to a newline, and ends in comments and `metric{` at
    the beginning of a line, or at the end. The text between two rests is the next
    head with `namespace="`, if it is proven to be pairs and commas only: then these
    are one line, and one that _SAMPLE matches. If it is anything else, nothing is
    assumed about it.

    The split is linear. An attempt at a rest reads a value, which has no quote in it
    and so is read by one attempt only. Then it reads 10 pairs at most, a number, 4
    comments and a name. So within a line a byte is read by no more than 11 attempts,
    those that begin at the last pairs before it. A byte of a comment is read by as
    many attempts of each of the 4 lines before it. Lines with more pairs or comments
    are odd. The other expressions are matched at the beginning of the text that they
    read.
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
        """Finds plain lines that bear one of the names, behind their namespace.

        It is for text of `by_lines`. Its groups are: the text before the namespace's
        value, that value, the text between, the name with the quote that follows, its
        value, and, from the quote on, the rest without the newline. As with NAMESPACED,
        an attempt reads one line.
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
        """Splits whole lines: other text, then head, namespace and rest, repeatedly.

        Returns the parts, and the indexes of the parts that hold whole lines of other
        kinds instead of a head. There the namespace is empty. With `namespace="` and a
        quote around each other namespace, the parts joined are the block.
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
        """Returns the heads that are not made of whole plain pairs. The others are remembered."""
        if self._proven.issuperset(heads):
            return set()
        new = set(heads) - self._proven
        text = b"\n".join([*new, b""])
        # All heads at once, if each is one line of the text and made of pairs; else one by one.
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
"""Returns the splitter for some names, with the heads proven before. All expositions share it."""


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
    """Returns the text of a quoted string. A backslash before other bytes stands for itself."""
    text = string[1:-1]
    if b"\\" in text:
        # The first two of a run of backslashes are one, so no backslash is left behind another.
        parts = text.split(b"\\\\")
        parts = [part.replace(b'\\"', b'"').replace(b"\\n", b"\n") for part in parts]
        return b"\\".join(parts)
    return text
