"""The HTTP surface under random raw requests from a seeded grammar: 100,000 of them in CI.

This file generates the requests; the contract says what they may cause. Only well-formed
scrapes reach an upstream, and every status is a documented one.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from kmproxy.simulator.cadvisor import ENDPOINTS
from kmproxy.simulator.kubelet import Fault
from tests.support.process import daemon, in_a_pod

REQUESTS = 100_000 if os.environ.get("CI") == "true" else 4_000
SEED = os.environ.get("KMPROXY_FUZZ_SEED", "20260711")
ON_ONE_CONNECTION = 20
AT_ONCE = 8
CANARY = "canary-of-a-client"
"""In headers, queries and bodies, and so to be seen neither upstream nor in the log."""

STATUSES = {200, 400, 404, 405, 431, 502, 503, 504}
"""The contract's, and HTTP's own words for what is no request."""

UPSTREAM_HEADERS = {"host", "authorization", "accept", "accept-encoding", "user-agent"}
NODE = "/api/v1/nodes/%s/proxy/metrics/cadvisor"

METHODS = ["GET"] * 8 + ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH"]
METHODS += ["get", "GET\t", " GET", "G\0T", "PRI", "FOO", "", "GET" * 99]
TARGETS = [
    *("/", "/", "/x", "/metrics/", "//metrics", "/metrics/../pods", "/metrics/%2e%2e/pods", "*"),
    *("/metrics/cadvisor%2f..%2f..%2fpods", "/%6detrics", "/metrics;x=y", "/metrics%00", "x:443"),
    *(
        "http://10.0.0.1/metrics",
        "https://kubernetes.default/api",
        "/pods",
        "/exec/a/b/c?command=id",
    ),
    *(
        "/run/a/b/c",
        "/api/v1/namespaces",
        "/api/v1/nodes/node-a/proxy/exec/x",
        "/metrics#x",
        "",
        "?",
    ),
    *(
        "/metrics\\..\\pods",
        "/metrics/cadvisor/../../pods",
        "/./metrics",
        "/metrics\x7f",
        "/caf\xe9",
    ),
    *(
        NODE % name
        for name in ("..", "%2e%2e", "a%2fb", "", "NODE-A", "node-c", "10.0.0.1", "a@b:1")
    ),
    *(NODE % "node-a" + tail for tail in ("/", "%2f", "/../pods", "?" + CANARY, "x")),
    "/" + "a" * 9000,
]
SERVED = ["/metrics/cadvisor", "/metrics", "/metrics/resource", "/metrics/probes", NODE % "node-a"]
VERSIONS = ["HTTP/1.1"] * 12 + [
    "HTTP/1.0",
    "HTTP/2.0",
    "HTTP/0.9",
    "HTTP/1.2",
    "http/1.1",
    "",
    "HTTP/11",
]
HEADERS = [
    *("Content-Length: 0", "Content-Length: 5", "Content-Length: -1", "Content-Length: +5"),
    *("Content-Length: 5, 5", "Content-Length: 0x5", "Content-Length: 99999999999999999999"),
    *("Transfer-Encoding: chunked", "Transfer-Encoding: xchunked", "Transfer-Encoding : chunked"),
    *("Transfer-Encoding: chunked, identity", "transfer-encoding:\tchunked", "Transfer-Encoding: "),
    *(
        "Transfer-Encoding: \x0bchunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: a\nTransfer-Encoding: chunked",
    ),
    *(
        "Upgrade: websocket",
        "Upgrade: h2c",
        "Connection: upgrade",
        "Connection: keep-alive, upgrade",
    ),
    *("Connection: close", "Connection: keep-alive", "Connection: x, \x00", "Expect: 100-continue"),
    *("Expect: x", "Host: other", "Host: ", "Host : x", "Host: a b", "X-Forwarded-For: 10.0.0.1"),
    *(
        "X-Forwarded-Host: evil",
        "X-Original-URL: /pods",
        "X-Http-Method-Override: DELETE",
        "TE: trailers",
    ),
    *(f"Authorization: Bearer {CANARY}", f"Cookie: a={CANARY}", f"X-Remote-User: {CANARY}"),
    *("Impersonate-User: system:masters", "X-Remote-Group: system:masters", f"X-{CANARY}: 1"),
    *(
        "Accept: */*",
        "Accept: application/vnd.google.protobuf",
        "Accept-Encoding: gzip",
        "Accept-Encoding: x\x00",
    ),
    *(
        "X-Prometheus-Scrape-Timeout-Seconds: 10",
        "X-Prometheus-Scrape-Timeout-Seconds: nan",
        "Range: bytes=0-1",
    ),
    *("X-Prometheus-Scrape-Timeout-Seconds: -1e999", "If-None-Match: *", "Proxy-Authorization: x"),
    *(
        ":x",
        "no colon",
        " leading: space",
        "X\x00: y",
        "X: \x00",
        "\xe9: x",
        "X: " + "a" * 9000,
    ),
    *(
        "X: y\rZ: w",
        "",
        "X:",
        "Sec-WebSocket-Key1: x",
        "Keep-Alive: 9",
        "Trailer: Host",
        "Via: 1.1 x",
    ),
]
PATHS = [
    target
    for target in TARGETS
    if re.fullmatch(r"/[!-~]*", target) and "#" not in target and len(target) < 99
]
"""Targets that are paths, whatever else may be said of them."""

HARMLESS = [
    f"Authorization: Bearer {CANARY}",
    f"Cookie: a={CANARY}",
    f"X-Remote-User: {CANARY}",
    "Via: 1.1 x",
    "Impersonate-User: system:masters",
    "X-Original-URL: /pods",
    "X-Http-Method-Override: DELETE",
    "X-Forwarded-Host: evil",
    "Accept: */*",
    "Accept-Encoding: gzip",
    "Range: bytes=0-1",
    "Connection: keep-alive",
    "Content-Length: 0",
    "TE: trailers",
    "Keep-Alive: 9",
    "X-Prometheus-Scrape-Timeout-Seconds: nan",
    "X-Prometheus-Scrape-Timeout-Seconds: 5",
]
BODIES = [
    *(
        "",
        "",
        "",
        "",
        "12345",
        "0\r\n\r\n",
        f"5\r\n{CANARY[:5]}\r\n0\r\n\r\n",
        "5;x=y\r\n12345\r\n0\r\nHost: x\r\n\r\n",
    ),
    *(
        "GET /pods HTTP/1.1\r\nHost: x\r\n\r\n",
        "ffffffffffffffff\r\n",
        "\r\n\r\n",
        "\x16\x03\x01\x02\x00",
        "PRI * HTTP/2.0",
    ),
]


def orderly(rng):
    """A well-formed request, after which the connection stays open."""
    served = rng.random() < 0.02
    target = rng.choice(SERVED if served else PATHS)
    if rng.random() < 0.2:
        target += f"?namespace={CANARY}&metric=x*&{CANARY}"
    headers = ["Host: x", *rng.choices(HARMLESS, k=rng.choice([0, 0, 1, 1, 2, 4]))]
    method = (
        "GET" if served else rng.choice(["GET", "GET", "GET", "HEAD", "POST", "DELETE", "OPTIONS"])
    )
    return "\r\n".join([f"{method} {target} HTTP/1.1", *headers, "", ""]).encode("latin-1")


def wild(rng):
    """Bytes of any kind; mostly a request with a small error."""
    served = rng.random() < 0.02
    method = "GET" if served else rng.choice(METHODS)
    target = rng.choice(SERVED if served else TARGETS)
    if rng.random() < 0.1:
        target += f"?namespace={CANARY}&metric=x*&{CANARY}"
    headers = ["Host: x"] * (rng.random() < 0.95) + rng.choices(
        HEADERS, k=rng.choice([0, 0, 1, 1, 2, 4])
    )
    if rng.random() < 0.005:
        headers += [f"X-{number}: {CANARY}" for number in range(200)]
    rng.shuffle(headers)
    end = rng.choice(["\r\n"] * 30 + ["\n", "\r", "\r\r\n", "\n\r"])
    space = rng.choice([" "] * 30 + ["  ", "\t", ""])
    head = end.join([space.join([method, target, rng.choice(VERSIONS)]), *headers])
    request = bytearray(
        f"{head}{end}{end}{rng.choice(BODIES) if rng.random() < 0.3 else ''}", "latin-1"
    )
    for _ in range(rng.choice([0] * 9 + [1, 3])):
        place = rng.randrange(len(request))
        request[place : place + rng.choice([0, 1, 1, 9])] = rng.randbytes(rng.choice([0, 1, 1, 9]))
    return bytes(request)


async def converse(port, number):
    """Send one connection's requests in pieces of any size; returns the statuses."""
    rng = random.Random(f"{SEED}-{number}")
    stream = b"".join(make(rng) for _ in range(ON_ONE_CONNECTION))
    stream += b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        if rng.random() < 0.2:
            cut = rng.randrange(len(stream))
            writer.write(stream[:cut])
            await asyncio.sleep(0)
            stream = stream[cut:]
        writer.write(stream)
        async with asyncio.timeout(60):
            while piece := await reader.read(1 << 18):
                answer += piece
    except OSError:
        pass  # what is no HTTP may end in a reset
    finally:
        writer.close()
    assert not re.search(rb"Traceback|aiohttp|Python", answer), number
    return [int(status) for status in re.findall(rb"(?:^|\n)HTTP/1\.[01] (\d{3}) ", answer)]


def vitals(pid):
    """Resident memory in KiB, and open files."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]), len(
        list(Path(f"/proc/{pid}/fd").iterdir())
    )


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc to look at a process")
@pytest.mark.timeout(1800)  # a minute of work; a busy machine takes five
async def test_nothing_comes_of_what_is_no_scrape(cluster, tmp_path):
    """Only contract statuses, no other upstream request, alive, and no memory growth."""
    environment, flags = in_a_pod(cluster, tmp_path / "sa")
    for kubelet in cluster.kubelets.values():
        body = b'm{namespace="payments"} 1\n'
        kubelet.fail(Fault.BODY, body=body, content_type="text/plain; version=0.0.4")
    log = bytearray()
    counts = Counter()
    flags += ["--all-nodes", "--header-timeout=1s", "--idle-timeout=2s", "--max-connections=64"]
    async with daemon(environment, flags) as (process, (port, telemetry)):
        drain = asyncio.create_task(collect(process.stderr, log))
        numbers = itertools.count()

        async def work(answers):
            while counts.total() < answers:
                counts.update(await converse(port, next(numbers)))

        await asyncio.gather(*(work(REQUESTS // 10) for _ in range(AT_ONCE)))
        warm = vitals(process.pid)
        await asyncio.gather(*(work(REQUESTS) for _ in range(AT_ONCE)))
        for path, where in (("/healthz", telemetry), ("/metrics/cadvisor", port)):
            reader, writer = await asyncio.open_connection("127.0.0.1", where)
            writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.0 200 OK")
            writer.close()
        assert b'team="payments"' in answer
        memory, files = vitals(process.pid)
        drain.cancel()
    assert set(counts) <= STATUSES
    assert min(counts[status] for status in (200, 400, 404, 405)) >= REQUESTS // 1000
    assert memory < warm[0] + 16_384, (warm, memory)
    assert files < warm[1] + 16
    assert CANARY.encode() not in log
    assert b"Traceback" not in log
    nothing_else_upstream(cluster)


async def collect(stream, log):
    """Keep the daemon's output."""
    while line := await stream.readline():
        log += line


def make(rng):
    """Makes a request. Seven in eight are well-formed, so that a connection lasts."""
    return wild(rng) if rng.random() < 0.125 else orderly(rng)


def nothing_else_upstream(cluster):
    """Kubelets got only the four paths, the API server only namespaces and nodes."""
    asked = [record for kubelet in cluster.kubelets.values() for record in kubelet.requests]
    assert asked
    for record in asked:
        assert record.method == "GET"
        assert record.path in ENDPOINTS
    for record in cluster.api.requests:
        path = record.path.partition("?")[0]
        assert record.method == "GET"
        assert path == "/api/v1/namespaces" or re.fullmatch(r"/api/v1/nodes/[a-z0-9.-]+", path), (
            path
        )
    for record in (*asked, *cluster.api.requests):
        assert {name.lower() for name in record.headers} <= UPSTREAM_HEADERS
        assert record.headers["Authorization"] == f"Bearer {cluster.token}"
        assert CANARY not in record.path + str(dict(record.headers))


def test_the_same_seed_makes_the_same_requests():
    """A failure can be reproduced from its seed."""
    first, second = (random.Random(f"{SEED}-7") for _ in range(2))
    assert [make(first) for _ in range(99)] == [make(second) for _ in range(99)]
