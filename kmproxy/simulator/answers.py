"""The responses of a simulated API server, and the ways in which they can fail.

Knows documents, their headers, and faults. Must not know what a path means, stored objects, users,
or anything of the proxy under test.
"""

from __future__ import annotations

import asyncio
import enum
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from kmproxy.simulator.objects import Object
from kmproxy.simulator.protobuf import UnsupportedKindError, namespace
from kmproxy.simulator.statuses import StatusError
from kmproxy.simulator.wire import Raw, accepts_gzip, pack, send, whole

PROTOBUF = "application/vnd.kubernetes.protobuf"


class ApiFault(enum.Enum):
    """The ways in which the API server can fail. `ApiFailure` has the values that each needs."""

    STATUS = "a Status of `status`, `reason`, `message`, perhaps with `retry_after` (seconds)"
    HANG = "accepts the request and sends nothing"
    GARBAGE = "200 with a body that is not JSON"
    CUT = "half of a list, or of the next event's line; then the connection is closed"
    MISFRAMED = "half of a list in a chunk, and then a proxy's answer instead of the next chunk"
    END = "a watch that ends at once"
    SILENT = "a watch without events and bookmarks"
    ERROR_EVENT = "a watch that begins with an ERROR event of `status`, `reason`, `message`"


@dataclass(frozen=True, slots=True)
class ApiFailure:
    """A fault, and the values that it needs."""

    fault: ApiFault
    status: int = 500
    reason: str | None = None
    message: str = "simulated failure"
    retry_after: int | None = None

    def error(self) -> StatusError:
        """Return the failure as a Status error."""
        return StatusError(
            self.status, self.message, reason=self.reason, retry_after=self.retry_after
        )


def headers(more: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of every response, and `more`."""
    return {"Audit-Id": str(uuid.uuid4()), "Cache-Control": "no-cache, private", **more}


async def document(
    request: web.Request, item: Object, code: int = 200, more: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Send an object. It is sent as gzip if it is large and the client accepts gzip."""
    body = json.dumps(item, separators=(",", ":")).encode() + b"\n"
    head = headers({"Content-Type": "application/json", **(more or {})})
    if len(body) > 128 * 1024 and accepts_gzip(request):
        body, head["Content-Encoding"] = pack(body), "gzip"
    if code != 200:
        return web.Response(status=code, body=body, headers=head)
    return await send(request, whole(body), head, body)


async def body_of(request: web.Request) -> Any:
    """Return the document in a request's body. Raises StatusError 415 or 400 if it is invalid.

    Documents are JSON. A Namespace may be protobuf, as kubectl sends it.
    """
    kind = request.content_type
    if not kind.endswith("json") and kind != PROTOBUF:
        raise StatusError(415, f"only JSON is understood, not {kind}")
    try:
        return namespace(await request.read()) if kind == PROTOBUF else await request.json()
    except UnsupportedKindError as error:
        raise StatusError(
            415, f"of protobuf only a Namespace is understood, not {error}; send JSON"
        ) from error
    except ValueError as error:
        raise StatusError(400, f"the object provided is unrecognized: {error}") from error


def spoiled(failure: ApiFailure, body: bytes, closing: asyncio.Event) -> web.StreamResponse:
    """Return a response with `body`, changed by the fault.

    The fault is GARBAGE, HANG (until `closing`), CUT or MISFRAMED.
    """
    if failure.fault is ApiFault.GARBAGE:
        return web.Response(body=b"<html>not JSON</html>", content_type="application/json")
    return Raw(_broken(failure, body, closing))


async def _broken(failure: ApiFailure, body: bytes, closing: asyncio.Event) -> AsyncIterator[bytes]:
    if failure.fault is ApiFault.HANG:
        await closing.wait()
    elif failure.fault is ApiFault.CUT:
        yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        yield b"Content-Length: %d\r\n\r\n" % len(body)
        yield body[: len(body) // 2]
    elif failure.fault is ApiFault.MISFRAMED:
        yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        yield b"Transfer-Encoding: chunked\r\n\r\n"
        half = body[: len(body) // 2]
        yield b"%x\r\n%b\r\n" % (len(half), half)
        await asyncio.sleep(0.05)  # a packet of its own
        yield b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
