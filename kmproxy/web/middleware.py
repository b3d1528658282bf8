"""Checks each request by the web config before it is handled.

Knows basic authentication, rate limits and response headers. Must not know
paths, or the content that is served.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from kmproxy.config.web import RateLimit
from kmproxy.web.config_file import WebFile, WebState
from kmproxy.web.connection import Connection
from kmproxy.web.listener import ConnectionMetrics
from kmproxy.web.responses import Handler, plain

if TYPE_CHECKING:
    from kmproxy.web.passwords import Passwords


def basic_credentials(request: web.Request) -> tuple[str, bytes] | None:
    """The user and the password of a request's Authorization header, or None."""
    values = request.headers.getall(hdrs.AUTHORIZATION, [])
    if len(values) != 1:
        return None
    scheme, _, encoded = values[0].partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (user.decode("utf-8", "surrogateescape"), password) if colon else None


class TokenBucket:
    """Admits `burst` requests at once, and then one request in each `interval`."""

    def __init__(self, limit: RateLimit, clock: Callable[[], float]) -> None:
        self.limit = limit
        self._clock = clock
        self._left = float(limit.burst)
        self._counted_at = clock()

    def take(self) -> bool:
        """Whether one more request is admitted now."""
        now = self._clock()
        gained = (now - self._counted_at) / self.limit.interval
        self._left, self._counted_at = min(self._left + gained, float(self.limit.burst)), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class WebGuard:
    """Applies the checks of the web config, in the order of the exporter toolkit."""

    def __init__(
        self,
        web_file: WebFile,
        passwords: Callable[[], Passwords],
        *,
        metrics: ConnectionMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._web_file = web_file
        self._passwords = passwords
        self._metrics = metrics
        self._clock = clock
        self._bucket: TokenBucket | None = None

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check a request, then handle it. It is the application's first middleware."""
        state = self._web_file.current()
        connection = request.protocol
        if not isinstance(connection, Connection) or not _admitted(connection, state):
            # The connection was admitted under another web config. Its client must make a new
            # handshake. Clients repeat a request if its connection was reset.
            if isinstance(connection, Connection):
                connection.cut("certificate")
            return plain(401, "the web config has changed: connect again")
        if not self._has_time(state.config.rate_limit):
            self._metrics.refused.labels("rate").inc()
            return plain(429, "too many requests: see rate_limit in the web config file")
        if state.config.users:
            refusal = await self._authenticate(request, state, connection.address)
            if refusal is not None:
                self._metrics.refused.labels("password").inc()
                return refusal
            connection.known()
        return await handler(request)

    async def add_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        """Add the configured headers to a response. It is a signal handler of the application."""
        response.headers.update(self._web_file.current().config.headers)

    async def _authenticate(
        self, request: web.Request, state: WebState, address: str
    ) -> web.Response | None:
        from kmproxy.web.passwords import BusyError  # noqa: PLC0415 - loads bcrypt only if needed

        given = basic_credentials(request)
        try:
            users = state.config.users
            if given and await self._passwords().verify(users, *given, address=address):
                return None
        except BusyError:
            return plain(503, "too many requests with passwords: try again later")
        response = plain(401, "a user and a password are needed: see basic_auth")
        response.headers[hdrs.WWW_AUTHENTICATE] = "Basic"
        return response

    def _has_time(self, limit: RateLimit | None) -> bool:
        if limit is None:
            self._bucket = None
            return True
        if self._bucket is None or self._bucket.limit != limit:
            self._bucket = TokenBucket(limit, self._clock)
        return self._bucket.take()


def _admitted(connection: Connection, state: WebState) -> bool:
    """Whether a connection that was admitted earlier would also be admitted now."""
    then = connection.state
    return then is not None and (
        then is state
        or (then.admission == state.admission and (then.context is None) == (state.context is None))
    )
