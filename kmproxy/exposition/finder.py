"""Expressions that find the samples of an exposition by the labels that name their namespaces.

Knows the names of these labels. Must not know what is done with a sample.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from functools import cached_property, lru_cache

from kmproxy.exposition.grammar import (
    METADATA,
    METRIC,
    NUMBER,
    PARTS,
    PLAIN_TEXT,
    SAMPLE,
    list_of,
    plain_pair,
)

# Plain lines have blanks only before the value and the timestamp, no escapes, no quoted names and
# no exemplars. Nearly all lines are plain. The expressions for them are written for speed, because
# they read each byte.


class SampleFinder:
    """Finds samples by the labels that name a namespace: the `spaces`, in one exposition.

    The expressions are compiled when they are first used. All but `passing` are for
    text of `by_lines`. An attempt of them begins at a newline and reads to the next newline
    at most, so attempts are disjoint.
    """

    def __init__(self, spaces: frozenset[bytes]) -> None:
        self._spaces = spaces
        # Names are words, which need no escape.
        self._words = rb"(?:%b)" % b"|".join(sorted(spaces))
        self._bare_list = list_of(_other_pair(spaces))

    def __repr__(self) -> str:
        return f"<SampleFinder {b', '.join(sorted(self._spaces)).decode(errors='replace')}>"

    @cached_property
    def passing(self) -> re.Pattern[bytes]:
        """Reads lines that pass unchanged: comments, and plain samples with none of the labels.

        The expression is matched at a given position, not searched for.
        """
        return re.compile(
            rb"(?:%(m)b(?:\{(?:%(p)b(?:,%(p)b)*+,?+)?+\})?+ %(f)b(?: [0-9]++)?+\n|\#[^\n]*+\n)*+"
            % {b"m": METRIC, b"p": plain_pair(self._spaces), b"f": NUMBER}
        )

    @cached_property
    def _plain_parts(self) -> tuple[bytes, bytes, bytes]:
        """A plain line with one pair of the labels, in three parts.

        These are the text before the namespace's value, the value, and, behind a quote,
        the rest. Each match is a line that is a sample.
        """
        parts = {b"m": METRIC, b"p": plain_pair(self._spaces), b"n": self._words, b"f": NUMBER}
        return (
            rb'\n%(m)b\{(?:%(p)b,)*+%(n)b="' % parts,
            PLAIN_TEXT,
            rb"(?:,%(p)b)*+\} %(f)b(?: [0-9]++|)(?=\n)" % parts,
        )

    @cached_property
    def plain(self) -> re.Pattern[bytes]:
        """Finds plain lines with one of the labels, once.

        Its groups are: the text before the namespace's value, the value, and, behind a quote, the
        rest without the newline.
        """
        return re.compile(rb'(%b)(%b)"(%b)' % self._plain_parts)

    @cached_property
    def plain_line(self) -> re.Pattern[bytes]:
        """Finds the same line in two groups: the whole line from its newline on, and the value."""
        return re.compile(rb'(%b(%b)"%b)' % self._plain_parts)

    def without(self, names: frozenset[bytes]) -> re.Pattern[bytes]:
        """Compiles an expression for samples with one pair of the labels and no pair of `names`.

        Its groups are: the text before the namespace's text, a group for the
        expression's own use, the namespace's text, and, behind its quote, the rest
        without the newline. It is like `plain`, but for any spelling of a sample. The
        group for its own use takes part in a match if the metric's name has not come
        yet: then the rest has the name.
        """
        parts = PARTS | {b"l": list_of(_other_pair(names | self._spaces)), b"n": self._words}
        return re.compile(
            rb"(\n%(w)b(?:%(m)b%(w)b\{%(w)b%(l)b|\{%(w)b%(l)b(?:%(s)b%(w)b,%(w)b%(l)b|()))"
            rb'(?:%(n)b|"%(n)b")%(w)b=%(w)b")(%(t)b)"'
            rb"(%(c)b%(l)b(?(2)%(s)b%(w)b(?:,%(w)b%(l)b)?+)\}%(w)b"
            rb"%(f)b(?:%(g)b%(f)b)?+(?:%(e)b)*+%(w)b)(?=\n)" % parts
        )

    @cached_property
    def any_spelling(self) -> re.Pattern[bytes]:
        """Finds samples of any spelling with one of the labels, once, as `without` does."""
        return self.without(frozenset())

    @cached_property
    def lines(self) -> re.Pattern[bytes]:
        """Finds the lines of a text, one after the other.

        A match is one of three:
        - A sample with at most one of the labels. Its groups are: the text before its timestamp;
          its name and the namespace behind it; or, for a name in the braces, the namespace before
          the name, the name and the namespace behind it; the rest; and the lines of at most two
          bytes that follow.
        - A run of lines that are neither samples nor metadata.
        - One line of another kind.
        Each match begins where the last one ended. An alternative reads at most one line
        in vain.
        """
        parts = PARTS | {b"b": self._bare_list, b"n": self._words}
        parts[b"n"] = rb"(?:(?:%(n)b|\"%(n)b\")%(w)b=%(w)b\"(%(t)b)\"%(c)b%(b)b)?+" % parts
        parts[b"x"] = re.sub(rb"\?P<[a-z]+>", rb"?:", SAMPLE)
        parts[b"d"] = METADATA
        return re.compile(
            rb"(\n%(w)b(?:(%(m)b)(?:%(w)b\{%(w)b%(b)b%(n)b\}%(w)b|%(g)b)"
            rb"|\{%(w)b%(b)b%(n)b(%(s)b)%(w)b(?:,%(w)b%(b)b(?(4)|%(n)b))?+\}%(w)b)%(f)b)"
            rb"((?:%(g)b%(f)b)?+(?:%(e)b)*+%(w)b)(?=\n)"
            rb"((?:\n[^\n]{0,2}+(?=\n))*+)"
            rb"|((?:\n(?:|[^\n]{1,2}+|(?!%(x)b\n|%(d)b\n)[^\n]++)(?=\n))++)|\n([^\n]++)(?=\n)"
            % parts
        )

    @cached_property
    def _bare_samples(self) -> re.Pattern[bytes]:
        """Finds runs of samples that have none of the labels, and other lines.

        Each match begins where the last one ended. An alternative reads at most one line
        in vain. A line of at most two bytes is not a sample.
        """
        return re.compile(
            rb"(?:((?:%(w)b(?:%(m)b(?:%(w)b\{%(w)b%(l)b\}%(w)b|%(g)b)"
            rb"|\{%(w)b%(l)b%(s)b%(w)b(?:,%(w)b%(l)b)?+\}%(w)b)"
            rb"%(f)b(?:%(g)b%(f)b)?+(?:%(e)b)*+%(w)b\n)++)|[^\n]*+\n)(?:\n++|[^\n]{1,2}+\n)*+"
            % (PARTS | {b"l": self._bare_list})
        )

    def count_kinds(self, text: bytes) -> tuple[int, int]:
        """Returns how many of the whole lines are samples, and how many are not understood.

        `any_spelling` must find none of these lines. A line with two of the labels is not
        understood.
        """
        samples = b"".join(self._bare_samples.findall(text)).count(b"\n")
        if any(start in b"\n" + text for start in (b"\n\n", b"\n ", b"\n\t")):
            silent = b"".join(_SILENT.findall(text)).count(b"\n")
        else:
            silent = text.count(b"\n#") + text.startswith(b"#")
        return samples, text.count(b"\n") - samples - silent


def _other_pair(names: AbstractSet[bytes]) -> bytes:
    """Returns an expression for a pair of any spelling whose name is not one of these words."""
    words = b"|".join(sorted(names))
    return rb'(?!(?:%b)[ \t=]|"(?:%b)")%b' % (words, words, PARTS[b"p"])


# Finds runs of comments and blank lines, and other lines, as `_bare_samples` does.
_SILENT = re.compile(rb"((?:\n++|[ \t]*+(?:\#[^\n]*+)?+\n)++)|[^\n]*+\n(?:[^\#\n \t][^\n]*+\n)*+")

STAMP = re.compile(rb"(?:%(g)b%(f)b)?+" % PARTS)
"""Expression for the timestamp, or nothing, at the beginning of the rest of a sample of `lines`."""

_IN_BRACES = re.compile(rb"%(c)b%(l)b(?:%(s)b%(w)b(?:,%(w)b%(l)b)?+)?+" % PARTS)


def split_at(samples: re.Pattern[bytes], lines: bytes) -> list[bytes]:
    """Splits text of `by_lines` at samples with a namespace.

    `samples` is an expression of `SampleFinder.without`. Returns other text, then the text
    before the namespace's text, that text and the rest, repeatedly.
    """
    parts = samples.split(lines)
    del parts[2::5]
    return parts


def pairs_of_namespace(head: bytes, rest: bytes) -> tuple[int, int]:
    """Returns where the pairs begin in `head`, and a position behind the pairs in `rest`.

    Both are groups of `SampleFinder.without`: the text before the namespace's text, and
    the rest. An exemplar's pairs are behind the position.
    """
    end = len(rest)
    if b"#" in rest:  # an exemplar has pairs of its own
        end = _IN_BRACES.match(rest).end()  # type: ignore[union-attr] # they may be empty
    return head.index(b"{") + 1, end


_PAIRS = {b"m": METRIC, b"p": plain_pair(), b"f": NUMBER}
PLAIN_PAIRS = re.compile(rb"(\n%(m)b\{)(%(p)b(?:,%(p)b)*+)(\} %(f)b(?: [0-9]++|))(?=\n)" % _PAIRS)
"""Finds plain lines with pairs. Its groups are: the text before the pairs, the pairs, the rest."""

_PAIRS_OF_ANY = re.compile(
    rb"(\n%(w)b(?:%(m)b%(w)b\{|(\{))%(w)b)(%(l)b(?(2)%(s)b%(w)b(?:,%(w)b%(l)b)?+))"
    rb"(\}%(w)b%(f)b(?:%(g)b%(f)b)?+(?:%(e)b)*+%(w)b)(?=\n)" % PARTS
)


def split_at_pairs(lines: bytes) -> list[bytes]:
    """Splits text of `by_lines` at the samples of any spelling that have braces.

    Returns other text, then the text before the text in the braces, that text and the
    rest, repeatedly. An attempt of the expression reads one line.
    """
    parts = _PAIRS_OF_ANY.split(lines)
    del parts[2::5]
    return parts


sample_finder = lru_cache(maxsize=64)(SampleFinder)
"""Returns the finder for some labels. All expositions share it."""

NAMESPACE = sample_finder(frozenset({b"namespace"}))
"""The finder for the label `namespace` alone, which kubelets use."""
