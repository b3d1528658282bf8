"""One client's connection: its requests one at a time, in bounded bytes and time.

Knows aiohttp's reader of requests, and refuses bytes that are not HTTP. Must not
know paths, rights of callers, or the number of connections.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import HttpVersion10, HttpVersion11, StreamReader, hdrs, web
from aiohttp.http_exceptions import LineTooLong

from kmproxy.config.sections import LimitConfig
from kmproxy.web.config_file import WebState
from kmproxy.web.heads import Heads
from kmproxy.web.open_connections import OpenConnections, network
from kmproxy.web.responses import plain, refusal, reset

MAX_HEADERS = 64
"""Headers that a request may have. Prometheus sends six."""

LINGER = 2.0
"""Seconds for which kmproxy still reads from a refused client, and at its own end still sends
responses."""

_LAST_CHUNK = b"0\r\n\r\n"

_log = logging.getLogger(__package__)

Answer = Awaitable[web.StreamResponse]


class Port(Protocol):
    """The port that accepted a connection, as the connection sees it."""

    limits: LimitConfig
    connections: OpenConnections[Connection]

    def refuse(self, reason: str) -> None:
        """Count a refused connection or request."""

    def forget(self, connection: Connection) -> None:
        """Record that a connection has ended."""

    def named(self) -> bool:
        """Whether callers are authenticated, and not known by their address only."""

    def told(self) -> bool:
        """Whether the application authenticates callers, and then calls `known`."""


def form_problem(request: web.BaseRequest) -> str | None:
    """The reason why a request does not have the form of a scraper's request, or None."""
    if request.version not in (HttpVersion10, HttpVersion11):
        return "the version must be HTTP/1.1"
    if request.method == hdrs.METH_CONNECT or not request.raw_path.startswith("/"):
        return "the target must be a path"
    if hdrs.UPGRADE in request.headers or hdrs.EXPECT in request.headers:
        return "Upgrade and Expect are not supported"
    if request.body_exists and request.method in {hdrs.METH_GET, hdrs.METH_HEAD}:
        return "GET and HEAD must have no body"
    return None


class Connection(web.RequestHandler):
    """aiohttp's reader of requests, with bounds, and with errors that quote no client.

    `state` is the version of the web config under which the client was admitted.
    `address` is the client's network (see `network`). aiohttp's parser gets one
    head at a time and no body. Bytes that follow a running request are held, up to
    the size of one head. Beyond that, the connection is closed. So kmproxy never
    stops reading, and notices when a client disconnects.
    """

    __slots__ = (
        "_awaited", "_begun", "_book", "_deadline", "_heads", "_over", "_port", "_tail",
        "_timer", "_unread", "_wire", "address", "busy", "opening", "state",
    )  # fmt: skip

    def __init__(
        self, server: web.Server, port: Port, state: WebState | None, host: str | None
    ) -> None:
        limits = port.limits
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            logger=_log,
            access_log=None,  # type: ignore[arg-type] # None is what turns it off
            keepalive_timeout=limits.idle_timeout,
            lingering_time=LINGER,
            max_line_size=limits.max_header_bytes,
            max_field_size=limits.max_header_bytes,
            max_headers=MAX_HEADERS,
            auto_decompress=False,
        )
        self.state = state
        self.address = network(host)
        self.busy = False
        self.opening: asyncio.Task[None] | None = None  # the TLS handshake, until its end
        self._port = port
        self._book = port.connections
        self._heads = Heads(limits.max_header_bytes)
        self._begun = True  # whether a head is due; if not, the connection is idle
        self._over = False  # whether the connection is to end: further bytes are dropped
        self._unread: StreamReader | None = None  # the body of a request, which nobody reads
        self._awaited: int | None = None  # remaining bytes of that body, if known
        self._tail = b""
        self._wire: asyncio.Transport | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected, and its handshake is done. Its first head is due."""
        super().connection_made(transport)
        self.opening = None
        self._wire = self.transport
        self._expect(self._port.limits.header_timeout)
        if self.state and not self.state.admits(transport.get_extra_info("peercert")):
            self.cut("certificate")
        elif self._port.named() and not self._port.told():  # its certificate authenticates it
            self._book.know(self, by_address=False)
            self._book.rest(self)

    def data_received(self, data: bytes) -> None:
        """Receive bytes of the client. A head that has begun must end in time."""
        if not data:  # aiohttp calls it without data to resume its parser
            super().data_received(data)
        elif self._unread is not None:
            self._skip(self._unread, data)
        elif not self._over:
            if not self._begun and not self._heads.whole:
                self._begun = True
                self._expect(self._port.limits.header_timeout)
            self._take(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wire = None
        self._port.forget(self)
        super().connection_lost(exc)

    def _take(self, data: bytes) -> None:
        """Give the parser the bytes of the current head, within the bounds."""
        piece = self._heads.feed(data)
        if self._heads.too_large:
            most = self._port.limits.max_header_bytes
            self._refuse(431, f"the headers are over {most} bytes together")
        elif self._heads.crowded:
            self.cut("form")  # a response is being sent: a refusal cannot precede it
        elif self._book.hold(self, self._heads.size) and piece:
            super().data_received(piece)
            if self._heads.whole and not self._messages:  # the preface of HTTP/2
                self._refuse(400, "the message is not valid HTTP/1.1")

    def _refuse(self, status: int, problem: str) -> None:
        """Refuse bytes that are not a request, while no request runs. Further bytes are dropped."""
        self._port.refuse("form")
        self._over = True
        self._book.hold(self, 0)
        if self._wire is not None:
            self._wire.write(refusal(status, f"the request is refused: {problem}"))
            if self._wire.can_write_eof():
                self._wire.write_eof()
        self._expect(LINGER)

    def _skip(self, body: StreamReader, data: bytes) -> None:
        """Drop a portion of a body that nobody reads, and detect the body's end."""
        self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
        if self._awaited is not None:
            self._awaited -= len(data)
        if (self._tail == _LAST_CHUNK) if self._awaited is None else self._awaited <= 0:
            body.feed_eof()

    def known(self) -> None:
        """Record that the running request's caller is known. No other connection displaces it."""
        self._book.know(self, by_address=not self._port.named())

    def _answered(self) -> None:
        """The response is made. Set the time for sending it and for the next request."""
        self.busy, self._begun = False, False
        if self._wire is None:
            return  # the client has disconnected
        self._book.rest(self)
        # aiohttp closes an idle connection. This ends one whose client then stays.
        self._expect(self._port.limits.idle_timeout + LINGER)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send a response to its end, and only then read the next request."""
        finished = await super().finish_response(request, resp, start_time)
        behind = self._heads.next()
        if behind and not self._over and self._wire is not None and resp.keep_alive:
            self.data_received(behind)
        return finished

    def force_close(self) -> None:
        """Close the connection, when aiohttp decides it. An unfinished response causes a reset.

        So the client cannot take the response for complete.
        """
        if self.busy and self._wire is not None:
            reset(self._wire)
        super().force_close()

    def cut(self, reason: str) -> None:
        """End the connection, and count `reason`. It does not wait for the client.

        Unsent or unfinished responses cause a reset.
        """
        self._port.refuse(reason)
        self._over = True
        if self._wire is None:
            if self.opening is not None:
                self.opening.cancel()
        elif self.busy or self._wire.get_write_buffer_size():
            reset(self._wire)  # the client cannot take a partial response for complete
        else:
            self._wire.abort()

    async def answer(
        self, request: web.BaseRequest, handler: Callable[[web.BaseRequest], Answer]
    ) -> web.StreamResponse:
        """The response of `handler`, or a refusal if the request does not have the right form.

        While the handler runs, the connection's own time limits do not apply.
        """
        self.busy = True
        self._book.ask(self)
        if request.body_exists:
            self._skip_body(request)
        try:
            if problem := form_problem(request):
                self._port.refuse("form")
                response: web.StreamResponse = plain(400, f"the request is refused: {problem}")
                response.force_close()
            else:
                if not self._port.told():
                    self.known()
                response = await handler(request)
                if request.body_exists:
                    response.force_close()  # nobody reads the rest of the body
            return response
        finally:
            self._answered()

    def _skip_body(self, request: web.BaseRequest) -> None:
        """Drop the request's body. No request follows: the connection ends with the response."""
        self._unread, self._awaited = request.content, request.content_length
        self._skip(request.content, self._heads.next())
        self._heads.whole = True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The response to bytes that are not HTTP, or to a bug. It does not quote the client."""
        del message  # it quotes the client
        if status < 500:
            self._port.refuse("form")
            self._over = True
            long = isinstance(exc, LineTooLong)
            what = "the headers are too long" if long else "the message is not valid HTTP/1.1"
            response = plain(431 if long else 400, f"the request is refused: {what}")
        else:
            _log.error("a request failed because of an error in kmproxy", exc_info=exc)
            if request.writer.output_size:
                raise ConnectionError("the answer has begun")
            response = plain(500, "an error in kmproxy, see its log")
        response.force_close()
        return response

    def _expect(self, seconds: float) -> None:
        """Set the time within which the next event must happen, in `seconds` from now."""
        self._deadline = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= self._deadline:
                return  # the timer then sees the new deadline
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        if self.busy:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._look)
        elif self._over and self._wire is not None:
            self._wire.abort()  # already refused and counted
        else:
            self.cut("timeout")
