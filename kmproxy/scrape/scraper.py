"""Answers a scrape: its deadline, its slot, its node, and the status of each failure.

Knows HTTP statuses, and until when a response may still become an error. Must not know paths, nor
what is done to an exposition. A failure before the first byte of the response becomes a status. A
failure after it breaks the connection, which never ends cleanly then.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from aiohttp import web

from kmproxy.auth.middleware import DECISION
from kmproxy.errors import AccessError, CredentialError, SlowClientError, UpstreamError
from kmproxy.exposition.pipeline import Recipe
from kmproxy.exposition.selector import SeriesError
from kmproxy.kube.nodes import Node, NodeDirectory
from kmproxy.scrape.pod_lists import PodLists
from kmproxy.scrape.routes import Route
from kmproxy.scrape.stream import Streamer
from kmproxy.sources.kubelet import Kubelet, MetricsSource
from kmproxy.sources.slots import ConcurrencyLimit, Slot
from kmproxy.telemetry import UpstreamErrors
from kmproxy.web.health import Readiness
from kmproxy.web.open_connections import network
from kmproxy.web.responses import TIMEOUT_HEADER, break_off, plain, scrape_budget

_log = logging.getLogger(__package__)


class _RefusedError(Exception):
    """A scrape that fails with a status. The status is sent only before the first byte."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True, slots=True, eq=False)
class Scraper:
    """Scrapes kubelets for clients, as many at the same time as `limit` allows.

    `nodes` is None unless every node is served. `longest` is the maximum scrape time in seconds,
    also if the client allows more. `metrics` fetches from the kubelets, or shares their answers.
    `pods` is None unless samples get labels of pods.
    """

    kubelet: Kubelet
    metrics: MetricsSource
    nodes: NodeDirectory | None
    limit: ConcurrencyLimit
    streamer: Streamer
    readiness: Readiness
    errors: UpstreamErrors
    longest: float
    pods: PodLists | None = None

    async def scrape(
        self, request: web.Request, route: Route, recipe: Recipe
    ) -> tuple[web.StreamResponse, str]:
        """Answer a scrape. Returns the response, and its status or `broken` for the metric."""
        budget = min(scrape_budget(request.headers.get(TIMEOUT_HEADER)), self.longest)
        deadline = asyncio.get_running_loop().time() + budget
        if (decision := request.get(DECISION)) is not None:
            deadline = decision.deadline
        response = web.StreamResponse()
        node = None
        try:
            self._require_ready()
            async with self.limit.taken(deadline, network(request.remote)) as slot:
                try:
                    async with asyncio.timeout_at(deadline):
                        node = await self._node(request, route)
                        await self._fetch(node, route.endpoint, request, response, recipe, slot)
                except TimeoutError as error:
                    raise _RefusedError(504, self._late(request, node, budget)) from error
        except (AccessError, SlowClientError, UpstreamError, _RefusedError) as error:
            return _failed(request, response, route, error.status, str(error))
        except CredentialError as error:
            return _failed(request, response, route, 502, str(error))
        except BaseException:  # after any error, a response that has begun must not look whole
            if response.prepared:
                break_off(request)
            raise
        return response, "200"

    def _require_ready(self) -> None:
        if problem := self.readiness.problem():
            raise _RefusedError(503, problem)

    async def _node(self, request: web.Request, route: Route) -> Node:
        if route.node is None or self.nodes is None:
            return self.kubelet.configured
        decision = request.get(DECISION)
        try:
            return await self.nodes.find(route.node, asker=decision.caller if decision else "")
        except UpstreamError as error:
            self.errors.count("apiserver", error.reason)
            raise

    async def _fetch(
        self,
        node: Node,
        endpoint: str,
        request: web.Request,
        response: web.StreamResponse,
        recipe: Recipe,
        slot: Slot,
    ) -> None:
        tenant = None
        if (decision := request.get(DECISION)) is not None and decision.tenant is not None:
            tenant = decision.tenant.stream(max_line=recipe.max_line, deadline=decision.deadline)
        try:
            async with self.metrics.fetch(node, endpoint) as exposition:
                pods = self.pods.scraped(node) if self.pods else None
                await self.streamer.stream(
                    exposition,
                    request,
                    response,
                    recipe=recipe,
                    slot=slot,
                    tenant=tenant,
                    pods=pods,
                )
        except SeriesError as error:
            self.errors.count("kubelet", "series")
            raise UpstreamError("series", str(error)) from error
        except UpstreamError as error:
            self.errors.count("kubelet", error.reason)
            raise

    def _late(self, request: web.Request, node: Node | None, budget: float) -> str:
        """The message that says which side took too long. Counts it if it was an upstream."""
        if request.protocol.writing_paused:
            return f"the client has not taken its answer within {budget:g} s"
        label, name = ("kubelet", "kubelet") if node else ("apiserver", "API server")
        self.errors.count(label, "timeout")
        away = self.kubelet.away if node else ""
        because = f": {away}, and the kubelet may still wait for a review" if away else ""
        return f"no whole answer from the {name} within {budget:g} s{because}"


def _failed(
    request: web.Request, response: web.StreamResponse, route: Route, status: int, message: str
) -> tuple[web.StreamResponse, str]:
    """Answer a failure: a status before the first byte, or a broken connection after it."""
    if not response.prepared:
        _log.warning("%s: %d: %s", route.path, status, message)
        return plain(status, message), str(status)
    _log.warning("%s: connection broken: %s", route.path, message)
    break_off(request)
    return response, "broken"
