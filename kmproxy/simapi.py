"""A simulated API server: namespaces and nodes, watches, reviews, and the node proxy.

Knows the API's paths, methods and statuses, and how each answer goes wrong; what there is and who
may do what it asks its store and its authority. Must not know certificates, files, or anything
of the proxy under test.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from kmproxy.simkubelet import SimKubelet
from kmproxy.simstore import (
    Authority,
    Namespaces,
    Object,
    StatusError,
    Store,
    already_exists,
    conflict,
    not_found,
    patched,
)
from kmproxy.simview import DISCOVERY, REVIEWS, Pages, View, event_line
from kmproxy.simwire import (
    HOST,
    VERBS,
    Listener,
    Plan,
    Raw,
    Record,
    accepts_gzip,
    end_to_end,
    identify,
    is_secure,
    pack,
    record,
    relay,
    send,
    whole,
)


class ApiFault(enum.Enum):
    """The ways in which the API server can go wrong. `ApiFailure` has what each needs."""

    STATUS = "a Status of `status`, `reason`, `message`, perhaps with `retry_after` (seconds)"
    HANG = "accepts the request and says nothing"
    GARBAGE = "200 with a body that is not JSON"
    CUT = "half of a list, or of the next event's line; then the connection is closed"
    END = "a watch that ends at once"
    SILENT = "a watch without events and bookmarks"
    ERROR_EVENT = "a watch that begins with an ERROR event of `status`, `reason`, `message`"


@dataclass(frozen=True, slots=True)
class ApiFailure:
    """A fault and what it needs."""

    fault: ApiFault
    status: int = 500
    reason: str | None = None
    message: str = "simulated failure"
    retry_after: int | None = None

    def error(self) -> StatusError:
        """Return it as the Status it is to be."""
        return StatusError(
            self.status, self.message, reason=self.reason, retry_after=self.retry_after
        )


class SimAPI:
    """The API server. `requests` holds what was asked of it, in order.

    `kubelets` is read at each proxy request; `context` is the one to call kubelets with.
    `bookmark_interval` is in seconds; `expired_as` says how a too old watch is refused (`event`
    or `status`); with `future_watch_waits` a watch from a version to come is silent instead of
    a 504.
    """

    def __init__(
        self,
        authority: Authority,
        kubelets: Mapping[str, SimKubelet],
        *,
        server_context: ssl.SSLContext,
        client_context: ssl.SSLContext,
        plain_port: int = 0,
    ) -> None:
        self.authority = authority
        self.allow = authority.allow
        self.deny = authority.deny
        self.store = Store()
        self.namespaces = Namespaces(self.store)
        self.requests: list[Record] = []
        self.bookmark_interval = 60.0
        self.expired_as = "event"
        self.future_watch_waits = False
        self._kubelets = kubelets
        self._client_context = client_context
        self._session: aiohttp.ClientSession | None = None
        self._plan: Plan[ApiFailure] = Plan()
        self._watches: list[web.Request] = []
        self._pages = Pages(self.store)
        self._listener = Listener(self._handle, server_context, plain_port=plain_port)

    def __repr__(self) -> str:
        return f"<SimAPI {self.url} {self.store!r}, {len(self._watches)} watches>"

    @property
    def url(self) -> str:
        """The TLS listener, without a path."""
        return f"https://{HOST}:{self._listener.port}"

    @property
    def plain_url(self) -> str:
        """The plain listener, without a path: no authentication, every right."""
        return f"http://{HOST}:{self._listener.plain_port}"

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return len(self._watches)

    async def start(self) -> None:
        """Listen, on the same ports as before if it was stopped."""
        connector = aiohttp.TCPConnector(ssl=self._client_context)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        await self._listener.start()

    async def stop(self) -> None:
        """Go down: open watches end, connections are closed. The store stays."""
        self._listener.closing.set()
        self.store.wake()
        if self._session is not None:
            await self._session.close()
        await self._listener.stop()

    def fail(
        self, match: str | None, fault: ApiFault, *, times: int | None = None, **needs: Any
    ) -> None:
        """Let `fault` happen, `times` times (None: until `recover`), to `match` (None: to all).

        `match` is a verb (`list`, `watch`, `get`, `patch`, ...), a resource (`namespaces`,
        `nodes`), both (`list nodes`), `proxy` or `review`. `needs` are further fields of
        `ApiFailure`. Only allowed requests are failed.
        """
        self._plan.add(match, ApiFailure(fault, **needs), times)

    def recover(self) -> None:
        """Let everything go well again."""
        self._plan.clear()

    def expire_history(self) -> None:
        """Make every version given out so far too old to watch or to page from."""
        self._pages.clear()
        self.store.expire()

    def take_backup(self) -> None:
        """Remember the state that `restore_backup` goes back to."""
        self.store.back_up()

    def restore_backup(self) -> None:
        """Go back to the backup: objects and version; open watches are cut."""
        self.store.restore()
        self.break_watches()

    def break_watches(self) -> None:
        """Cut the connections of the open watches, without an end."""
        for request in tuple(self._watches):
            if request.transport is not None:
                request.transport.abort()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        record(self.requests, request)
        try:
            return await self._route(request, self._user(request))
        except StatusError as error:
            return await _json(request, error.status, error.code, error.headers)

    def _user(self, request: web.Request) -> str:
        if not is_secure(request):
            return "system:admin"
        user = identify(request, self.authority.authenticate)
        if user is None:
            raise StatusError(401, "Unauthorized")
        return user

    async def _route(self, request: web.Request, user: str) -> web.StreamResponse:
        match request.raw_path.partition("?")[0].strip("/").split("/"):
            case ["api", "v1", "nodes", node, "proxy", *path]:
                return await self._proxy(request, user, node, "/" + "/".join(path))
            case ["api", "v1", ("namespaces" | "nodes") as resource]:
                return await self._collection(request, user, resource)
            case ["api", "v1", ("namespaces" | "nodes") as resource, name]:
                return await self._item(request, user, resource, name)
            case ["apis", group, "v1", kind] if REVIEWS.get(kind) == group:
                return await self._review(request, user, kind, group)
            case path:
                found = DISCOVERY.get("/".join(path))
                if found is None:
                    raise StatusError(404, "the server could not find the requested resource")
                return await _json(request, found)

    def _check(
        self,
        user: str,
        verb: str,
        resource: str,
        *,
        name: str = "",
        group: str = "",
        named: str = "",
    ) -> ApiFailure | None:
        """Refuse what is not allowed; raise a planned Status, return any other planned failure."""
        self.authority.check(user, verb, resource, name=name, group=group)
        plain = (verb, resource, f"{verb} {resource}")
        failure = self._plan.take(*((named,) if named else plain))
        if failure is not None and failure.fault is ApiFault.STATUS:
            raise failure.error()
        return failure

    async def _spoil(self, failure: ApiFailure, body: bytes) -> web.StreamResponse:
        if failure.fault is ApiFault.GARBAGE:
            return web.Response(body=b"<html>not JSON</html>", content_type="application/json")
        return Raw(self._broken(failure, body))

    async def _broken(self, failure: ApiFailure, body: bytes) -> AsyncIterator[bytes]:
        if failure.fault is ApiFault.HANG:
            await self._listener.closing.wait()
        elif failure.fault is ApiFault.CUT:
            yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            yield b"Content-Length: %d\r\n\r\n" % len(body)
            yield body[: len(body) // 2]

    async def _collection(
        self, request: web.Request, user: str, resource: str
    ) -> web.StreamResponse:
        if request.method == "POST":
            failure = self._check(user, "create", resource)
            item = await _body(request)
            name = item.get("metadata", {}).get("name", "")
            if name in self.store.objects[resource]:
                raise already_exists(resource, name)
            return await self._done(request, failure, self._write(resource, item), 201)
        if request.method != "GET":
            raise StatusError(
                405, "the server does not allow this method", reason="MethodNotAllowed"
            )
        view = self._view(request, resource)
        if request.query.get("watch", "") in ("true", "1"):
            return await self._watch(request, view, self._check(user, "watch", resource))
        failure = self._check(user, "list", resource)
        return await self._done(request, failure, self._pages.turn(view))

    async def _watch(
        self, request: web.Request, view: View, failure: ApiFailure | None
    ) -> web.StreamResponse:
        if failure is not None and failure.fault in (ApiFault.HANG, ApiFault.GARBAGE):
            return await self._spoil(failure, b"")
        text = request.query.get("resourceVersion", "")
        version = int(text) if self.future_watch_waits and text else self.store.reached(text)
        expired = StatusError(410, f"too old resource version: {version} ({self.store.floor})")
        too_old = text not in ("", "0") and version < self.store.floor
        if too_old and self.expired_as == "status":
            raise expired
        response = web.StreamResponse(headers=_headers({"Content-Type": "application/json"}))
        response.enable_chunked_encoding()
        self._watches.append(request)
        try:
            await response.prepare(request)
            if too_old:
                await response.write(event_line("ERROR", expired.status))
            elif failure is not None and failure.fault is ApiFault.ERROR_EVENT:
                await response.write(event_line("ERROR", failure.error().status))
            elif failure is not None and failure.fault is ApiFault.SILENT:
                await self._listener.closing.wait()
            elif failure is None or failure.fault is not ApiFault.END:
                await self._events(request, response, view, cut=failure is not None)
        finally:
            self._watches.remove(request)
        return response

    async def _events(
        self, request: web.Request, response: web.StreamResponse, view: View, *, cut: bool
    ) -> None:
        """Write the lines of a watch until its time is up or the server goes down."""
        query = view.query
        clock = asyncio.get_running_loop().time
        end = clock() + float(query.get("timeoutSeconds") or 1800)
        marks = query.get("allowWatchBookmarks", "") in ("true", "1")
        mark = clock() + self.bookmark_interval
        seen = int(query.get("resourceVersion") or 0)
        lines: list[bytes] = []
        if seen == 0 or query.get("sendInitialEvents") == "true":
            seen, lines = view.initial()
        while not self._listener.closing.is_set():
            changed = self.store.changed
            seen, news = view.since(seen)
            lines += news
            if marks and clock() >= mark:
                seen, mark = max(seen, self.store.version), clock() + self.bookmark_interval
                lines.append(view.bookmark(seen))
            for line in lines:
                await response.write(line[: len(line) // 2] if cut else line)
                if cut and request.transport is not None:
                    request.transport.close()
                    return
            lines.clear()
            if clock() >= end:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(end, mark if marks else end)):
                    await changed.wait()

    async def _item(
        self, request: web.Request, user: str, resource: str, name: str
    ) -> web.StreamResponse:
        verb = VERBS.get(request.method, "")
        failure = self._check(user, verb, resource, name=name)
        item = self.store.objects[resource].get(name)
        if item is None:
            raise not_found(resource, name)
        if verb == "delete":
            self.store.remove(resource, name)
        elif verb != "get":
            new = await _body(request)
            if verb == "patch":
                new = patched(item, new, request.content_type)
            given = new.get("metadata", {}).get("resourceVersion")
            if given not in (None, "", item["metadata"]["resourceVersion"]):
                raise conflict(resource, name)
            new["metadata"]["name"] = name
            item = self._write(resource, new)
        shape = self._view(request, resource).shape
        return await self._done(request, failure, shape(item))

    def _view(self, request: web.Request, resource: str) -> View:
        accept = request.headers.get("Accept", "")
        return View(self.store, resource, request.query, accept)

    def _write(self, resource: str, item: Object) -> Object:
        if resource == "namespaces":
            return self.namespaces.put(item)
        return self.store.put(resource, item)

    async def _done(
        self, request: web.Request, failure: ApiFailure | None, item: Object, code: int = 200
    ) -> web.StreamResponse:
        if failure is not None:
            return await self._spoil(failure, json.dumps(item).encode())
        return await _json(request, item, code)

    async def _review(
        self, request: web.Request, user: str, kind: str, group: str
    ) -> web.StreamResponse:
        failure = None
        if kind != "selfsubjectaccessreviews":
            failure = self._check(user, "create", kind, group=group, named="review")
        review = await _body(request)
        spec = review.get("spec") or {}
        if kind == "tokenreviews":
            status = self.authority.review(spec.get("token", ""), spec.get("audiences") or [])
        else:
            what = spec.get("resourceAttributes") or spec.get("nonResourceAttributes") or {}
            names = (what.get("resource"), what.get("subresource"))
            resource = what.get("path") or "/".join(filter(None, names))
            who = user if kind.startswith("self") else spec.get("user", "")
            groups = () if kind.startswith("self") else tuple(spec.get("groups") or ())
            allowed = self.authority.allows(who, what.get("verb", ""), resource, groups)
            status = {"allowed": allowed} | ({"reason": "RBAC: allowed"} if allowed else {})
        return await self._done(request, failure, review | {"status": status}, 201)

    async def _proxy(
        self, request: web.Request, user: str, node: str, path: str
    ) -> web.StreamResponse:
        verb = VERBS.get(request.method, "get")
        failure = self._check(user, verb, "nodes/proxy", name=node, named="proxy")
        if failure is not None:
            return await self._spoil(failure, b"# cut\n")
        name = node.removeprefix("https:").partition(":")[0]
        kubelet = self._kubelets.get(name)
        if kubelet is None or self._session is None or name not in self.store.objects["nodes"]:
            raise not_found("nodes", name)
        passed = {
            key: value
            for key, value in end_to_end(request.headers).items()
            if key.title() != "Authorization"
        }
        query = f"?{raw}" if (raw := request.rel_url.raw_query_string) else ""
        try:
            answer = await self._session.request(
                request.method,
                f"{kubelet.url}{path}{query}",
                headers=passed,
                data=await request.read() or None,
                allow_redirects=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        except aiohttp.ClientError as error:
            raise StatusError(503, f"error trying to reach service: {error}") from error
        async with answer:
            return await relay(request, answer, _headers({}))


def _headers(more: Mapping[str, str]) -> dict[str, str]:
    return {"Audit-Id": str(uuid.uuid4()), "Cache-Control": "no-cache, private", **more}


async def _json(
    request: web.Request, item: Object, code: int = 200, more: Mapping[str, str] | None = None
) -> web.StreamResponse:
    body = json.dumps(item, separators=(",", ":")).encode() + b"\n"
    headers = _headers({"Content-Type": "application/json", **(more or {})})
    if len(body) > 128 * 1024 and accepts_gzip(request):
        body, headers["Content-Encoding"] = pack(body), "gzip"
    if code != 200:
        return web.Response(status=code, body=body, headers=headers)
    return await send(request, whole(body), headers, body)


async def _body(request: web.Request) -> Any:
    if not request.content_type.endswith("json"):
        raise StatusError(415, f"only JSON is understood, not {request.content_type}")
    try:
        return await request.json()
    except ValueError as error:
        raise StatusError(400, f"the object provided is unrecognized: {error}") from error
