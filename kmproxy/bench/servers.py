"""The servers that are measured: the daemon and nginx as processes, before a simulated cluster.

Knows nginx's configuration and the flags of the daemon. No data leaves the loopback interface.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from kmproxy.bench.payloads import Namespaces
from kmproxy.bench.processes import (
    HOST,
    READY_TIMEOUT,
    STOP_TIMEOUT,
    free_ports,
    running,
    undisturbed,
)
from kmproxy.bench.ways import KMPROXY_GZIP, KMPROXY_IDENTITY, WAYS, Way
from kmproxy.daemon_process import SimulatedPod
from kmproxy.errors import StartupError
from kmproxy.simulator.cluster import SimCluster

_NGINX = """\
daemon off; master_process off; pid {directory}/nginx.pid; error_log stderr error;
events {{ worker_connections 64; }}
http {{
  access_log off; proxy_temp_path {directory}/proxy; client_body_temp_path {directory}/body;
  fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  upstream kubelet {{ server {host}:{port}; keepalive 4; }}
  proxy_http_version 1.1; proxy_ssl_verify off;
{servers}
}}
"""

_NGINX_SERVER = """\
  server {{
    listen {host}:{port};
    location / {{
      proxy_pass https://kubelet; proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer {token}";
      {way}
    }}
  }}"""


class _Cluster(NamedTuple):
    api: str
    kubelet_host: str
    kubelet_port: int
    token: str


class Server(NamedTuple):
    """A server that answers in one way: its port, and the id of its process."""

    way: Way
    port: int
    pid: int


@contextmanager
def simulated_cluster(payload: Path, directory: Path, namespaces: Namespaces) -> Iterator[_Cluster]:
    """The simulated cluster, in a process that ends when this side of its pipe is closed."""
    context = get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(
        target=_run_cluster, args=(its, payload, directory, namespaces), daemon=True
    )
    try:
        with undisturbed():
            process.start()
        its.close()
        try:
            if not ours.poll(READY_TIMEOUT):
                raise StartupError("the simulated cluster did not start in time")
            yield ours.recv()
        except EOFError as error:
            raise StartupError("the simulated cluster ended early") from error
    finally:
        ours.close()
        its.close()
        if process.pid is not None:
            process.join(STOP_TIMEOUT)
            if process.is_alive():
                process.kill()
            process.join()


def _run_cluster(pipe: Connection, payload: Path, directory: Path, namespaces: Namespaces) -> None:
    """The main function of the cluster's process: sends its addresses, runs until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process at the other end handles Ctrl-C

    async def run() -> None:
        cluster = SimCluster(("node-1",), namespaces, payload=payload, pods_per_namespace=1)
        async with cluster:
            cluster.write_service_account(directory)
            kubelet = cluster.kubelets["node-1"]
            pipe.send(_Cluster(cluster.api.url, kubelet.host, kubelet.port, cluster.token))
            with suppress(EOFError):
                await asyncio.to_thread(pipe.recv)

    asyncio.run(run())


def start_servers(
    stack: ExitStack, cluster: _Cluster, directory: Path
) -> tuple[list[Server], str | None]:
    """Start the servers to measure.

    Returns the servers, and a text that says why nginx is not one of them, or None.
    """
    ports = free_ports(len(WAYS) + 2)
    at = dict(zip(WAYS, ports, strict=False))
    pids = {}
    for way, telemetry in zip((KMPROXY_IDENTITY, KMPROXY_GZIP), ports[-2:], strict=True):
        pids[way] = stack.enter_context(
            _daemon(cluster, directory / "sa", at[way], telemetry, directory / "kmproxy.log")
        )
    ways = [way for way in WAYS if way.nginx]
    skipped = None
    if (program := shutil.which("nginx")) is None:
        skipped = "nginx is not on the PATH"
    else:
        try:
            pid = stack.enter_context(
                _nginx(program, cluster, directory, {way: at[way] for way in ways})
            )
        except StartupError as error:
            skipped = str(error)
        else:
            pids |= dict.fromkeys(ways, pid)
    return [Server(way, at[way], pids[way]) for way in WAYS if way in pids], skipped


def _daemon(
    cluster: _Cluster, account: Path, port: int, telemetry: int, log: Path
) -> AbstractContextManager[int]:
    """The process of a daemon that runs as in a pod, in front of the only node."""
    pod = SimulatedPod(cluster.api, account, cluster.kubelet_host, cluster.kubelet_port)
    arguments = [
        *pod.command, f"--listen={HOST}:{port}", f"--telemetry-listen={HOST}:{telemetry}",
        "--label=team",
    ]  # fmt: skip
    return running("the daemon", arguments, pod.environment, telemetry, log)


def _nginx(
    program: str, cluster: _Cluster, directory: Path, ports: Mapping[Way, int]
) -> AbstractContextManager[int]:
    """The process of nginx, with a server for each of its ways."""
    servers = [
        _NGINX_SERVER.format(host=HOST, port=port, way=way.nginx, token=cluster.token)
        for way, port in ports.items()
    ]
    kubelet = {"host": cluster.kubelet_host, "port": cluster.kubelet_port}
    configuration = directory / "nginx.conf"
    configuration.touch(mode=0o600)  # it holds the token
    configuration.write_text(
        _NGINX.format(directory=directory, servers="\n".join(servers), **kubelet), "ascii"
    )
    arguments = [program, "-e", "stderr", "-p", str(directory), "-c", str(configuration)]
    ready = next(iter(ports.values()))
    return running("nginx", arguments, os.environ, ready, directory / "nginx.log")
