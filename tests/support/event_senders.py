"""`kmproxy logs --events` in this process, with a short election, in front of a simulated cluster."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack, asynccontextmanager

from kmproxy.cli.read import read_logs
from kmproxy.daemon import logs_events
from kmproxy.daemon.logs import LogsDaemon
from kmproxy.kube.lease import LeaseTimes
from kmproxy.simulator.cluster import SimCluster
from kmproxy.telemetry import render
from tests.support.event_objects import event
from tests.support.loki import arguments

TIMES = LeaseTimes(duration=2, deadline=1.4, retry=0.1, interval=0.05)
LEASE = "kmproxy/kmproxy-logs-events"
RIGHTS = (
    ("list", "events"), ("watch", "events"),
    ("get", "leases"), ("create", "leases"), ("update", "leases"),
)  # fmt: skip


@asynccontextmanager
async def event_cluster(namespaces):
    """A cluster without pods, in which kmproxy has the rights for events and no others."""
    async with SimCluster(["node-a"], namespaces, pods_per_namespace=0) as cluster:
        for verb, resource in RIGHTS:
            cluster.api.allow(verb, resource)
        for each in cluster.kubelets.values():
            await each.stop()
        yield cluster


class Sender:
    """One process's part that sends events. It runs until it is stopped or killed."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.stop_event = asyncio.Event()
        self.task = None

    @property
    def shipper(self):
        return self.daemon._events

    @property
    def leads(self):
        return self.shipper.term is not None

    def value(self, name, **labels):
        """A sample of its own metrics."""
        registry = self.daemon._runtime.metrics.registry
        return registry.get_sample_value(f"kmproxy_log_{name}", labels)

    @property
    def metrics(self):
        return render(self.daemon._runtime.metrics.registry).decode()

    async def start(self):
        await self.daemon.start()
        self.task = asyncio.create_task(self.daemon.wait(self.stop_event))

    async def stop(self):
        """End it as SIGTERM does."""
        self.stop_event.set()
        await asyncio.wait({self.task})
        await self.daemon.stop()
        self.task.result()

    async def kill(self):
        """End it without a word to anybody."""
        running = self.shipper._running
        running.cancel()
        await asyncio.wait({running})
        self.daemon._events = None
        self.task.cancel()
        await asyncio.wait({self.task})
        await self.daemon.stop()


class Senders:
    """The processes of a test in front of one cluster and one endpoint."""

    def __init__(self, cluster, directory, loki, stack):
        self.cluster = cluster
        self.loki = loki
        environment, flags = arguments(cluster, directory, loki)
        self.environment = environment
        self.flags = [
            *(each for each in flags[1:] if not each.startswith(("--node-", "--positions"))),
            "--source=none",
            "--events",
        ]
        self._stack = stack

    async def start(self, *flags):
        """Run one more process."""
        command, _ = read_logs([*self.flags, *flags], self.environment)
        sender = Sender(LogsDaemon(command, self.environment))
        await sender.start()
        self._stack.push_async_callback(self._end, sender)
        return sender

    async def _end(self, sender):
        if not sender.task.done():
            await sender.kill()

    def put(self, name, note, **fields):
        """Create an event, or change it."""
        self.cluster.api.store.put("events", event(name, note, **fields))

    @property
    def lease(self):
        """The Lease as it is stored."""
        return self.cluster.api.store.objects["leases"][LEASE]

    def change_lease(self, *, spec=None, annotation=None):
        """Change the Lease as somebody else would."""
        lease = self.lease
        meta = {key: value for key, value in lease["metadata"].items() if key != "resourceVersion"}
        if annotation is not None:
            meta["annotations"] = {"kmproxy/events-positions": annotation}
        spec = lease["spec"] | (spec or {})
        self.cluster.api.store.put("leases", lease | {"metadata": meta, "spec": spec})

    def asked(self, what):
        """The paths of the requests that match a pattern."""
        paths = [each.path for each in self.cluster.api.requests]
        return [each for each in paths if re.search(what, each)]


@asynccontextmanager
async def senders_of(namespaces, directory, loki, monkeypatch):
    """A cluster, and processes in front of it."""
    monkeypatch.setattr(logs_events, "TIMES", TIMES)
    async with event_cluster(namespaces) as cluster, AsyncExitStack() as stack:
        yield Senders(cluster, directory, loki, stack)
