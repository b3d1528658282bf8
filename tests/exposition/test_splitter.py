"""Blocks split by their plain lines: what counts as one, and that what was proven stays so."""

from __future__ import annotations

import random

import pytest

from kmproxy.exposition.splitter import PlainSplitter
from tests.support import lines, reference

NAMES = frozenset({b"team", b"tier"})


def joined(parts, odd):
    """The block again, with the pairs of the namespaces put back."""
    text = b"".join(parts[:1])
    for at in range(1, len(parts) - 1, 3):
        head, namespace, rest = parts[at : at + 3]
        text += head + (b"" if at in odd else b'namespace="%b"' % namespace) + rest
    return text + b"".join(parts[len(parts) - (len(parts) - 1) % 3 :])


def taken(block, splitter=None):
    """The lines taken as plain, each with its namespace; checks that nothing is lost."""
    parts, odd = (splitter or PlainSplitter(NAMES)).split(block)
    assert joined(parts, odd) == block
    plain = []
    opening = parts[0]
    for at in range(1, len(parts) - 1, 3):
        head, namespace, rest = parts[at : at + 3]
        if at in odd:
            assert not opening or opening.endswith(b"\n")
            assert not namespace
            assert head.endswith(b"\n")
            opening = rest
        else:
            end, _, following = rest.partition(b"\n")
            start = opening.rpartition(b"\n")[2]
            plain.append((b'%b%bnamespace="%b"%b' % (start, head, namespace, end), namespace))
            opening = following
    return plain


def is_plain(line):
    """Whether the plain reading agrees that a line is a sample of one namespace, without NAMES."""
    sample = reference.Line(line)
    names = [pair[0] for pair in sample.pairs]
    return names.count(b"namespace") == 1 and not NAMES & set(names)


@pytest.mark.parametrize(
    ("block", "namespaces"),
    [
        (b'm{namespace="a"} 1\n', [b"a"]),
        (b'm{x="1",namespace="a",y="}"} 1.5e+07 17\n', [b"a"]),
        (b'# HELP m n\n# TYPE m gauge\nm{namespace=""} 1\nM9{x="{",namespace="b"} NaN\n', [b"", b"b"]),
        (b'm{exported_namespace="x",namespace="a"} 1\n', [b"a"]),
        (b'm{x="a"} 1\nm{namespace="a"} 1\nm 1\nm{namespace="b"} 1\n# x\n', []),
        (b'm{namespace="a"} 1\nm{namespace="b"} 1\nm 1\nm{namespace="c"} 1\n', [b"a"]),
    ],
)  # fmt: skip
def test_plain_lines(block, namespaces):
    """Those next to plain lines only are taken as plain; what is not costs time, no more."""
    assert [namespace for _, namespace in taken(block)] == namespaces


@pytest.mark.parametrize(
    "line",
    [
        b'a="1",namespace="x"} 1',
        b'{a="1",namespace="x"} 1',
        b'm{# a="1",namespace="x"} 1',
        b'm{a="1" namespace="x"} 1',
        b'm{a="1",exported_namespace="x"} 1',
        b'm{a="\\",namespace="x"} 1',
        b'm{a="1",namespace="x\\"} 1',
        b'm{a="1",namespace="x",b="\\n"} 1',
        b'm{a="1",namespace="x",namespace="y"} 1',
        b'm{a="1",namespace="x",} 1',
        b'm{a="1",team="1",namespace="x"} 1',
        b'm{a="1",namespace="x",tier="1"} 1',
        b'm{a="1",namespace="x"} 1x',
        b'm{a="1",namespace="x"} 1 1.5',
        b'm{a="1",namespace="x"}  1',
        b'm{a="1",namespace="x"} ',
        b'1m{a="1",namespace="x"} 1',
        b'#{a="1",namespace="x"} 1',
        b'm{a="1\n",namespace="x"} 1',
        b'm{a="1",\na="1",namespace="x"} 1',
        b'm{a="1",namespace="x\n"} 1',
        b'm{a="1",namespace="x",b="\n"} 1',
        b'm\nm{a="1",namespace="x"} 1 1 1',
    ],
)
def test_what_was_proven_of_one_line_proves_nothing_of_another(line):
    """The same head between other bytes: the line is not taken, wherever it stands."""
    good = b'm{a="1",namespace="g"} 1\n'
    for block in (
        good + line + b"\n" + good,
        line + b"\n" + good,
        good + line + b"\n",
        good + b"# x\n" + line + b"\n# x\n" + good,
    ):
        splitter = PlainSplitter(NAMES)
        taken(good, splitter)
        for text, namespace in taken(block, splitter):
            assert namespace == b"g"
            assert text == good[:-1]


@pytest.mark.parametrize("seed", range(10))
def test_a_splitter_that_remembers_does_what_a_new_one_does(seed):
    """On random and broken lines; and what is taken as plain is so by the plain reading."""
    rng = random.Random(seed)
    splitter = PlainSplitter(NAMES)
    plain = 0
    for _ in range(100):
        block = lines.random_text(rng, rng.choice([1, 5, 40])).rstrip(b"\n") + b"\n"
        found = taken(block, splitter)
        assert found == taken(block)
        assert all(is_plain(line) for line, _ in found)
        plain += len(found)
    assert plain > 200


def test_what_is_remembered_is_bounded(monkeypatch):
    """Ever new heads do not grow the memory without end, and stay proven all the same."""
    monkeypatch.setattr(PlainSplitter, "_most", 10_000)
    splitter = PlainSplitter(NAMES)
    for number in range(1000):
        (found,) = taken(b'm{id="%d",namespace="a"} 1\n' % number, splitter)
        assert found[1] == b"a"
        size = int(repr(splitter).rpartition(", ")[2].split()[0])
        assert size <= 10_000
    assert len(splitter._proven) <= 100
