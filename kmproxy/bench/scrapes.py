"""Measures scrapes through the daemon and through nginx, as processes before a simulated cluster.

Knows processes, their CPU time and memory, loopback sockets and nginx's configuration. Must not
know how a payload is made, nor how figures are shown. No data leaves the loopback interface. Every
step has a time limit, and all started processes are stopped on any error.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from kmproxy.errors import KmproxyError, StartupError
from kmproxy.simulator.cluster import SimCluster

HOST = "127.0.0.1"
READY_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0
SCRAPE_TIMEOUT = 60.0
"""Seconds that one scrape may take."""

ROUNDS = 2
"""The minimum number of scrapes in each way, also if the time is over.

One more scrape before them is not counted.
"""

_SETTLE = 0.005  # seconds after the last byte in which a server finishes its work
_BUFFER = 1 << 18

Namespaces = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Way:
    """A way of a scrape: a server, the coding from the kubelet, and the coding to the client."""

    server: str
    upstream: str
    client: str
    nginx: str = ""
    """The lines that this way adds to nginx's configuration."""

    @property
    def name(self) -> str:
        """The unique name of the way."""
        return f"{self.server}, {self.upstream} to {self.client}"


_PLAIN = 'proxy_set_header Accept-Encoding "";'
_PACKED = "proxy_set_header Accept-Encoding gzip;"
# Not `gzip_types text/plain`: nginx cuts only the charset off a kubelet's
# `text/plain; version=0.0.4; charset=utf-8`. The rest is another type, and is not compressed.
_LEVEL_1 = "gzip on; gzip_comp_level 1; gzip_types *; gzip_proxied any;"

KMPROXY_IDENTITY = Way("kmproxy", "gzip", "identity")
KMPROXY_GZIP = Way("kmproxy", "gzip", "gzip")
NGINX_IDENTITY = Way("nginx", "identity", "identity", _PLAIN)
NGINX_GUNZIP = Way("nginx", "gzip", "identity", f"{_PACKED} gunzip on;")
NGINX_GZIP = Way("nginx", "identity", "gzip", f"{_PLAIN} {_LEVEL_1}")
NGINX_PASSED_ON = Way("nginx", "gzip", "gzip", _PACKED)
WAYS = (
    KMPROXY_IDENTITY,
    NGINX_IDENTITY,
    NGINX_GUNZIP,
    KMPROXY_GZIP,
    NGINX_GZIP,
    NGINX_PASSED_ON,
)
COMPARED = (
    (KMPROXY_IDENTITY, NGINX_IDENTITY),
    (KMPROXY_IDENTITY, NGINX_GUNZIP),
    (KMPROXY_GZIP, NGINX_GZIP),
)
"""The pairs of ways whose CPU times are compared."""

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


class Scrape(NamedTuple):
    """One scrape: seconds of the server's CPU, to the first and the last byte; received bytes."""

    cpu: float
    first: float
    last: float
    received: int


@dataclass(frozen=True, slots=True)
class Figures:
    """The scrapes of one payload in one way: the least of each figure, in seconds and bytes.

    `peak_rss` is the largest resident set of the server, or None if the system does not tell it.
    nginx is one process for all its ways. kmproxy is one process for each way.
    """

    payload: str
    payload_bytes: int
    way: Way
    scrapes: int
    cpu: float
    first: float
    last: float
    received: int
    peak_rss: int | None


class _Cluster(NamedTuple):
    api: str
    kubelet_host: str
    kubelet_port: int
    token: str


class _Server(NamedTuple):
    way: Way
    port: int
    pid: int


def measure(
    payloads: Sequence[tuple[str, Path]],
    namespaces: Namespaces,
    seconds: float,
    say: Callable[[str], None],
) -> tuple[list[Figures], str | None]:
    """Scrape each payload in each way, in turns, for about `seconds` in all.

    Returns the figures, and a text that says why nginx was not measured, or None. Raises
    KmproxyError.
    """
    rows: list[Figures] = []
    skipped: str | None = None
    with _terminable():
        for name, path in payloads:
            say(f"bench: {name} through the daemon, about {seconds / len(payloads):.0f} s")
            with ExitStack() as stack:
                directory = Path(
                    stack.enter_context(tempfile.TemporaryDirectory(prefix="kmproxy-bench-"))
                )
                cluster = stack.enter_context(_cluster(path, directory / "sa", namespaces))
                servers, skipped = _servers(stack, cluster, directory)
                scrapes = _rounds(servers, seconds / len(payloads))
                rows += [_least(name, path, server, scrapes[server.way]) for server in servers]
    return rows, skipped


def _least(name: str, path: Path, server: _Server, scrapes: Sequence[Scrape]) -> Figures:
    cpu, first, last, received = (min(each) for each in zip(*scrapes, strict=True))
    size, peak = path.stat().st_size, _peak_rss(server.pid)
    return Figures(name, size, server.way, len(scrapes), cpu, first, last, int(received), peak)


def _rounds(servers: Sequence[_Server], seconds: float) -> dict[Way, list[Scrape]]:
    for server in servers:
        scrape(server.way, server.port)
    scrapes: dict[Way, list[Scrape]] = {server.way: [] for server in servers}
    rounds, end = 0, time.monotonic() + seconds
    while rounds < ROUNDS or time.monotonic() < end:
        for way, port, pid in servers:
            before = cpu_seconds(pid)
            first, last, received = scrape(way, port)
            time.sleep(_SETTLE)
            scrapes[way].append(Scrape(cpu_seconds(pid) - before, first, last, received))
        rounds += 1
    return scrapes


def scrape(way: Way, port: int) -> tuple[float, float, int]:
    """Fetch the metrics once in a way, over a new connection, and drop them.

    Returns the seconds to the first and to the last byte, and the number of received bytes. Raises
    KmproxyError if the response is not the requested one, or not whole.
    """
    request = (
        f"GET /metrics/cadvisor HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n"
        "Accept: text/plain;version=0.0.4\r\n"
        f"X-Prometheus-Scrape-Timeout-Seconds: {SCRAPE_TIMEOUT:g}\r\n"
        f"Accept-Encoding: {way.client}\r\n\r\n"
    ).encode()
    buffer = memoryview(bytearray(_BUFFER))
    head = tail = b""
    received, first = 0, 0.0
    end = time.monotonic() + SCRAPE_TIMEOUT
    try:
        with socket.create_connection((HOST, port), timeout=SCRAPE_TIMEOUT) as connection:
            began = time.perf_counter()
            connection.sendall(request)
            while (count := connection.recv_into(buffer)) and time.monotonic() < end:
                if not received:
                    first = time.perf_counter() - began
                if b"\r\n\r\n" not in head:
                    head += buffer[:count]
                received += count
                tail = (tail + buffer[max(0, count - 5) : count])[-5:]
            last = time.perf_counter() - began
    except OSError as error:
        raise KmproxyError(f"{way.name}: the scrape failed: {error}") from error
    lines = head.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    if not lines[0].startswith(b"http/1.1 200 "):
        raise KmproxyError(f"{way.name}: the answer is {lines[0].decode('latin-1')[:80]!r}")
    coding = "gzip" if b"content-encoding: gzip" in lines else "identity"
    if coding != way.client:
        raise KmproxyError(f"{way.name}: the answer is in {coding}")
    if tail != b"0\r\n\r\n":
        raise KmproxyError(f"{way.name}: the answer is cut short after {received} bytes")
    return first, last, received


def cpu_seconds(pid: int) -> float:
    """User and system time of a process in seconds.

    It is exact to the nanosecond, or as exact as /proc.
    """
    try:
        return time.clock_gettime(~pid << 3 | 2)  # as clock_getcpuclockid(3) makes it
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_rss(pid: int) -> int | None:
    """The peak resident set of a process in bytes, or None if the system does not tell it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), None)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, so started processes are stopped.

    A closed terminal sends SIGHUP.
    """

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    numbers = {signal.SIGTERM, signal.SIGHUP}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as by nohup
        numbers.remove(signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Delay signals until the block has ended. A process started in it is known by then."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


@contextmanager
def _cluster(payload: Path, directory: Path, namespaces: Namespaces) -> Iterator[_Cluster]:
    """The simulated cluster, in a process that ends when this side of its pipe is closed."""
    context = get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(
        target=_run_cluster, args=(its, payload, directory, namespaces), daemon=True
    )
    try:
        with _undisturbed():
            process.start()
        its.close()
        try:
            if not ours.poll(READY_TIMEOUT):
                raise StartupError("the simulated cluster did not start in time")
            yield ours.recv()
        except EOFError as error:
            raise StartupError("the simulated cluster ended by itself") from error
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


def _servers(
    stack: ExitStack, cluster: _Cluster, directory: Path
) -> tuple[list[_Server], str | None]:
    """Start the servers to measure.

    Returns the servers, and a text that says why nginx is not one of them, or None.
    """
    ports = _free_ports(len(WAYS) + 2)
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
    return [_Server(way, at[way], pids[way]) for way in WAYS if way in pids], skipped


def _daemon(
    cluster: _Cluster, account: Path, port: int, telemetry: int, log: Path
) -> AbstractContextManager[int]:
    """The process of a daemon that runs as in a pod, in front of the only node."""
    api = urlsplit(cluster.api)
    arguments = [
        sys.executable, "-m", "kmproxy", "serve", f"--listen={HOST}:{port}",
        f"--telemetry-listen={HOST}:{telemetry}", f"--service-account-dir={account}",
        f"--node-name-or-ip={cluster.kubelet_host}", f"--node-port={cluster.kubelet_port}",
        "--all-nodes", "--label=team",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "KUBERNETES_SERVICE_HOST": str(api.hostname),
        "KUBERNETES_SERVICE_PORT": str(api.port),
    }
    return _process("the daemon", arguments, environment, telemetry, log)


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
    return _process("nginx", arguments, os.environ, ready, directory / "nginx.log")


@contextmanager
def _process(
    name: str, arguments: Sequence[str], environment: Mapping[str, str], port: int, log: Path
) -> Iterator[int]:
    """Run a process, which is ready when it answers on `port`. Yields its id.

    Raises StartupError.
    """
    process = None
    try:
        try:
            with log.open("wb") as sink, _undisturbed():
                process = subprocess.Popen(  # noqa: S603 - our own interpreter, or nginx by its path
                    arguments, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                    start_new_session=True,  # this process gets Ctrl-C, and stops the other
                )  # fmt: skip
        except OSError as error:
            raise StartupError(f"{name} cannot be run: {error.strerror}") from error
        end = time.monotonic() + READY_TIMEOUT
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > end:
                said = log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"]
                raise StartupError(f"{name} did not start: {said[-1][:200]}")
            time.sleep(0.02)
        yield process.pid
    finally:
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                process.kill()
                process.wait()


def _answers(port: int) -> bool:
    """Whether a server answers on the port with a status below 500."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            answer = connection.recv(64)
    except OSError:
        return False
    return answer.startswith(b"HTTP/1.1 ") and not answer.startswith(b"HTTP/1.1 5")


def _free_ports(count: int) -> list[int]:
    """Numbers of loopback ports that were free when this was called."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in taken]
