"""Which answers can be those of a kubelet's file server, and which say nothing about a file."""

import pytest

from kmproxy.errors import UpstreamError
from kmproxy.sources.log_answer import log_answer

INDEX = b'<!doctype html>\n<pre>\n<a href="0.log">0.log</a>\n</pre>\n'
PAGE = b"<html><h1>Log in</h1></html>"
SPAN = (10, 19)


@pytest.mark.parametrize(
    ("status", "content_range", "body", "span"),
    [
        (200, "", INDEX, None),
        (200, "", b"<pre>\n</pre>\n", None),
        (404, "", b"404 page not found\n", None),
        (404, "", b"404 page not found\n", SPAN),
        (200, "", b"", SPAN),
        (206, "bytes 10-19/40", b"x" * 10, SPAN),
        (206, "bytes 10-13/14", b"x" * 4, SPAN),
        (416, "bytes */10", b"invalid range: failed to overlap\n", SPAN),
    ],
)
def test_a_file_servers_answer(status, content_range, body, span):
    """It is taken. The text of a refusal is left out."""
    found = log_answer("kubelet", status, content_range, body, span)
    assert (found.status, found.content_range) == (status, content_range)
    assert found.body == (b"" if status > 300 else body)


@pytest.mark.parametrize(
    ("status", "content_range", "body", "span"),
    [
        (200, "", PAGE, None),
        (200, "", b"", None),
        (200, "", INDEX[:-8], None),
        (206, "bytes 0-9/10", INDEX, None),
        (416, "bytes */10", b"", None),
        (404, "", b'{"kind":"Status","message":"nodes \\"a\\" not found"}', None),
        (404, "", PAGE, SPAN),
        (200, "", PAGE, SPAN),
        (200, "", b"x" * 10, SPAN),
        (206, "", b"x" * 10, SPAN),
        (206, "bytes 0-9/40", b"x" * 10, SPAN),
        (206, "bytes 11-19/40", b"x" * 9, SPAN),
        (206, "bytes 10-19/40", b"x" * 9, SPAN),
        (206, "bytes 10-12/40", b"x" * 3, SPAN),
        (206, "bytes 10-19/15", b"x" * 10, SPAN),
        (206, "bytes 10-9/10", b"", SPAN),
        (206, "bytes 10-19/*", b"x" * 10, SPAN),
        (206, "bytes 10-19/" + "9" * 30, b"x" * 10, SPAN),
        (416, "", b"", SPAN),
        (416, "bytes */11", b"", SPAN),
    ],
)
def test_an_answer_of_something_else(status, content_range, body, span):
    """It is a failure, after which the same is asked for again."""
    with pytest.raises(
        UpstreamError, match=r"kubelet's answer \(\d+\) is not that of a"
    ) as failure:
        log_answer("kubelet", status, content_range, body, span)
    assert failure.value.reason == "garbage"
