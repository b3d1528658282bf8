"""Floods of unknown clients: memory stays bounded, and known callers are still served.

The daemon is a process of its own, with a pod's identity.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import bcrypt
import pytest

from kmproxy.simulator.kubelet import Fault
from tests.support.floods import ATTACKS, START, healthy, peak, sent, token
from tests.support.login import basic
from tests.support.process import daemon, in_a_pod
from tests.support.tls import Authority, write_config

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc")

LIMIT = 100.0
"""MiB of memory that the daemon may take at most, whatever comes."""

MANY = 130
"""Connections of strangers: more than there may be in all."""


@asynccontextmanager
async def started(cluster, directory, *flags):
    """Starts a daemon in front of node-a; yields its process and its ports."""
    environment, own = in_a_pod(cluster, directory / "sa")
    # Whoever measures coverage must not be measured as well.
    environment = {k: v for k, v in environment.items() if not k.startswith("COVERAGE")}
    async with daemon(environment, [*own, *flags]) as (process, ports):
        reading = asyncio.create_task(_read(process.stderr))
        try:
            yield process, ports
        finally:
            reading.cancel()
            await asyncio.wait([reading])


async def _read(stream):
    while await stream.readline():
        pass


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_memory_under_unfinished_requests(cluster, tmp_path, attack):
    """Unfinished requests on every connection: under 100 MiB, and alive."""
    cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS, path="/metrics/cadvisor")
    async with started(cluster, tmp_path) as (process, (port, telemetry)):
        for _ in range(2):
            connections = await asyncio.gather(*(sent(port, attack) for _ in range(MANY)))
            await healthy(telemetry)
            for connection in filter(None, connections):
                connection[1].transport.abort()
        assert peak(process) < LIMIT


# Strangers beside who may scrape.

SCRAPERS, SCRAPES = 6, 10


def request(authorization, path="/metrics/probes"):
    """A request on a kept connection."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n"
        "X-Prometheus-Scrape-Timeout-Seconds: 30\r\n\r\n"
    ).encode()


async def answered(connection, data):
    """Reads one complete response, chunks included. Raises OSError or EOFError."""
    reader, writer = connection
    writer.write(data)
    head = await reader.readuntil(b"\r\n\r\n")
    if found := re.search(rb"Content-Length: (\d+)", head):
        return head + await reader.readexactly(int(found[1]))
    return head + await reader.readuntil(b"0\r\n\r\n")


async def scraper(port, authorization, context, began, flooded, host="127.0.0.1"):
    """Scrape on one connection, with pauses; returns how many answers were good."""
    good = 0
    connection = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, limit=1 << 22, local_addr=(host, 0)
    )
    try:
        for number in range(SCRAPES):
            answer = await answered(connection, request(authorization))
            good += answer.startswith(b"HTTP/1.1 200 ") and b'team="payments"' in answer
            if not number:
                began.set()
                await flooded.wait()
            await asyncio.sleep(0.1)
    except (OSError, EOFError):
        pass  # it counts as no good answer, as those that would have followed
    finally:
        began.set()
        connection[1].close()
    return good


async def invents_tokens(port, context):
    """Send requests forever, each with a new invented token."""
    connection = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        for number in itertools.count():
            await answered(connection, request(f"Bearer a{id(connection)}-{number}", "/"))
    finally:
        connection[1].transport.abort()


async def invents_passwords(port, context):
    """Send requests forever, each with a new user and password."""
    connection = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        for number in itertools.count():
            await answered(connection, request(basic(f"a{number}:{id(connection)}"), "/"))
    finally:
        connection[1].transport.abort()


async def says_nothing(port, _):
    """Connect and stay silent. Over TLS the handshake never ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await reader.read()
    finally:
        writer.transport.abort()


async def comes_and_goes(port, _):
    """Connect, send a request without a token, and disconnect."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(START)
        await asyncio.sleep(0.01)
    finally:
        writer.transport.abort()


async def stranger(behave, port, context):
    """An unknown client that reconnects whenever its connection ends."""
    while True:
        with suppress(OSError, EOFError):
            await behave(port, context)
        await asyncio.sleep(0.02)


FLOODS = {
    "invented tokens": (invents_tokens, False, False),
    "invented tokens over TLS": (invents_tokens, True, False),
    "silence": (says_nothing, False, False),
    "handshakes that never end": (says_nothing, True, False),
    "unfinished heads": (comes_and_goes, False, False),
    "invented passwords": (invents_passwords, True, True),
}


@pytest.mark.parametrize(("behave", "tls", "users"), FLOODS.values(), ids=FLOODS)
async def test_good_scrapes_beside_strangers(cluster, tmp_path, behave, tls, users):
    """Every good scrape is served while unknown clients exceed the connection limit.

    Callers that were known before share the address of the flood. Callers that arrive during
    the flood have another address, and a valid password that was never compared before.
    """
    authority, document = Authority(), {}
    authority.write_pair(tmp_path)
    if tls:
        document["tls_server_config"] = {"cert_file": "tls.crt", "key_file": "tls.key"}
    if users:
        document["basic_auth_users"] = {
            user: bcrypt.hashpw(user.encode(), bcrypt.gensalt(10)).decode()
            for user in ("alice", "bob")
        }
    context = authority.client() if tls else None
    flags = [f"--web-config-file={write_config(tmp_path / 'web.yaml', document)}"]
    good, late_good = basic("alice:alice"), basic("bob:bob")
    if not users:
        flags.append("--authorization=kubernetes")
        good = late_good = token(cluster)
    async with started(cluster, tmp_path, *flags) as (process, (port, telemetry)):
        begun = [asyncio.Event() for _ in range(SCRAPERS)]
        flooded = asyncio.Event()
        scrapers = [
            asyncio.create_task(scraper(port, good, context, began, flooded)) for began in begun
        ]
        await asyncio.gather(*(began.wait() for began in begun))
        strangers = [asyncio.create_task(stranger(behave, port, context)) for _ in range(MANY)]
        await asyncio.sleep(1)
        flooded.set()
        late = [
            asyncio.create_task(scraper(port, late_good, context, asyncio.Event(), flooded, host))
            for host in ("127.0.0.2", "127.0.0.3")
        ]
        async with asyncio.timeout(120):
            counts = await asyncio.gather(*scrapers)
            more = await asyncio.gather(*late)
        await healthy(telemetry)
        for task in strangers:
            task.cancel()
        await asyncio.wait(strangers)
        assert sum(counts) == SCRAPERS * SCRAPES
        assert more == [SCRAPES, SCRAPES]
        assert peak(process) < LIMIT
