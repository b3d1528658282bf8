"""How many samples bear which label: exact for any text, and bounded for any."""

from __future__ import annotations

from itertools import pairwise

import pytest

from kmproxy.check.observations import MAX_SHAPES, LabelCounts

NAMES = (b"namespace", b"exported_namespace")


def counted(text, cuts=()):
    """Both counts, and all samples."""
    counts = LabelCounts(NAMES)
    for start, end in pairwise([0, *cuts, len(text)]):
        counts.feed(text[start:end])
    counts.finish()
    return counts.counts[NAMES[0]], counts.counts[NAMES[1]], counts.samples


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", (0, 0, 0)),
        (b"a 1\n", (0, 0, 1)),
        (b'a{namespace="x"} 1\na{namespace="y"} 2\n', (2, 0, 2)),
        (b'a{namespace=""} 1\n', (0, 0, 1)),
        (b'a{b="",namespace="x",c=""} 1\n', (1, 0, 1)),
        (b'a{exported_namespace="x",namespace="y"} 1', (1, 1, 1)),
        (b'a{b="namespace=",c="d"} 1\n', (0, 0, 1)),
        (b'a{b=",namespace=\\"x\\","} 1\n', (0, 0, 1)),
        (b'a{b="\\\\",namespace="}"} 1 # {namespace="x"} 1\n', (1, 0, 1)),
        (b'# HELP a "b\n# TYPE a gauge\na{namespace="x"} 1\n', (1, 0, 1)),
        (b'a{namespace="x"} 1\n# HELP b "\nb{namespace="y"} 1\n', (2, 0, 2)),
        (b'{"a.b",namespace="x"} 1\n', (1, 0, 1)),
        (b'a { namespace = "x" } 1\n', (1, 0, 1)),
        (b'what is this\na{b=} 1\na{namespace="x" 1\n', (0, 0, 0)),
    ],
)
def test_texts(text, expected):
    """Whole, byte by byte and in pieces."""
    for cuts in ([], range(len(text)), range(0, len(text), 7)):
        assert counted(text, cuts) == expected


def test_names_without_end():
    """What is remembered is bounded, and the counts stay exact."""
    counts = LabelCounts(NAMES)
    for number in range(3 * MAX_SHAPES):
        counts.feed(b'm%d{namespace="x"} 1\n' % number)
        assert len(counts._shapes) <= MAX_SHAPES
    counts.finish()
    assert (counts.counts[b"namespace"], counts.samples) == (3 * MAX_SHAPES, 3 * MAX_SHAPES)
    counts.feed(b'a{b%b="x"} 1\n' % (b"c" * 100_000))
    for _ in range(100):
        counts.feed(b'a{b%b="x"} 1\n' % (b"c" * 200_000))
    assert counts._size <= 8 << 20
