"""Authenticates and authorizes every request to the metrics port before routing.

Knows which header holds the token of a request, and which response a refusal gets. Must not know
how a caller is reviewed, nor what is served: the response to a path that `find` does not know is
404.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import NamedTuple

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, Counter

from kmproxy.auth.authorizer import Authorizer, RequestAttributes
from kmproxy.auth.tenant import Tenant
from kmproxy.errors import AccessError
from kmproxy.kube.reviews import LogThrottle
from kmproxy.web.connection import Connection
from kmproxy.web.responses import (
    TIMEOUT_HEADER,
    Handler,
    not_allowed,
    not_found,
    plain,
    reads,
    scrape_budget,
)


class Decision(NamedTuple):
    """The decision that admits a request.

    `deadline` is the end of the scrape time, on the event loop's clock. `tenant` is None for a
    caller that sees everything. `caller` is the name of the caller.
    """

    deadline: float
    tenant: Tenant | None
    caller: str


DECISION = web.RequestKey("admission", Decision)
"""The key of the decision about a request. Every request that is passed on has one."""

PAUSE = 10.0
"""Seconds between two log lines about refusals with the same reason."""

_log = logging.getLogger(__package__)


class RequestMetrics:
    """Counts the requests to the metrics port, refused ones too."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "kmproxy_scrapes",
            "Requests for metrics, by path (as in the documentation) and HTTP status; "
            "'broken' is a connection reset after the first byte, 'gone' a client that left.",
            ["path", "code"],
            registry=registry,
        )


@dataclass(frozen=True, slots=True, eq=False)
class AuthMiddleware:
    """Passes requests to `handler` if its authorizer admits them.

    `find` takes a path with its query, as the client sent them. It returns the name of the path in
    a metric and the attributes of the request, or None if the path is not served. `longest` is the
    maximum time of a scrape in seconds.
    """

    authorizer: Authorizer
    handler: Handler
    _: KW_ONLY
    find: Callable[[str], tuple[str, RequestAttributes] | None]
    metrics: RequestMetrics
    clock: Callable[[], float]
    longest: float
    _quiet: LogThrottle = field(init=False, default_factory=lambda: LogThrottle(PAUSE))

    def __repr__(self) -> str:
        return f"<AuthMiddleware {self.authorizer!r}>"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Refuse a request, or pass it on.

        The caller is authenticated first, so an unknown caller learns nothing, not even which
        paths exist. Access is reviewed only for a path that is served.
        """
        label, attributes = self.find(request.raw_path) or ("other", None)
        budget = min(scrape_budget(request.headers.get(TIMEOUT_HEADER)), self.longest)
        deadline = asyncio.get_running_loop().time() + budget
        try:
            async with asyncio.timeout_at(deadline):
                caller = await self.authorizer.identify(
                    request.headers.getall(hdrs.AUTHORIZATION, ())
                )
                if attributes is None:
                    self.metrics.requests.labels("other", "404").inc()
                    return not_found()
                if not reads(request):
                    return not_allowed()
                tenant = await self.authorizer.admit(caller, attributes)
        except TimeoutError:
            message = f"the API server has not reviewed your access within {budget:g} s"
            return self._refused(request, label, AccessError(500, "review", message))
        except AccessError as error:
            return self._refused(request, label, error)
        if isinstance(request.protocol, Connection):
            request.protocol.known()
        request[DECISION] = Decision(deadline, tenant, caller.username)
        return await self.handler(request)

    def _refused(self, request: web.Request, label: str, error: AccessError) -> web.Response:
        self.metrics.requests.labels(label, str(error.status)).inc()
        unsaid = self._quiet.lets(error.reason, self.clock())
        if unsaid is not None:
            more = f" ({unsaid} more like this since the last one in the log)" if unsaid else ""
            _log.warning("%s from %s: %d: %s%s", label, request.remote, error.status, error, more)
        response = plain(error.status, str(error))
        if error.status == 401:
            invalid = ', error="invalid_token"' if error.reason == "bad_token" else ""
            response.headers[hdrs.WWW_AUTHENTICATE] = f'Bearer realm="kmproxy"{invalid}'
        return response
