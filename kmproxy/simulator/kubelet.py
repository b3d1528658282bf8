"""A simulated kubelet: its metrics endpoints over TLS and on the plain read-only port.

Knows the kubelet's statuses, headers and framing, and how to break each of them on the wire.
It authenticates and authorizes requests with callables that are passed in. Must not know the API
server, certificates, or anything of the proxy under test.
"""

from __future__ import annotations

import asyncio
import enum
import json
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from aiohttp import web

from kmproxy.simulator.cadvisor import ENDPOINTS, Node, NodeMetrics
from kmproxy.simulator.file_server import FileServer
from kmproxy.simulator.logs import SimLogs
from kmproxy.simulator.objects import Object
from kmproxy.simulator.pods import kubelet_pods, pod_list
from kmproxy.simulator.wire import (
    HOST,
    VERBS,
    Listener,
    Payload,
    Plan,
    Raw,
    Record,
    accepts_gzip,
    identify,
    is_secure,
    pack,
    record,
    send,
    whole,
)

T = TypeVar("T")

TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"
_METRICS = "text/plain; version=0.0.4; charset=utf-8; escaping="
_PROTOBUF = (
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; "
    "encoding=delimited; escaping=underscores"
)
_PROTOBUF_BODY = b'\x15\n\x02up\x12\x04help\x18\x01"\x07\x12\x05\t' + bytes(8)
_SUBRESOURCES = {
    "/metrics": ("metrics",),
    "/stats": ("stats",),
    "/logs": ("log",),
    "/pods": ("pods", "proxy"),
    "/runningpods": ("pods", "proxy"),
    "/healthz": ("healthz", "proxy"),
    "/configz": ("configz", "proxy"),
}
FINE_GRAINED = (1, 33)
"""The Kubernetes version from which `/pods`, `/healthz` and others have their own permissions."""
_FORBIDDEN_GROUND = (
    *("/exec", "/run", "/attach", "/portForward", "/containerLogs", "/cri", "/debug"),
    *("/logs", "/stats", "/runningpods", "/configz", "/checkpoint"),
)


class Fault(enum.Enum):
    """The ways in which a response can fail. `Failure` has the values that each of them needs."""

    STATUS = "`status` with `body`"
    HANG_BEFORE_HEADERS = "accepts the request and says nothing"
    HANG_IN_BODY = "says nothing more after `after` bytes of a chunked body"
    SLOW = "a whole body, at `rate` bytes a second"
    CUT_CHUNKED = "closes after `after` bytes of a chunked body, without the last chunk"
    CUT_CONTENT_LENGTH = "closes after `after` bytes of a body whose length was announced"
    CUT_GZIP = "a gzip stream without its end, in complete framing"
    GARBAGE_GZIP = "says gzip, and is not"
    GZIP_TRAILING_GARBAGE = "a complete gzip stream with bytes behind it"
    NO_FRAMING = "neither Content-Length nor chunks: `after` bytes (all), then closes"
    HTML = "200 with a page"
    PROTOBUF = "200 with protobuf, whatever was asked for"
    NO_CONTENT_TYPE = "200 without a Content-Type"
    EMPTY = "200 with no body"
    REDIRECT = "302 to `location`"
    DISCONNECT = "closes before the headers"
    CLOSE_AFTER = "a good answer on a connection that seems to stay open, and is closed at once"
    BOMB = "gzip of `size` bytes of the same line"
    BODY = "200 with `body` as `content_type`"


@dataclass(frozen=True, slots=True)
class Failure:
    """A fault, the only path that it affects (None for all paths), and the values that it needs.

    `after` counts bytes of the body as sent, so after compression. None means half of the body.
    """

    fault: Fault
    path: str | None = None
    status: int = 500
    body: bytes = b"simulated failure\n"
    content_type: str = TEXT
    location: str = "/"
    rate: int = 4096
    after: int | None = None
    size: int = 256 * 1024 * 1024


REVIEW_TTL = 120.0
"""Seconds for which a kubelet remembers a token's user (`authentication.webhook.cacheTTL`)."""
ACCESS_TTL = 300.0
"""Seconds for which a kubelet remembers an allowed request.

The setting of a real kubelet is `authorization.webhook.cacheAuthorizedTTL`.
"""


class Memory:
    """The reviews that a kubelet remembers, each for `ttl` seconds from the first one on.

    While the API server answers, each request is reviewed, so a revoked token is refused at once.
    A real kubelet would accept it as long as it remembers the review. `clock` and `ttl` can be
    replaced.
    """

    def __init__(self, ttl: float) -> None:
        self.ttl = ttl
        self.clock: Callable[[], float] = time.monotonic
        self._held: dict[object, tuple[Any, float]] = {}

    def __repr__(self) -> str:
        return f"<Memory of {len(self._held)} reviews>"

    def review(self, key: object, ask: Callable[[], T]) -> T:
        """The answer of `ask`, or the remembered answer if it raises OSError.

        Raises OSError if there is neither.
        """
        now = self.clock()
        answer, until = self._held.get(key, (None, now))
        try:
            fresh = ask()
        except OSError:
            if now >= until:
                raise
            return cast("T", answer)
        if not fresh:
            self._held.pop(key, None)
        else:
            self._held[key] = (fresh, until if now < until else now + self.ttl)
        return fresh


class SimKubelet:
    """The kubelet of one node. `requests` holds the received requests, in order.

    `authenticate` maps a bearer token to a user, or None. `authorize` tells whether a user may
    do a verb (`get`) on a resource (`nodes/metrics`). Both raise `OSError` while the API server
    cannot be reached. A request that was allowed before is then allowed as long as `users` and
    `rights` remember it. The plain port calls neither. `host` is the address on which the kubelet
    listens, `port` the TLS port (0: any). `clock` can be replaced, to stop the time. `version` is
    the version of Kubernetes. `pods` are Pod objects for `/pods`, which replace the pods of the
    metrics. `logs` are log files, served at `/logs/`, whose pods replace those of the metrics, too.
    If `serves_logs` is false, the kubelet runs with `enableSystemLogHandler: false`.
    """

    def __init__(
        self,
        node: Node,
        context: ssl.SSLContext,
        *,
        authenticate: Callable[[str], str | None],
        authorize: Callable[[str, str, str], bool],
        payload: Payload | None = None,
        clock: Callable[[], float] = time.time,
        host: str = HOST,
        port: int = 0,
    ) -> None:
        self.host = host
        self.metrics = NodeMetrics(node)
        self.requests: list[Record] = []
        self.version = (1, 36)
        self.pods: list[Object] | None = None
        self.logs: SimLogs | None = None
        self.serves_logs = True
        self._authenticate = authenticate
        self._authorize = authorize
        self._payload = payload
        self.clock = clock
        self.users = Memory(REVIEW_TTL)
        self.rights = Memory(ACCESS_TTL)
        self._plan: Plan[Failure] = Plan()
        self._listener = Listener(self._handle, context, host=host, port=port)
        self.start = self._listener.start
        self.stop = self._listener.stop

    def __repr__(self) -> str:
        return f"<SimKubelet {self.node.name} {self.url}, {len(self.requests)} requests>"

    @property
    def node(self) -> Node:
        """The node. Replace it to change its pods."""
        return self.metrics.node

    @node.setter
    def node(self, node: Node) -> None:
        self.metrics = NodeMetrics(node)

    @property
    def port(self) -> int:
        """The port of the TLS listener."""
        return self._listener.port

    @property
    def url(self) -> str:
        """The URL of the TLS port, without a path."""
        return f"https://{self.host}:{self._listener.port}"

    @property
    def plain_url(self) -> str:
        """The URL of the plain read-only port, without a path."""
        return f"http://{self.host}:{self._listener.plain_port}"

    @property
    def faults(self) -> tuple[Failure, ...]:
        """The failures that are still planned."""
        return self._plan.entries

    def fail(
        self, fault: Fault, *, times: int | None = None, path: str | None = None, **needs: Any
    ) -> None:
        """Let `fault` happen, `times` times (None: until `recover`), to `path` (None: to all).

        `needs` are further fields of `Failure`. Only allowed requests fail.
        """
        self._plan.add(path, Failure(fault, path, **needs), times)

    def recover(self) -> None:
        """Remove all planned failures."""
        self._plan.clear()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        record(self.requests, request)
        path = request.raw_path.partition("?")[0]
        if "//" in path:
            clean = "/" + "/".join(filter(None, path.split("/")))
            body = f'<a href="{clean}">Temporary Redirect</a>.\n\n'.encode()
            return _answer(307, body, "text/html; charset=utf-8", Location=clean)
        if is_secure(request) and (refusal := self._refuse(request, path)) is not None:
            return refusal
        under_logs = path.startswith("/logs/") and is_secure(request)
        if (failure := self._plan.take(path, *(["/logs"] if under_logs else []))) is not None:
            return await self._fail(request, path, failure)
        if under_logs and not self.serves_logs:
            return _answer(405, b"logs endpoint is disabled.\n")
        if under_logs and self.logs is not None:
            return await FileServer(self.logs.root).serve(request, path.removeprefix("/logs"))
        if is_secure(request) and path.startswith(_FORBIDDEN_GROUND):
            return _answer(200, b"you should not be here")
        if path not in (*ENDPOINTS, "/pods", "/healthz"):
            return _answer(404, b"404: Page Not Found")
        if request.method != "GET":
            return _answer(405, b"405: Method Not Allowed")
        return await self._serve(request, path)

    def _refuse(self, request: web.Request, path: str) -> web.Response | None:
        try:
            user = identify(request, self._user)
        except OSError:
            user = None
        if user is None:
            return _answer(401, b"Unauthorized")
        verb = VERBS.get(request.method, "")
        names = _SUBRESOURCES.get("/" + path.split("/")[1], ("proxy",))
        if self.version < FINE_GRAINED:
            names = names[-1:]
        for name in names:
            try:
                if self._may(user, verb, f"nodes/{name}"):
                    return None
            except OSError:
                what = f"user={user}, verb={verb}, resource=nodes, subresource={name}"
                return _answer(500, f"Authorization error ({what})".encode())
        what = f"user={user}, verb={verb}, resource=nodes, subresource(s)=[{' '.join(names)}]"
        return _answer(403, f"Forbidden ({what})\n".encode())

    def _user(self, token: str) -> str | None:
        return self.users.review(token, lambda: self._authenticate(token))

    def _may(self, user: str, verb: str, resource: str) -> bool:
        return self.rights.review(
            (user, verb, resource), lambda: self._authorize(user, verb, resource)
        )

    async def _serve(self, request: web.Request, path: str) -> web.StreamResponse:
        accept = request.headers.get("Accept", "*/*")
        if path == "/healthz":
            return _answer(200, b"ok")
        if path == "/pods":
            if not any(each in accept for each in ("*/*", "application/json", "application/*")):
                return _answer(406, b"406: Not Acceptable")
            body = self._pods()
            return await send(request, whole(body), {"Content-Type": _JSON}, body)
        headers = {"Content-Type": content_type(accept)}
        if headers["Content-Type"] == _PROTOBUF:
            return _answer(200, _PROTOBUF_BODY, _PROTOBUF)
        packed = accepts_gzip(request)
        if packed:
            headers["Content-Encoding"] = "gzip"
        if path == "/metrics/cadvisor" and self._payload is not None:
            return await send(request, self._payload.pieces(packed=packed), headers)
        body = self.metrics.text(path, self.clock())
        body = pack(body) if packed else body
        return await send(request, whole(body), headers, body)

    async def _fail(self, request: web.Request, path: str, how: Failure) -> web.StreamResponse:
        body = await self._body(path)
        if how.fault is Fault.BOMB:
            headers = {"Content-Type": _PLAIN, "Content-Encoding": "gzip"}
            return await send(request, _bomb(how.size), headers)
        if how.fault in _FRAMED:
            status, kind, body, extra = _FRAMED[how.fault](how, body)
            return _answer(status, body, kind, **extra)
        return Raw(self._broken(request, how, body, _JSON if path == "/pods" else _PLAIN))

    async def _body(self, path: str) -> bytes:
        if path == "/metrics/cadvisor" and self._payload is not None:
            return b"".join([piece async for piece in self._payload.pieces(packed=False)])
        if path == "/pods":
            return self._pods()
        return self.metrics.text(path, self.clock()) if path in ENDPOINTS else b"ok\n"

    def _pods(self) -> bytes:
        items = self.pods
        if items is None:
            logs = self.logs
            items = logs.documents() if logs else kubelet_pods(self.node, self.host)
        return json.dumps(pod_list(items), separators=(",", ":")).encode()

    async def _broken(
        self, request: web.Request, how: Failure, body: bytes, kind: str
    ) -> AsyncIterator[bytes]:
        if how.fault is Fault.HANG_BEFORE_HEADERS:
            await self._listener.closing.wait()
        if how.fault in (Fault.HANG_BEFORE_HEADERS, Fault.DISCONNECT):
            return
        packed = accepts_gzip(request) and kind != _JSON
        body = pack(body) if packed else body
        framing = {
            Fault.NO_FRAMING: "Connection: close",
            Fault.NO_CONTENT_TYPE: f"Content-Length: {len(body)}",
            Fault.CLOSE_AFTER: f"Content-Length: {len(body)}",
            Fault.CUT_CONTENT_LENGTH: f"Content-Length: {len(body)}",
        }.get(how.fault, "Transfer-Encoding: chunked")
        head = ["HTTP/1.1 200 OK", framing]
        if how.fault is not Fault.NO_CONTENT_TYPE:
            head.append(f"Content-Type: {kind}")
        if packed:
            head.append("Content-Encoding: gzip")
        yield "\r\n".join([*head, "", ""]).encode()
        cut = body[: len(body) // 2 if how.after is None else how.after]
        if how.fault is Fault.SLOW:
            step = max(1, how.rate // 20)
            for start in range(0, len(body), step):
                yield _chunk(body[start : start + step])
                await asyncio.sleep(0.05)
            yield _chunk(b"")
        elif framing.startswith("Transfer"):
            yield _chunk(cut)
            if how.fault is Fault.HANG_IN_BODY:
                await self._listener.closing.wait()
        elif how.fault is Fault.CUT_CONTENT_LENGTH:
            yield cut
        else:
            yield body[: how.after]


_Framed = tuple[int, str, bytes, dict[str, str]]
_PLAIN = _METRICS + "underscores"
_GZIP = {"Content_Encoding": "gzip"}
_FRAMED: dict[Fault, Callable[[Failure, bytes], _Framed]] = {
    Fault.STATUS: lambda how, _: (how.status, how.content_type, how.body, {}),
    Fault.BODY: lambda how, _: (200, how.content_type, how.body, {}),
    Fault.HTML: lambda *_: (200, "text/html; charset=utf-8", b"<html><h1>Log in</h1></html>", {}),
    Fault.PROTOBUF: lambda *_: (200, _PROTOBUF, _PROTOBUF_BODY, {}),
    Fault.EMPTY: lambda *_: (200, _PLAIN, b"", {}),
    Fault.REDIRECT: lambda how, _: (302, TEXT, b"", {"Location": how.location}),
    Fault.CUT_GZIP: lambda _, body: (200, _PLAIN, pack(body)[: len(pack(body)) // 2], _GZIP),
    Fault.GARBAGE_GZIP: lambda *_: (200, _PLAIN, b"\x1f\x8b\x08\x00garbage" * 100, _GZIP),
    Fault.GZIP_TRAILING_GARBAGE: lambda _, body: (200, _PLAIN, pack(body) + b"garbage", _GZIP),
}


def _answer(status: int, body: bytes, kind: str = TEXT, **headers: str) -> web.Response:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(status=status, body=body, headers={"Content-Type": kind} | given)


def content_type(accept: str) -> str:
    """Return the Content-Type of a metrics endpoint for this Accept."""
    if "application/vnd.google.protobuf" in accept.partition(",")[0]:
        return _PROTOBUF
    utf8 = "escaping=allow-utf-8" in accept.replace(" ", "")
    return _METRICS + ("allow-utf-8" if utf8 else "underscores")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _bomb(size: int) -> AsyncIterator[bytes]:
    line = b"zero_bytes 0\n"
    block = line * (1024 * 1024 // len(line))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    yield b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    checksum = length = 0
    while length < size:
        checksum, length = zlib.crc32(block, checksum), length + len(block)
        yield packed
    yield b"\x03\x00" + checksum.to_bytes(4, "little") + (length % 2**32).to_bytes(4, "little")
