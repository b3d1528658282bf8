"""Texts, cuts and limits for properties."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.support import lines

TOKENS = [
    *lines.NAMES, *lines.ADDED, *lines.SPACES, *lines.ODD_SPACES, *lines.ODD_VALUES, *lines.EXEMPLARS,
    *lines.COMMENTS, *lines.OTHERS, b'm{namespace="web"} 1\n', b'm{team="x",namespace="shop"} 1\n',
    b'm{namespace="', b'namespace="web"', b'"} 1\n', b"m{", b"} 1 2\n", b"} 1\n", b",", b"=", b'"', b"\n", b" ",
]  # fmt: skip


anything = st.lists(st.sampled_from(TOKENS) | st.binary(max_size=9), max_size=40).map(b"".join)


limits = st.sampled_from([lines.MAX_LINE, 60, 25])


@st.composite
def cut(draw, text):
    """Places to cut a text at, some of them twice."""
    return sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
