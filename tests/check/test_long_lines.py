"""Lines of an exposition that a preflight does not keep."""

from __future__ import annotations

import pytest

from kmproxy.check.observations import LONGEST, Lines


@pytest.mark.parametrize("size", [1, LONGEST // 4, LONGEST, 3 * LONGEST])
@pytest.mark.parametrize(("over", "kept"), [(0, True), (1, False)])
def test_a_line_has_its_longest(size, over, kept):
    """However it is cut into pieces: at the limit it is whole, a byte more and it is empty."""
    line = b"x" * (LONGEST + over)
    text = b"a\n" + line + b"\nb\n" + line + b"\n"
    lines, found = Lines(), []
    if size == 1:  # the last byte comes by itself
        pieces = [text[:-3], text[-3:-2], text[-2:-1], text[-1:]]
    else:
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
    for piece in pieces:
        found += lines.feed(piece)
    expected = line if kept else b""
    assert found == [b"a", expected, b"b", expected]


def test_a_line_without_an_end_is_not_held():
    """Its bytes are dropped as they come."""
    lines = Lines()
    for _ in range(40):
        assert lines.feed(b"x" * (LONGEST // 10)) == []
    assert sum(map(len, lines._held)) <= LONGEST
    assert lines.feed(b"\nm 1\n") == [b"", b"m 1"]
