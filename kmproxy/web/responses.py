"""Answers that are not an exposition, and how one in the making is broken off.

Knows how an application, a plain line and a broken connection look to aiohttp,
and how long a scraper waits. Must not know what is served.
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
"""Seconds for a scrape that does not say how long it waits."""

MARGIN = 0.5
"""Seconds before the scraper's own end at which we answer, so that it sees the answer."""

NAME = "kmproxy"
"""How the server calls itself: without a version, or what it is made of."""

_ABORT = struct.pack("ii", 1, 0)  # struct linger: on, 0 s: a reset instead of an end

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def scrape_budget(header: str | None) -> float:
    """Seconds that a scrape may take: what the scraper waits, less a margin.

    A header that is no positive finite number counts as none.
    """
    try:
        seconds = float(header or "")
    except ValueError:
        return DEFAULT_TIMEOUT
    if not math.isfinite(seconds) or seconds <= 0:
        return DEFAULT_TIMEOUT
    return seconds - min(MARGIN, seconds / 10)


def application(handler: Handler) -> web.Application:
    """An application that gives every request to `handler`, its path as it was sent."""
    app = web.Application()
    app.router.add_route("*", r"/{path:[\s\S]*}", handler)
    app.on_response_prepare.append(_sign)
    return app


async def _sign(_: web.Request, response: web.StreamResponse) -> None:
    response.headers[hdrs.SERVER] = NAME


def plain(status: int, line: str) -> web.Response:
    """One plain line: what failed and what to do."""
    headers = {hdrs.SERVER: NAME}
    text = one_line(line.replace("\n", " ")) + "\n"
    return web.Response(status=status, text=text, headers=headers)


def refusal(status: int, line: str) -> bytes:
    """The same as the bytes of a whole answer, for what never was a request."""
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nServer: {NAME}\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(line) + 1}\r\n"
        f"Connection: close\r\n\r\n{line}\n"
    ).encode("ascii")


def reads(request: web.Request) -> bool:
    """Whether the method is one that only reads."""
    return request.method in {hdrs.METH_GET, hdrs.METH_HEAD}


def not_found(*, of_a_node: bool = False) -> web.Response:
    """The answer to a path that is not served; `of_a_node`: for want of a configured node."""
    if of_a_node:
        why = "no node is configured, see --node-name-or-ip; those of every node are below"
        return plain(404, f"{why} /api/v1/nodes/")
    return plain(404, "no such path: only kubelet metrics are served here, see /")


def not_allowed() -> web.Response:
    """The answer to a method that does more than read."""
    response = plain(405, "only GET and HEAD")
    response.headers[hdrs.ALLOW] = "GET, HEAD"
    return response


def break_off(request: web.Request) -> None:
    """Reset the connection, so that no client takes what it has for the whole."""
    if request.transport is not None:
        reset(request.transport)


def reset(transport: asyncio.WriteTransport) -> None:
    """End a connection, and not as what is whole ends: what is still to be sent is not."""
    if (sock := transport.get_extra_info("socket")) is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    transport.abort()
