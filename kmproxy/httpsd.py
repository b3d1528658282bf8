"""Prometheus' HTTP service discovery: the pods of a node and the nodes as targets.

Knows paths, queries, statuses and headers, and what is echoed of a request. Must
not know how a list is fetched, nor what is in it. Nothing of a request goes to an
upstream but the name of a node, which has to be that of a Node object.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

from aiohttp import hdrs, web

from kmproxy.discovery import TargetLabelMap, node_targets
from kmproxy.door import ADMISSION
from kmproxy.errors import AccessError, UpstreamError
from kmproxy.health import Readiness
from kmproxy.responses import DEFAULT_TIMEOUT, Handler, plain, scrape_budget
from kmproxy.routes import CADVISOR, ENDPOINTS, NODE_PREFIX, NODES, PODS
from kmproxy.selection import Globs, QueryError, check_keys
from kmproxy.targets import TargetService
from kmproxy.telemetry import Telemetry
from kmproxy.values import parse_host, parse_port

CONTENT_TYPE = "application/json; charset=utf-8"
INTERVAL_HEADER = "X-Prometheus-Refresh-Interval-Seconds"
"""What Prometheus waits for an answer at most, and then asks anew."""

_HOST = re.compile(r"(?P<host>\[[^\[\]]+\]|[^\[\]:]+)(?::(?P<port>[0-9]+))?", re.ASCII)

_Query = Mapping[str, Sequence[str]]


class _RefusedError(Exception):
    """A request that ends in a status, and one plain line why."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class HttpDiscovery:
    """Answers that are lists of targets."""

    def __init__(
        self,
        targets: TargetService,
        labels: TargetLabelMap,
        *,
        all_nodes: bool,
        readiness: Readiness,
        telemetry: Telemetry,
    ) -> None:
        self._targets = targets
        self._labels = labels
        self._all_nodes = all_nodes
        self._readiness = readiness
        self._telemetry = telemetry

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """What answers a GET or HEAD of each path."""
        return {PODS: self._handle} | ({NODES: self._handle} if self._all_nodes else {})

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path, _, text = request.raw_path.partition("?")
        find = self._nodes if path == NODES else self._pods
        try:
            body = await find(request, parse_qs(text, keep_blank_values=True))
            response = _tagged(request, body)
        except (_RefusedError, AccessError, UpstreamError) as error:
            response = plain(error.status, str(error))
        except QueryError as error:
            response = plain(400, str(error))
        self._telemetry.discovery_requests.labels(path, str(response.status)).inc()
        return response

    async def _pods(self, request: web.Request, query: _Query) -> bytes:
        check_keys(query, "node", "namespace")
        problem = self._readiness.problem()
        if problem is None and not self._labels.loaded:
            problem = "namespaces are not listed yet"  # those of a snapshot are just labels
        if problem:
            raise _RefusedError(503, problem)
        node = _single(query, "node")
        wanted = Globs.of_query(query["namespace"]).match if "namespace" in query else None
        found = await self._targets.pods(node, _patience(request))
        admission = request.get(ADMISSION)
        if admission is not None and admission.tenant is not None:
            # All of them, whatever is wanted: no review may depend on what the tenant does not see.
            spaces = {pod.namespace for pod in found.value.pods}
            seen = await admission.tenant.sees(spaces, deadline=admission.deadline)
            shown = {
                space for space, sees in seen.items() if sees and (not wanted or wanted(space))
            }
            return found.value.render(self._labels.lookup, shown.__contains__)
        return found.value.render(self._labels.lookup, wanted)

    async def _nodes(self, request: web.Request, query: _Query) -> bytes:
        check_keys(query, "path")
        if problem := self._readiness.problem():
            raise _RefusedError(503, problem)
        endpoint = _single(query, "path") or CADVISOR
        if endpoint not in ENDPOINTS:
            raise _RefusedError(400, f"path= is one of {', '.join(ENDPOINTS)}")
        address = own_address(request.headers.get(hdrs.HOST, ""))
        if address is None:
            raise _RefusedError(400, "the Host header is no HOST or HOST:PORT to be scraped at")
        found = await self._targets.nodes(_patience(request))
        return node_targets(
            found.value, address, lambda name: NODE_PREFIX.format(node=name) + endpoint
        )


def own_address(host: str) -> str | None:
    """The address of ours that a Host header names; None if it is no HOST or HOST:PORT.

    It is what the client itself says, so it is only good to be told to that client.
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
        raise _RefusedError(400, f"{key}= more than once")
    return values[0] if values else None


def _patience(request: web.Request) -> float:
    """Seconds that an asker waits: Prometheus gives up after its refresh interval."""
    return min(scrape_budget(request.headers.get(INTERVAL_HEADER)), DEFAULT_TIMEOUT)


def _tagged(request: web.Request, body: bytes) -> web.Response:
    """The document, or 304 to a client that has it."""
    tag = hashlib.blake2b(body, digest_size=16).hexdigest()
    headers = {hdrs.ETAG: f'"{tag}"', hdrs.CACHE_CONTROL: "no-cache"}
    if any(each.value in {tag, "*"} for each in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE, **headers})
