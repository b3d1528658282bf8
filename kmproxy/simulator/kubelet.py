"""A simulated kubelet: its metrics endpoints over TLS and on the plain read-only port.

Knows the kubelet's statuses and headers, and when a planned fault happens. Must not know the API
server, certificates, or anything of the proxy under test.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

from kmproxy.simulator.cadvisor import ENDPOINTS, Node, NodeMetrics
from kmproxy.simulator.file_server import FileServer
from kmproxy.simulator.kubelet_access import KubeletAccess
from kmproxy.simulator.kubelet_faults import FRAMED, Failure, Fault, bomb, chunk
from kmproxy.simulator.logs import SimLogs
from kmproxy.simulator.metric_formats import PLAIN, PROTOBUF, PROTOBUF_BODY, TEXT, content_type
from kmproxy.simulator.objects import Object
from kmproxy.simulator.pod_logs import PodLogs, newest
from kmproxy.simulator.pods import kubelet_pods, pod_list
from kmproxy.simulator.statuses import StatusError
from kmproxy.simulator.wire import (
    HOST,
    Listener,
    Payload,
    Plan,
    Raw,
    Record,
    accepts_gzip,
    is_secure,
    pack,
    record,
    send,
    whole,
)

_JSON = "application/json"
_FORBIDDEN_GROUND = (
    *("/exec", "/run", "/attach", "/portForward", "/containerLogs", "/cri", "/debug"),
    *("/logs", "/stats", "/runningpods", "/configz", "/checkpoint"),
)


class SimKubelet:
    """The kubelet of one node. `requests` holds the received requests, in order.

    `access` authenticates and authorizes requests to the TLS port, with `authenticate` and
    `authorize`. The plain port refuses nobody. `host` is the address on which the kubelet listens,
    `port` the TLS port (0: any). `clock` can be replaced, to stop the time. `version` is the
    version of Kubernetes. `pods` are Pod objects for `/pods`, which replace the pods of the
    metrics. `logs` are log files, served at `/logs/` and as text at `/containerLogs/`. Their pods
    replace those of the metrics, too. If `serves_logs` is false, the kubelet runs with
    `enableSystemLogHandler: false`.
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
        self.access = KubeletAccess(authenticate, authorize)
        self._payload = payload
        self.clock = clock
        self._plan: Plan[Failure] = Plan()
        self._listener = Listener(self._handle, context, host=host, port=port)
        self.pod_logs = PodLogs(
            lambda: newest([self.logs.pods] if self.logs else []), lambda: self._listener.closing
        )
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
        refusal = self.access.refusal(request, path, self.version) if is_secure(request) else None
        if refusal is not None:
            status, text = refusal
            return _answer(status, text.encode())
        under_logs = path.startswith("/logs/") and is_secure(request)
        if (failure := self._plan.take(path, *(["/logs"] if under_logs else []))) is not None:
            return await self._fail(request, path, failure)
        if under_logs and not self.serves_logs:
            return _answer(405, b"logs endpoint is disabled.\n")
        if (answer := await self._log(request, path)) is not None:
            return answer
        if is_secure(request) and path.startswith(_FORBIDDEN_GROUND):
            return _answer(200, b"you should not be here")
        if path not in (*ENDPOINTS, "/pods", "/healthz"):
            return _answer(404, b"404: Page Not Found")
        if request.method != "GET":
            return _answer(405, b"405: Method Not Allowed")
        return await self._serve(request, path)

    async def _log(self, request: web.Request, path: str) -> web.StreamResponse | None:
        """A file of the log folder, a container's log, or None for any other path."""
        if self.logs is None or not is_secure(request):
            return None
        match path.split("/"):
            case ["", "logs", _, *_]:
                return await FileServer(self.logs.root).serve(request, path.removeprefix("/logs"))
            case ["", "containerLogs", namespace, pod, container]:
                try:
                    return await self.pod_logs.serve(request, namespace, pod, container)
                except StatusError as error:
                    return _answer(error.code, f"{error}\n".encode())
            case _:
                return None

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
        if headers["Content-Type"] == PROTOBUF:
            return _answer(200, PROTOBUF_BODY, PROTOBUF)
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
            headers = {"Content-Type": PLAIN, "Content-Encoding": "gzip"}
            return await send(request, bomb(how.size), headers)
        if how.fault in FRAMED:
            status, kind, body, extra = FRAMED[how.fault](how, body)
            return _answer(status, body, kind, **extra)
        return Raw(self._broken(request, how, body, _JSON if path == "/pods" else PLAIN))

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
                yield chunk(body[start : start + step])
                await asyncio.sleep(0.05)
            yield chunk(b"")
        elif framing.startswith("Transfer"):
            yield chunk(cut)
            if how.fault is Fault.HANG_IN_BODY:
                await self._listener.closing.wait()
        elif how.fault is Fault.CUT_CONTENT_LENGTH:
            yield cut
        else:
            yield body[: how.after]


def _answer(status: int, body: bytes, kind: str = TEXT, **headers: str) -> web.Response:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(status=status, body=body, headers={"Content-Type": kind} | given)
