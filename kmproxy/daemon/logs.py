"""The daemon of `kmproxy logs`, and the only place where its objects are made and stopped."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict
from urllib.parse import urlsplit

from kmproxy.client.factory import UpstreamFactory
from kmproxy.client.session import open_session
from kmproxy.client.upstream import Upstream
from kmproxy.config.http_options import Access
from kmproxy.config.logs import (
    LOGS_SECTIONS,
    LOKI_KEY,
    NOT_OF_LOGS,
    TENANTS_KEY,
    LogsCommand,
    only_node,
)
from kmproxy.config.logs_values import USUAL_PATH
from kmproxy.config.sections import ACCESS_KEY
from kmproxy.daemon.clients import Clients, open_clients
from kmproxy.daemon.keepers import keep_labels, keep_pins
from kmproxy.daemon.label_maps import LabelMaps, open_label_maps
from kmproxy.daemon.lifecycle import until_loaded, until_stopped
from kmproxy.daemon.logs_metrics import LogsMetrics
from kmproxy.daemon.ports import open_ports
from kmproxy.daemon.process import certificates, process
from kmproxy.daemon.runtime import RuntimeOf
from kmproxy.daemon.warnings import warn_of_certificates
from kmproxy.errors import (
    ConfigError,
    CredentialError,
    PositionsError,
    StartupError,
    UpstreamError,
)
from kmproxy.kube.nodes import Node
from kmproxy.logs.api import ApiSource
from kmproxy.logs.batches import Batches, BatchLimits
from kmproxy.logs.files import FileSource
from kmproxy.logs.pod_labels import NodePodLabels, WatchedPodLabels
from kmproxy.logs.pods import LogSelection
from kmproxy.logs.port import LogsPort, ProcessFacts
from kmproxy.logs.position_file import PositionFile
from kmproxy.logs.positions import PositionBook
from kmproxy.logs.sender import NAME, Sender
from kmproxy.logs.shipper import Shipper, saved
from kmproxy.logs.source import ReadMetrics, Source
from kmproxy.logs.streams import StreamLabels, StreamOptions
from kmproxy.own_file import aside
from kmproxy.sources.kubelet import Kubelet, Reader
from kmproxy.sources.log_answer import LogAnswer
from kmproxy.status.settings import effective, section_given
from kmproxy.web.health import Readiness

PROBE_TIMEOUT = 5.0
"""Seconds within which the server has to answer whether it is a push endpoint."""

_log = logging.getLogger(__package__)


@dataclass(frozen=True, slots=True)
class NodeLogs:
    """The pods and the log files of one node."""

    kubelet: Kubelet
    node: Node

    async def pods(self, reader: Reader) -> None:
        """Feed the list of pods to a reader. Raises UpstreamError."""
        await self.kubelet.pods(self.node, reader)

    async def log(self, path: str, span: tuple[int, int] | None) -> LogAnswer:
        """Get a part of a file, or a folder's index. Raises UpstreamError."""
        return await self.kubelet.log(self.node, path, span)


class _Common(TypedDict):
    """The arguments that each source takes."""

    selection: LogSelection
    batches: Batches
    book: PositionBook
    metrics: ReadMetrics
    room: Callable[[], Awaitable[int]]
    max_line: int
    max_age: float
    clock: Callable[[], float]
    wall: Callable[[], float]
    uniform: Callable[[float, float], float]


class LogsDaemon:
    """`kmproxy logs` as one object: `start`, `wait`, `stop`."""

    def __init__(self, command: LogsCommand, environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = environment
        self._runtime = RuntimeOf(
            config=command.config,
            stack=AsyncExitStack(),
            metrics=LogsMetrics(),
            clock=time.monotonic,
            wall=time.time,
            uniform=random.uniform,
            secret=secrets.token_bytes(32),
        )
        self._labels: LabelMaps | None = None
        self._shipper: Shipper | None = None
        self._readiness: Readiness | None = None
        self._watching: asyncio.Task[None] | None = None
        self.page_port = 0
        self.telemetry_port = 0

    def __repr__(self) -> str:
        return f"<LogsDaemon {self._shipper!r}>"

    async def start(self) -> None:
        """Read the positions, listen, and begin to load the namespaces.

        Raises ConfigError, CredentialError or StartupError. Also after an error the user must call
        `stop`.
        """
        runtime, config, logs = self._runtime, self._runtime.config, self._command.logs
        clients = await runtime.stack.enter_async_context(
            open_clients(config, self._environment, clock=runtime.clock, metrics=runtime.metrics)
        )
        warn_of_certificates(config)
        await keep_pins(runtime, clients.pinning)
        book, positions = await self._positions()
        upstream = await self._endpoint()
        await self._probe(upstream)
        self._labels = labels = open_label_maps(runtime, clients)
        self._shipper = shipper = self._open_shipper(clients, labels, book, positions, upstream)
        self._readiness = Readiness(
            lambda: labels.watcher.unloaded() or shipper.unlisted(),
            lambda: labels.watcher.sync_age,
        )
        api = logs.source == "api"
        source = clients.api.server if api else clients.kubelet.source
        started = runtime.clock()
        port = LogsPort(
            shipper,
            self._readiness,
            source,
            lambda: labels.watcher.sync_age,
            lambda: self._process(started),
        )
        self.page_port, self.telemetry_port = await open_ports(
            runtime,
            port.application(),
            None,
            self._readiness,
            shown="the names of all pods",
            remedy="--web-config-file",
        )
        _log.info(
            "logs of %s to %s; page on port %d, telemetry on port %d",
            source,
            urlsplit(logs.loki_url or "")._replace(query="").geturl(),
            self.page_port,
            self.telemetry_port,
        )
        self._watching = asyncio.create_task(labels.watcher.run())
        runtime.cancel_at_end(self._watching)
        keep_labels(runtime, clients.identity, labels)

    async def wait(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set. No line is read before the namespaces are loaded.

        Raises StartupError if the namespaces are not loaded in time.
        """
        labels, shipper, watching = self._labels, self._shipper, self._watching
        if labels is None or shipper is None or watching is None:
            raise StartupError("the daemon has not been started")
        stopped = asyncio.create_task(stop.wait())
        limit = self._runtime.config.apiserver.cache_sync_timeout
        tasks: set[asyncio.Task[object]] = {stopped}
        try:
            await until_loaded(stopped, labels.watcher, watching, limit)
            if stopped.done():
                return
            shipper.start()
            shipping = asyncio.create_task(shipper.wait())
            tasks.add(shipping)
            await until_stopped(stopped, shipping, watching)
        finally:
            for each in tasks:
                each.cancel()

    async def stop(self) -> None:
        """Become unready, send the lines already read, write the positions, and close all."""
        if self._readiness is not None:
            self._readiness.stopping = True
        if self._shipper is not None:
            await self._shipper.stop()
        await self._runtime.stack.aclose()

    def _process(self, started: float) -> ProcessFacts:
        """The facts of the page about the process, which has run since `started`."""
        runtime, command = self._runtime, self._command
        sections = (
            command.logs if name == "logs" else getattr(command.config, name)
            for name in LOGS_SECTIONS
        )
        listed = [each for each in effective(sections) if each.name not in NOT_OF_LOGS]
        listed += [
            section_given(LOKI_KEY, given=command.loki is not None),
            section_given(ACCESS_KEY, given=command.config.access is not None),
            section_given(TENANTS_KEY, given=bool(command.tenants)),
        ]
        return ProcessFacts(
            certificates(runtime.metrics, runtime.wall()),
            process(command.logs.telemetry_listen, runtime.clock() - started),
            listed,
        )

    async def _endpoint(self) -> Upstream:
        """The client of the push endpoint. Raises ConfigError."""
        runtime = self._runtime
        session = await runtime.stack.enter_async_context(open_session())
        factory = UpstreamFactory(
            session,
            runtime.stack,
            self._environment,
            runtime.clock,
            runtime.metrics.credential_errors,
            section=LOKI_KEY,
        )
        access = self._command.loki or Access()
        return factory.exporter(NAME, self._command.logs.loki_url or "", access, session, {})

    async def _probe(self, upstream: Upstream) -> None:
        """Push no line. Raises ConfigError if the URL does not lead to a push endpoint.

        An endpoint that is away, or refuses this for another reason, is tried again with lines.
        """
        logs = self._command.logs
        headers = {}
        if logs.default_tenant is not None:
            headers["X-Scope-OrgID"] = logs.default_tenant
        with suppress(UpstreamError, CredentialError, TimeoutError):
            async with (
                asyncio.timeout(PROBE_TIMEOUT),
                upstream.post(
                    logs.loki_url or "", b'{"streams":[]}', headers=headers, silence=PROBE_TIMEOUT
                ) as response,
            ):
                if response.status in {404, 405}:
                    what = f"the server has no push endpoint there ({response.status})"
                    raise ConfigError([f"--loki-url: {what}: its path usually is {USUAL_PATH}"])

    def _open_shipper(
        self,
        clients: Clients,
        labels: LabelMaps,
        book: PositionBook,
        positions: PositionFile,
        upstream: Upstream,
    ) -> Shipper:
        runtime, logs = self._runtime, self._command.logs
        metrics, names = runtime.metrics, labels.samples
        config = runtime.config
        longest = config.labels.max_label_value_bytes
        known: NodePodLabels | WatchedPodLabels | None = None
        if config.pods.enabled:
            kind = WatchedPodLabels if logs.source == "api" else NodePodLabels
            known = kind(config.pods, longest)
        options = StreamOptions(
            labels=logs.stream_label,
            external=logs.external_label,
            tenant_label=logs.tenant_label,
            tenants=self._command.tenants,
            default_tenant=logs.default_tenant,
            accounts=urlsplit(logs.loki_url or "").path.startswith("/insert/"),
        )
        batches = Batches(
            BatchLimits(logs.batch_bytes, logs.batch_wait, logs.max_buffer_bytes),
            StreamLabels(
                options,
                names.find,
                unknown=names.lookup(b""),
                pods=known.lookup if known else None,
            ),
            clock=runtime.clock,
            count=metrics.send.count,
            watched=lambda: labels.watcher.trouble is None and not labels.watcher.restored,
        )
        metrics.send.show(batches, runtime.wall)
        sender = Sender(
            upstream,
            logs.loki_url or "",
            batches,
            metrics.send,
            saved=partial(saved, positions),
            clock=runtime.clock,
            uniform=runtime.uniform,
        )
        common = _Common(
            selection=LogSelection.of(logs),
            batches=batches,
            book=book,
            metrics=metrics.read,
            room=sender.room,
            max_line=logs.max_line_bytes,
            max_age=logs.max_age,
            clock=runtime.clock,
            wall=runtime.wall,
            uniform=runtime.uniform,
        )
        if isinstance(known, WatchedPodLabels) or logs.source == "api":
            source: Source[Any] = ApiSource(
                api=clients.api,
                node=only_node(config),
                namespaces=logs.namespace,
                follow_metrics=metrics.follow,
                labels=known if isinstance(known, WatchedPodLabels) else None,
                **common,
            )
        else:
            node = NodeLogs(clients.kubelet, clients.kubelet.configured)
            source = FileSource(source=node, labels=known, **common)
        return Shipper(source, batches, sender, positions)

    def _collect(self) -> None:
        """Bring the positions that are written next up to date."""
        if self._shipper is not None:
            self._shipper.source.collect()

    async def _positions(self) -> tuple[PositionBook, PositionFile]:
        """The positions of the last process, and proof that they can be written.

        Raises ConfigError.
        """
        runtime, logs = self._runtime, self._command.logs
        book = PositionBook()
        file = PositionFile(logs.positions, book, clock=runtime.wall, collect=self._collect)
        runtime.metrics.positions.follow(file)
        try:
            await aside(file.load, "log-positions")
        except PositionsError as error:
            if logs.positions_damaged != "begin":
                advice = "--positions-damaged=begin does so, and sends lines again"
                raise ConfigError([f"--positions: {error}; {advice}"]) from error
            _log.warning("--positions: %s; reading begins anew", error)
        try:
            await file.prove()
        except PositionsError as error:
            raise ConfigError([f"--positions: {error}"]) from error
        return book, file


async def ship(command: LogsCommand, environment: Mapping[str, str], stop: asyncio.Event) -> None:
    """Ship logs until `stop` is set. Raises KmproxyError."""
    daemon = LogsDaemon(command, environment)
    try:
        await daemon.start()
        await daemon.wait(stop)
    finally:
        await daemon.stop()
