"""Connections: how many there may be, how slow they may be, and how they are secured.

Knows sockets, TLS handshakes, limits of time, and what is no HTTP. Must not know
paths, or who may do what. A connection in which no request is under way is the
first to go when there are too many.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.http_exceptions import LineTooLong

from kmproxy.config import LimitConfig
from kmproxy.errors import StartupError
from kmproxy.responses import plain, reset
from kmproxy.telemetry import Telemetry
from kmproxy.values import Address
from kmproxy.webfile import WebFile, WebState

SHUTDOWN_TIMEOUT = 12.0
"""Seconds that what is under way may take at the end; aiohttp may take them twice, and a
pod has 30."""

MAX_HEADERS = 64
"""Headers of a request; Prometheus sends six."""

LINGER = 2.0
"""Seconds for which a refused client is still read, and at the end an answer is still sent."""

_END = b"\r\n\r\n"  # of a head, and of a request that has no body
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_log = logging.getLogger(__name__)

Answer = Awaitable[web.StreamResponse]


def form_problem(request: web.BaseRequest) -> str | None:
    """Why a request is not one that a scraper makes, or None."""
    if request.version not in (HttpVersion10, HttpVersion11):
        return "HTTP/1.1 is spoken here"
    if request.method == hdrs.METH_CONNECT or not request.raw_path.startswith("/"):
        return "the target must be a path"
    if hdrs.UPGRADE in request.headers or hdrs.EXPECT in request.headers:
        return "it asks for more than an answer"
    if request.body_exists and request.method in {hdrs.METH_GET, hdrs.METH_HEAD}:
        return "what only reads has no body"
    return None


class Connection(web.RequestHandler):
    """aiohttp's reader of requests, with limits of time, and errors that show nothing.

    `state` is the version of the web config under which the client was admitted.

    A client that sends so much behind a request that aiohttp stops to read (32
    requests, or a lot of something else) would not be seen to leave: it is
    refused, or cut if its request is under way. Scrapers and browsers send nothing.
    """

    __slots__ = ("_begun", "_deadline", "_last", "_listener", "_timer", "_wire", "busy", "state")

    def __init__(self, server: web.Server, listener: Listener, state: WebState | None) -> None:
        limits = listener.limits
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
        self.busy = False
        self._listener = listener
        self._begun = True  # whether a head is awaited, and not just the next request some day
        self._last = b""
        self._wire: asyncio.Transport | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come, and its handshake is done: it has a request to make."""
        super().connection_made(transport)
        self._wire = self.transport
        self._listener.rest(self)
        self._expect(self._listener.limits.header_timeout)
        if self.state and not self.state.admits(transport.get_extra_info("peercert")):
            self.cut("certificate")

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, or of what is none: once begun, its head must end in time."""
        if not self._begun and not self.busy:
            self._begun = True
            self._expect(self._listener.limits.header_timeout)
        self._last = (self._last + data)[-len(_END) :]
        super().data_received(data)
        if self.busy and self._unread():
            self.cut("form")

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client has gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wire = None
        self._listener.forget(self)
        super().connection_lost(exc)

    def _began(self) -> None:
        """A whole request is there: from now on what handles it has its own limit of time."""
        self.busy = True
        self._listener.work(self)

    def _ended(self) -> None:
        """Its answer is made; the next request may take a while to come.

        Where its bytes have begun to come, it may not.
        """
        self.busy, self._begun = False, self._last != _END
        if self._wire is None:
            return  # the client has not waited for it
        self._listener.rest(self)
        limits = self._listener.limits
        # aiohttp closes an idle connection; this is for one that then does not go away.
        self._expect(limits.header_timeout if self._begun else limits.idle_timeout + LINGER)

    def _unread(self) -> bool:
        """Whether aiohttp has stopped reading, so that the client is not seen to leave."""
        wire = self._wire
        return wire is not None and not wire.is_closing() and not wire.is_reading()

    def force_close(self) -> None:
        """End it, as aiohttp does of its own accord; an answer under way must not look whole."""
        if self.busy and self._wire is not None:
            reset(self._wire)
        super().force_close()

    def cut(self, reason: str) -> None:
        """End it, whether or not the client reads what is still to be sent."""
        self._listener.refuse(reason)
        if self._wire is None:
            return
        if self.busy or self._wire.get_write_buffer_size():
            reset(self._wire)  # what it has of an answer must not look whole
        else:
            self._wire.abort()

    async def answer(
        self, request: web.BaseRequest, handler: Callable[[web.BaseRequest], Answer]
    ) -> web.StreamResponse:
        """The answer of `handler`, if the request is one to be handled."""
        self._began()
        try:
            problem = form_problem(request)
            if not problem and self._unread() and not request.body_exists:
                problem = "too much comes behind it"
            if problem:
                self._listener.refuse("form")
                response: web.StreamResponse = plain(400, f"the request is refused: {problem}")
            else:
                response = await handler(request)
                if not request.body_exists:
                    return response
            response.force_close()  # what it may still send is read by nobody
            return response
        finally:
            self._ended()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP, or a fault of ours; what the client sent is not shown."""
        del message  # it quotes the client
        if status < 500:
            self._listener.refuse("form")
            long = isinstance(exc, LineTooLong)
            what = "its headers are too long" if long else "it is not HTTP/1.1 as it should be"
            response = plain(431 if long else 400, f"the request is refused: {what}")
        else:
            _log.error("a request failed by a fault of kmproxy's own", exc_info=exc)
            if request.writer.output_size:
                raise ConnectionError("the answer has begun")
            response = plain(500, "a fault of kmproxy's own, see its log")
        response.force_close()
        return response

    def _expect(self, seconds: float) -> None:
        """Let something happen within `seconds`."""
        self._deadline = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= self._deadline:
                return  # it looks again when it is due
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        if self.busy:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._look)
        else:
            self.cut("timeout")


class Listener:
    """Accepts connections for an application, until `stop`.

    `name` is the flag that it goes by.
    """

    def __init__(
        self,
        name: str,
        limits: LimitConfig,
        *,
        web_file: WebFile | None = None,
        telemetry: Telemetry,
    ) -> None:
        self.limits = limits
        self._name = name
        self._web_file = web_file
        self._telemetry = telemetry
        self._server: web.Server | None = None
        self._resting: dict[Connection, None] = {}  # the one that has rested longest is first
        self._open: set[Connection] = set()
        self._empty = asyncio.Event()  # set while there are none
        self._empty.set()
        self._opening: dict[asyncio.Task[None], None] = {}
        self._accepting: list[asyncio.Task[None]] = []
        self._sockets: list[socket.socket] = []

    def __repr__(self) -> str:
        return f"<Listener {self._name}, {len(self._open)} of {self.limits.max_connections} open>"

    async def start(self, server: web.Server, address: Address) -> int:
        """Listen; returns the port. Raises StartupError if the address is not to be had."""
        self._server = server
        try:
            self._sockets = sockets = await _bind(address)
        except OSError as error:
            why = (
                "the address is in use"
                if error.errno == errno.EADDRINUSE
                else error.strerror or str(error)
            )
            raise StartupError(f"cannot listen on {address} ({self._name}): {why}") from error
        self._accepting = [asyncio.create_task(self._accept(sock)) for sock in sockets]
        return int(sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Accept nothing more; what is open is aiohttp's to end."""
        tasks = [*self._accepting, *self._opening]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sock in self._sockets:
            sock.close()

    async def drain(self) -> None:
        """Let the ends of answers be sent, and reset what does not take them."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), LINGER)
        for connection in tuple(self._open):
            connection.cut("timeout")

    def rest(self, connection: Connection) -> None:
        """Note that no request is under way in a connection."""
        self._open.add(connection)
        self._empty.clear()
        self._resting.pop(connection, None)
        self._resting[connection] = None

    def work(self, connection: Connection) -> None:
        """Note that a request is under way in a connection."""
        self._resting.pop(connection, None)

    def forget(self, connection: Connection) -> None:
        """Note that a connection has ended."""
        self._open.discard(connection)
        self._resting.pop(connection, None)
        if not self._open:
            self._empty.set()

    def refuse(self, reason: str) -> None:
        """Count what was refused."""
        self._telemetry.refused.labels(reason).inc()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    _log.error("cannot accept a connection (%s): %s", self._name, error.strerror)
                    await asyncio.sleep(1)
                continue
            if self._make_room():
                task = asyncio.create_task(self._open_one(accepted))
                self._opening[task] = None
                task.add_done_callback(partial(self._opened, accepted))
            else:
                accepted.close()
                await asyncio.sleep(0)

    def _opened(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        self._opening.pop(task, None)
        if task.cancelled():
            sock.close()
        elif (error := task.exception()) is not None:
            sock.close()
            _log.error("a connection failed by a fault of kmproxy's own", exc_info=error)

    def _make_room(self) -> bool:
        """Whether there may be one more connection, once the one that rests longest has gone."""
        if len(self._open) + len(self._opening) < self.limits.max_connections:
            return True
        if self._resting:
            longest = next(iter(self._resting))
            self.forget(longest)
            longest.cut("limit")
            return True
        if self._opening:
            slowest = next(iter(self._opening))
            del self._opening[slowest]
            slowest.cancel()
            self.refuse("limit")
            return True
        self.refuse("limit")
        return False

    async def _open_one(self, sock: socket.socket) -> None:
        """Shake hands with a client, under the version of the web config that is current."""
        server = self._server
        state = self._web_file.current() if self._web_file else None
        context = state.context if state else None
        if server is None:
            sock.close()
            return
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Connection(server, self, state),
                sock,
                ssl=context,
                ssl_handshake_timeout=self.limits.header_timeout if context else None,
                ssl_shutdown_timeout=LINGER if context else None,
            )
        except OSError:  # a handshake that failed, or was too slow
            self.refuse("tls")


@asynccontextmanager
async def listening(
    application: web.Application,
    address: Address,
    name: str,
    limits: LimitConfig,
    *,
    web_file: WebFile | None = None,
    telemetry: Telemetry,
) -> AsyncIterator[int]:
    """Serve an application on an address; yields the port.

    At the end nothing more is accepted, and what is under way is finished.
    `name` is the flag that the address is from. Raises StartupError if the
    address is not to be had.
    """
    runner = web.AppRunner(
        application,
        handle_signals=False,
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_TIMEOUT,
    )
    await runner.setup()
    listener = Listener(name, limits, web_file=web_file, telemetry=telemetry)
    try:
        server = runner.server
        if server is None:
            raise StartupError("the application could not be set up")
        # Before the application, which would route, and answer an Expect, first.
        server.request_handler = partial(_answer, server.request_handler)
        yield await listener.start(server, address)
    finally:
        await listener.stop()
        await runner.cleanup()
        await listener.drain()


async def _answer(
    handler: Callable[[web.BaseRequest], Answer], request: web.BaseRequest
) -> web.StreamResponse:
    connection = request.protocol
    if not isinstance(connection, Connection):
        raise TypeError(connection)
    return await connection.answer(request, handler)


async def _bind(address: Address) -> list[socket.socket]:
    """Sockets that listen on every address that the host has. Raises OSError."""
    if not address.host:
        sockets = [_listening(("", address.port), socket.AF_INET)]
        port = sockets[0].getsockname()[1]
        try:
            sockets.append(_listening(("", port), socket.AF_INET6))
        except OSError as error:  # there need not be an IPv6
            if error.errno == errno.EADDRINUSE and address.port:
                sockets[0].close()
                raise
        return sockets
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    places = dict.fromkeys((family, where) for family, _, _, _, where in found)
    sockets = []
    try:
        for family, where in places:
            sockets.append(_listening(where, family))
            if not address.port:
                break  # another would have another port
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _listening(where: Any, family: socket.AddressFamily) -> socket.socket:
    sock = socket.create_server(where, family=family, backlog=128)
    sock.setblocking(False)
    return sock
