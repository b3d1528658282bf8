"""A simulated cluster with a daemon in front of it, in a thread, as a browser visits it.

A browser is driven by blocking calls, which must not hold up the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import aiohttp

from kmproxy.cli.read import read_config
from kmproxy.daemon.daemon import Daemon
from kmproxy.simulator.cluster import SimCluster
from tests.support.exporters import Exporter, answer

TEAMS = {
    "payments": ("payments", "payments-batch", "payments-eu", "ledger"),
    "search": ("search", "search-indexer", "suggest"),
    "checkout": ("checkout", "cart", "vouchers", "checkout-canary", "returns"),
    "data-platform": ("kafka", "spark", "airflow"),
    "web": ("shop", "landing"),
}
UNOWNED = ("default", "kube-node-lease", "kube-public", "kube-system", "tmp-loadtest")
COSTS = {"payments": "cc-1042", "search": "cc-2077", "checkout": "cc-1177"}
NODES = ("node-a1", "node-a2", "node-b1", "node-b2", "node-c1")


def namespaces():
    """The namespaces of a middle-sized cluster, by name, with their labels."""
    found = {name: {} for name in UNOWNED}
    for team, names in TEAMS.items():
        cost = {"cost-center": COSTS[team]} if team in COSTS else {}
        found |= {name: {"team": team, **cost} for name in names}
    return found


class Site:
    """A running daemon with all parts of the page: nodes, upstreams, a snapshot, many teams."""

    def __init__(self, directory):
        self._directory = directory
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = AsyncExitStack()
        self.cluster = None
        self.daemon = None
        self.url = ""

    def __enter__(self):
        self._thread.start()
        self.run(self._start())
        return self

    def __exit__(self, *_):
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, coroutine, seconds=60):
        """The result of a coroutine that runs beside the daemon."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(seconds)

    async def _start(self):
        enter = self._stack.enter_async_context
        self.cluster = await enter(SimCluster(NODES, namespaces()))
        body = b'# TYPE m gauge\nm{namespace="payments"} 1\nm{namespace="default"} 2\n'
        exporter = await enter(Exporter(answer(body)))
        self._session = await enter(aiohttp.ClientSession())
        config = self._directory / "kmproxy.yaml"
        config.write_text(
            f"upstreams: [{{name: kube-state-metrics, url: '{exporter.url}'}}]\n", "utf-8"
        )
        self.cluster.write_service_account(self._directory / "sa")
        kubelet, api = self.cluster.kubelets[NODES[0]], urlsplit(self.cluster.api.url)
        config, _ = read_config(
            [
                f"--config={config}",
                "--listen=127.0.0.1:0",
                "--telemetry-listen=127.0.0.1:0",
                f"--service-account-dir={self._directory / 'sa'}",
                f"--node-name-or-ip={kubelet.host}",
                f"--node-port={kubelet.port}",
                f"--label-snapshot={self._directory / 'labels'}",
                "--all-nodes",
                "--discovery",
                "--label=team",
                "--label=cost-center",
            ]
        )
        places = {"KUBERNETES_SERVICE_HOST": api.hostname, "KUBERNETES_SERVICE_PORT": str(api.port)}
        self.daemon = Daemon(config, places)
        self._stack.push_async_callback(self.daemon.stop)
        await self.daemon.start()
        await self.daemon._watcher.wait_loaded()
        self.url = f"http://127.0.0.1:{self.daemon.metrics_port}/"

    def scrape(self, *paths):
        """Scrape paths one after the other; their statuses, 0 where the connection broke."""
        return self.run(self._scrape(paths))

    async def _scrape(self, paths):
        found = []
        for path in paths:
            status = 0
            with contextlib.suppress(aiohttp.ClientError):
                async with self._session.get(self.url.rstrip("/") + path) as response:
                    await response.read()
                    status = response.status
            found.append(status)
        return found

    def scrape_all(self, times=1):
        """Scrape what a Prometheus would: the configured node, every node and the upstream."""
        named = [f"/api/v1/nodes/{node}/proxy/metrics/cadvisor" for node in NODES]
        paths = ["/metrics/cadvisor", "/metrics", "/upstreams/kube-state-metrics/metrics", *named]
        for _ in range(times):
            self.scrape(*paths)

    def label(self, namespace, **labels):
        """Give a namespace these labels and no others."""

        async def put():
            self.cluster.api.namespaces.apply(namespace, labels)

        self.run(put())

    def fail(self, node, *fault, **options):
        """Let a kubelet fail, or without a fault recover."""

        async def do():
            kubelet = self.cluster.kubelets[node]
            kubelet.fail(*fault, **options) if fault else kubelet.recover()

        self.run(do())
