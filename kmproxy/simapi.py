"""A simulated API server: namespaces and nodes, watches, reviews, and the node proxy.

Knows the API's paths, versions, Status objects and a simple RBAC, and how each of them goes
wrong. Must not know certificates, files, or anything of the proxy under test.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import enum
import json
import secrets
import ssl
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
from aiohttp import web

from kmproxy.simkubelet import (
    HOST,
    Listener,
    Plan,
    Raw,
    Record,
    SimKubelet,
    accepts_gzip,
    identify,
    is_secure,
    pack,
    record,
    send,
    whole,
)

AUDIENCE = "https://kubernetes.default.svc"
SERVICE_ACCOUNT = "system:serviceaccount:kmproxy:kmproxy"
CERTIFICATE_USER = "kmproxy"
DAEMON = (SERVICE_ACCOUNT, CERTIFICATE_USER)
"""The users that `allow` and `deny` mean when none is named."""
MASTERS = ("system:admin", "kube-apiserver-kubelet-client", "system:masters")

_RULES = (
    *((verb, name) for verb in ("get", "list", "watch") for name in ("namespaces", "nodes")),
    *(("get", f"nodes/{name}") for name in ("metrics", "proxy", "pods")),
    *(("create", name) for name in ("tokenreviews", "subjectaccessreviews")),
)
_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_KINDS = {"namespaces": "Namespace", "nodes": "Node"}
_REVIEWS = {
    "selfsubjectaccessreviews": "authorization.k8s.io",
    "subjectaccessreviews": "authorization.k8s.io",
    "tokenreviews": "authentication.k8s.io",
}
_HOP_BY_HOP = ("Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Host", "Date", "Server")
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "AlreadyExists",
    410: "Expired",
    415: "UnsupportedMediaType",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
Object = dict[str, Any]


class StatusError(Exception):
    """An answer that is a Status object; `details` and `headers` go with it."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str | None = None,
        details: Object | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        details = dict(details or {})
        if retry_after is not None:
            details["retryAfterSeconds"] = retry_after
        self.code = code
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self.status: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}}
        self.status |= {"status": "Failure", "message": message}
        self.status |= {"reason": reason or _REASONS.get(code, "Unknown")}
        self.status |= ({"details": details} if details else {}) | {"code": code}


class Authority:
    """Who a token is of, and who may do what: tokens and rules, both changeable at any time.

    A resource is `namespaces`, `nodes/proxy`, or a path such as `/metrics`. A rule may name a
    group in the place of a user. `MASTERS` may do everything.
    """

    def __init__(self) -> None:
        self._tokens: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {}
        self._rules = {(user, *rule) for user in DAEMON for rule in _RULES}

    def __repr__(self) -> str:
        return f"<Authority {len(self._tokens)} tokens, {len(self._rules)} rules>"

    def issue(
        self, user: str, *, groups: tuple[str, ...] = (), audiences: tuple[str, ...] = (AUDIENCE,)
    ) -> str:
        """Return a new token of `user`, good for `audiences` until it is revoked."""
        claims = {"sub": user, "aud": audiences, "exp": int(time.time()) + 3600}
        parts = [json.dumps(part).encode() for part in ({"alg": "RS256"}, claims)]
        parts.append(secrets.token_bytes(32))
        token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
        self._tokens[token] = (user, ("system:authenticated", *groups), audiences)
        return token

    def revoke(self, token: str) -> None:
        """Refuse `token` from now on."""
        self._tokens.pop(token, None)

    def authenticate(self, token: str) -> str | None:
        """Return the user of a token good for the API server and the kubelets, or None."""
        user, _, audiences = self._tokens.get(token, (None, (), ()))
        return user if AUDIENCE in audiences else None

    def review(self, token: str, audiences: list[str]) -> Object:
        """Return the status of a TokenReview."""
        user, groups, good_for = self._tokens.get(token, (None, (), ()))
        common = [each for each in audiences or [AUDIENCE] if each in good_for]
        if user is None or not common:
            return {"user": {}, "error": "[invalid bearer token, token lookup failed]"}
        who = {"username": user, "uid": str(uuid.uuid5(uuid.NAMESPACE_URL, user))}
        return {"authenticated": True, "user": who | {"groups": list(groups)}, "audiences": common}

    def allow(self, verb: str, resource: str, *, user: str | None = None) -> None:
        """Grant a verb on a resource to `user` (None: to the daemon)."""
        self._rules |= {(who, verb, resource) for who in ([user] if user else DAEMON)}

    def deny(self, verb: str, resource: str, *, user: str | None = None) -> None:
        """Withdraw a verb on a resource from `user` (None: from everyone)."""
        self._rules = {
            rule
            for rule in self._rules
            if rule[1:] != (verb, resource) or user not in (None, rule[0])
        }

    def allows(self, user: str, verb: str, resource: str, groups: tuple[str, ...] = ()) -> bool:
        """Tell whether `user`, or one of `groups`, may do `verb` on `resource`."""
        names = (user, *groups)
        return any(name in MASTERS or (name, verb, resource) in self._rules for name in names)


class Store:
    """Objects by resource and name under one growing version, and the last of their changes.

    Objects are never changed in place. A watch can resume at any version from `floor` on. Take
    `changed` before reading, then wait for it: so no change is missed.
    """

    def __init__(self, history: int = 1000) -> None:
        self.version = 1000
        self.floor = 0
        self.objects: dict[str, dict[str, Object]] = {name: {} for name in _KINDS}
        self._history: deque[tuple[int, str, str, Object]] = deque(maxlen=history)
        self.changed = asyncio.Event()
        self._backup = (self.version, self.objects)

    def __repr__(self) -> str:
        return f"<Store at {self.version}, history from {self.floor}>"

    def put(self, resource: str, item: Object) -> Object:
        """Create or replace an object; a change that changes nothing is none."""
        known = self.objects[resource]
        name = item["metadata"]["name"]
        old = known.get(name)
        if old == item:
            return old
        kept = (old or {}).get("metadata", {})
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.version += 1
        fixed = {
            "uid": kept.get("uid", str(uuid.uuid4())),
            "creationTimestamp": kept.get("creationTimestamp", now),
            "resourceVersion": str(self.version),
        }
        item = item | {"metadata": item["metadata"] | fixed}
        known[name] = item
        self._log(resource, "MODIFIED" if old else "ADDED", item)
        return item

    def remove(self, resource: str, name: str) -> Object:
        """Delete an object; `KeyError` if there is none."""
        old = self.objects[resource].pop(name)
        self.version += 1
        last = old | {"metadata": old["metadata"] | {"resourceVersion": str(self.version)}}
        self._log(resource, "DELETED", last)
        return last

    def since(self, resource: str, version: int) -> Iterator[tuple[int, str, Object]]:
        """Return what became of a resource after `version`."""
        for at, of, kind, item in tuple(self._history):
            if of == resource and at > version:
                yield at, kind, item

    def wake(self) -> None:
        """Set `changed`, and put a new one in its place."""
        self.changed.set()
        self.changed = asyncio.Event()

    def expire(self) -> None:
        """Make every version given out so far too old."""
        self._history.clear()
        self.version += 1
        self.floor = self.version

    def back_up(self) -> None:
        """Remember this state for `restore`."""
        self._backup = self.version, {name: dict(items) for name, items in self.objects.items()}

    def restore(self) -> None:
        """Go back to the state backed up: objects, version and history."""
        self.version, objects = self._backup
        self.objects = {name: dict(items) for name, items in objects.items()}
        kept = [entry for entry in self._history if entry[0] <= self.version]
        self._history = deque(kept, maxlen=self._history.maxlen)

    def _log(self, resource: str, kind: str, item: Object) -> None:
        if len(self._history) == self._history.maxlen:
            self.floor = self._history[0][0]
        self._history.append((self.version, resource, kind, item))
        self.wake()


class Namespaces:
    """The namespaces of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"<Namespaces {', '.join(self)}>"

    def __len__(self) -> int:
        return len(self._store.objects["namespaces"])

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._store.objects["namespaces"]))

    def get(self, name: str) -> Object | None:
        """Return a namespace as the API has it; it must not be changed."""
        return self._store.objects["namespaces"].get(name)

    def apply(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Object:
        """Create a namespace, or replace its labels or annotations (None: leave them)."""
        metadata = dict((self.get(name) or {}).get("metadata", {"name": name}))
        if labels is not None:
            metadata["labels"] = dict(labels)
        if annotations is not None:
            metadata["annotations"] = dict(annotations)
        return self.put({"metadata": metadata})

    def put(self, item: Object) -> Object:
        """Create or replace a namespace, completed as the API server completes it."""
        metadata = dict(item["metadata"])
        name = metadata["name"]
        metadata["labels"] = {"kubernetes.io/metadata.name": name} | (metadata.get("labels") or {})
        if not metadata.get("annotations"):
            metadata.pop("annotations", None)
        item = {"kind": "Namespace", "apiVersion": "v1", "metadata": metadata}
        item |= {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
        return self._store.put("namespaces", item)

    def delete(self, name: str) -> Object:
        """Delete a namespace; `KeyError` if there is none."""
        return self._store.remove("namespaces", name)

    def pad(self, name: str, size: int) -> Object:
        """Give a namespace an annotation of `size` bytes."""
        annotations = (self.get(name) or {}).get("metadata", {}).get("annotations", {})
        return self.apply(name, annotations=annotations | {"example.com/padding": "x" * size})


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
        self._pages: dict[str, tuple[int, list[Object]]] = {}
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
            case ["apis", group, "v1", kind] if _REVIEWS.get(kind) == group:
                return await self._review(request, user, kind, group)
            case path:
                found = _DISCOVERY.get("/".join(path))
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
        if not self.authority.allows(user, verb, resource):
            plural = resource.partition("/")[0]
            subject = f'{plural} "{name}"' if name else plural
            where = f'in the namespace "{name}"' if name and plural == "namespaces" else ""
            dotted = f".{group}" if group else ""
            details = {"name": name, "group": group, "kind": plural}
            raise StatusError(
                403,
                f'{subject.replace(plural, plural + dotted, 1)} is forbidden: User "{user}" cannot '
                f'{verb} resource "{resource}" in API group "{group}" '
                f"{where or 'at the cluster scope'}",
                details={key: value for key, value in details.items() if value},
            )
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
                raise StatusError(
                    409, f'{resource} "{name}" already exists', details=_details(resource, name)
                )
            return await self._done(request, failure, self._write(resource, item), 201)
        if request.method != "GET":
            raise StatusError(
                405, "the server does not allow this method", reason="MethodNotAllowed"
            )
        if request.query.get("watch", "") in ("true", "1"):
            return await self._watch(request, resource, self._check(user, "watch", resource))
        failure = self._check(user, "list", resource)
        return await self._done(request, failure, self._list(request, resource))

    def _list(self, request: web.Request, resource: str) -> Object:
        query = request.query
        if token := query.get("continue"):
            if token not in self._pages:
                raise StatusError(410, "The provided continue parameter is too old")
            version, items = self._pages[token]
        else:
            self._known_version(query.get("resourceVersion", ""))
            version = self.store.version
            items = [each for _, each in sorted(self.store.objects[resource].items())]
            items = [each for each in items if _selected(request, each)]
        metadata: Object = {"resourceVersion": str(version)}
        limit = int(query.get("limit") or 0)
        if limit and len(items) > limit:
            metadata["continue"] = secrets.token_urlsafe(16)
            metadata["remainingItemCount"] = len(items) - limit
            self._pages[metadata["continue"]] = (version, items[limit:])
            while len(self._pages) > 1000:
                del self._pages[next(iter(self._pages))]
            items = items[:limit]
        if partial := _wants_metadata(request):
            head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            items = [partial(each) for each in items]
        else:
            head = {"kind": f"{_KINDS[resource]}List", "apiVersion": "v1"}
            items = [_without(each, "kind", "apiVersion") for each in items]
        return {**head, "metadata": metadata, "items": items}

    def _known_version(self, text: str) -> int:
        if not text.isdecimal() and text:
            raise StatusError(400, f'resourceVersion: Invalid value: "{text}"')
        version = int(text or 0)
        if version > self.store.version:
            message = "Too large resource version"
            raise StatusError(
                504,
                f"Timeout: {message}: {version}, current: {self.store.version}",
                details={"causes": [{"reason": "ResourceVersionTooLarge", "message": message}]},
                retry_after=1,
            )
        return version

    async def _watch(
        self, request: web.Request, resource: str, failure: ApiFailure | None
    ) -> web.StreamResponse:
        if failure is not None and failure.fault in (ApiFault.HANG, ApiFault.GARBAGE):
            return await self._spoil(failure, b"")
        text = request.query.get("resourceVersion", "")
        version = int(text) if self.future_watch_waits and text else self._known_version(text)
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
                await response.write(_line("ERROR", expired.status))
            elif failure is not None and failure.fault is ApiFault.ERROR_EVENT:
                await response.write(_line("ERROR", failure.error().status))
            elif failure is not None and failure.fault is ApiFault.SILENT:
                await self._listener.closing.wait()
            elif failure is None or failure.fault is not ApiFault.END:
                await self._events(request, response, resource, cut=failure is not None)
        finally:
            self._watches.remove(request)
        return response

    async def _events(
        self, request: web.Request, response: web.StreamResponse, resource: str, *, cut: bool
    ) -> None:
        """Write the lines of a watch until its time is up or the server goes down."""
        query, shape = request.query, _wants_metadata(request) or _same
        clock = asyncio.get_running_loop().time
        end = clock() + float(query.get("timeoutSeconds") or 1800)
        marks = query.get("allowWatchBookmarks", "") in ("true", "1")
        mark = clock() + self.bookmark_interval
        seen = int(query.get("resourceVersion") or 0)
        lines: list[bytes] = []
        if seen == 0 or query.get("sendInitialEvents") == "true":
            seen, lines = self._initial(request, resource)
        while not self._listener.closing.is_set():
            changed = self.store.changed
            for version, kind, item in self.store.since(resource, seen):
                seen = version
                if _selected(request, item):
                    lines.append(_line(kind, shape(item)))
            if marks and clock() >= mark:
                seen, mark = max(seen, self.store.version), clock() + self.bookmark_interval
                lines.append(_bookmark(resource, seen, shape))
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

    def _initial(self, request: web.Request, resource: str) -> tuple[int, list[bytes]]:
        shape, version = _wants_metadata(request) or _same, self.store.version
        items = sorted(self.store.objects[resource].items())
        lines = [_line("ADDED", shape(item)) for _, item in items if _selected(request, item)]
        if request.query.get("sendInitialEvents") == "true":
            lines.append(_bookmark(resource, version, shape, initial=True))
        return version, lines

    async def _item(
        self, request: web.Request, user: str, resource: str, name: str
    ) -> web.StreamResponse:
        verb = _VERBS.get(request.method, "")
        failure = self._check(user, verb, resource, name=name)
        item = self.store.objects[resource].get(name)
        if item is None:
            raise _not_found(resource, name)
        if verb == "delete":
            self.store.remove(resource, name)
        elif verb != "get":
            new = await _body(request)
            if verb == "patch":
                new = _patched(item, new, request.content_type)
            given = new.get("metadata", {}).get("resourceVersion")
            if given not in (None, "", item["metadata"]["resourceVersion"]):
                message = (
                    f'Operation cannot be fulfilled on {resource} "{name}": the object has been '
                    "modified; please apply your changes to the latest version and try again"
                )
                details = _details(resource, name)
                raise StatusError(409, message, reason="Conflict", details=details)
            new["metadata"]["name"] = name
            item = self._write(resource, new)
        partial = _wants_metadata(request)
        return await self._done(request, failure, partial(item) if partial else item)

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
        verb = _VERBS.get(request.method, "get")
        failure = self._check(user, verb, "nodes/proxy", name=node, named="proxy")
        if failure is not None:
            return await self._spoil(failure, b"# cut\n")
        name = node.removeprefix("https:").partition(":")[0]
        kubelet = self._kubelets.get(name)
        if kubelet is None or self._session is None or name not in self.store.objects["nodes"]:
            raise _not_found("nodes", name)
        passed = {
            key: value
            for key, value in request.headers.items()
            if key.title() not in (*_HOP_BY_HOP, "Authorization")
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
            kept = {
                key: value
                for key, value in answer.headers.items()
                if key.title() not in _HOP_BY_HOP
            }
            response = web.StreamResponse(status=answer.status, headers=_headers(kept))
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


def node_object(name: str, port: int) -> Object:
    """Return a Node whose kubelet listens on `port` of the loopback interface."""
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    addresses = [{"type": "InternalIP", "address": HOST}, {"type": "Hostname", "address": name}]
    conditions = [
        {"type": kind, "status": status, "reason": f"Kubelet{kind}"}
        for kind, status in (
            ("MemoryPressure", "False"),
            ("DiskPressure", "False"),
            ("Ready", "True"),
        )
    ]
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": name, "labels": labels},
        "spec": {},
        "status": {
            "capacity": {"cpu": "4", "memory": "24684084Ki", "pods": "110"},
            "conditions": conditions,
            "addresses": addresses,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "nodeInfo": {"kubeletVersion": "v1.36.2", "operatingSystem": "linux"},
        },
    }


def _resource_list(version: str, resources: list[tuple[str, str, str, list[str]]]) -> Object:
    listed = [
        {
            "name": plural,
            "singularName": kind.lower(),
            "shortNames": [short] if short else [],
            "namespaced": False,
            "kind": kind,
            "verbs": verbs,
        }
        for plural, short, kind, verbs in resources
    ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": listed}


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


def _details(resource: str, name: str) -> Object:
    return {"name": name, "kind": resource}


def _not_found(resource: str, name: str) -> StatusError:
    return StatusError(404, f'{resource} "{name}" not found', details=_details(resource, name))


def _selected(request: web.Request, item: Object) -> bool:
    """Tell whether the selectors (`metadata.name=N`, `KEY=VALUE` and `KEY`) let an item through."""
    known = {"metadata.name": item["metadata"]["name"]}
    labels = item["metadata"].get("labels", {})
    for given, clauses in ((known, "fieldSelector"), (labels, "labelSelector")):
        for clause in filter(None, request.query.get(clauses, "").split(",")):
            key, equals, value = clause.replace("==", "=").partition("=")
            if given.get(key) != value if equals else key not in given:
                return False
    return True


def _wants_metadata(request: web.Request) -> Callable[[Object], Object] | None:
    """Return what makes a PartialObjectMetadata of an object, if the Accept header asks for it."""
    return _partial if "as=PartialObjectMetadata" in request.headers.get("Accept", "") else None


def _partial(item: Object) -> Object:
    head = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    return {**head, "metadata": item["metadata"]}


def _same(item: Object) -> Object:
    return item


def _without(item: Object, *keys: str) -> Object:
    return {key: value for key, value in item.items() if key not in keys}


def _line(kind: str, item: Object) -> bytes:
    return json.dumps({"type": kind, "object": item}, separators=(",", ":")).encode() + b"\n"


def _bookmark(
    resource: str, version: int, shape: Callable[[Object], Object], *, initial: bool = False
) -> bytes:
    metadata: Object = {"resourceVersion": str(version), "creationTimestamp": None}
    if initial:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    item = {"kind": _KINDS[resource], "apiVersion": "v1", "metadata": metadata}
    return _line("BOOKMARK", shape(item))


def _patched(item: Object, patch: Any, kind: str) -> Object:
    """Return a copy of `item` with a merge, strategic merge or JSON patch; 415 for others."""
    if kind in ("application/merge-patch+json", "application/strategic-merge-patch+json"):
        merged: Object = _merged(item, patch)
        return merged
    if kind != "application/json-patch+json":
        raise StatusError(415, f"the body of the request was in an unknown format: {kind}")
    item = copy.deepcopy(item)
    for step in patch:
        *path, last = (
            part.replace("~1", "/").replace("~0", "~") for part in step["path"][1:].split("/")
        )
        target = item
        for part in path:
            target = target.setdefault(part, {})
        if step["op"] == "remove":
            target.pop(last, None)
        elif step["op"] in ("add", "replace"):
            target[last] = step["value"]
        elif step["op"] == "test" and target.get(last) != step["value"]:
            raise StatusError(422, f"testing path {step['path']} failed", reason="Invalid")
    return item


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    old = old if isinstance(old, dict) else {}
    new = {key: _merged(old.get(key), value) for key, value in patch.items() if value is not None}
    return _without(old, *patch) | new


_GROUPS = sorted(set(_REVIEWS.values()))
_ALL_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
_DISCOVERY: dict[str, Object] = {
    "version": {"major": "1", "minor": "36", "gitVersion": "v1.36.2", "platform": "linux/amd64"},
    "api": {"kind": "APIVersions", "versions": ["v1"]},
    "apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [
            {"name": group, "versions": [version], "preferredVersion": version}
            for group in _GROUPS
            for version in ({"groupVersion": f"{group}/v1", "version": "v1"},)
        ],
    },
    "api/v1": _resource_list(
        "v1", [("namespaces", "ns", "Namespace", _ALL_VERBS), ("nodes", "no", "Node", _ALL_VERBS)]
    ),
}
for _group in _GROUPS:
    _DISCOVERY[f"apis/{_group}/v1"] = _resource_list(
        f"{_group}/v1",
        [(name, "", name.title(), ["create"]) for name, of in _REVIEWS.items() if of == _group],
    )
