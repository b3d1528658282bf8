"""Fixtures of the tests of the simulated API server: a small cluster, and two clients."""

import ssl

import aiohttp
import pytest

from kmproxy.simulator.cluster import SimCluster


@pytest.fixture
async def cluster():
    """Run a cluster of one node and three namespaces."""
    namespaces = {"a": {"team": "x"}, "b": {}, "c": {"team": "y"}}
    async with SimCluster(["node-a"], namespaces, pods_per_namespace=1) as made:
        yield made


@pytest.fixture
def api(cluster):
    """Return the API server."""
    return cluster.api


@pytest.fixture
async def session(cluster):
    """Make a client with the daemon's identity, relative to the TLS listener."""
    tls = ssl.create_default_context(cadata=cluster.ca_pem.decode())
    async with aiohttp.ClientSession(
        cluster.api.url,
        connector=aiohttp.TCPConnector(ssl=tls),
        headers={"Authorization": f"Bearer {cluster.token}"},
        timeout=aiohttp.ClientTimeout(total=30),
    ) as made:
        yield made


@pytest.fixture
async def admin(cluster):
    """Make a client of the plain listener."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(cluster.api.plain_url, timeout=timeout) as made:
        yield made
