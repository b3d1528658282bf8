"""Whether the daemon is ready, and the port that says so.

Knows the paths of the kubelet's probes and of kmproxy's own metrics. Must not
know what is scraped.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import hdrs, web

from kmproxy.namespaces import NamespaceWatcher
from kmproxy.responses import application, not_allowed, plain, reads
from kmproxy.telemetry import CONTENT_TYPE, Telemetry


@dataclass(eq=False)
class Readiness:
    """Whether scrapes are served. The assembly ends it when it stops."""

    watcher: NamespaceWatcher
    stopping: bool = False

    def problem(self) -> str | None:
        """Why not, or None."""
        if self.stopping:
            return "stopping"
        if not self.watcher.loaded:
            trouble = self.watcher.trouble
            return f"namespaces are not loaded yet{f': {trouble}' if trouble else ''}"
        return None


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
        if path not in {"/healthz", "/readyz", "/metrics"}:
            return plain(404, "no such path: /healthz, /readyz and /metrics are here")
        if not reads(request):
            return not_allowed()
        if path == "/metrics":
            headers = {hdrs.CONTENT_TYPE: CONTENT_TYPE}
            return web.Response(body=self._telemetry.render(), headers=headers)
        # Why is on --listen and in the log: this port is open to all, and shows no host or name.
        problem = self._readiness.problem() if path == "/readyz" else None
        return plain(503, problem.partition(":")[0]) if problem else plain(200, "ok")
