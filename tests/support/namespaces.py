"""A namespace watcher in front of the simulated API server, and what it asked and counted."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit

from kmproxy.client.session import open_session
from kmproxy.client.tls import TlsContext
from kmproxy.client.upstream import Upstream
from kmproxy.config.label_rules import LabelRule
from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.kube.apiserver import ApiServer
from kmproxy.kube.outage import Outage
from kmproxy.kube.service_account import ServiceAccount
from kmproxy.labels.label_map import LabelMap
from kmproxy.labels.namespaces import NamespaceWatcher
from tests.conftest import until


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@asynccontextmanager
async def watching(cluster, directory, clock=None, also=(), identity=None, wait=0.01, drawn=None):
    """A watcher, its map and its metrics; it waits this part of the longest back-off.

    `drawn` is a list that gets the bound of each back-off.
    """

    def uniform(low, high):
        if drawn is not None and not low:
            drawn.append(high)
        return low or high * wait

    cluster.write_service_account(directory)
    clock = clock or asyncio.get_running_loop().time
    metrics = OwnMetrics()
    api = urlsplit(cluster.api.url)
    environment = {
        "KUBERNETES_SERVICE_HOST": api.hostname,
        "KUBERNETES_SERVICE_PORT": str(api.port),
    }
    identity = identity or ServiceAccount(
        str(directory), environment, clock=clock, errors=metrics.credential_errors
    )
    tls = TlsContext(lambda: identity.trust, "CA", clock=clock, errors=metrics.credential_errors)
    labels = LabelMap([LabelRule("label", "team", "team")])
    async with open_session() as session:
        watcher = NamespaceWatcher(
            ApiServer(Upstream("API server", session, identity, tls), identity),
            labels,
            tuple(also),
            metrics=metrics.watch,
            clock=clock,
            uniform=uniform,
            outage=Outage(clock),
        )
        task = asyncio.create_task(watcher.run())
        try:
            yield watcher, labels, metrics
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def becomes(labels, namespace, expected):
    """Wait until a namespace has just these labels."""

    async def same():
        return labels.lookup(namespace) == expected

    await until(same)


def requests(cluster):
    """The queries of lists and watches, in order."""
    queries = []
    for record in cluster.api.requests:
        parts = urlsplit(record.path)
        if parts.path == "/api/v1/namespaces":
            queries.append({key: values[0] for key, values in parse_qs(parts.query).items()})
    return queries


def restarts(metrics, reason):
    """How often a watch was begun anew for a reason."""
    return metrics.watch.restarts.labels(reason)._value.get()


async def settled(condition):
    """A condition that is known at once."""
    return condition
