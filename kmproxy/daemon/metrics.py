"""The table of kmproxy's own metrics: one object for each class that declares some.

Knows which metrics share a counter. Must not know names, labels or values: they stand beside the
code that counts.
"""

from __future__ import annotations

from kmproxy.auth.reviewer import ReviewMetrics
from kmproxy.client.pin_file import PinFileMetrics
from kmproxy.client.pinning import PinMetrics
from kmproxy.discovery.targets import DiscoveryMetrics
from kmproxy.exposition.engine import IN_USE
from kmproxy.labels.namespaces import WatchMetrics
from kmproxy.labels.snapshot import SnapshotMetrics
from kmproxy.scrape.handler import ScrapeMetrics
from kmproxy.scrape.pod_lists import PodMetrics
from kmproxy.scrape.stream import SampleMetrics
from kmproxy.sources.cache import SharedReadMetrics
from kmproxy.sources.slots import SlotMetrics
from kmproxy.telemetry import CredentialErrors, UpstreamErrors, open_registry
from kmproxy.web.config_file import WebFileMetrics
from kmproxy.web.listener import ConnectionMetrics


class SharedMetrics:
    """The metrics of both daemons, of `serve` and of `logs`, in a registry of their own.

    A class that counts is handed one of the objects, never the table.
    """

    def __init__(self) -> None:
        self.registry = registry = open_registry(IN_USE)
        self.upstream_errors = UpstreamErrors(registry)
        self.credential_errors = CredentialErrors(registry)
        self.connections = ConnectionMetrics(registry)
        self.web_file = WebFileMetrics(registry, self.credential_errors)
        self.pins = PinMetrics(registry)
        self.pin_file = PinFileMetrics(registry)
        self.watch = WatchMetrics(registry, self.upstream_errors)
        self.snapshot = SnapshotMetrics(registry)


class OwnMetrics(SharedMetrics):
    """All own metrics of `serve`."""

    def __init__(self) -> None:
        super().__init__()
        registry = self.registry
        self.slots = SlotMetrics(registry, self.connections.refused)
        self.reviews = ReviewMetrics(registry, self.upstream_errors)
        self.shared_reads = SharedReadMetrics(registry)
        self.scrapes = ScrapeMetrics(registry)
        self.samples = SampleMetrics(registry)
        self.pods = PodMetrics(registry)
        self.discovery = DiscoveryMetrics(registry, self.upstream_errors)
