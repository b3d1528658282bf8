"""Reading the metrics of the configured kubelet, as the daemon's clients do."""

from __future__ import annotations

from kmproxy.sources.endpoints import CADVISOR

READER = "system:serviceaccount:monitoring:kubelet-reader"


async def scrape(clients):
    """The bytes of the configured node's metrics."""
    async with clients.kubelet.fetch(clients.kubelet.configured, CADVISOR) as exposition:
        return b"".join([piece async for piece in exposition.pieces])
