"""`kmproxy demo`: the simulated cluster, with the real daemon in front.

The daemon runs as a process of its own, exactly as in a pod: with service
account files, and with the cluster's address in its environment. It ends with the
demo, however the demo ends. With --logs it is `kmproxy logs`, between containers that
write, events of their pods, and a stand-in of Loki.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from kmproxy.config.commands import DemoConfig
from kmproxy.config.types import Address
from kmproxy.daemon_process import SimulatedPod
from kmproxy.errors import ConfigError, StartupError, StreamError
from kmproxy.simulator.cluster import SimCluster
from kmproxy.simulator.log_writers import LogWriters
from kmproxy.simulator.logs import SimLogs
from kmproxy.simulator.loki import Entry, SimLoki

READY_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0

_TEXT = """\
kmproxy demo: {nodes} nodes and {namespaces} namespaces, all simulated

The metrics of {node}, with the team of each namespace:
  curl -s {metrics}/metrics/cadvisor | grep 'team="'

Move a namespace to another team, and look again:
  curl -s -X PATCH -H 'Content-Type: application/merge-patch+json' \\
    -d '{{"metadata":{{"labels":{{"team":"backend"}}}}}}' {api}/api/v1/namespaces/frontend-service2
  kubectl --server={api} label namespace frontend-service2 team=backend --overwrite

Any node, by the API server's own path:
  curl -s {metrics}/api/v1/nodes/{other}/proxy/metrics/cadvisor

The pods of {node} as scrape targets, with the team of each namespace:
  curl -s {metrics}/sd/pods

The status page is at {metrics}/, kmproxy's own metrics are at {telemetry}/metrics.
Ctrl-C ends it.
"""


_LOGS_TEXT = """\
kmproxy demo: the containers of {node} write logs, all simulated

kmproxy logs reads them and pushes them to a stand-in of Loki, which prints each line below, with
the team of its namespace. Now and then one is a Kubernetes event about a pod. Move a namespace to
another team, and watch its next lines:
  curl -s -X PATCH -H 'Content-Type: application/merge-patch+json' \\
    -d '{{"metadata":{{"labels":{{"team":"backend"}}}}}}' {api}/api/v1/namespaces/frontend-service2
  kubectl --server={api} label namespace frontend-service2 team=backend --overwrite

The containers and their positions:
  curl -s {metrics}/targets

The status page is at {metrics}/, kmproxy's own metrics are at {telemetry}/metrics.
Ctrl-C ends it.

"""

WRITE_INTERVAL = 0.5
"""Seconds from one line of a container to the next one of any container."""

MAX_LOG_BYTES = 4096
"""The size from which a log file is rotated: small, so that it happens while one looks."""

EVENT_RIGHTS = (
    ("list", "events"), ("watch", "events"),
    ("get", "leases"), ("create", "leases"), ("update", "leases"),
)  # fmt: skip
"""What `kmproxy logs` needs for events, as in manifests/logs-events."""


async def demo(config: DemoConfig, stop: asyncio.Event) -> None:
    """Runs the demo until `stop` is set. Raises StartupError if the daemon cannot be started."""
    if config.logs and config.payload is not None:
        raise ConfigError(["--payload has no effect with --logs"])
    payload = _payload(config)
    names = tuple(f"node-{number}" for number in range(1, config.nodes + 1))
    async with AsyncExitStack() as stack:
        try:
            cluster = SimCluster(nodes=names, payload=payload, api_port=config.api_port)
            await stack.enter_async_context(cluster)
        except OSError as error:
            why = "the address is in use" if error.errno == errno.EADDRINUSE else str(error)
            problem = f"cannot listen on 127.0.0.1:{config.api_port} (--api-port): {why}"
            raise StartupError(problem) from error
        logs = await stack.enter_async_context(_Logs.of(cluster, names[0])) if config.logs else None
        daemon = await stack.enter_async_context(_daemon(config, cluster, names[0], logs))
        ended = asyncio.create_task(daemon.wait())
        stack.callback(ended.cancel)
        ready = _ready(cluster, f"{_url(config.telemetry_listen)}/readyz")
        if await _before(ready, stop, ended):
            _print(_text(config, cluster, names))
            await _before(stop.wait() if logs is None else logs.show(), stop, ended)


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StreamError(f"standard output: {error.strerror}") from error


class _Logs:
    """Containers that write log lines, and the stand-in of Loki that gets them."""

    def __init__(self, writers: LogWriters) -> None:
        self._writers = writers
        self._entries: asyncio.Queue[Entry] = asyncio.Queue()
        self.loki = SimLoki(self._entries.put_nowait)

    @classmethod
    @asynccontextmanager
    async def of(cls, cluster: SimCluster, node: str) -> AsyncIterator[_Logs]:
        """Let containers of a node write, and listen, until the context ends."""
        with (
            tempfile.TemporaryDirectory(prefix="kmproxy-demo-logs-") as folder,
            SimLogs(Path(folder), node, max_bytes=MAX_LOG_BYTES) as files,
        ):
            for verb, resource in (("get", "nodes/log"), *EVENT_RIGHTS):
                cluster.api.allow(verb, resource)
            cluster.kubelets[node].logs = files
            tell = partial(cluster.api.store.put, "events")
            made = cls(LogWriters(files, random.Random(), tell))  # noqa: S311 - no secret
            await made.loki.start()
            try:
                yield made
            finally:
                await made.loki.stop()

    async def show(self) -> None:
        """Write lines, and print each line that comes."""
        while True:
            self._writers.write()
            with suppress(TimeoutError):
                async with asyncio.timeout(WRITE_INTERVAL):
                    while True:
                        _print(_line(await self._entries.get()))


def _line(entry: Entry) -> str:
    """The labels of a line that it got from its namespace, the pod, and the text."""
    place = f"{entry.stream['namespace']}/{entry.metadata.get('pod', 'event')}"
    added = {k: v for k, v in entry.stream.items() if k not in {"namespace", "container", "stream"}}
    labels = ",".join(f"{name}={value}" for name, value in added.items()) or "-"
    return f"{labels:15}  {place:42}  {entry.text}"


def _payload(config: DemoConfig) -> Path | None:
    if config.payload is None:
        return None
    path = Path(config.payload)
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ConfigError([f"--payload {path}: {error.strerror}"]) from error
    return path


def _text(config: DemoConfig, cluster: SimCluster, names: tuple[str, ...]) -> str:
    return (_LOGS_TEXT if config.logs else _TEXT).format(
        nodes=len(names),
        namespaces=len(cluster.api.namespaces),
        node=names[0],
        other=names[-1],
        metrics=_url(config.listen),
        telemetry=_url(config.telemetry_listen),
        api=cluster.api.plain_url.replace("127.0.0.1", "localhost"),
    )


def _url(address: Address) -> str:
    host = address.host if address.host not in {"", "0.0.0.0", "::", "127.0.0.1"} else "localhost"  # noqa: S104 - compared, not bound
    return f"http://{Address(host, address.port)}"


@asynccontextmanager
async def _daemon(
    config: DemoConfig, cluster: SimCluster, node: str, logs: _Logs | None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs the daemon in front of one node, under a supervisor. Stops both at the end."""
    kubelet = cluster.kubelets[node]
    directory = tempfile.mkdtemp(prefix="kmproxy-demo-")
    process = None
    try:
        cluster.write_service_account(Path(directory))
        pod = SimulatedPod(cluster.api.url, Path(directory), kubelet.host, kubelet.port)
        command = [*pod.command, "--discovery"]
        if logs is not None:
            command = [
                *pod.logs_command,
                f"--loki-url={logs.loki.url}",
                f"--positions={directory}/positions.json",
                "--batch-wait=200ms",
                "--events",
            ]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kmproxy.supervisor", directory),
            *command,
            f"--listen={config.listen}",
            f"--telemetry-listen={config.telemetry_listen}",
            *(f"--label={label}" for label in config.label),
            env=pod.environment,
            stdin=asyncio.subprocess.PIPE,  # the daemon ends when this end of the pipe is closed
            start_new_session=True,  # only the demo gets a Ctrl-C, and it passes it on
        )
        yield process
    finally:
        if process is not None:
            await _stop(process)
        shutil.rmtree(directory, ignore_errors=True)


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Ends a supervisor and all processes that it started."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
    except TimeoutError:
        process.kill()
        await process.wait()
    with suppress(ProcessLookupError):  # a process is left only if the supervisor was killed
        os.killpg(process.pid, signal.SIGKILL)


async def _ready(cluster: SimCluster, url: str) -> None:
    """Waits until the demo's own daemon is ready.

    Another daemon may have the port, and be ready. Only the demo's own daemon watches the simulated
    cluster, and it does that once it listens on both its ports.
    """
    async with asyncio.timeout(READY_TIMEOUT), aiohttp.ClientSession() as session:
        while True:
            with suppress(aiohttp.ClientError):  # it does not listen yet
                async with session.get(url) as response:
                    if response.status == 200 and cluster.api.watches:
                        return
            await asyncio.sleep(0.05)


async def _before(
    what: Coroutine[Any, Any, object], stop: asyncio.Event, ended: asyncio.Task[int]
) -> bool:
    """Awaits `what` until it is done or `stop` is set.

    Returns True if it was done and `stop` is not set. Raises StartupError if the daemon ends
    before that, or is not ready in time.
    """
    doing, stopped = asyncio.create_task(what), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({doing, stopped, ended}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            return False
        if ended.done():
            raise StartupError(f"the daemon ended early, with status {ended.result()}")
        await doing
    except TimeoutError as error:
        raise StartupError(f"the daemon is not ready after {READY_TIMEOUT:g} s") from error
    finally:
        for task in (doing, stopped):
            task.cancel()
    return True
