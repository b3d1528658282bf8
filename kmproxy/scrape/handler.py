"""The metrics port: the handler of each path, and the statuses 404, 405 and 400.

Knows paths and queries. Must not know how a scrape is answered, nor how anything is fetched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from urllib.parse import parse_qs

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, Histogram

from kmproxy.auth.authorizer import Authorizer, RequestAttributes, node_name
from kmproxy.auth.middleware import DECISION, AuthMiddleware, RequestMetrics
from kmproxy.exposition.pipeline import Recipe
from kmproxy.exposition.selection import QueryError, Selection
from kmproxy.scrape.routes import Route, find_route
from kmproxy.scrape.scraper import Scraper
from kmproxy.scrape.source import Kubelets, Source, UpstreamSource
from kmproxy.sources.endpoints import ENDPOINTS
from kmproxy.status.outcomes import Attempt, Outcomes, Scraped
from kmproxy.web.responses import Handler, application, not_allowed, not_found, plain, reads

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class ScrapeMetrics(RequestMetrics):
    """Counts the requests to the metrics port, and the time that answers take."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self._duration = Histogram(
            "kmproxy_scrape_duration_seconds",
            "Time from a request for metrics to the end of its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )

    def count(self, path: str, code: str, seconds: float) -> None:
        """Count a request that took `seconds`. `code` is a status, or `broken` or `gone`."""
        self.requests.labels(path, code).inc()
        self._duration.labels(path).observe(seconds)


@dataclass(frozen=True, slots=True)
class Page:
    """A path of the metrics port other than a scrape's, served to callers that may get it.

    With `by_tenant` the handler itself narrows the response to what a tenant sees. `shown` is the
    path as the status page writes it.
    """

    handler: Handler
    shown: str
    by_tenant: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class MetricsPort:
    """The port that Prometheus scrapes: enriched metrics, `pages` by path, and the status page.

    `upstreams` are by name. `status` answers requests for the status page. `outcomes` remembers how
    scrapes went. Without an `authorizer` every request is served.
    """

    scraper: Scraper
    kubelets: Kubelets
    upstreams: Mapping[str, UpstreamSource]
    pages: Mapping[str, Page]
    status: Handler
    outcomes: Outcomes
    authorizer: Authorizer | None
    metrics: ScrapeMetrics
    clock: Callable[[], float]

    def application(self) -> web.Application:
        """The application to run. Its router leaves every path as the client sent it."""
        if self.authorizer is None:
            return application(self._handle)
        middleware = AuthMiddleware(
            self.authorizer,
            self._handle,
            find=self._find,
            metrics=self.metrics,
            clock=self.clock,
            longest=self.scraper.longest,
        )
        return application(middleware.handle)

    def _selected(self, query: str) -> Selection:
        """The configured selection, narrowed by a query. It is the same for all sources."""
        return self.kubelets.recipe.selection.narrow(parse_qs(query, keep_blank_values=True))

    def _wanted(self, query: str) -> Callable[[str], bool]:
        """A function that tells whether a request with this query asks for a namespace.

        It reads the query when it is first called, after the caller is authenticated. An invalid
        query asks for no namespace: the request is refused once the caller is authorized.
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

    @property
    def _a_node(self) -> bool:
        return self.kubelets.kubelet.has_node

    @property
    def _all_nodes(self) -> bool:
        return self.kubelets.nodes is not None

    def _route(self, path: str) -> Route | None:
        return find_route(
            path, all_nodes=self._all_nodes, a_node=self._a_node, upstreams=self.upstreams
        )

    def _find(self, target: str) -> tuple[str, RequestAttributes] | None:
        """The name of a path in a metric, and the attributes of its request.

        None if the path is not served.
        """
        path, _, query = target.partition("?")
        route = self._route(path)
        if route is not None:
            wanted = self._wanted(query)
            if route.upstream is not None:
                known = route.upstream in self.upstreams
                return route.path, RequestAttributes(path, wanted=wanted, exists=known)
            if route.node is not None:
                return route.path, RequestAttributes(path, route.node, wanted, by_name=True)
            node = node_name(self.kubelets.kubelet.configured.name)
            return route.path, RequestAttributes(path, node, wanted)
        if path == "/":
            return path, RequestAttributes(path, wanted=_every_namespace)
        page = self.pages.get(path)
        if page is None:
            return None
        narrow = self._wanted(query) if page.by_tenant else None
        return path, RequestAttributes(path, wanted=narrow)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        route = self._route(path)
        if route is None and path != "/" and path not in self.pages:
            self.metrics.requests.labels("other", "404").inc()
            return not_found(of_a_node=path in ENDPOINTS)
        if not reads(request):
            return not_allowed()
        if page := self.pages.get(path):
            return await page.handler(request)
        if route is not None:
            return await self._answer(request, route, query)
        return await self.status(request)

    async def _answer(self, request: web.Request, route: Route, query: str) -> web.StreamResponse:
        """Answer a request for metrics."""
        source = self._source(request, route)
        if source is None:
            self.metrics.requests.labels(route.path, "404").inc()
            return plain(404, "no upstream has this name, see /")
        try:
            recipe = source.recipe
            if query:
                recipe = replace(recipe, selection=self._selected(query))
        except QueryError as error:  # the whole exposition must not be served instead
            self.metrics.requests.labels(route.path, "400").inc()
            return plain(400, str(error))
        return await self._scrape(request, route.path, source, recipe)

    def _source(self, request: web.Request, route: Route) -> Source | None:
        """The source of a route. None if no upstream has the name."""
        if route.upstream is not None:
            return self.upstreams.get(route.upstream)
        decision = request.get(DECISION)
        caller = decision.caller if decision else ""
        return self.kubelets.source(route.endpoint, route.node, caller)

    async def _scrape(
        self, request: web.Request, path: str, source: Source, recipe: Recipe
    ) -> web.StreamResponse:
        """Answer a scrape, count it with its status and its duration, and remember how it went."""
        began = self.clock()
        code = "error"
        attempt = Attempt()
        try:
            response, code = await self.scraper.scrape(request, path, source, recipe, attempt)
        except ConnectionResetError:  # the client left while we wrote
            code = "gone"
            return web.Response(status=499)
        except asyncio.CancelledError:
            code = "gone"
            raise
        else:
            return response
        finally:
            now = self.clock()
            self.metrics.count(path, code, now - began)
            if request.method != hdrs.METH_HEAD:  # its samples are not read to the end
                decision = request.get(DECISION)
                caller = decision.caller if decision and decision.tenant else ""
                subject = Scraped(path, attempt.node, caller)
                self.outcomes.note(subject, attempt, code, now=now, took=now - began)


def _every_namespace(_: str) -> bool:
    """Whether the status page is about a namespace: it is about all that its caller may see."""
    return True
