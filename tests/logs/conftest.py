"""A sender, or `kmproxy logs` as a process, in front of an endpoint on a real socket."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from kmproxy.client.factory import UpstreamFactory
from kmproxy.client.session import open_session
from kmproxy.config.http_options import Access
from kmproxy.logs.batches import Batches, BatchLimits
from kmproxy.logs.sender import NAME, Sender, SendMetrics
from kmproxy.logs.streams import StreamLabels, StreamOptions
from kmproxy.simulator.cluster import SimCluster
from kmproxy.simulator.logs import SimLogs
from kmproxy.telemetry import CredentialErrors, open_registry
from tests.support.log_endpoint import LogEndpoint, Reader
from tests.support.loki import arguments

LABELS = {b"shop": b',team="a"', b"blog": b',team="b"'}


class Shipping:
    """A running sender, its batches, a reader and the endpoint."""

    def __init__(self, endpoint, stack):
        self.endpoint = endpoint
        self.registry = self.metrics = self.sender = self.batches = self.reader = None
        self.labels = dict(LABELS)
        self.delays = []
        self.slept = []
        self.saved = 0
        self._stack = stack
        self._run = None

    async def start(
        self, *, limits=None, options=None, access=None, url=None, patience=30.0, session=None
    ):
        """Run until the stack ends. Delays after failures are noted, and short."""
        clock = asyncio.get_running_loop().time
        self.registry = open_registry()
        self.metrics = SendMetrics(self.registry)
        self.batches = Batches(
            limits or BatchLimits(wait=0.01),
            StreamLabels(options or StreamOptions(), self.labels.get),
            clock=clock, count=self.metrics.count,
        )  # fmt: skip
        self.metrics.show(lambda: (self.batches,), clock)
        self.reader = Reader(self.batches)
        session = session or await self._stack.enter_async_context(open_session())
        factory = UpstreamFactory(
            session, self._stack, {}, clock, CredentialErrors(self.registry), "loki"
        )
        url = url or self.endpoint.url
        upstream = factory.exporter(NAME, url, access or Access(), session, {})
        self.sender = Sender(
            upstream, url, self.batches, self.metrics, saved=self.save, clock=clock,
            uniform=self.draw, sleep=self.sleep, patience=patience,
        )  # fmt: skip
        self._run = asyncio.create_task(self.sender.run())
        self._stack.push_async_callback(self.end)
        return self

    async def save(self):
        self.saved += 1

    def draw(self, low, high):
        self.delays.append((low, high))
        return high / 2

    async def sleep(self, seconds):
        self.slept.append(seconds)
        await asyncio.sleep(0.001)

    async def end(self):
        await self.sender.close(0)
        await self._run

    def add(self, *lines):
        for each in lines:
            self.reader.add(each)

    @property
    def texts(self):
        """The texts that the endpoint has kept, and how many times."""
        return Counter(self.endpoint.store.texts)

    def value(self, name, **labels):
        """A sample of the sender's own metrics."""
        return self.registry.get_sample_value(f"kmproxy_log_{name}", labels)


@pytest.fixture
async def stack():
    """What is to be closed at the end of a test."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def shipping(stack):
    """An endpoint, and what sends to it once it is started."""
    return Shipping(await LogEndpoint().start(stack), stack)


@pytest.fixture
def source():
    """Where `kmproxy logs` reads logs. A test that has to hold for both gives each of them."""
    return "files"


@pytest.fixture
async def cluster(source):
    """A cluster whose daemon may read logs from the source, and from no other one."""
    async with SimCluster(["node-a"], {"shop": {"team": "red"}}, pods_per_namespace=0) as made:
        if source == "files":
            made.api.allow("get", "nodes/log")
        else:
            for verb, resource in (("get", "pods/log"), ("list", "pods"), ("watch", "pods")):
                made.api.allow(verb, resource)
            for each in made.kubelets.values():
                await each.stop()
        yield made


@pytest.fixture
def kubelet(cluster):
    """The kubelet of node-a."""
    return cluster.kubelets["node-a"]


@pytest.fixture
def logs(cluster, tmp_path):
    """The log files of node-a."""
    with SimLogs(tmp_path / "log") as made:
        cluster.show_logs("node-a", made)
        yield made


@pytest.fixture
def command(cluster, tmp_path, loki, source):
    """The environment and the command line of `kmproxy logs`."""
    return arguments(cluster, tmp_path, loki, source)
