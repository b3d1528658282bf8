"""Samples of kmproxy's own metrics."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from kmproxy.telemetry import render


def samples(metrics):
    """The value of every sample that is exposed, by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(render(metrics.registry).decode())
        for sample in family.samples
    }
