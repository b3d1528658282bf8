"""What a whole answer is: its form, its size and its proven end.

Knows Content-Type, codings and framing. Must not know which server answers, nor how its refusal is
explained.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

import aiohttp

from kmproxy.client.upstream import Upstream
from kmproxy.content_coding import GzipDecoder
from kmproxy.errors import UpstreamError

TURN = 0.004
"""Seconds of work with an answer, after which the event loop serves other requests."""

_HEADER_TEXT = re.compile(r"[\t\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class Form:
    """The form that an answer must have: its media types and its content codings."""

    name: str
    media: frozenset[str]
    codings: frozenset[str]


METRICS_TEXT = Form(
    "Prometheus text",
    frozenset({"text/plain", "application/openmetrics-text"}),
    frozenset({"identity", "gzip", "x-gzip"}),
)
JSON = Form("JSON", frozenset({"application/json"}), frozenset({"identity"}))


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of the right form, with the pieces of its body as they are received.

    `pieces` ends only at the end that the response's framing proves. Otherwise it raises
    UpstreamError. `coding` is the content coding of the pieces, in which more has to be proven.
    """

    content_type: str
    coding: str
    pieces: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Exposition:
    """An answer with metrics: its own Content-Type, and its decoded body, in pieces as they arrive.

    `pieces` ends only at the proven end of the body. Otherwise it raises UpstreamError. Between two
    pieces, the event loop runs if it has not run for `TURN` seconds. If another scrape's read is
    shared, `began` is when its answer had begun, on the clock of the reads.
    """

    content_type: str
    pieces: AsyncIterator[bytes]
    began: float | None = None


@dataclass(frozen=True, slots=True)
class Size:
    """The limit for the decoded bytes of an answer of the server `name`."""

    name: str
    most: int

    def error(self) -> UpstreamError:
        """The error for an answer over the limit."""
        return UpstreamError(
            "too_large",
            f"the {self.name}'s answer is over {self.most} bytes: see --max-response-bytes",
        )


def opened(upstream: Upstream, response: aiohttp.ClientResponse, size: Size) -> Answer:
    """An answer whose form is checked already. Raises UpstreamError if it announces too much."""
    coding = coding_of(response)
    if coding == "identity" and (response.content_length or 0) > size.most:
        raise size.error()
    return Answer(response.headers["Content-Type"], coding, upstream.pieces(response))


async def decoded(answer: Answer, size: Size) -> AsyncGenerator[bytes, None]:
    """Decode an answer, to its proven end. Raises UpstreamError, also if it is too large."""
    left = size.most
    decoder = None if answer.coding == "identity" else GzipDecoder(size.name)
    now = asyncio.get_running_loop().time
    turn = now() + TURN
    async for piece in answer.pieces:
        for part in decoder.feed(piece) if decoder else (piece,):
            left -= len(part)
            if left < 0:
                raise size.error()
            yield part
            if now() >= turn:  # 64 KiB can decode to 64 MiB of text without any wait
                await asyncio.sleep(0)
                turn = now() + TURN
    if decoder:
        decoder.finish()


def require_form(response: aiohttp.ClientResponse, form: Form, name: str) -> None:
    """Raise UpstreamError if a response of the server `name` must not be served as a whole one."""
    content_type = response.headers.get("Content-Type", "")
    # The value is sent on to the client. A character that a header cannot hold would break
    # kmproxy's own response, not only fail the scrape.
    if not _HEADER_TEXT.fullmatch(content_type):
        raise UpstreamError(
            "content_type",
            f"the {name} answered Content-Type {content_type[:60]!r}, which is not text",
        )
    media = content_type.partition(";")[0].strip().lower()
    if media not in form.media:
        what = f"Content-Type {media[:60]!r}" if media else "no Content-Type"
        raise UpstreamError("content_type", f"the {name} answered {what}, which is not {form.name}")
    coding = coding_of(response)
    if coding not in form.codings:
        raise UpstreamError(
            "encoding", f"the {name} answered with Content-Encoding {coding[:40]!r}"
        )
    transfer = _listed(response, "Transfer-Encoding")
    if transfer not in {"", "chunked"}:
        raise UpstreamError(
            "framing", f"the {name} answered with Transfer-Encoding {transfer[:40]!r}"
        )
    if not transfer and response.content_length is None:
        raise UpstreamError(
            "framing",
            f"the {name}'s answer has neither Content-Length nor chunks: its end cannot be proven",
        )


def coding_of(response: aiohttp.ClientResponse) -> str:
    """The content coding of a response in lower case, `identity` without one."""
    return _listed(response, "Content-Encoding") or "identity"


def _listed(response: aiohttp.ClientResponse, name: str) -> str:
    """The value of a list header in lower case. It may be sent in several parts (RFC 9110, 5.3)."""
    return ", ".join(response.headers.getall(name, ())).lower()
