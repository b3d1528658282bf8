"""The facts of every status page that are about the process.

Must not know which daemon the process is.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import Counter, Gauge

from kmproxy import __version__
from kmproxy.config.types import Address
from kmproxy.daemon.metrics import SharedMetrics
from kmproxy.revision import revision
from kmproxy.status.model import Certificate, Process


def process(telemetry: Address, up: float) -> Process:
    """The version and the uptime in seconds. `telemetry` is the address of own metrics."""
    return Process(version=__version__, revision=revision(), up=up, telemetry=str(telemetry))


def certificates(metrics: SharedMetrics, wall: float) -> list[Certificate]:
    """When the certificates of the metrics port end. `wall` is in seconds since 1970."""
    ends = values(metrics.web_file.certificate_expiry)
    return [Certificate(name=name, ends_in=end - wall) for name, end in sorted(ends.items())]


def values(metric: Gauge | Counter) -> Mapping[str, float]:
    """The values of an own metric, by the value of its label, or by an empty text without one."""
    return {
        next(iter(sample.labels.values()), ""): sample.value
        for family in metric.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
