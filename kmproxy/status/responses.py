"""Chooses between HTML and JSON, and sets the headers of both.

Knows HTTP. Must not know the facts of a page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TypeVar

import msgspec
from aiohttp import hdrs, web

from kmproxy.status.document import frame
from kmproxy.status.markup import Markup
from kmproxy.status.query import wanted

_R = TypeVar("_R")


async def respond(
    request: web.Request, facts: msgspec.Struct, title: str, body: Generator[None, None, Markup]
) -> web.Response:
    """Answer with the facts as the caller wants them. `body` makes the HTML in steps."""
    shown = frame()
    headers = dict(shown.headers)
    if wanted(",".join(request.headers.getall(hdrs.ACCEPT, ()))) == "json":
        headers[hdrs.CONTENT_TYPE] = "application/json"
        return web.Response(body=msgspec.json.encode(facts), headers=headers)
    headers[hdrs.CONTENT_TYPE] = "text/html; charset=utf-8"
    return web.Response(body=shown.page(title, await in_steps(body)), headers=headers)


async def in_steps(steps: Generator[None, None, _R]) -> _R:
    """Run a generator to its end, and let the event loop serve others between its steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _R = end.value
            return result
        await asyncio.sleep(0)
