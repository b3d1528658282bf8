"""Fixtures of the simulated kubelet: its authority, a running kubelet, and a client."""

import ssl

import aiohttp
import pytest
import trustme

from tests.support.kubelets import context, make


@pytest.fixture(scope="module")
def authority():
    """Make one certificate authority for all kubelets here."""
    return trustme.CA()


@pytest.fixture
async def kubelet(authority):
    """Run a kubelet."""
    made = make(authority)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def session(authority):
    """Make a client that trusts the authority and leaves bodies as they come."""
    connector = aiohttp.TCPConnector(ssl=context(authority, ssl.PROTOCOL_TLS_CLIENT))
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(
        connector=connector, auto_decompress=False, timeout=timeout
    ) as made:
        yield made
