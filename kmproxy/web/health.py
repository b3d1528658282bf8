"""The readiness of the daemon, and the telemetry port that serves it.

Knows the paths of the kubelet's probes and of kmproxy's own metrics. Must not
know the metrics that are scraped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry

from kmproxy.telemetry import CONTENT_TYPE, render
from kmproxy.web.responses import application, not_allowed, plain, reads


@dataclass(eq=False)
class Readiness:
    """Tells whether this replica serves scrapes, and whether scrapes should be sent to it.

    `check` returns the reason why scrapes cannot be served yet, or None. `age` returns the seconds
    since the API server last confirmed the labels. `max_age` is the most that `age` should be.
    `surpassed` is true if another replica has newer labels; `Peers` sets it. The daemon sets
    `stopping` at its end.
    """

    check: Callable[[], str | None]
    age: Callable[[], float]
    max_age: float | None = None
    surpassed: bool = False
    stopping: bool = False

    @property
    def aged(self) -> bool:
        """Whether the labels are older than `max_age`."""
        return self.max_age is not None and self.age() > self.max_age

    def unready(self) -> str | None:
        """The reason why scrapes should be sent to another replica, or None.

        Scrapes that still arrive are served. Old labels alone are not a reason: during an outage of
        the API server they may be the newest labels of all replicas.
        """
        if self.aged and self.surpassed and self.problem() is None:
            return "the labels are older than --max-label-age, and another replica has newer ones"
        return self.problem()

    def problem(self) -> str | None:
        """The reason why scrapes are not served, or None."""
        if self.stopping:
            return "stopping"
        return self.check()


class TelemetryServer:
    """Serves the telemetry port: the kubelet's probes and kmproxy's own metrics."""

    def __init__(self, readiness: Readiness, registry: CollectorRegistry) -> None:
        self._readiness = readiness
        self._registry = registry

    def application(self) -> web.Application:
        """The application for the telemetry port."""
        return application(self._handle)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        if path not in {"/healthz", "/readyz", "/freshz", "/metrics"}:
            return plain(
                404, "no such path: this port serves /healthz, /readyz, /freshz and /metrics"
            )
        if not reads(request):
            return not_allowed()
        if path == "/metrics":
            headers = {hdrs.CONTENT_TYPE: CONTENT_TYPE}
            return web.Response(body=render(self._registry), headers=headers)
        # This port is open to all, so it shows no host or name. --listen and the log show the
        # whole reason.
        problem = None
        if path == "/readyz":
            problem = self._readiness.unready()
        elif path == "/freshz":
            problem = (
                "the labels are too old" if self._readiness.aged else self._readiness.problem()
            )
        return plain(503, problem.partition(":")[0]) if problem else plain(200, "ok")
