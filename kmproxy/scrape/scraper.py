"""Answers a scrape: its deadline, its slot, and the status of each failure.

Knows HTTP statuses, and until when a response may still become an error. Must not know paths, how
a source is fetched, nor what is done to an exposition. A failure before the first byte of the
response becomes a status. A failure after it breaks the connection, which never ends cleanly then.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from aiohttp import web

from kmproxy.auth.middleware import DECISION
from kmproxy.errors import AccessError, CredentialError, SlowClientError, UpstreamError
from kmproxy.exposition.errors import ExpositionError
from kmproxy.exposition.pipeline import Recipe
from kmproxy.scrape.source import Source
from kmproxy.scrape.stream import Streamer
from kmproxy.sources.slots import Slot
from kmproxy.status.outcomes import Attempt
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
    """Scrapes sources for clients, as many at the same time as the limit of a source allows.

    `longest` is the maximum scrape time in seconds, also if the client allows more.
    """

    streamer: Streamer
    readiness: Readiness
    errors: UpstreamErrors
    longest: float

    async def scrape(
        self, request: web.Request, path: str, source: Source, recipe: Recipe, attempt: Attempt
    ) -> tuple[web.StreamResponse, str]:
        """Answer a scrape. Returns the response, and its status or `broken` for the metric.

        `path` is the path as the documentation writes it. `attempt` gets what becomes of it.
        """
        budget = min(scrape_budget(request.headers.get(TIMEOUT_HEADER)), self.longest)
        deadline = asyncio.get_running_loop().time() + budget
        if (decision := request.get(DECISION)) is not None:
            deadline = decision.deadline
        response = web.StreamResponse()
        try:
            self._require_ready()
            async with source.limit.taken(deadline, network(request.remote)) as slot:
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._fetch(source, request, response, recipe, slot, attempt)
                except TimeoutError as error:
                    raise _RefusedError(504, self._late(request, source, budget)) from error
        except (AccessError, SlowClientError, UpstreamError, _RefusedError) as error:
            attempt.error = str(error)
            return _failed(request, response, path, error.status, str(error))
        except CredentialError as error:
            attempt.error = str(error)
            return _failed(request, response, path, 502, str(error))
        except ExpositionError as error:
            attempt.error = str(error)
            return _failed(request, response, path, 502, str(error), error.details)
        except BaseException:  # after any error, a response that has begun must not look whole
            if response.prepared:
                break_off(request)
            raise
        return response, "200"

    def _require_ready(self) -> None:
        if problem := self.readiness.problem():
            raise _RefusedError(503, problem)

    async def _fetch(
        self,
        source: Source,
        request: web.Request,
        response: web.StreamResponse,
        recipe: Recipe,
        slot: Slot,
        attempt: Attempt,
    ) -> None:
        tenant = None
        if (decision := request.get(DECISION)) is not None and decision.tenant is not None:
            tenant = decision.tenant.stream(
                max_line=recipe.max_line,
                namespace_labels=recipe.namespace_labels,
                deadline=decision.deadline,
            )
        try:
            async with source.fetch() as exposition:
                await self.streamer.stream(
                    exposition, request, response,
                    source=source, recipe=recipe, slot=slot, tenant=tenant, attempt=attempt,
                )  # fmt: skip
        except (ExpositionError, UpstreamError) as error:
            self.errors.count(source.server.label, error.reason)
            raise
        finally:
            attempt.node = source.named

    def _late(self, request: web.Request, source: Source, budget: float) -> str:
        """The message that says which side took too long. Counts it if it was an upstream."""
        if request.protocol.writing_paused:
            return f"the client has not read its answer within {budget:g} s"
        server = source.server
        self.errors.count(server.label, "timeout")
        because = f": {server.delay}" if server.delay else ""
        return f"no whole answer from the {server.name} within {budget:g} s{because}"


def _failed(
    request: web.Request,
    response: web.StreamResponse,
    path: str,
    status: int,
    message: str,
    details: str | None = None,
) -> tuple[web.StreamResponse, str]:
    """Answer a failure: a status before the first byte, or a broken connection after it.

    The log gets the `details` instead of the message.
    """
    if not response.prepared:
        _log.warning("%s: %d: %s", path, status, details or message)
        return plain(status, message), str(status)
    _log.warning("%s: connection broken: %s", path, details or message)
    break_off(request)
    return response, "broken"
