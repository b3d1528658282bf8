"""Opens the session that all upstreams share, and notes which connections are used again.

Must not know which servers are asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from kmproxy import __version__
from kmproxy.client.connector import Connector

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

    from kmproxy.client.addresses import AddressRule

KEEP_ALIVE = 80.0
"""Seconds that an idle connection is kept: more than a scrape interval, less than the 90 of a
kubelet."""

PIECE = 1 << 16


def open_session(
    addresses: AddressRule | None = None, resolver: AbstractResolver | None = None
) -> aiohttp.ClientSession:
    """A session for all upstreams. With `addresses`, for those whose addresses the rule checks.

    Without a `resolver` all sessions share the threads in which names are resolved. The caller
    owns the session and closes it.
    """
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_reuse)
    trace.on_connection_create_start.append(_note_new)
    return aiohttp.ClientSession(
        connector=Connector(addresses, limit=0, keepalive_timeout=KEEP_ALIVE, resolver=resolver),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"kmproxy/{__version__}"},
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        read_bufsize=PIECE,
        trust_env=False,
        trace_configs=[trace],
    )


@dataclass(slots=True)
class Way:
    """The connection of a request: used before (`reused`) or new."""

    reused: bool = False


async def _note_reuse(_: aiohttp.ClientSession, context: Any, __: object) -> None:
    context.trace_request_ctx.reused = True


async def _note_new(_: aiohttp.ClientSession, context: Any, __: object) -> None:
    context.trace_request_ctx.reused = False
