"""Checks that an answer can be that of a kubelet's file server to a request for logs.

Knows the statuses, the ranges and the texts of Go's `http.FileServer`. Must not know requests or
lines. A page of another server, an error of a proxy or a wrong range says nothing about a file:
taken for the file or its folder, it would cost lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kmproxy.errors import UpstreamError

_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.ASCII)
_SIZE: Final = re.compile(r"bytes \*/([0-9]{1,18})", re.ASCII)
_INDEX: Final = (b"<pre>\n", b"</pre>\n")
_ABSENT: Final = b"404 page not found"


@dataclass(frozen=True, slots=True)
class LogAnswer:
    """The whole answer to a request for a log file or a folder: 200, 206, 404 or 416."""

    status: int
    content_range: str
    body: bytes


def log_answer(
    name: str, status: int, content_range: str, body: bytes, span: tuple[int, int] | None
) -> LogAnswer:
    """Return the answer of `name` to a request for `span` of a file, or for a folder without one.

    Raises UpstreamError if a file server does not answer in this way.
    """
    if status == 404:
        good = body.startswith(_ABSENT)
    elif span is None:
        begin, end = _INDEX
        good = status == 200 and begin in body[:4096] and body.endswith(end)
    elif status == 200:
        good = not body  # an empty file: there is no range of it
    elif status == 206:
        good = _is_part(content_range, len(body), span)
    else:
        found = _SIZE.fullmatch(content_range)
        good = status == 416 and found is not None and int(found[1]) <= span[0]
    if not good:
        what = "a folder of logs" if span is None else "a log file"
        message = f"the {name}'s answer ({status}) is not that of {what}"
        raise UpstreamError("garbage", message)
    return LogAnswer(status, content_range, b"" if status >= 300 else body)


def _is_part(content_range: str, length: int, span: tuple[int, int]) -> bool:
    """Tell whether a Content-Range fits the span that was asked for and the bytes that came."""
    found = _RANGE.fullmatch(content_range)
    if found is None:
        return False
    first, last, size = int(found[1]), int(found[2]), int(found[3])
    return first == span[0] <= last == min(span[1], size - 1) and length == last - first + 1
