"""Fixtures of all tests: a simulated cluster, a daemon in front of it, and outside programs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from kmproxy.cli.read import read_config
from kmproxy.client.session import open_session
from kmproxy.client.tls import TlsContext
from kmproxy.client.upstream import Upstream
from kmproxy.daemon.daemon import Daemon
from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.kube.apiserver import ApiServer
from kmproxy.kube.service_account import ServiceAccount
from kmproxy.simulator.cluster import SimCluster
from tests.support.desk import Desk
from tests.support.engines import ENGINES
from tests.support.loki import Loki
from tests.support.programs import TOOLS, free_port, which
from tests.support.stage import Stage

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"

# Programs that are to end with their terminal do, whatever this process was started to ignore.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# Flags and variables of a make that runs the tests are not for the ones that a test runs.
for _name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "ARGS", "COVERAGE", "JOBS", "VENV"):
    os.environ.pop(_name, None)
# A promtool beside the Prometheus that is tested.
os.environ["PATH"] = os.pathsep.join([str(TOOLS), os.environ.get("PATH", "")])
# All servers are on this machine, to which no proxy leads.
for _name in ("http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(_name, None)
    os.environ.pop(_name.upper(), None)


def pytest_collection_modifyitems(items):
    """Skips the tests of missing programs, with their names."""
    for item in items:
        for marker in item.iter_markers("program"):
            missing = [name for name in marker.args if which(name) is None]
            if missing:
                reason = f"not installed, nor built by make cluster-tools or make helm-tool: {', '.join(missing)}"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    """The name of an engine: a test that asks for it runs on both."""
    return request.param


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item):
    """Coverage does not trace tests marked `no_cover`, which would take too long.

    pytest-cov pauses its own coverage for them. In a process of several, the one that began with
    the process goes on then.
    """
    tracer = sys.gettrace() if item.get_closest_marker("no_cover") else None
    if tracer is None:
        return (yield)
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


@pytest.fixture
def corpus():
    """The folder of recorded kubelet answers, if it is present."""
    if not CORPUS.is_dir():
        pytest.skip("the recorded kubelet answers do not ship with the project")
    return CORPUS


class Clock:
    """Seconds that pass only when a test moves them."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def own_metrics():
    """Metrics of their own."""
    return OwnMetrics()


def credential_failures(metrics, credential):
    """The number of failed reads of a credential."""
    labels = {"credential": credential}
    return metrics.registry.get_sample_value("kmproxy_credential_errors_total", labels) or 0


class Mount:
    """A directory as the kubelet mounts a Secret: every name a link into `..data`, itself a link.

    `swap` replaces all files at once, as the kubelet does: by renaming a new link over `..data`.
    """

    def __init__(self, path):
        self.path = path
        self._turn = 0

    def swap(self, **files):
        """Let the directory hold these files and no others."""
        self._turn += 1
        fresh = self.path / f"..2026_{self._turn}"
        fresh.mkdir(parents=True)
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            (fresh / name).write_bytes(data)
            if not (link := self.path / name).is_symlink():
                link.symlink_to(Path("..data", name))
        old = self.path / "..data"
        before = old.readlink() if old.is_symlink() else None
        (self.path / "..data_tmp").symlink_to(fresh.name)
        (self.path / "..data_tmp").rename(old)
        if before is not None:
            shutil.rmtree(self.path / before)


@pytest.fixture
def mount(tmp_path):
    """A directory whose files rotate as those of a mounted Secret."""
    return Mount(tmp_path / "mount")


@pytest.fixture
async def cluster():
    """A cluster of two nodes and seven namespaces."""
    async with SimCluster(nodes=("node-a", "node-b")) as running:
        yield running


@pytest.fixture
async def loki():
    """A push endpoint."""
    made = Loki()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def api(cluster, tmp_path):
    """The cluster's API server, as a pod reaches it."""
    cluster.write_service_account(tmp_path)
    parts = urlsplit(cluster.api.url)
    environment = {
        "KUBERNETES_SERVICE_HOST": parts.hostname,
        "KUBERNETES_SERVICE_PORT": str(parts.port),
    }
    clock, metrics = asyncio.get_running_loop().time, OwnMetrics()
    identity = ServiceAccount(
        str(tmp_path), environment, clock=clock, errors=metrics.credential_errors
    )
    tls = TlsContext(lambda: identity.trust, "CA", clock=clock, errors=metrics.credential_errors)
    async with open_session() as session:
        yield ApiServer(Upstream("API server", session, identity, tls), identity)


@pytest.fixture
async def desk(cluster, api):
    """A desk that asks the cluster's API server as a pod does."""
    desk = Desk(cluster, api)
    yield desk
    await desk.reviewer.close()


class Front:
    """A running daemon, and a client in front of it."""

    def __init__(self, daemon, session):
        self.daemon = daemon
        self.session = session
        self.url = f"http://127.0.0.1:{daemon.metrics_port}"
        self.telemetry_url = f"http://127.0.0.1:{daemon.telemetry_port}"

    async def get(self, path="/metrics/cadvisor", **headers):
        """Status and text of a GET; headers by their names with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.get(self.url + path, headers=named) as response:
            return response.status, await response.text()

    async def probe(self, path):
        """Status and text of a GET on the telemetry port."""
        async with self.session.get(self.telemetry_url + path) as response:
            return response.status, await response.text()

    async def metric(self, name, **labels):
        """The value of one of our own metrics; 0 where it is not there."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for line in (await self.probe("/metrics"))[1].splitlines():
            series, _, value = line.rpartition(" ")
            base, _, rest = series.partition("{")
            if base == name and wanted <= set(rest.rstrip("}").split(",")):
                return float(value)
        return 0.0

    async def raw(self, request):
        """All bytes that come back for the bytes of a request, and how the connection ended."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.daemon.metrics_port)
        writer.write(request)
        answer = bytearray()
        try:
            while piece := await reader.read(65536):
                answer += piece
            end = "closed"
        except ConnectionResetError:
            end = "reset"
        finally:
            writer.close()
        return bytes(answer), end


@pytest.fixture
async def front(cluster, tmp_path):
    """A function that starts daemons with flags in front of node-a, as a pod would.

    Other arguments go to the daemon, such as a clock.
    """
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def start(*flags, loaded=True, **passed):
            cluster.write_service_account(tmp_path / "sa")
            kubelet = cluster.kubelets["node-a"]
            api = urlsplit(cluster.api.url)
            defaults = [
                "--listen=127.0.0.1:0",
                "--telemetry-listen=127.0.0.1:0",
                f"--service-account-dir={tmp_path / 'sa'}",
                f"--node-name-or-ip={kubelet.host}",
                f"--node-port={kubelet.port}",
            ]
            config, _ = read_config([*defaults, *flags])
            environment = {
                "KUBERNETES_SERVICE_HOST": api.hostname,
                "KUBERNETES_SERVICE_PORT": str(api.port),
            }
            daemon = Daemon(config, environment, **passed)
            stack.push_async_callback(daemon.stop)
            await daemon.start()
            if loaded:
                async with asyncio.timeout(30):
                    await daemon._watcher.wait_loaded()
            return Front(daemon, session)

        yield start


async def until(condition, seconds=30.0):
    """Wait for an async condition to become true; its last value is returned."""
    async with asyncio.timeout(seconds):
        while not (value := await condition()):  # noqa: ASYNC110 - what is asked is elsewhere
            await asyncio.sleep(0.01)
    return value


@pytest.fixture
async def stage(tmp_path):
    """Two nodes, each with a kubelet on the same port of its own address, and what runs on them."""
    cluster = SimCluster(
        pods_per_namespace=2,
        hosts=("127.0.0.1", "127.0.0.2"),
        kubelet_port=free_port(),
    )
    async with cluster, aiohttp.ClientSession() as session, AsyncExitStack() as stack:
        yield Stage(cluster, tmp_path, session, stack)


@pytest.fixture
async def spoken(front):
    """A function that starts a daemon in front of a kubelet that a coroutine plays, byte by byte.

    `say` gets a writer for each request, and the number of its connection; it returns True to
    hang up. The kubelet speaks plain HTTP.
    """
    async with AsyncExitStack() as stack:

        async def start(say, *flags):
            connections = []

            async def handle(reader, writer):
                connections.append(writer)
                number = len(connections)
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    while await reader.readuntil(b"\r\n\r\n"):
                        if await say(writer, number):
                            break
                        await writer.drain()
                writer.close()

            server = await asyncio.start_server(handle, "127.0.0.1", 0)
            stack.callback(server.close)
            port = server.sockets[0].getsockname()[1]
            proxy = await front("--kubelet-scheme=http", f"--node-port={port}", *flags)
            stack.push_async_callback(proxy.daemon.stop)
            return proxy

        yield start
