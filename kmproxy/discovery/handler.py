"""Prometheus' HTTP service discovery: the pods of a node and the nodes as targets.

Knows paths, queries, statuses and headers, and the part of a request that a response
repeats. Must not know how a list is fetched, or its content. Of a request, only the
name of a node goes to an upstream, and it must be the name of a Node object.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from urllib.parse import parse_qs

from aiohttp import hdrs, web

from kmproxy.auth.middleware import DECISION
from kmproxy.config.types import parse_host, parse_port
from kmproxy.discovery.nodes import NodeDocument
from kmproxy.discovery.target_labels import TargetLabelMap
from kmproxy.discovery.targets import DiscoveryMetrics, TargetService
from kmproxy.errors import AccessError, SlowClientError, UpstreamError
from kmproxy.exposition.selection import Globs, QueryError, check_keys
from kmproxy.sources.endpoints import CADVISOR, ENDPOINTS, NODE_PREFIX
from kmproxy.web.health import Readiness
from kmproxy.web.open_connections import network
from kmproxy.web.responses import DEFAULT_TIMEOUT, Handler, break_off, plain, scrape_budget

PODS = "/sd/pods"
NODES = "/sd/nodes"
"""The paths of the lists of targets."""

CONTENT_TYPE = "application/json; charset=utf-8"
INTERVAL_HEADER = "X-Prometheus-Refresh-Interval-Seconds"
"""The header with the time that Prometheus waits for a response, before it asks again."""

WHOLE = 1 << 16
"""Bytes of the longest document that is sent at once."""

_HOST = re.compile(r"(?P<host>\[[^\[\]]+\]|[^\[\]:]+)(?::(?P<port>[0-9]+))?", re.ASCII)

_Query = Mapping[str, Sequence[str]]
_Find = Callable[[web.Request, _Query], Awaitable[Iterable[bytes]]]


class _RefusedError(Exception):
    """A request is refused, with a status and one plain line for the reason."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class HttpDiscovery:
    """Answers requests for lists of targets."""

    def __init__(
        self,
        targets: TargetService,
        labels: TargetLabelMap,
        *,
        all_nodes: bool,
        readiness: Readiness,
        metrics: DiscoveryMetrics,
    ) -> None:
        self._targets = targets
        self._labels = labels
        self._all_nodes = all_nodes
        self._readiness = readiness
        self._metrics = metrics

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The handler of GET and HEAD for each path."""
        return {PODS: self._handle} | ({NODES: self._handle} if self._all_nodes else {})

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path, _, text = request.raw_path.partition("?")
        find: _Find = self._nodes if path == NODES else self._pods
        try:
            document = await find(request, parse_qs(text, keep_blank_values=True))
            response = await self._answer(request, document)
        except (_RefusedError, AccessError, UpstreamError) as error:
            response = plain(error.status, str(error))
        except QueryError as error:
            response = plain(400, str(error))
        self._metrics.requests.labels(path, str(response.status)).inc()
        return response

    async def _pods(self, request: web.Request, query: _Query) -> Iterable[bytes]:
        check_keys(query, "node", "namespace")
        problem = self._readiness.problem()
        if problem is None and not self._labels.loaded:
            problem = "namespaces are not listed yet"  # a snapshot has only the rules' labels
        if problem:
            raise _RefusedError(503, problem)
        node = _single(query, "node")
        wanted: Callable[[str], bool] | None = None
        if "namespace" in query:
            wanted = Globs.of_query(query["namespace"]).match
        found = await self._targets.pods(node, _patience(request))
        admission = request.get(DECISION)
        if admission is not None and admission.tenant is not None:
            # The reviews are for all namespaces of the list, also for those that are not wanted: no
            # review may depend on data that the tenant does not see.
            spaces = {pod.namespace for pod in found.value.pods}
            seen = await admission.tenant.sees(spaces, deadline=admission.deadline)
            shown = {
                space for space, sees in seen.items() if sees and (not wanted or wanted(space))
            }
            wanted = shown.__contains__
        document = found.value.document(self._labels.lookup, wanted)
        self._metrics.left_out.labels("document").set(document.left_out)
        return document

    async def _nodes(self, request: web.Request, query: _Query) -> Iterable[bytes]:
        check_keys(query, "path")
        if problem := self._readiness.problem():
            raise _RefusedError(503, problem)
        endpoint = _single(query, "path") or CADVISOR
        if endpoint not in ENDPOINTS:
            raise _RefusedError(400, f"path= must be one of {', '.join(ENDPOINTS)}")
        address = own_address(request.headers.get(hdrs.HOST, ""))
        if address is None:
            raise _RefusedError(400, "the Host header is not HOST or HOST:PORT")
        found = await self._targets.nodes(_patience(request))
        return NodeDocument(
            found.value, address, lambda name: NODE_PREFIX.format(node=name) + endpoint
        )

    async def _answer(self, request: web.Request, document: Iterable[bytes]) -> web.StreamResponse:
        """A response with the document, or 304 to a client that has it. Raises UpstreamError.

        A document longer than `WHOLE` is sent in blocks, at the client's speed, and
        holds a slot meanwhile.
        """
        headers, size = tagged(document)
        if is_known(request, headers):
            return web.Response(status=304, headers=headers)
        headers[hdrs.CONTENT_TYPE] = CONTENT_TYPE
        if size <= WHOLE:
            return web.Response(body=b"".join(document), headers=headers)
        response = web.StreamResponse(headers=headers)
        response.content_length = size
        async with self._targets.slot(_patience(request), network(request.remote)) as slot:
            try:
                await response.prepare(request)
                if request.method != hdrs.METH_HEAD:
                    for block in _blocks(document):
                        await slot.sent(len(block), response.write(block))
                await response.write_eof()
            except SlowClientError:
                break_off(request)
            except BaseException:  # for any error: a partial response must not look complete
                break_off(request)
                raise
        return response


def tagged(document: Iterable[bytes]) -> tuple[dict[str, str], int]:
    """The headers of a response with the document, among them its ETag, and its size in bytes."""
    hashed, size = hashlib.blake2b(digest_size=16), 0
    for piece in document:
        hashed.update(piece)
        size += len(piece)
    return {hdrs.ETAG: f'"{hashed.hexdigest()}"', hdrs.CACHE_CONTROL: "no-cache"}, size


def is_known(request: web.Request, headers: Mapping[str, str]) -> bool:
    """Whether the client has the document of an ETag already."""
    tag = headers[hdrs.ETAG].strip('"')
    return any(each.value in {tag, "*"} for each in request.if_none_match or ())


def own_address(host: str) -> str | None:
    """The address of kmproxy in a Host header, or None if that is not HOST or HOST:PORT.

    The client chooses this text, so only the response to the same client may use it.
    """
    if (parts := _HOST.fullmatch(host)) is None:
        return None
    try:
        parse_host(parts["host"])
        if parts["port"] is not None:
            parse_port(parts["port"])
    except ValueError:
        return None
    return host


def _single(query: _Query, key: str) -> str | None:
    values = query.get(key, ())
    if len(values) > 1:
        raise _RefusedError(400, f"{key}= is given more than once")
    return values[0] if values else None


def _patience(request: web.Request) -> float:
    """Seconds that a request waits: Prometheus gives up after its refresh interval."""
    return min(scrape_budget(request.headers.get(INTERVAL_HEADER)), DEFAULT_TIMEOUT)


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of about `WHOLE` bytes."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= WHOLE:
            yield b"".join(held)
            held, size = [], 0
    yield b"".join(held)
