"""Splits the plain lines of an exposition at their namespaces, which is the fast path.

Knows the shape of plain lines, and proves it. Must not know what is added to a line.
"""

from __future__ import annotations

import re
from functools import cached_property, lru_cache

from kmproxy.exposition.finder import NAMESPACE
from kmproxy.exposition.grammar import METRIC, NUMBER, PLAIN_TEXT, plain_pair

_STAMPED = rb"(?:\n| [0-9]++\n)"
_PLAIN_END = (
    rb"\} (?:[0-9]++(?:%(e)b|\.[0-9]++(?:%(e)b|e\+[0-9]++%(e)b)|e\+[0-9]++%(e)b)|%(f)b%(e)b)"
    % {b"e": _STAMPED, b"f": NUMBER}
)
_COMMENTS = rb"(?:\#[^\n]*+\n){0,4}+"  # between two lines: HELP, TYPE, UNIT and one more
_OPENING = re.compile(rb"(?:\#[^\n]*+\n)*+%b\{" % METRIC)

MAX_PROVEN = 3 << 20
"""Bytes that the remembered heads of one splitter take, at most."""

_OVERHEAD = 100  # bytes for a head besides its text, approximately


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
    are one line, and one that is a sample. If it is anything else, nothing is
    assumed about it.

    The split is linear. An attempt at a rest reads a value, which has no quote in it
    and so is read by one attempt only. Then it reads 10 pairs at most, a number, 4
    comments and a name. So within a line a byte is read by no more than 11 attempts,
    those that begin at the last pairs before it. A byte of a comment is read by as
    many attempts of each of the 4 lines before it. Lines with more pairs or comments
    are odd. The other expressions are matched at the beginning of the text that they
    read.
    """

    _lead = b'namespace="'  # stands before the group of the namespace
    _most = MAX_PROVEN

    def __init__(self, names: frozenset[bytes]) -> None:
        self._compile(names, PLAIN_TEXT, names | {b"namespace"})

    def _compile(self, names: frozenset[bytes], key: bytes, borne: frozenset[bytes]) -> None:
        """Compiles the expressions: `key` is the group behind the lead, `borne` are other names."""
        pair = plain_pair(borne)
        parts = {b"p": pair, b"e": _PLAIN_END, b"c": _COMMENTS, b"m": METRIC}
        self._rest = re.compile(
            rb'%b(%b)"' % (self._lead, key)
            + rb"((?:,%(p)b){0,10}+%(e)b(?:[a-z_]++\{|%(c)b(?:%(m)b\{|\Z)))" % parts
        )
        self._head = re.compile(rb"(?:%b,)*+" % pair)
        self._heads = re.compile(rb"(?:(?:%b,)*+\n)*+" % pair)
        self._names = names
        self._proven: set[bytes] = set()
        self._size = 0

    @cached_property
    def of_namespace(self) -> re.Pattern[bytes]:
        """Finds samples of any spelling that have a namespace and bear none of the names."""
        return NAMESPACE.without(self._names)

    @cached_property
    def conflicting(self) -> re.Pattern[bytes]:
        """Finds plain lines that bear one of the names, behind their namespace.

        It is for text of `by_lines`. Its groups are: the text before the namespace's
        value, that value, the text between, the name with the quote that follows, its
        value, and, from the quote on, the rest without the newline. As with
        `SampleFinder.plain`, an attempt reads one line.
        """
        return re.compile(
            rb'(\n%(m)b\{(?:%(p)b,)*+namespace=")(%(v)b)("(?:,%(p)b)*+,)((?:%(n)b)=")(%(v)b)'
            rb'("(?:,%(p)b)*+\} %(f)b(?: [0-9]++|))(?=\n)'
            % {
                b"m": METRIC,
                b"p": plain_pair(self._names | {b"namespace"}),
                b"v": PLAIN_TEXT,
                b"n": b"|".join(map(re.escape, sorted(self._names - {b"namespace"}))) or b"(?!)",
                b"f": NUMBER,
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
            parts[at] += b'%b%b"%b' % (self._lead, parts[at + 1], rest[:end])
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
            proven: set[bytes] = new
        else:
            proven = {head for head in new if self._head.fullmatch(head)}
        self._proven |= proven
        self._size += sum(len(head) for head in proven) + len(proven) * _OVERHEAD
        if self._size > self._most:
            self._proven.clear()
            self._size = 0
        return new - proven


class KeySplitter(PlainSplitter):
    """Splits whole lines like PlainSplitter, at the pairs that name the namespace and the pod.

    The place of the namespace takes the key of a sample: the pair of one of `spaces`,
    and with `pods` the pair of `pod` that may follow it, without the last quote. A
    plain line bears one of `spaces` only, none of `names`, and with `pods` no other `pod`.
    The proofs of PlainSplitter hold: an attempt at a rest reads one pair more.
    """

    _lead = b""
    _most = MAX_PROVEN // 2

    def __init__(
        self, names: frozenset[bytes], spaces: frozenset[bytes], *, pods: bool = False
    ) -> None:
        words = b"|".join(sorted(spaces))
        key = rb'%b="%b' % (b"(?:%b)" % words if len(spaces) > 1 else words, PLAIN_TEXT)
        if pods:
            key += rb'(?:",pod="%b)?+' % PLAIN_TEXT
        self._compile(names, key, names | spaces | ({b"pod"} if pods else set()))


plain_splitter = lru_cache(maxsize=2)(PlainSplitter)
"""Returns the splitter for some names, with the heads proven before. All expositions share it."""
key_splitter = lru_cache(maxsize=2)(KeySplitter)
"""Returns the same for samples with other namespace labels or with pods."""
