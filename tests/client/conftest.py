"""Fixtures of the client tests: servers that answer with given bytes, and clients of them."""

from __future__ import annotations

import asyncio

import pytest

from kmproxy.client.session import open_session
from kmproxy.client.tls import TlsContext, Trust
from kmproxy.client.upstream import Upstream
from kmproxy.config.types import Secret
from kmproxy.daemon.metrics import OwnMetrics
from tests.support.sites import new_ca, pem_of
from tests.support.upstreams import Nobody


@pytest.fixture
async def upstream():
    """A way to anything on plain http."""
    tls = TlsContext(Trust, "CA", clock=lambda: 0.0, errors=OwnMetrics().credential_errors)
    async with open_session() as session:
        yield Upstream("kubelet", session, Nobody(), tls)


@pytest.fixture
async def answering():
    """A function that starts a server which answers each request with these bytes, and hangs up."""
    servers = []
    seen = []

    async def start(*answers):
        async def handle(reader, writer):
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answers[min(len(seen), len(answers)) - 1])
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x", seen

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def ca():
    """The CA of the test's own servers."""
    return new_ca()


@pytest.fixture
async def direct(ca):
    """A function that makes a way to those servers, as an identity with a certificate."""
    trust = Trust(
        Secret(ca.cert_pem.bytes().decode()),
        *(Secret(part.decode()) for part in pem_of(ca.issue_cert("x", common_name="kmproxy"))),
    )
    errors = OwnMetrics().credential_errors
    contexts = [
        TlsContext(lambda each=each: each, "CA", clock=lambda: 0.0, errors=errors)
        for each in (trust, Trust(trust.ca))
    ]
    async with open_session() as session:

        def make(*, follow=False, **options):
            elsewhere = contexts[1] if follow else None
            headers = (("X-Extra", Secret("planted-extra")), ("X-Extra", Secret("two")))
            return Upstream(
                "kubelet", session, Nobody(), contexts[0], elsewhere=elsewhere,
                **{"headers": headers} | options,
            )  # fmt: skip

        yield make
