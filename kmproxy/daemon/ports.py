"""Both ports of the daemon: their listeners, and the web config of the metrics port.

Must not know what the ports serve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from kmproxy.auth.authorizer import Authorizer
from kmproxy.daemon.runtime import AnyRuntime
from kmproxy.daemon.warnings import warn_of_exposure
from kmproxy.web.config_file import find_web_config
from kmproxy.web.health import Readiness, TelemetryServer
from kmproxy.web.listener import listening
from kmproxy.web.middleware import WebGuard

if TYPE_CHECKING:
    from kmproxy.web.passwords import Passwords


async def open_ports(
    runtime: AnyRuntime,
    scrapes: web.Application,
    authorizer: Authorizer | None,
    readiness: Readiness,
    *,
    shown: str = "every metric",
    remedy: str = "--authorization and --web-config-file",
) -> tuple[int, int]:
    """Open the metrics port and the telemetry port. Returns their numbers.

    `shown` names the content of the metrics port, and `remedy` the settings that restrict it, for
    the warning that the port is open to others.
    Raises ConfigError for a bad web config, and StartupError for a port.
    """
    config, metrics = runtime.config, runtime.metrics
    web_file = find_web_config(
        config.server, bearer=authorizer is not None, clock=runtime.clock, metrics=metrics.web_file
    )
    warn_of_exposure(config.server.listen, authorizer, web_file, shown, remedy)
    if web_file is not None:
        passwords = _LazyPasswords(runtime)
        guard = WebGuard(web_file, passwords.get, metrics=metrics.connections, clock=runtime.clock)
        scrapes.middlewares.append(guard.check)
        scrapes.on_response_prepare.append(guard.add_headers)
    probes = TelemetryServer(readiness, metrics.registry).application()
    telemetry_port = await runtime.stack.enter_async_context(
        listening(
            probes,
            config.server.telemetry_listen,
            "--telemetry-listen",
            config.limits,
            metrics=metrics.connections,
        )
    )
    metrics_port = await runtime.stack.enter_async_context(
        listening(
            scrapes,
            config.server.listen,
            "--listen",
            config.limits,
            web_file=web_file,
            authorized=authorizer is not None,
            metrics=metrics.connections,
        )
    )
    return metrics_port, telemetry_port


@dataclass(slots=True, eq=False)
class _LazyPasswords:
    """The checker of passwords, made for the first password: only then is bcrypt imported."""

    _runtime: AnyRuntime
    _made: Passwords | None = None

    def get(self) -> Passwords:
        if self._made is None:
            from kmproxy.web.passwords import Passwords  # noqa: PLC0415 - bcrypt costs memory

            self._made = Passwords(self._runtime.secret)
            self._runtime.stack.callback(self._made.close)
        return self._made
