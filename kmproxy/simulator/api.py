"""A simulated API server: objects, watches, reviews, and the way to the node proxy.

Knows the API's methods and statuses, and which responses are planned to fail. Its store holds the
objects, and its authority the tokens and rights. Must not know certificates, files, or anything
of the proxy under test.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from kmproxy.simulator.answers import ApiFailure, ApiFault, body_of, document, headers, spoiled
from kmproxy.simulator.authority import Authority
from kmproxy.simulator.kubelet import SimKubelet
from kmproxy.simulator.node_proxy import NodeProxy
from kmproxy.simulator.objects import KINDS, Object
from kmproxy.simulator.pod_logs import PodLogs, newest
from kmproxy.simulator.rbac import AUTHENTICATED, Attributes
from kmproxy.simulator.services import Services
from kmproxy.simulator.statuses import StatusError, already_exists, conflict, not_found
from kmproxy.simulator.store import Namespaces, Store, patched
from kmproxy.simulator.view import DISCOVERY, REVIEWS, Pages, Place, View, event_line, place
from kmproxy.simulator.wire import HOST, VERBS, Listener, Plan, Record, identify, is_secure, record

_SPOILING = {ApiFault.HANG, ApiFault.GARBAGE, ApiFault.MISFRAMED}


class SimAPI:
    """The API server. `requests` holds the received requests, in order.

    `kubelets` is read at each proxy request. `client_context` is for connections to kubelets.
    `bookmark_interval` is in seconds. `expired_as` tells how a watch from a version that is too
    old is refused (`event` or `status`). With `future_watch_waits` a watch from a future version
    is silent, without it the response is a 504.
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
        self.services = Services(self.store)
        self.requests: list[Record] = []
        self.bookmark_interval = 60.0
        self.expired_as = "event"
        self.future_watch_waits = False
        self._nodes = NodeProxy(kubelets, client_context)
        self._plan: Plan[ApiFailure] = Plan()
        self._watches: list[web.Request] = []
        self._pages = Pages(self.store)
        self._listener = Listener(self._handle, server_context, plain_port=plain_port)
        nodes = kubelets
        self.pod_logs = PodLogs(
            lambda: newest(each.logs.pods for each in nodes.values() if each.logs),
            lambda: self._listener.closing,
        )

    def __repr__(self) -> str:
        return f"<SimAPI {self.url} {self.store!r}, {len(self._watches)} watches>"

    @property
    def url(self) -> str:
        """The URL of the TLS port, without a path."""
        return f"https://{HOST}:{self._listener.port}"

    @property
    def plain_url(self) -> str:
        """The URL of the plain port, without a path. It needs no token and grants every right."""
        return f"http://{HOST}:{self._listener.plain_port}"

    @property
    def up(self) -> bool:
        """Whether the API server listens. While it does not, no kubelet can get a review."""
        return self._listener.up

    @property
    def watches(self) -> int:
        """The number of open watches."""
        return len(self._watches)

    async def start(self) -> None:
        """Listen. After a stop, the ports are the same as before."""
        await self._nodes.start()
        await self._listener.start()

    async def stop(self) -> None:
        """Stop: end open watches and close connections. The store keeps its objects."""
        self._listener.closing.set()
        self.store.wake()
        await self._nodes.stop()
        await self._listener.stop()

    def fail(
        self, match: str | None, fault: ApiFault, *, times: int | None = None, **needs: Any
    ) -> None:
        """Let `fault` happen, `times` times (None: until `recover`), to `match` (None: to all).

        `match` is a verb (`list`, `watch`, `get`, `patch`, ...), a resource (`namespaces`,
        `nodes`), both (`list nodes`), `proxy`, `review` or `self review`. `needs` are further
        fields of `ApiFailure`. Only allowed requests fail.
        """
        self._plan.add(match, ApiFailure(fault, **needs), times)

    def recover(self) -> None:
        """Remove all planned failures."""
        self._plan.clear()

    def expire_history(self) -> None:
        """Make every version so far too old for a watch, and every list too old to continue."""
        self._pages.clear()
        self.store.expire()

    def take_backup(self) -> None:
        """Remember the current state for `restore_backup`."""
        self.store.back_up()

    def restore_backup(self) -> None:
        """Restore the objects and the version of the backup, and cut open watches."""
        self.store.restore()
        self.break_watches()

    def break_watches(self) -> None:
        """Cut the connections of the open watches, so their bodies have no end."""
        for request in tuple(self._watches):
            if request.transport is not None:
                request.transport.abort()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        record(self.requests, request)
        try:
            return await self._route(request, self._user(request))
        except StatusError as error:
            return await document(request, error.status, error.code, error.headers)

    def _user(self, request: web.Request) -> str:
        if not is_secure(request):
            return "system:admin"
        user = identify(request, self.authority.authenticate)
        if user is None:
            raise StatusError(401, "Unauthorized")
        return user

    async def _route(self, request: web.Request, user: str) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0].strip("/")
        match path.split("/"):
            case ["api", "v1", "nodes", node, "proxy", *more]:
                return await self._proxy(request, user, node, "/" + "/".join(more))
            case ["api", "v1", "namespaces", namespace, "pods", pod, "log"]:
                where = {"name": pod, "namespace": namespace}
                failure = self._check(user, "get", "pods/log", **where)
                if failure is not None:
                    return self._spoil(failure, b"cut\n")
                return await self.pod_logs.serve(request, namespace, pod)
            case ["apis", group, "v1", kind] if REVIEWS.get(kind) == group:
                return await self._review(request, user, kind, group)
        found = place(path)
        if found is not None:
            act = self._item if found.name else self._collection
            return await act(request, user, found)
        if path not in DISCOVERY:
            raise StatusError(404, "the server could not find the requested resource")
        return await document(request, DISCOVERY[path])

    def _check(
        self, user: str, verb: str, resource: str, *, named: str = "", **where: str
    ) -> ApiFailure | None:
        """Refuse a request that is not allowed. Raise a planned Status, return another failure.

        `where` holds arguments of `Authority.check`: name, namespace, group. Returns None if no
        failure is planned.
        """
        self.authority.check(user, verb, resource, **where)
        plain = (verb, resource, f"{verb} {resource}")
        return self._planned(*((named,) if named else plain))

    def _planned(self, *names: str) -> ApiFailure | None:
        """Raise a planned Status, return any other planned failure, or None."""
        failure = self._plan.take(*names)
        if failure is not None and failure.fault is ApiFault.STATUS:
            raise failure.error()
        return failure

    async def _collection(
        self, request: web.Request, user: str, where: Place
    ) -> web.StreamResponse:
        resource, scope = where.resource, where.scope
        if request.method == "POST":
            failure = self._check(user, "create", resource, **scope)
            item = await body_of(request)
            name = item.get("metadata", {}).get("name", "")
            if where.key(name) in self.store.objects[resource]:
                raise already_exists(resource, name)
            return await self._done(request, failure, self._write(where, item), 201)
        if request.method != "GET":
            raise StatusError(
                405, "the server does not allow this method", reason="MethodNotAllowed"
            )
        view = self._view(request, where)
        if request.query.get("watch", "") in ("true", "1"):
            return await self._watch(request, view, self._check(user, "watch", resource, **scope))
        failure = self._check(user, "list", resource, **scope)
        return await self._done(request, failure, self._pages.turn(view))

    async def _watch(
        self, request: web.Request, view: View, failure: ApiFailure | None
    ) -> web.StreamResponse:
        if failure is not None and failure.fault in _SPOILING:
            return self._spoil(failure, view.bookmark(self.store.version))
        text = request.query.get("resourceVersion", "")
        waits = self.future_watch_waits or not KINDS[view.resource].cached
        version = int(text) if waits and text else self.store.reached(text)
        expired = StatusError(410, f"too old resource version: {version} ({self.store.floor})")
        too_old = text not in ("", "0") and version < self.store.floor
        if too_old and self.expired_as == "status":
            raise expired
        response = web.StreamResponse(headers=headers({"Content-Type": "application/json"}))
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
                with contextlib.suppress(ConnectionResetError):  # the client has left
                    await self._events(request, response, view, cut=failure is not None)
        finally:
            self._watches.remove(request)
        return response

    async def _events(
        self, request: web.Request, response: web.StreamResponse, view: View, *, cut: bool
    ) -> None:
        """Write the lines of a watch until its time is over or the server stops.

        With `cut`, half of the first line is written, and then the connection is closed.
        """
        query = view.query
        clock = asyncio.get_running_loop().time
        end = clock() + float(query.get("timeoutSeconds") or 1800)
        marks = query.get("allowWatchBookmarks", "") in ("true", "1")
        marks = marks and KINDS[view.resource].cached
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
                mark = clock() + self.bookmark_interval
                if seen <= self.store.version:
                    seen = self.store.version
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

    async def _item(self, request: web.Request, user: str, where: Place) -> web.StreamResponse:
        verb = VERBS.get(request.method, "")
        resource, name = where.resource, where.name
        failure = self._check(user, verb, resource, name=name, **where.scope)
        item = self.store.objects[resource].get(where.key(name))
        if item is None:
            raise not_found(resource, name)
        if verb == "delete":
            self._remove(where)
        elif verb != "get":
            new = await body_of(request)
            if verb == "patch":
                new = patched(item, new, request.content_type)
            given = new.get("metadata", {}).get("resourceVersion")
            if given not in (None, "", item["metadata"]["resourceVersion"]):
                raise conflict(resource, name)
            new["metadata"]["name"] = name
            item = self._write(where, new)
        shape = self._view(request, where).shape
        return await self._done(request, failure, shape(item))

    def _view(self, request: web.Request, where: Place) -> View:
        accept = request.headers.get("Accept", "")
        return View(self.store, where.resource, request.query, accept, where.namespace)

    def _write(self, where: Place, item: Object) -> Object:
        kind = KINDS[where.resource]
        item |= {"kind": kind.name, "apiVersion": kind.version}
        if where.namespace:
            item["metadata"]["namespace"] = where.namespace
        if where.resource == "namespaces":
            return self.namespaces.put(item)
        if where.resource in ("pods", "services"):
            return self.services.put(where.resource, item)
        return self.store.put(where.resource, item)

    def _remove(self, where: Place) -> None:
        holder = self.services if where.resource in ("pods", "services") else self.store
        holder.remove(where.resource, where.key(where.name))

    async def _done(
        self, request: web.Request, failure: ApiFailure | None, item: Object, code: int = 200
    ) -> web.StreamResponse:
        if failure is not None:
            return self._spoil(failure, json.dumps(item).encode())
        return await document(request, item, code)

    async def _review(
        self, request: web.Request, user: str, kind: str, group: str
    ) -> web.StreamResponse:
        if kind == "selfsubjectaccessreviews":
            failure = self._planned("self review")
        else:
            failure = self._check(user, "create", kind, group=group, named="review")
        review = await body_of(request)
        spec = review.get("spec") or {}
        if kind == "tokenreviews":
            status = self.authority.review(spec.get("token", ""), spec.get("audiences") or [])
        else:
            own = kind.startswith("self")
            who = user if own else spec.get("user", "")
            groups = (AUTHENTICATED,) if own else tuple(spec.get("groups") or ())
            if not who and not groups:
                raise StatusError(422, "spec.user: at least one of user or group must be specified")
            try:
                wanted = Attributes.of(spec)
            except ValueError as error:
                raise StatusError(422, f"spec: {error}") from error
            allowed = self.authority.permits(who, groups, wanted)
            status = {"allowed": allowed} | ({"reason": "RBAC: allowed"} if allowed else {})
        return await self._done(request, failure, review | {"status": status}, 201)

    async def _proxy(
        self, request: web.Request, user: str, node: str, path: str
    ) -> web.StreamResponse:
        verb = VERBS.get(request.method, "get")
        failure = self._check(user, verb, "nodes/proxy", name=node, named="proxy")
        if failure is not None:
            return self._spoil(failure, b"# cut\n")
        name = node.removeprefix("https:").partition(":")[0]
        if name not in self.store.objects["nodes"]:
            raise not_found("nodes", name)
        return await self._nodes.serve(request, node, path)

    def _spoil(self, failure: ApiFailure, body: bytes) -> web.StreamResponse:
        return spoiled(failure, body, self._listener.closing)
