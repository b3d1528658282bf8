"""Plain responses, the time for a scrape, and the reset of an unfinished response.

Knows how aiohttp represents an application, a response and a connection, and how
long a scraper waits. Must not know the content that is served.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import hdrs, web

from kmproxy.errors import one_line

TIMEOUT_HEADER = "X-Prometheus-Scrape-Timeout-Seconds"
DEFAULT_TIMEOUT = 10.0
"""Seconds for a scrape without a valid timeout header."""

MARGIN = 0.5
"""Seconds between kmproxy's latest response and the scraper's timeout, so that the scraper sees
the response."""

NAME = "kmproxy"
"""The value of the Server header: without a version, and without the names of libraries."""

_ABORT = struct.pack("ii", 1, 0)  # struct linger: on, 0 s: a reset instead of an end

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def scrape_budget(header: str | None) -> float:
    """Seconds that a scrape may take: the scraper's timeout, less a margin.

    The margin is `MARGIN`, or a tenth of the timeout if that is less. A header that
    is not a positive finite number counts as absent: then it is `DEFAULT_TIMEOUT`.
    """
    try:
        seconds = float(header or "")
    except ValueError:
        return DEFAULT_TIMEOUT
    if not math.isfinite(seconds) or seconds <= 0:
        return DEFAULT_TIMEOUT
    return seconds - min(MARGIN, seconds / 10)


def application(handler: Handler) -> web.Application:
    """An application that passes each request to `handler`, with its path as it was sent."""
    app = web.Application()
    app.router.add_route("*", r"/{path:[\s\S]*}", handler)
    app.on_response_prepare.append(_sign)
    return app


async def _sign(_: web.Request, response: web.StreamResponse) -> None:
    response.headers[hdrs.SERVER] = NAME


def plain(status: int, line: str) -> web.Response:
    """A response of one plain line: the failure and the remedy."""
    headers = {hdrs.SERVER: NAME}
    text = one_line(line.replace("\n", " ")) + "\n"
    return web.Response(status=status, text=text, headers=headers)


def refusal(status: int, line: str) -> bytes:
    """A response of one plain line as bytes, to a client that has sent no valid request."""
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nServer: {NAME}\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(line) + 1}\r\n"
        f"Connection: close\r\n\r\n{line}\n"
    ).encode("ascii")


def reads(request: web.Request) -> bool:
    """Whether the method only reads: GET or HEAD."""
    return request.method in {hdrs.METH_GET, hdrs.METH_HEAD}


def not_found(*, of_a_node: bool = False) -> web.Response:
    """The response to an unknown path. `of_a_node`: to a path that needs a configured node."""
    if of_a_node:
        why = "no node is configured, see --node-name-or-ip; the paths of named nodes begin with"
        return plain(404, f"{why} /api/v1/nodes/")
    return plain(404, "no such path: only metrics are served here, see /")


def not_allowed() -> web.Response:
    """The response to any method but GET and HEAD."""
    response = plain(405, "only GET and HEAD")
    response.headers[hdrs.ALLOW] = "GET, HEAD"
    return response


def break_off(request: web.Request) -> None:
    """Reset a request's connection, so that no client takes a partial response for complete."""
    if request.transport is not None:
        reset(request.transport)


def reset(transport: asyncio.WriteTransport) -> None:
    """Close the connection with RST: unsent data is dropped, and the body cannot look complete."""
    if (sock := transport.get_extra_info("socket")) is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    transport.abort()
