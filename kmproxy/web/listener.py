"""Accepts the connections of a port: bounds their number and their time, and secures them.

Knows sockets and TLS handshakes. Must not know requests, or rights of callers. If
there are too many connections, `open_connections` decides which one is closed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from kmproxy.config.sections import LimitConfig
from kmproxy.config.types import Address
from kmproxy.errors import StartupError
from kmproxy.web.config_file import WebFile
from kmproxy.web.connection import LINGER, Answer, Connection
from kmproxy.web.open_connections import OpenConnections

SHUTDOWN_TIMEOUT = 12.0
"""Seconds that running requests may take at shutdown. aiohttp may take them twice, and a pod
has 30."""

HEADS = 64
"""Bound for all unfinished requests together, as a number of heads of the largest size."""

RECEIVED = 64 << 10
"""Bytes from a client that the system buffers at most for kmproxy. A head has fewer."""

SENT = 256 << 10
"""Bytes of a response that the system buffers at most for a client."""

_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_log = logging.getLogger(__package__)


class ConnectionMetrics:
    """Counts connections and requests that are refused before they are handled."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refused = Counter(
            "kmproxy_refused",
            "Connections and requests refused before they were handled, by reason; 'slow' is a "
            "client that did not read its answer, 'heads' the limit of unfinished requests.",
            ["reason"],
            registry=registry,
        )


class Listener:
    """Accepts connections for an application, until `stop`.

    `name` is the flag that sets the address. `authorized` is true if the application
    authenticates callers, and then calls `Connection.known`.
    """

    def __init__(
        self,
        name: str,
        limits: LimitConfig,
        *,
        web_file: WebFile | None = None,
        authorized: bool = False,
        metrics: ConnectionMetrics,
    ) -> None:
        self.limits = limits
        self.connections: OpenConnections[Connection] = OpenConnections(
            limits.max_connections, head_bytes=HEADS * limits.max_header_bytes
        )
        self._name = name
        self._web_file = web_file
        self._authorized = authorized
        self._metrics = metrics
        self._server: web.Server | None = None
        self._empty = asyncio.Event()  # set while no connection is open
        self._empty.set()
        self._opening: set[asyncio.Task[None]] = set()
        self._accepting: list[asyncio.Task[None]] = []
        self._sockets: list[socket.socket] = []

    def __repr__(self) -> str:
        return f"<Listener {self._name}, {self.connections!r}>"

    async def start(self, server: web.Server, address: Address) -> int:
        """Listen on the address. Returns the port. Raises StartupError if this is impossible."""
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
        """Accept no further connection, and cancel handshakes. aiohttp ends open connections."""
        tasks = [*self._accepting, *self._opening]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sock in self._sockets:
            sock.close()

    async def drain(self) -> None:
        """Wait up to `LINGER` seconds for the ends of responses, then cut the other connections."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), LINGER)
        for connection in self.connections.all():
            connection.cut("timeout")

    def named(self) -> bool:
        """Whether callers are authenticated, and not known by their address only."""
        return self._authorized or (
            self._web_file is not None and self._web_file.current().config.asks
        )

    def told(self) -> bool:
        """Whether the application authenticates callers, and then calls `known`."""
        if self._authorized:
            return True
        return self._web_file is not None and bool(self._web_file.current().config.users)

    def forget(self, connection: Connection) -> None:
        """Record that a connection has ended."""
        self.connections.forget(connection)
        if not len(self.connections):
            self._empty.set()

    def refuse(self, reason: str) -> None:
        """Count a refused connection or request."""
        self._metrics.refused.labels(reason).inc()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, place = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    _log.error("cannot accept a connection (%s): %s", self._name, error.strerror)
                    await asyncio.sleep(1)
                continue
            if not self._begin(accepted, place[0]):
                accepted.close()
                await asyncio.sleep(0)

    def _begin(self, accepted: socket.socket, host: str) -> bool:
        """Begin a connection if it is admitted. Another one may be closed for it."""
        if self._server is None:
            return False
        state = self._web_file.current() if self._web_file else None
        connection = Connection(self._server, self, state, host)
        if not self.connections.admit(connection, host):
            self.refuse("limit")
            return False
        self._empty.clear()
        task = asyncio.create_task(self._open_one(connection, accepted))
        connection.opening = task
        self._opening.add(task)
        task.add_done_callback(partial(self._opened, connection, accepted))
        return True

    def _opened(
        self, connection: Connection, sock: socket.socket, task: asyncio.Task[None]
    ) -> None:
        self._opening.discard(task)
        if task.cancelled():
            sock.close()
        elif (error := task.exception()) is not None:
            sock.close()
            _log.error("a connection failed because of an error in kmproxy", exc_info=error)
        if connection.opening is not None:  # the handshake failed or was cancelled
            connection.opening = None  # the task's error keeps the handshake's buffers in memory
            self.forget(connection)

    async def _open_one(self, connection: Connection, sock: socket.socket) -> None:
        """Make the handshake with a client, under the connection's version of the web config."""
        context = connection.state.context if connection.state else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=context,
                ssl_handshake_timeout=self.limits.header_timeout if context else None,
                ssl_shutdown_timeout=LINGER if context else None,
            )
        except OSError:  # the handshake failed, or was too slow
            self.refuse("tls")


@asynccontextmanager
async def listening(
    application: web.Application,
    address: Address,
    name: str,
    limits: LimitConfig,
    *,
    web_file: WebFile | None = None,
    authorized: bool = False,
    metrics: ConnectionMetrics,
) -> AsyncIterator[int]:
    """Serve an application on an address. Yields the port.

    At the end, no further connection is accepted, and running requests are finished.
    `name` is the flag that sets the address. `authorized` is true if the application
    authenticates callers, and then calls `Connection.known`. Raises StartupError if
    kmproxy cannot listen on the address.
    """
    runner = web.AppRunner(
        application,
        handle_signals=False,
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_TIMEOUT,
    )
    await runner.setup()
    listener = Listener(name, limits, web_file=web_file, authorized=authorized, metrics=metrics)
    try:
        server = runner.server
        if server is None:
            raise StartupError("the application could not be set up")
        # It runs before the application, which would first route and answer an Expect.
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
    """Sockets that listen on each address of the host. Raises OSError."""
    if not address.host:
        sockets = [_listening(("", address.port), socket.AF_INET)]
        port = sockets[0].getsockname()[1]
        try:
            sockets.append(_listening(("", port), socket.AF_INET6))
        except OSError as error:  # a machine without IPv6 is allowed
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
                break  # a further socket would get another port
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _listening(where: Any, family: socket.AddressFamily) -> socket.socket:
    sock = socket.create_server(where, family=family, backlog=128)
    # Connections inherit these bounds. The system's own bounds are megabytes for each.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED // 2)  # the kernel doubles it
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT // 2)
    sock.setblocking(False)
    return sock
