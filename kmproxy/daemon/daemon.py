"""The daemon, and the only place where its objects are made, started and stopped."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from kmproxy.auth.authorizer import Authorizer, granted_to_all, open_authorizer
from kmproxy.auth.reviewer import Reviewer
from kmproxy.client.pin_file import PinFile
from kmproxy.config.recipe import read_recipe
from kmproxy.config.sections import Config
from kmproxy.config.types import Address
from kmproxy.daemon.clients import Clients, open_clients
from kmproxy.daemon.status import StatusSource
from kmproxy.discovery.handler import PODS, HttpDiscovery
from kmproxy.discovery.target_labels import TargetLabelMap
from kmproxy.discovery.targets import TargetService
from kmproxy.errors import ConfigError, StartupError
from kmproxy.exposition.selector import SeriesRoom
from kmproxy.labels.label_map import LIMITS, LabelMap
from kmproxy.labels.namespace_info import NamespaceInfoMap
from kmproxy.labels.namespaces import NamespaceWatcher
from kmproxy.labels.peers import Peers
from kmproxy.labels.snapshot import LabelSnapshot
from kmproxy.scrape.handler import MetricsPort, Page
from kmproxy.scrape.namespace_info import NamespaceInfo
from kmproxy.scrape.routes import NAMESPACES, served_paths
from kmproxy.scrape.scraper import Scraper
from kmproxy.scrape.stream import Streamer
from kmproxy.sources.slots import ConcurrencyLimit
from kmproxy.telemetry import Telemetry
from kmproxy.web.config_file import WebFile, find_web_config
from kmproxy.web.health import Readiness, TelemetryServer
from kmproxy.web.listener import listening
from kmproxy.web.middleware import WebGuard
from kmproxy.web.responses import Handler

if TYPE_CHECKING:
    from kmproxy.web.passwords import Passwords

SNAPSHOT_TIMEOUT = 2.0
"""Seconds that the last write of the label snapshot may take."""

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
        self._config = config
        self._environment = environment
        self._clock = clock
        self._wall = wall
        self._uniform = uniform
        self._secret = secret or secrets.token_bytes(32)
        self._stack = AsyncExitStack()
        self._watching: asyncio.Task[None] | None = None
        self._watcher: NamespaceWatcher | None = None
        self._readiness: Readiness | None = None
        self._compares: Passwords | None = None
        self.metrics_port = 0
        self.telemetry_port = 0

    def __repr__(self) -> str:
        return f"<Daemon {self._watcher!r}>"

    async def start(self) -> None:
        """Listen, and begin to load the namespaces.

        Raises ConfigError, CredentialError or StartupError. Also after an error the user must call
        `stop`.
        """
        config, clock = self._config, self._clock
        telemetry = Telemetry()
        clients = await self._stack.enter_async_context(
            open_clients(config, self._environment, clock=clock, telemetry=telemetry)
        )
        _tell_of_certificates(config)
        await self._keep_pins(clients, telemetry)
        slots = ConcurrencyLimit(config.server.max_concurrency, telemetry)
        rules, max_value = config.labels.rules, config.labels.max_label_value_bytes
        labels = LabelMap(rules, max_value=max_value)
        target_labels = None
        if config.discovery.enabled:
            target_labels = TargetLabelMap(rules, max_value=max_value)
        info = None
        if config.selection.info_metric and config.kubelet.all_nodes:
            info = NamespaceInfoMap(rules, max_value=max_value)
        maps = [each for each in (labels, target_labels, info) if each is not None]
        self._watcher = watcher = NamespaceWatcher(
            clients.api,
            *maps,
            telemetry=telemetry,
            clock=clock,
            uniform=self._uniform,
            outage=clients.outage,
        )
        self._readiness = readiness = Readiness(
            watcher.unloaded, lambda: watcher.sync_age, config.apiserver.max_label_age
        )
        telemetry.follow(
            namespaces=lambda: len(labels),
            lacking={name: partial(labels.lacking, name) for name in labels.names},
            left_out={limit: partial(labels.left_out, limit) for limit in LIMITS},
            sync_age=lambda: watcher.sync_age,
            restored=lambda: watcher.restored,
        )
        others: dict[str, Handler] = {}
        if target_labels is not None:
            others |= self._open_discovery(clients, target_labels, slots, readiness, telemetry)
        if info is not None:
            others |= NamespaceInfo(
                info, config.selection, readiness=readiness, telemetry=telemetry, clock=clock
            ).handlers
        named = f"{PODS}?node={{node}}"
        pages = {
            path: Page(
                handler,
                named if path == PODS and not clients.kubelet.has_node else path,
                by_tenant=path in {PODS, NAMESPACES},
            )
            for path, handler in others.items()
        }
        authorizer = self._open_authorizer(clients, labels, [*others], telemetry)
        recipe = read_recipe(config.labels, config.selection)
        if clients.nodes is not None:  # the info metric has a path of its own
            recipe = replace(recipe, info=False)
        scraper = Scraper(
            clients.kubelet,
            clients.nodes,
            slots,
            Streamer(labels, SeriesRoom(config.server.max_concurrency), telemetry),
            readiness,
            telemetry,
            config.server.max_scrape_time,
        )
        metrics = MetricsPort(
            scraper,
            recipe,
            pages,
            StatusSource(watcher, readiness, labels, clients.kubelet, recipe.on_conflict).page,
            authorizer,
            telemetry,
            clock,
        )
        await self._listen(metrics.application(), authorizer, readiness, telemetry)
        _log.info(
            "serving metrics on port %d, telemetry on port %d; namespaces from %s",
            self.metrics_port,
            self.telemetry_port,
            clients.identity.server,
        )
        self._watching = asyncio.create_task(watcher.run())
        self._stack.push_async_callback(self._stop_watching)
        if config.apiserver.peers and config.apiserver.max_label_age:
            asking = asyncio.create_task(Peers(config.apiserver.peers, readiness).run())
            self._stack.push_async_callback(_cancelled, asking)
        if config.apiserver.label_snapshot:
            path = config.apiserver.label_snapshot
            self._keep_labels(path, clients, labels, watcher, telemetry)

    def _open_discovery(
        self,
        clients: Clients,
        labels: TargetLabelMap,
        slots: ConcurrencyLimit,
        readiness: Readiness,
        telemetry: Telemetry,
    ) -> Mapping[str, Handler]:
        """The handlers of HTTP service discovery, by path."""
        targets = TargetService(
            self._config.discovery,
            kubelet=clients.kubelet,
            nodes=clients.nodes,
            slots=slots,
            telemetry=telemetry,
            clock=self._clock,
        )
        self._stack.push_async_callback(targets.close)
        return HttpDiscovery(
            targets,
            labels,
            all_nodes=clients.nodes is not None,
            readiness=readiness,
            telemetry=telemetry,
        ).handlers

    async def _listen(
        self,
        scrapes: web.Application,
        authorizer: Authorizer | None,
        readiness: Readiness,
        telemetry: Telemetry,
    ) -> None:
        """Open both ports. Raises ConfigError for a bad web config, StartupError for a port."""
        config, clock = self._config, self._clock
        web_file = find_web_config(
            config.server, bearer=authorizer is not None, clock=clock, telemetry=telemetry
        )
        _warn_of_exposure(config.server.listen, authorizer, web_file)
        if web_file is not None:
            guard = WebGuard(web_file, self._passwords, telemetry=telemetry, clock=clock)
            scrapes.middlewares.append(guard.check)
            scrapes.on_response_prepare.append(guard.add_headers)
        probes = TelemetryServer(readiness, telemetry).application()
        self.telemetry_port = await self._stack.enter_async_context(
            listening(
                probes,
                config.server.telemetry_listen,
                "--telemetry-listen",
                config.limits,
                telemetry=telemetry,
            )
        )
        self.metrics_port = await self._stack.enter_async_context(
            listening(
                scrapes,
                config.server.listen,
                "--listen",
                config.limits,
                web_file=web_file,
                authorized=authorizer is not None,
                telemetry=telemetry,
            )
        )

    async def _keep_pins(self, clients: Clients, telemetry: Telemetry) -> None:
        """Read the pins of kubelets' certificates, and start the task that writes them to disk."""
        pinning = clients.pinning
        if pinning is None or pinning.path is None:
            return
        file = PinFile(pinning.path, pinning.book, telemetry)
        await file.load()
        self._stack.push_async_callback(_stop_keeping, file, asyncio.create_task(file.run()))

    def _keep_labels(
        self,
        path: str,
        clients: Clients,
        labels: LabelMap,
        watcher: NamespaceWatcher,
        telemetry: Telemetry,
    ) -> None:
        """Start the task that keeps the label snapshot on disk."""
        snapshot = LabelSnapshot(
            path,
            identity=clients.identity,
            labels=labels,
            watcher=watcher,
            telemetry=telemetry,
            timeout=self._config.apiserver.cache_sync_timeout,
            clock=self._clock,
            wall=self._wall,
        )
        keeping = asyncio.create_task(snapshot.run())
        self._stack.push_async_callback(_stop_keeping, snapshot, keeping)

    def _open_authorizer(
        self, clients: Clients, labels: LabelMap, others: Iterable[str], telemetry: Telemetry
    ) -> Authorizer | None:
        """The authorizer, or None if every caller may scrape. Raises ConfigError."""
        config = self._config.authorization
        if config.mode == "none":
            return None
        if not clients.identity.server.startswith("https:"):
            problem = f"--authorization={config.mode}: scrapers' tokens would be sent in plain text"
            raise ConfigError([f"{problem} to the API server at {clients.identity.server}"])
        for path in ("/", *served_paths(all_nodes=False), *others):
            if granted_to_all(path):
                problem = f"--authorization={config.mode}: Kubernetes' default roles let everyone"
                raise ConfigError([f"{problem} get {path}, so its review proves nothing"])
        reviewer = Reviewer(
            clients.api,
            audiences=config.audience,
            secret=self._secret,
            clock=self._clock,
            telemetry=telemetry,
        )
        self._stack.push_async_callback(reviewer.close)
        return open_authorizer(
            config,
            reviewer,
            nodes=clients.nodes,
            namespaces=labels.existing,
        )

    async def wait(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set.

        Raises StartupError if the namespaces are not loaded in time.
        """
        watcher, watching = self._watcher, self._watching
        if watcher is None or watching is None:
            raise StartupError("the daemon has not been started")
        stopped = asyncio.create_task(stop.wait())
        loaded = asyncio.create_task(watcher.wait_loaded())
        limit = self._config.apiserver.cache_sync_timeout
        try:
            await asyncio.wait(
                {stopped, loaded, watching}, timeout=limit, return_when=asyncio.FIRST_COMPLETED
            )
            if not stopped.done() and not watcher.loaded and not watching.done():
                why = watcher.trouble or "the API server has not answered"
                raise StartupError(f"namespaces not loaded within {limit:g} s: {why}")
            await asyncio.wait({stopped, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                await watching  # the watch ends only with an error, which this raises
        finally:
            for task in (stopped, loaded):
                task.cancel()

    async def stop(self) -> None:
        """Become unready, finish the requests under way, and close everything."""
        if self._readiness is not None:
            self._readiness.stopping = True
        await self._stack.aclose()

    def _passwords(self) -> Passwords:
        """The checker of passwords, made for the first password: only then is bcrypt imported."""
        if self._compares is None:
            from kmproxy.web.passwords import Passwords  # noqa: PLC0415

            self._compares = Passwords(self._secret)
            self._stack.callback(self._compares.close)
        return self._compares

    async def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching


def _warn_of_exposure(
    listen: Address, authorizer: Authorizer | None, web_file: WebFile | None
) -> None:
    """Log a warning if other hosts may read more from the metrics port than intended."""
    if listen.loopback:
        return
    if authorizer is None and not (web_file and web_file.current().config.asks):
        _log.warning(
            "--listen=%s: who reaches it may read every metric, "
            "see --authorization and --web-config-file",
            listen,
        )
    elif authorizer is not None and not (web_file and web_file.current().config.tls):
        _log.warning(
            "--listen=%s: scrapers' tokens can be read on their way, see --web-config-file",
            listen,
        )


def _tell_of_certificates(config: Config) -> None:
    """Log a line if kubelets get kmproxy's token without a certificate that a CA verifies."""
    kubelet, access = config.kubelet, config.access
    if kubelet.apiserver or kubelet.scheme == "http":
        return
    if kubelet.insecure_tls or (access is not None and access.tls.insecure):
        by_flag = kubelet.insecure_tls
        _log.warning(
            "%s: whoever answers in a kubelet's place gets the token, and with it the metrics of "
            "every kubelet%s; see --kubelet-tls-pin",
            "--kubelet-insecure-tls" if by_flag else "kubelet.tls_config.insecure_skip_verify",
            ", and with --all-nodes each kubelet says where that is" if kubelet.all_nodes else "",
        )
    elif kubelet.tls_pin:
        _log.info(
            "--kubelet-tls-pin: a kubelet's first certificate is believed without a CA, so whoever "
            "answers first in its place gets the token; another certificate is refused later"
        )


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def _stop_keeping(keeper: LabelSnapshot | PinFile, keeping: asyncio.Task[None]) -> None:
    """Let a keeper write its file a last time, and stop its task.

    The write may take `SNAPSHOT_TIMEOUT` seconds, as the disk may hang.
    """
    keeper.stop()
    await asyncio.wait({keeping}, timeout=SNAPSHOT_TIMEOUT)
    keeping.cancel()
    await asyncio.wait({keeping})  # waits for its cleanup, also after an error


async def serve(config: Config, environment: Mapping[str, str], stop: asyncio.Event) -> None:
    """Run a daemon until `stop` is set. Raises KmproxyError."""
    daemon = Daemon(config, environment)
    try:
        await daemon.start()
        await daemon.wait(stop)
    finally:
        await daemon.stop()
