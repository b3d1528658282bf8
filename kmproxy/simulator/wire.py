"""The code that simulated servers share: listen, authenticate, respond, and break connections.

Knows sockets, framing and gzip, and holds received requests and planned failures. Must not know
what a path means, the rights of users, or anything of the proxy under test.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import tempfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Generic, TypeVar

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

HOST = "127.0.0.1"
PIECE = 64 * 1024
"""Bytes of a body that the transport gets at once."""
VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
"""The verb of each method, for authorization."""

_HOP_BY_HOP = ("Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Host", "Date", "Server")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """A request as received. `path` includes the query. `headers` ignore the case of names."""

    method: str
    path: str
    headers: Mapping[str, str]


class Plan(Generic[T]):
    """Planned failures. The newest entry that matches wins, until it has happened `times` times."""

    def __init__(self) -> None:
        self._entries: list[tuple[str | None, T, list[int]]] = []

    def __repr__(self) -> str:
        return f"<Plan {self.entries}>"

    @property
    def entries(self) -> tuple[T, ...]:
        """The failures that are still planned, oldest first."""
        return tuple(what for _, what, _ in self._entries)

    def add(self, match: str | None, what: T, times: int | None) -> None:
        """Plan `what` for `match` (None: for all names), `times` times (None: without an end)."""
        self._entries.append((match, what, [-1 if times is None else times]))

    def take(self, *names: str) -> T | None:
        """Return the failure planned for one of `names`, and count it, or return None."""
        for entry in reversed(self._entries):
            match, what, left = entry
            if match is None or match in names:
                left[0] -= 1
                if left[0] == 0:
                    self._entries.remove(entry)
                return what
        return None

    def clear(self) -> None:
        """Remove all planned failures."""
        self._entries.clear()


class Listener:
    """One handler on a TLS port and a plain port of an address of the loopback interface.

    Ports that are 0 are chosen at the first start and kept. `stop` takes less than 0.1 s: it sets
    `closing`, gives the handlers a short time to end, then aborts the open connections.
    """

    def __init__(
        self,
        handler: Handler,
        context: ssl.SSLContext,
        *,
        host: str = HOST,
        port: int = 0,
        plain_port: int = 0,
    ) -> None:
        self.host = host
        self.port = port
        self.plain_port = plain_port
        self.closing = asyncio.Event()
        self._handler = handler
        self._context = context
        self._runner: web.AppRunner | None = None

    def __repr__(self) -> str:
        return f"<Listener {self.port}/{self.plain_port} {'up' if self._runner else 'down'}>"

    @property
    def up(self) -> bool:
        """Whether the listener is started."""
        return self._runner is not None

    async def start(self) -> None:
        """Listen on both ports. Raises OSError if a port is taken."""
        self.closing = asyncio.Event()
        app = web.Application(client_max_size=256 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handler)
        app.on_response_prepare.append(_without_server_header)
        runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=90,
            shutdown_timeout=0.02,
        )
        await runner.setup()
        self._runner = runner
        secure = web.TCPSite(runner, self.host, self.port, ssl_context=self._context)
        await secure.start()
        self.port = secure.port
        plain = web.TCPSite(runner, self.host, self.plain_port)
        await plain.start()
        self.plain_port = plain.port

    async def stop(self) -> None:
        """Stop listening and end every connection. Does nothing if the listener is stopped."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        self.closing.set()
        await asyncio.sleep(0)
        server = runner.server
        open_ = [each.transport for each in server.connections] if server is not None else []
        await runner.cleanup()
        for transport in open_:
            if transport is not None:
                transport.abort()
        await asyncio.sleep(0)


async def _without_server_header(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.popall("Server", None)


def record(requests: list[Record], request: web.Request) -> None:
    """Add a request to `requests`. If there are more than 10,000, drop the oldest 5,000."""
    requests.append(Record(request.method, request.raw_path, request.headers))
    if len(requests) > 10_000:
        del requests[:5_000]


def is_secure(request: web.Request) -> bool:
    """Tell whether the request came through the TLS port."""
    return request.transport is not None and bool(request.transport.get_extra_info("ssl_object"))


def identify(request: web.Request, authenticate: Callable[[str], str | None]) -> str | None:
    """Return the user of a client certificate (its common name) or a bearer token, or None."""
    certificate = request.transport and request.transport.get_extra_info("peercert")
    for relative in (certificate or {}).get("subject", ()):
        for key, value in relative:
            if key == "commonName":
                return str(value)
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return authenticate(token.strip()) if scheme.lower() == "bearer" else None


class Raw(web.StreamResponse):
    """A response of raw bytes, written to the transport without aiohttp's framing.

    The connection is closed after them.
    """

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write all pieces. Stops early if the client has gone."""
        async for piece in self._pieces:
            if request.transport is None or request.transport.is_closing():
                break
            request.transport.write(piece)
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing: `prepare` has written the whole response."""


class Payload:
    """A file that is served unchanged. Its gzip is made once, in an unnamed temporary file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = asyncio.Lock()
        self._plain = path.open("rb")
        self._packed: IO[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Payload {self.path.name}>"

    async def pieces(self, *, packed: bool) -> AsyncIterator[bytes]:
        """Read the file, or its gzip, in pieces. At most one piece is held at a time."""
        async with self._lock:
            if packed and self._packed is None:
                self._packed = await asyncio.to_thread(self._pack)
        file, offset = (self._packed if packed and self._packed else self._plain), 0
        while piece := os.pread(file.fileno(), PIECE, offset):
            offset += len(piece)
            yield piece

    def close(self) -> None:
        """Close the files."""
        self._plain.close()
        if self._packed is not None:
            self._packed.close()

    def _pack(self) -> IO[bytes]:
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        with self.path.open("rb") as source:
            target: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed by `close`
            while piece := source.read(PIECE):
                target.write(packer.compress(piece))
            target.write(packer.flush())
            target.flush()
        return target


async def send(
    request: web.Request,
    pieces: AsyncIterator[bytes],
    headers: Mapping[str, str],
    body: bytes | None = None,
) -> web.StreamResponse:
    """Send a response as Go does: up to 2048 bytes with a Content-Length, longer ones in chunks."""
    if body is not None and len(body) <= 2048:
        return web.Response(body=body, headers=headers)
    response = web.StreamResponse(headers=headers)
    response.enable_chunked_encoding()
    await response.prepare(request)
    async for piece in pieces:
        await response.write(piece)
    return response


def end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that a proxy passes on: they are not only for one connection."""
    return {key: value for key, value in headers.items() if key.title() not in _HOP_BY_HOP}


async def relay(
    request: web.Request, answer: aiohttp.ClientResponse, more: Mapping[str, str]
) -> web.StreamResponse:
    """Pass on the response of another server, with `more` headers.

    If that response breaks off, the connection to the client is aborted too.
    """
    kept = end_to_end(answer.headers)
    response = web.StreamResponse(status=answer.status, headers={**more, **kept})
    if "Content-Length" not in kept:
        response.enable_chunked_encoding()
    await response.prepare(request)
    try:
        async for piece in answer.content.iter_any():
            await response.write(piece)
    except (aiohttp.ClientError, ConnectionError):
        if request.transport is not None:
            request.transport.abort()
    return response


async def whole(body: bytes) -> AsyncIterator[bytes]:
    """Cut a body into pieces."""
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]


def pack(body: bytes) -> bytes:
    """Compress a body as gzip, without a time or a name in the header."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()


def accepts_gzip(request: web.Request) -> bool:
    """Tell whether the client accepts gzip, the only encoding that a kubelet has."""
    for clause in request.headers.get("Accept-Encoding", "").split(","):
        coding, _, quality = clause.partition(";")
        if coding.strip() == "gzip" and quality.replace(" ", "") not in ("q=0", "q=0.0"):
            return True
    return False
