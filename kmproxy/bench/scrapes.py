"""Measures scrapes through the daemon and through nginx, as processes before a simulated cluster.

Knows one scrape as a client of the loopback interface, and the least of many. Must not know how a
payload is made, nor how figures are shown. Every step has a time limit, and all started processes
are stopped on any error.
"""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kmproxy.bench.payloads import Namespaces
from kmproxy.bench.processes import HOST, cpu_seconds, terminable
from kmproxy.bench.servers import Server, simulated_cluster, start_servers
from kmproxy.bench.ways import Way
from kmproxy.daemon_process import peak_memory
from kmproxy.errors import KmproxyError

SCRAPE_TIMEOUT = 60.0
"""Seconds that one scrape may take."""

ROUNDS = 2
"""The minimum number of scrapes in each way, also if the time is over.

One more scrape before them is not counted.
"""

_SETTLE = 0.005  # seconds after the last byte in which a server finishes its work
_BUFFER = 1 << 18


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
    with terminable():
        for name, path in payloads:
            say(f"bench: {name} through the daemon, about {seconds / len(payloads):.0f} s")
            with ExitStack() as stack:
                directory = Path(
                    stack.enter_context(tempfile.TemporaryDirectory(prefix="kmproxy-bench-"))
                )
                cluster = stack.enter_context(simulated_cluster(path, directory / "sa", namespaces))
                servers, skipped = start_servers(stack, cluster, directory)
                scrapes = _rounds(servers, seconds / len(payloads))
                rows += [_least(name, path, server, scrapes[server.way]) for server in servers]
    return rows, skipped


def _least(name: str, path: Path, server: Server, scrapes: Sequence[Scrape]) -> Figures:
    cpu, first, last, received = (min(each) for each in zip(*scrapes, strict=True))
    size, peak = path.stat().st_size, peak_memory(server.pid)
    return Figures(name, size, server.way, len(scrapes), cpu, first, last, int(received), peak)


def _rounds(servers: Sequence[Server], seconds: float) -> dict[Way, list[Scrape]]:
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
