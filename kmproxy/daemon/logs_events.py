"""The parts of `kmproxy logs --events`: how they are made from the settings.

Knows the name of this process, the namespace of its pod, and the share of memory that events get.
Must not know how events are read or sent.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

from kmproxy.client.upstream import Upstream
from kmproxy.config.logs import LogsCommand
from kmproxy.config.logs_values import LeaseName
from kmproxy.config.sections import Config
from kmproxy.daemon.clients import Clients
from kmproxy.daemon.logs_metrics import LogsMetrics
from kmproxy.daemon.runtime import RuntimeOf
from kmproxy.errors import ConfigError
from kmproxy.kube.lease import Election, LeaseTimes
from kmproxy.kube.lease_holder import LeaseHolder
from kmproxy.kube.service_account import own_namespace
from kmproxy.logs.batches import Batches, BatchLimits
from kmproxy.logs.event_shipper import ANNOTATION, EventShipper
from kmproxy.logs.events import EventOptions
from kmproxy.logs.pods import LogSelection
from kmproxy.logs.sender import Sender
from kmproxy.logs.streams import StreamLabels

TIMES = LeaseTimes()

SHARE = 8
"""Events get this part of --max-buffer-bytes beside the logs of containers: an eighth."""

_Wait = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class EventSending:
    """The parts with which events are sent, as the lines of containers are."""

    upstream: Upstream
    labels: StreamLabels
    limits: BatchLimits
    watched: Callable[[], bool]


def limits_of(command: LogsCommand) -> tuple[BatchLimits, BatchLimits]:
    """Return the limits for the lines of containers, and for those of events."""
    logs = command.logs
    limits = BatchLimits(logs.batch_bytes, logs.batch_wait, logs.max_buffer_bytes)
    if not logs.events or logs.source == "none":
        return limits, limits
    share = limits.buffer // SHARE
    rest = limits.buffer - share
    return (
        replace(limits, buffer=rest, size=min(limits.size, rest)),
        replace(limits, buffer=share, size=min(limits.size, share)),
    )


def lease_of(config: Config, name: LeaseName) -> tuple[str, str]:
    """Return namespace and name of the Lease. Raises ConfigError outside of a pod."""
    if name.namespace is not None:
        return name.namespace, name.name
    directory = config.apiserver.service_account_dir
    namespace = own_namespace(directory)
    if namespace is None:
        what = f"this is not a pod ({directory} names no namespace)"
        raise ConfigError([f"--events-lease: {what}: give NAMESPACE/NAME"])
    return namespace, name.name


def open_events(
    command: LogsCommand,
    runtime: RuntimeOf[LogsMetrics],
    clients: Clients,
    sending: EventSending,
) -> EventShipper:
    """Make the shipper of events. It is not started. Raises ConfigError."""
    logs, metrics = command.logs, runtime.metrics
    namespace, name = lease_of(runtime.config, logs.events_lease)
    options = EventOptions(
        api=clients.api,
        namespaces=logs.namespace,
        selection=LogSelection.of(logs),
        metrics=metrics.events,
        max_line=logs.max_line_bytes,
        max_age=logs.max_age,
        clock=runtime.clock,
        wall=runtime.wall,
        uniform=runtime.uniform,
    )
    identity = f"{socket.gethostname()}_{uuid.uuid4()}"
    holder = LeaseHolder(
        clients.api,
        Election(name, namespace, identity, ANNOTATION, TIMES),
        clock=_awake_or_not,
        wall=runtime.wall,
        uniform=runtime.uniform,
        failed=partial(options.failed, "lease"),
        well=partial(options.well, "lease"),
    )

    def begin(admitted: _Wait, saved: _Wait) -> tuple[Batches, Sender]:
        batches = Batches(
            sending.limits,
            sending.labels,
            clock=runtime.clock,
            count=metrics.send.count,
            watched=sending.watched,
        )
        sender = Sender(
            sending.upstream,
            logs.loki_url or "",
            batches,
            metrics.send,
            saved=saved,
            clock=runtime.clock,
            uniform=runtime.uniform,
            admitted=admitted,
        )
        return batches, sender

    return EventShipper(holder, options, begin, logs.positions_damaged == "begin")


def _awake_or_not() -> float:
    """Return seconds of a clock that only goes forward, also while the machine is suspended."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
