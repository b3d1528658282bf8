"""How the value of a label is spelled between quotes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmproxy.exposition.grammar import escape, unescape, unquote


@pytest.mark.parametrize(
    ("value", "spelled"),
    [(b"plain", b"plain"), (b'a"b', b'a\\"b'), (b"a\\nb", b"a\\\\nb"), (b"a\nb", b"a\\nb")],
)
def test_three_characters_are_escaped(value, spelled):
    """Quotes, backslashes and line feeds, as in Prometheus' text format."""
    assert escape(value) == spelled


@given(st.binary(max_size=40) | st.text('a\\"\n', max_size=40).map(str.encode))
def test_unescape_is_the_inverse(value):
    """Whatever bytes the value has. No line feed and no bare quote is left in it."""
    spelled = escape(value)
    assert unescape(spelled) == unquote(b'"%b"' % spelled) == value
    assert b"\n" not in spelled
