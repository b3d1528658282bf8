"""Request heads: where a head ends, and how many bytes after it are held."""

from __future__ import annotations

import pytest

from kmproxy.web.heads import Heads

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_one_head_at_a_time(size):
    """Each head is passed on whole, however it is cut, without the blank lines before it."""
    stream = b"\r\n\r\n" + HEAD + b"\r\n" + HEAD + HEAD[:9]
    heads, passed = Heads(1000), []
    current = b""
    for start in range(0, len(stream), size):
        data = stream[start : start + size]
        while data:
            current += heads.feed(data)
            data = b""
            if heads.whole:
                passed.append(current)
                current, data = b"", heads.next()
    assert passed == [HEAD, HEAD]
    assert current == HEAD[:9]
    assert heads.size == 9


def test_what_comes_behind_is_held():
    """Later bytes are held while a request is answered, and then passed on."""
    heads = Heads(100)
    assert heads.feed(HEAD + b"GET /a") == HEAD
    assert heads.feed(b" HTTP/1.1") == b""
    assert heads.size == len(HEAD) + 15
    assert heads.next() == b"GET /a HTTP/1.1"
    assert heads.size == 0


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_a_head_that_is_too_large(size):
    """A head one byte over the bound is too large, with or without its end."""
    most = len(HEAD)
    for data, large in ((HEAD, False), (HEAD[:-4] + b"y\r\n\r\n", True), (b"x" * most, False)):
        heads = Heads(most)
        for start in range(0, len(data), size):
            heads.feed(data[start : start + size])
        assert heads.too_large is large


@pytest.mark.parametrize("at_once", [True, False])
def test_too_much_behind(at_once):
    """At most a head's bound of later bytes is held, and never more than one byte over."""
    heads = Heads(len(HEAD))
    if at_once:
        heads.feed(HEAD + HEAD)
    else:
        heads.feed(HEAD)
        heads.feed(HEAD)
    assert not heads.crowded
    heads.feed(b"x" * 100_000)
    assert heads.crowded
    assert heads.size == 2 * len(HEAD) + 1
    assert repr(heads) == f"<Heads whole, {len(HEAD)} bytes, {len(HEAD) + 1} behind>"
