"""Whether the daemon is ready, and the port that says so.

Knows the paths of the kubelet's probes and of kmproxy's own metrics. Must not
know what is scraped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import hdrs, web

from kmproxy.telemetry import CONTENT_TYPE, Telemetry
from kmproxy.web.responses import application, not_allowed, plain, reads


@dataclass(eq=False)
class Readiness:
    """Whether scrapes are served, and should be sent here. The assembly ends it when it stops.

    `check` says why scrapes cannot be served yet, or None. `age` and `max_age` are seconds of the
    labels since the API server last confirmed them. `surpassed` is whether another replica has
    newer ones; `Peers` sets it.
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
        """Why scrapes should be sent elsewhere, or None; those that come are served all the same.

        Old labels are no reason by themselves: while the API server is away they are the newest
        that anyone has.
        """
        if self.aged and self.surpassed and self.problem() is None:
            return "the labels are older than --max-label-age, and another replica has newer ones"
        return self.problem()

    def problem(self) -> str | None:
        """Why scrapes are not served, or None."""
        if self.stopping:
            return "stopping"
        return self.check()


class TelemetryServer:
    """The port of the kubelet's probes and of whoever watches kmproxy itself."""

    def __init__(self, readiness: Readiness, telemetry: Telemetry) -> None:
        self._readiness = readiness
        self._telemetry = telemetry

    def application(self) -> web.Application:
        """The application to run."""
        return application(self._handle)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        if path not in {"/healthz", "/readyz", "/freshz", "/metrics"}:
            return plain(404, "no such path: /healthz, /readyz, /freshz and /metrics are here")
        if not reads(request):
            return not_allowed()
        if path == "/metrics":
            headers = {hdrs.CONTENT_TYPE: CONTENT_TYPE}
            return web.Response(body=self._telemetry.render(), headers=headers)
        # Why is on --listen and in the log: this port is open to all, and shows no host or name.
        problem = None
        if path == "/readyz":
            problem = self._readiness.unready()
        elif path == "/freshz":
            problem = (
                "the labels are too old" if self._readiness.aged else self._readiness.problem()
            )
        return plain(503, problem.partition(":")[0]) if problem else plain(200, "ok")
