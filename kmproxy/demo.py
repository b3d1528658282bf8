"""`kmproxy demo`: the simulated cluster, with the real daemon in front.

The daemon runs as a process of its own, exactly as in a pod: with service
account files, and with the cluster's address in its environment. It ends with the
demo, however the demo ends.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from kmproxy.config.commands import DemoConfig
from kmproxy.config.types import Address
from kmproxy.daemon_process import SimulatedPod
from kmproxy.errors import ConfigError, StartupError, StreamError
from kmproxy.simulator.cluster import SimCluster

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


async def demo(config: DemoConfig, stop: asyncio.Event) -> None:
    """Runs the demo until `stop` is set. Raises StartupError if the daemon cannot be started."""
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
        daemon = await stack.enter_async_context(_daemon(config, cluster, names[0]))
        ended = asyncio.create_task(daemon.wait())
        stack.callback(ended.cancel)
        ready = _ready(cluster, f"{_url(config.telemetry_listen)}/readyz")
        if await _before(ready, stop, ended):
            try:
                print(_text(config, cluster, names), flush=True)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise StreamError(f"standard output: {error.strerror}") from error
            await _before(stop.wait(), stop, ended)


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
    return _TEXT.format(
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
    config: DemoConfig, cluster: SimCluster, node: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs the daemon in front of one node, under a supervisor. Stops both at the end."""
    kubelet = cluster.kubelets[node]
    directory = tempfile.mkdtemp(prefix="kmproxy-demo-")
    process = None
    try:
        cluster.write_service_account(Path(directory))
        pod = SimulatedPod(cluster.api.url, Path(directory), kubelet.host, kubelet.port)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kmproxy.supervisor", directory),
            *pod.command,
            f"--listen={config.listen}",
            f"--telemetry-listen={config.telemetry_listen}",
            "--discovery",
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
