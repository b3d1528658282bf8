"""Digests of several parts: what makes them differ, and what does not."""

import pytest

from kmproxy.digests import digest


def test_equal_parts():
    """A text and its bytes are equal parts. The parts of a digest have an order."""
    assert digest("é", b"b") == digest("é".encode(), "b") != digest(b"b", "é")
    assert len(digest()) == 32


@pytest.mark.parametrize(
    ("parts", "others"),
    [
        (("ab", "c"), ("a", "bc")),
        (("ab",), ("ab", "")),
        ((), ("",)),
        (("a", "b"), ("a\0b",)),
        ((b"\x00" * 7 + b"\x01a",), (b"\x00" * 7, b"\x01a")),
        (("\udc80",), (b"\x80",)),
        (("\udc80",), ("\udc81",)),
    ],
)
def test_parts_do_not_run_together(parts, others):
    """Whatever characters they hold."""
    assert digest(*parts) != digest(*others)


def test_a_key_and_a_kind():
    """The same parts have other digests by another key, of another kind, and without a key."""
    key = b"k" * 32
    found = [
        digest("part"),
        digest("part", key=key),
        digest("part", key=b"K" * 32),
        digest("part", key=key, kind="token"),
        digest("part", key=key, kind="password"),
        digest("part", kind="token"),
    ]
    assert len(set(found)) == len(found)
