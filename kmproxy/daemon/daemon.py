"""The daemon, and the only place where its objects are made, started and stopped."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from kmproxy.config.sections import Config
from kmproxy.daemon.authorization import open_authorizer
from kmproxy.daemon.clients import open_clients
from kmproxy.daemon.keepers import keep_labels, keep_pins
from kmproxy.daemon.label_maps import open_label_maps
from kmproxy.daemon.lifecycle import until_loaded, until_stopped
from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.daemon.pages import open_pages
from kmproxy.daemon.ports import open_ports
from kmproxy.daemon.runtime import Runtime
from kmproxy.daemon.scrapes import open_scrapes
from kmproxy.daemon.warnings import warn_of_certificates
from kmproxy.errors import StartupError
from kmproxy.labels.namespaces import NamespaceWatcher
from kmproxy.labels.peers import Peers
from kmproxy.sources.slots import ConcurrencyLimit
from kmproxy.web.health import Readiness

_log = logging.getLogger(__package__)


class Daemon:
    """kmproxy as one object: `start`, `wait`, `stop`."""

    def __init__(
        self,
        config: Config,
        environment: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        uniform: Callable[[float, float], float] = random.uniform,
        secret: bytes | None = None,
    ) -> None:
        self._environment = environment
        self._runtime = Runtime(
            config=config,
            stack=AsyncExitStack(),
            metrics=OwnMetrics(),
            clock=clock,
            wall=wall,
            uniform=uniform,
            secret=secret or secrets.token_bytes(32),
        )
        self._watching: asyncio.Task[None] | None = None
        self._watcher: NamespaceWatcher | None = None
        self._readiness: Readiness | None = None
        self.metrics_port = 0
        self.telemetry_port = 0

    def __repr__(self) -> str:
        return f"<Daemon {self._watcher!r}>"

    async def start(self) -> None:
        """Listen, and begin to load the namespaces.

        Raises ConfigError, CredentialError or StartupError. Also after an error the user must call
        `stop`.
        """
        runtime, config, metrics = self._runtime, self._runtime.config, self._runtime.metrics
        clients = await runtime.stack.enter_async_context(
            open_clients(config, self._environment, clock=runtime.clock, metrics=metrics)
        )
        warn_of_certificates(config)
        await keep_pins(runtime, clients.pinning)
        limit = ConcurrencyLimit(config.server.max_concurrency, metrics.slots)
        labels = open_label_maps(runtime, clients)
        self._watcher, self._readiness = labels.watcher, labels.readiness
        pages = open_pages(runtime, clients, labels, limit)
        authorizer = open_authorizer(runtime, clients, labels.samples, pages)
        scrapes = open_scrapes(runtime, clients, labels, limit, pages, authorizer)
        self.metrics_port, self.telemetry_port = await open_ports(
            runtime, scrapes.application(), authorizer, labels.readiness
        )
        _log.info(
            "serving metrics on port %d, telemetry on port %d; namespaces from %s",
            self.metrics_port,
            self.telemetry_port,
            clients.identity.server,
        )
        self._watching = asyncio.create_task(labels.watcher.run())
        runtime.cancel_at_end(self._watching)
        if config.apiserver.peers and config.apiserver.max_label_age:
            peers = Peers(config.apiserver.peers, labels.readiness)
            runtime.cancel_at_end(asyncio.create_task(peers.run()))
        keep_labels(runtime, clients.identity, labels)

    async def wait(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set.

        Raises StartupError if the namespaces are not loaded in time.
        """
        watcher, watching = self._watcher, self._watching
        if watcher is None or watching is None:
            raise StartupError("the daemon has not been started")
        stopped = asyncio.create_task(stop.wait())
        limit = self._runtime.config.apiserver.cache_sync_timeout
        try:
            await until_loaded(stopped, watcher, watching, limit)
            await until_stopped(stopped, watching)
        finally:
            stopped.cancel()

    async def stop(self) -> None:
        """Become unready, finish the requests under way, and close everything."""
        if self._readiness is not None:
            self._readiness.stopping = True
        await self._runtime.stack.aclose()


async def serve(config: Config, environment: Mapping[str, str], stop: asyncio.Event) -> None:
    """Run a daemon until `stop` is set. Raises KmproxyError."""
    daemon = Daemon(config, environment)
    try:
        await daemon.start()
        await daemon.wait(stop)
    finally:
        await daemon.stop()
