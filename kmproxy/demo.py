"""`kmproxy demo`: the simulated cluster, with the real daemon in front.

The daemon runs as a process of its own, exactly as in a pod: with service
account files and a cluster address in its environment.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from kmproxy.config import DemoConfig
from kmproxy.errors import ConfigError, StartupError
from kmproxy.simcluster import SimCluster
from kmproxy.values import Address

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
    """Run until `stop` is set. Raises StartupError if the daemon cannot be started."""
    payload = _payload(config)
    names = tuple(f"node-{number}" for number in range(1, config.nodes + 1))
    try:
        cluster = SimCluster(nodes=names, payload=payload, api_port=config.api_port)
        async with cluster, _daemon(config, cluster, names[0]) as daemon:
            await _ready(daemon, f"{_url(config.telemetry_listen)}/readyz", stop)
            if not stop.is_set():
                print(_text(config, cluster, names), flush=True)
            await _until(daemon, stop)
    except OSError as error:
        why = "the address is in use" if error.errno == errno.EADDRINUSE else str(error)
        problem = f"cannot listen on 127.0.0.1:{config.api_port} (--api-port): {why}"
        raise StartupError(problem) from error


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
    """The daemon in front of one node; at the end it is stopped, and its peak memory printed."""
    kubelet = cluster.kubelets[node]
    api = urlsplit(cluster.api.url)
    with tempfile.TemporaryDirectory(prefix="kmproxy-demo-") as directory:
        cluster.write_service_account(Path(directory))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "kmproxy",
            "serve",
            f"--listen={config.listen}",
            f"--telemetry-listen={config.telemetry_listen}",
            f"--service-account-dir={directory}",
            f"--node-name-or-ip={kubelet.host}",
            f"--node-port={kubelet.port}",
            "--all-nodes",
            "--discovery",
            *(f"--label={label}" for label in config.label),
            env={
                **os.environ,
                "KUBERNETES_SERVICE_HOST": str(api.hostname),
                "KUBERNETES_SERVICE_PORT": str(api.port),
            },
            start_new_session=True,  # a Ctrl-C is ours, and we pass it on
        )
        try:
            yield process
        finally:
            peak = _peak_memory(process.pid)
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
            if peak is not None:
                print(f"peak memory of the daemon: {peak / 1024:.1f} MiB RSS")


async def _ready(process: asyncio.subprocess.Process, url: str, stop: asyncio.Event) -> None:
    async with asyncio.timeout(READY_TIMEOUT), aiohttp.ClientSession() as session:
        while process.returncode is None and not stop.is_set():
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass  # it does not listen yet
            await asyncio.sleep(0.05)


async def _until(process: asyncio.subprocess.Process, stop: asyncio.Event) -> None:
    """Wait for `stop`. Raises StartupError if the daemon ends before."""
    ended = asyncio.create_task(process.wait())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
    for task in (ended, stopped):
        task.cancel()
    if not stop.is_set():
        raise StartupError(f"the daemon ended by itself, with status {process.returncode}")


def _peak_memory(pid: int) -> int | None:
    """The peak resident set of a process in KiB, where the system tells."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
