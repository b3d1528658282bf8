"""Samples of kmproxy's own metrics."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from kmproxy.daemon.logs_metrics import LogsMetrics
from kmproxy.daemon.metrics import SharedMetrics
from kmproxy.telemetry import render


def shown_names(registry):
    """The names of a registry's metrics as they are exposed."""
    return re.findall(r"^# TYPE (kmproxy_\w+) ", render(registry).decode(), re.MULTILINE)


def log_names():
    """The names of the metrics that only `kmproxy logs` exposes."""
    others = shown_names(SharedMetrics().registry)
    return [name for name in shown_names(LogsMetrics().registry) if name not in others]


def samples(metrics):
    """The value of every exposed sample, by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(render(metrics.registry).decode())
        for sample in family.samples
    }
