"""What is served to scrapers: enriched metrics and the status page.

Knows HTTP statuses and when an answer may still become an error. Must
not know how anything is fetched. Before the first byte a failure is a status;
after it the connection is broken, never ended cleanly.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Iterator,
    Mapping,
)
from contextlib import aclosing
from dataclasses import replace
from functools import cache
from urllib.parse import parse_qs

from aiohttp import HttpVersion11, hdrs, web

from kmproxy import __version__
from kmproxy.auth.authorizer import Authorizer, RequestAttributes, node_name
from kmproxy.auth.middleware import DECISION, AuthMiddleware
from kmproxy.auth.tenant import TenantStream
from kmproxy.config.sections import ServerConfig
from kmproxy.content_coding import GzipEncoder, accepts_gzip
from kmproxy.errors import AccessError, CredentialError, SlowClientError, UpstreamError
from kmproxy.exposition.lines import portions, work
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.selection import QueryError, Selection, SeriesError, SeriesRoom, check_keys
from kmproxy.kube.nodes import Node, NodeDirectory
from kmproxy.labels.label_map import LabelMap
from kmproxy.labels.namespaces import NamespaceWatcher
from kmproxy.scrape.routes import Route, find_route, served_paths
from kmproxy.scrape.status_page import Status, status_page
from kmproxy.sources.endpoints import ENDPOINTS
from kmproxy.sources.kubelet import Exposition, Kubelet
from kmproxy.sources.slots import ConcurrencyLimit, Slot
from kmproxy.telemetry import Telemetry
from kmproxy.web.health import Readiness
from kmproxy.web.open_connections import network
from kmproxy.web.responses import (
    TIMEOUT_HEADER,
    Handler,
    application,
    break_off,
    not_allowed,
    not_found,
    plain,
    reads,
    scrape_budget,
)

SLOT = web.RequestKey("slot", Slot)
"""The slot that a scrape holds."""

_log = logging.getLogger(__package__)


_TURN = 1 << 19
"""Work, as `lines.work` measures it, after which the loop serves others: milliseconds."""


class _RefusedError(Exception):
    """A scrape that ends in a status: before the first byte only."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class MetricsServer:
    """The port that Prometheus scrapes.

    `slots` are the kubelet fetches that may be under way at once, `others` what
    is served beside metrics, each at its path and to those who may only read;
    those of them that are `narrowed` look for themselves what a tenant sees. The
    status page has them as they are `shown`.
    """

    def __init__(  # noqa: PLR0913 - it is where all services meet
        self,
        config: ServerConfig,
        recipe: Recipe,
        *,
        labels: LabelMap,
        kubelet: Kubelet,
        nodes: NodeDirectory | None,
        watcher: NamespaceWatcher,
        readiness: Readiness,
        telemetry: Telemetry,
        clock: Callable[[], float],
        slots: ConcurrencyLimit,
        others: Mapping[str, Handler],
        authorizer: Authorizer | None = None,
        narrowed: Collection[str] = (),
        shown: Collection[str] = (),
    ) -> None:
        self._authorizer = authorizer
        self._narrowed = narrowed
        self._shown = shown
        self._recipe = recipe
        self._labels = labels
        self._kubelet = kubelet
        self._nodes = nodes
        self._watcher = watcher
        self._readiness = readiness
        self._telemetry = telemetry
        self._clock = clock
        self._slots = slots
        self._series = SeriesRoom(config.max_concurrency)
        self._others = others
        self._longest = config.max_scrape_time

    def application(self) -> web.Application:
        """The application to run; its router leaves every path as it was sent."""
        if self._authorizer is None:
            return application(self._handle)
        middleware = AuthMiddleware(
            self._authorizer,
            self._handle,
            find=self._find,
            telemetry=self._telemetry,
            clock=self._clock,
            longest=self._longest,
        )
        return application(middleware.handle)

    def _selected(self, query: str) -> Selection:
        return self._recipe.selection.narrow(parse_qs(query, keep_blank_values=True))

    def _wanted(self, query: str) -> Callable[[str], bool]:
        """Whether a request wants a namespace; who asks is known before its query is read.

        One with a query that is none wants nothing: it is refused once it is admitted.
        """

        @cache
        def selected() -> Selection | None:
            try:
                return self._selected(query)
            except QueryError:
                return None

        def wants(namespace: str) -> bool:
            selection = selected()
            return selection is not None and selection.wants_namespace(namespace)

        return wants

    def _route(self, path: str) -> Route | None:
        return find_route(path, all_nodes=self._nodes is not None, a_node=self._kubelet.has_node)

    def _find(self, target: str) -> tuple[str, RequestAttributes] | None:
        """What a path shows, with how it is called in a metric; None if it is not served."""
        path, _, query = target.partition("?")
        route = self._route(path)
        if route is not None:
            wanted = self._wanted(query)
            if route.node is not None:
                return route.path, RequestAttributes(path, route.node, wanted, by_name=True)
            return route.path, RequestAttributes(
                path, node_name(self._kubelet.configured.name), wanted
            )
        narrow = self._wanted(query) if path in self._narrowed else None
        return (
            (path, RequestAttributes(path, wanted=narrow))
            if path == "/" or path in self._others
            else None
        )

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        route = self._route(path)
        if route is None and path != "/" and path not in self._others:
            self._telemetry.scrapes.labels("other", "404").inc()
            return not_found(of_a_node=path in ENDPOINTS)
        if not reads(request):
            return not_allowed()
        if other := self._others.get(path):
            return await other(request)
        if problem := self._query_problem(request.raw_path.partition("?")[2], route):
            return problem
        if route is None:
            return web.Response(text=self._status_page(), content_type="text/html")
        began = self._clock()
        code = "error"
        try:
            response, code = await self._scrape(request, route)
        except ConnectionResetError:  # the client left while we wrote
            code = "gone"
            return web.Response(status=499)
        except asyncio.CancelledError:
            code = "gone"
            raise
        else:
            return response
        finally:
            self._telemetry.scrapes.labels(route.path, code).inc()
            self._telemetry.scrape_duration.labels(route.path).observe(self._clock() - began)

    def _query_problem(self, query: str, route: Route | None) -> web.Response | None:
        """The answer to a query that the path does not take: it must not serve everything."""
        try:
            if route is not None:
                self._selected(query)
            else:
                check_keys(parse_qs(query, keep_blank_values=True))
        except QueryError as error:
            if route is not None:
                self._telemetry.scrapes.labels(route.path, "400").inc()
            return plain(400, str(error))
        return None

    async def _scrape(self, request: web.Request, route: Route) -> tuple[web.StreamResponse, str]:
        """Answer a scrape; returns the response, and its status or `broken` for the metric."""
        budget = min(scrape_budget(request.headers.get(TIMEOUT_HEADER)), self._longest)
        deadline = asyncio.get_running_loop().time() + budget
        if self._authorizer is not None:
            deadline = request[DECISION].deadline
        response = web.StreamResponse()
        node = None
        try:
            self._require_ready()
            async with self._slots.taken(deadline, network(request.remote)) as request[SLOT]:
                try:
                    async with asyncio.timeout_at(deadline):
                        node = await self._node(request, route)
                        await self._fetch(request, response, node, route.endpoint)
                except TimeoutError as error:
                    raise _RefusedError(504, self._late(request, node, budget)) from error
        except (AccessError, SlowClientError, UpstreamError, _RefusedError) as error:
            return self._failed(request, response, route, error.status, str(error))
        except CredentialError as error:
            return self._failed(request, response, route, 502, str(error))
        except BaseException:  # whatever it is, what has begun must not look whole
            if response.prepared:
                break_off(request)
            raise
        return response, "200"

    def _late(self, request: web.Request, node: Node | None, budget: float) -> str:
        """Who it was that took too long; an upstream's failure is counted."""
        if request.protocol.writing_paused:
            return f"the client has not taken its answer within {budget:g} s"
        label, name = ("kubelet", "kubelet") if node else ("apiserver", "API server")
        self._telemetry.upstream_failed(label, "timeout")
        away = self._kubelet.away if node else ""
        because = f": {away}, and the kubelet may still wait for a review" if away else ""
        return f"no whole answer from the {name} within {budget:g} s{because}"

    def _require_ready(self) -> None:
        if problem := self._readiness.problem():
            raise _RefusedError(503, problem)

    def _failed(
        self,
        request: web.Request,
        response: web.StreamResponse,
        route: Route,
        status: int,
        message: str,
    ) -> tuple[web.StreamResponse, str]:
        if not response.prepared:
            _log.warning("%s: %d: %s", route.path, status, message)
            return plain(status, message), str(status)
        _log.warning("%s: connection broken: %s", route.path, message)
        break_off(request)
        return response, "broken"

    async def _node(self, request: web.Request, route: Route) -> Node:
        if route.node is None or self._nodes is None:
            return self._kubelet.configured
        asker = "" if self._authorizer is None else request[DECISION].caller
        try:
            return await self._nodes.find(route.node, asker=asker)
        except UpstreamError as error:
            self._telemetry.upstream_failed("apiserver", error.reason)
            raise

    async def _fetch(
        self, request: web.Request, response: web.StreamResponse, node: Node, endpoint: str
    ) -> None:
        try:
            async with self._kubelet.fetch(node, endpoint) as exposition:
                await self._stream(request, response, exposition)
        except SeriesError as error:
            self._telemetry.upstream_failed("kubelet", "series")
            raise UpstreamError("series", str(error)) from error
        except UpstreamError as error:
            self._telemetry.upstream_failed("kubelet", error.reason)
            raise

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, exposition: Exposition
    ) -> None:
        """Pass the exposition on as it comes, enriched; the first bytes begin the response."""
        response.headers[hdrs.CONTENT_TYPE] = exposition.content_type
        encoder = _encoder(request, response)
        stream = self._tenant_stream(request)
        recipe = replace(self._recipe, selection=self._selected(request.raw_path.partition("?")[2]))
        pipeline = Pipeline(self._labels.lookup, recipe, room=self._series)
        head = request.method == hdrs.METH_HEAD
        try:
            async with aclosing(_by_work(exposition.pieces, self._labels)) as pieces:
                async for piece in pieces:
                    data = pipeline.feed(await stream.feed(piece) if stream else piece)
                    if encoder:
                        data = encoder.feed(data)
                    if head and data:
                        break
                    if data:
                        await self._write(request, response, data)
            rest = pipeline.feed(await stream.finish()) if stream else b""
            data = rest + pipeline.finish()
            if encoder:
                data = encoder.feed(data) + encoder.finish()
            if not response.prepared:
                await response.prepare(request)
            if not head:
                await request[SLOT].sent(len(data), response.write_eof(data))
        finally:
            pipeline.close()
            _count(pipeline, self._telemetry)
            if stream:
                self._telemetry.samples_left_out(stream.dropped)

    def _tenant_stream(self, request: web.Request) -> TenantStream | None:
        """What narrows the exposition to what a tenant sees, None for who sees everything."""
        if self._authorizer is None or (tenant := request[DECISION].tenant) is None:
            return None
        return tenant.stream(
            max_line=self._recipe.max_line,
            deadline=request[DECISION].deadline,
        )

    async def _write(self, request: web.Request, response: web.StreamResponse, data: bytes) -> None:
        if not response.prepared:
            await response.prepare(request)
        await request[SLOT].sent(len(data), response.write(data))

    def _paths(self) -> Iterator[str]:
        """Every path that is served, as the documentation writes it."""
        a_node = self._kubelet.has_node
        yield from served_paths(all_nodes=self._nodes is not None, a_node=a_node)
        yield from self._shown

    def _status_page(self) -> str:
        age = self._watcher.sync_age
        return status_page(
            Status(
                version=__version__,
                ready=self._readiness.problem() is None,
                trouble=self._watcher.trouble,
                namespaces=len(self._labels),
                sync_age=age if math.isfinite(age) else None,
                restored=self._watcher.restored,
                rules=self._labels.rules,
                on_conflict=self._recipe.on_conflict,
                paths=list(self._paths()),
                source=self._kubelet.source,
            )
        )


def _count(pipeline: Pipeline, telemetry: Telemetry) -> None:
    """Count an exposition that has passed through, whole or not."""
    enricher = pipeline.enricher
    telemetry.samples.inc(enricher.samples)
    telemetry.samples_enriched.inc(enricher.enriched)
    telemetry.lines_unparsed.inc(enricher.unparsed)
    telemetry.label_conflicts.inc(enricher.conflicts)
    if pipeline.selector is not None:
        telemetry.samples_left_out(pipeline.selector.dropped)


async def _by_work(pieces: AsyncIterator[bytes], labels: LabelMap) -> AsyncGenerator[bytes, None]:
    """The pieces in portions, with others served between any that make up a turn's work."""
    done = 0
    async for piece in pieces:
        for portion in portions(piece, labels.longest):
            yield portion
            done += work(portion)
            if done >= _TURN:
                done = 0
                await asyncio.sleep(0)


def _encoder(request: web.Request, response: web.StreamResponse) -> GzipEncoder | None:
    """What encodes a body of unknown length for this client; the head of the answer says it."""
    response.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
    if request.version < HttpVersion11:
        response.force_close()  # it knows no chunks: only the end of the connection is the body's
    if not accepts_gzip(request.headers.get(hdrs.ACCEPT_ENCODING, "")):
        return None
    response.headers[hdrs.CONTENT_ENCODING] = "gzip"
    return GzipEncoder()
