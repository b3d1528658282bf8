"""kmproxy's own metrics, in a registry of their own.

Knows the names, the labels and their bounded values. Must not know which code counts.
No label value contains a namespace, a node or data from a client.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from kmproxy import __version__
from kmproxy.revision import revision

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

# An upstream chooses the names of its failures freely. Only these names become label values.
_REASONS = frozenset(
    {
        "Expired", "Forbidden", "Gone", "InternalError", "NotFound",
        "ServiceUnavailable", "Timeout", "TooManyRequests", "Unauthorized", "bad_address",
        "content_type",
        "credential", "cut", "disconnected", "encoding", "ended",
        "forbidden", "framing", "garbage", "gzip", "moved", "no_address",
        "no_node", "oauth2", "protocol", "proxy", "redirect", "refused", "series", "short",
        "status", "timeout", "tls", "too_large", "too_many", "truncated",
        "unauthorized", "unreachable", "unresolved", "unreviewed",
    }
)  # fmt: skip


class Telemetry:
    """All metrics of the daemon, each as an attribute."""

    def __init__(self) -> None:
        # They would double the series. The start of the process shows when the counters began.
        disable_created_metrics()  # type: ignore[no-untyped-call] # the library leaves it so
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.scrapes = Counter(
            "kmproxy_scrapes",
            "Requests for kubelet metrics, by path as in the documentation and HTTP status; "
            "'broken' is a connection broken after the first byte, 'gone' a client that left.",
            ["path", "code"],
            registry=registry,
        )
        self.scrape_duration = Histogram(
            "kmproxy_scrape_duration_seconds",
            "Time from a request for kubelet metrics to the end of its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.scrapes_in_flight = Gauge(
            "kmproxy_scrapes_in_flight", "Kubelet fetches under way.", registry=registry
        )
        self.upstream_errors = Counter(
            "kmproxy_upstream_errors",
            "Failures of the kubelet or the API server, by reason.",
            ["upstream", "reason"],
            registry=registry,
        )
        self.samples = Counter("kmproxy_samples", "Samples seen.", registry=registry)
        self.samples_enriched = Counter(
            "kmproxy_samples_enriched",
            "Samples that got or changed a label.",
            registry=registry,
        )
        self.lines_unparsed = Counter(
            "kmproxy_lines_unparsed",
            "Lines that could not be understood, passed on unchanged.",
            registry=registry,
        )
        self.label_conflicts = Counter(
            "kmproxy_label_conflicts",
            "Labels to add that a sample bore already.",
            registry=registry,
        )
        self.samples_dropped = Counter(
            "kmproxy_samples_dropped",
            "Samples left out, by what they were left out for; 'merged' had become another's "
            "series, 'tenant' was not for who asked, 'unparsed' could be anybody's.",
            ["by"],
            registry=registry,
        )
        self.refused = Counter(
            "kmproxy_refused",
            "Connections and requests refused before they were handled, by reason; 'slow' is a "
            "client that did not take its answer, 'heads' room for unfinished requests.",
            ["reason"],
            registry=registry,
        )
        self.certificate_expiry = Gauge(
            "kmproxy_certificate_expiry_timestamp_seconds",
            "When the first certificate of a file ends, in seconds since 1970: 'serving' is "
            "our own, 'client_ca' what clients' are verified by.",
            ["certificate"],
            registry=registry,
        )
        self.namespaces = Gauge(
            "kmproxy_namespaces", "Namespaces in the label map.", registry=registry
        )
        self.namespaces_without_label = Gauge(
            "kmproxy_namespaces_without_label",
            "Namespaces that have no value of their own for a label of the rules.",
            ["label"],
            registry=registry,
        )
        self.label_values_left_out = Gauge(
            "kmproxy_label_values_left_out",
            "Values of namespaces that rules ask for and samples do not get now, by the limit in "
            "bytes that they exceed: of a 'value' (--max-label-value-bytes), of a 'namespace', or "
            "of the whole 'map'.",
            ["limit"],
            registry=registry,
        )
        self.sync_age = Gauge(
            "kmproxy_namespaces_sync_age_seconds",
            "Time since the API server last confirmed the label map, by a list, an event or "
            "a bookmark; +Inf before the first list. Bookmarks come once a minute.",
            registry=registry,
        )
        self.watch_restarts = Counter(
            "kmproxy_watch_restarts",
            "Namespace watches begun anew, by reason.",
            ["reason"],
            registry=registry,
        )
        self.credential_errors = Counter(
            "kmproxy_credential_errors",
            "Failures to read a token, CA or certificate anew; the last good one stays in use.",
            ["credential"],
            registry=registry,
        )
        self.kubelet_certificates_refused = Counter(
            "kmproxy_kubelet_certificates_refused",
            "Kubelets' certificates refused with --kubelet-tls-pin, by reason: 'changed' is not "
            "the pinned one, 'unverified' comes from a node that a CA verified before.",
            ["reason"],
            registry=registry,
        )
        self.kubelet_pins = Gauge(
            "kmproxy_kubelet_pins",
            "Nodes whose certificates are remembered with --kubelet-tls-pin.",
            registry=registry,
        )
        self.kubelet_pin_errors = Counter(
            "kmproxy_kubelet_pin_errors",
            "Failures to read or write the file of kubelets' pins.",
            ["operation"],
            registry=registry,
        )
        self.snapshot_errors = Counter(
            "kmproxy_snapshot_errors",
            "Failures to read or write the label snapshot.",
            ["operation"],
            registry=registry,
        )
        self.snapshot_saved = Gauge(
            "kmproxy_snapshot_saved_timestamp_seconds",
            "When the label snapshot was last written; 0 before the first time.",
            registry=registry,
        )
        self.labels_restored = Gauge(
            "kmproxy_labels_restored",
            "1 while the labels are those of the snapshot, 0 once they have been listed.",
            registry=registry,
        )
        self.discovery_requests = Counter(
            "kmproxy_discovery_requests",
            "Requests for scrape targets, by path and HTTP status.",
            ["path", "code"],
            registry=registry,
        )
        self.discovery_fetches = Counter(
            "kmproxy_discovery_fetches",
            "Lists of pods or nodes fetched for scrape targets, by how it went: 'ok' or 'failed'.",
            ["role", "result"],
            registry=registry,
        )
        self.discovery_targets = Gauge(
            "kmproxy_discovery_targets",
            "Scrape targets known, of all nodes whose targets were asked for.",
            ["role"],
            registry=registry,
        )
        self.discovery_left_out = Gauge(
            "kmproxy_discovery_left_out",
            "What lists of targets do not have for its size, by the limit in bytes: values over "
            "that of a 'value' or beyond those of a 'pod', 'targets' of a pod, pods of a 'list', "
            "and pods of the last 'document'.",
            ["limit"],
            registry=registry,
        )
        self.discovery_age = Gauge(
            "kmproxy_discovery_age_seconds",
            "Age of the list that the last answer was made of; over the refresh interval "
            "when lists cannot be fetched.",
            ["role"],
            registry=registry,
        )
        self.reviews = Counter(
            "kmproxy_reviews",
            "Reviews of a token or of access, by result. A name of no node counts as one, so that "
            "it cannot be told from a node's.",
            ["kind", "result"],
            registry=registry,
        )
        build = Info("kmproxy_build", "What is running.", registry=registry)
        about = {"version": __version__, "revision": revision()}
        build.info({**about, "python": platform.python_version()})

    def follow(
        self,
        *,
        namespaces: Callable[[], float],
        lacking: Mapping[str, Callable[[], float]],
        left_out: Mapping[str, Callable[[], float]],
        sync_age: Callable[[], float],
        restored: Callable[[], float],
    ) -> None:
        """Sets the functions that give the gauges of the label map at each scrape.

        `lacking` holds one function per label, `left_out` one per limit.
        """
        self.namespaces.set_function(namespaces)
        for label, count in lacking.items():
            self.namespaces_without_label.labels(label).set_function(count)
        for limit, count in left_out.items():
            self.label_values_left_out.labels(limit).set_function(count)
        self.sync_age.set_function(sync_age)
        self.labels_restored.set_function(restored)

    def samples_left_out(self, dropped: Mapping[str, int]) -> None:
        """Counts samples that were left out of a response, by reason."""
        for what, count in dropped.items():
            self.samples_dropped.labels(what).inc(count)

    def upstream_failed(self, upstream: str, reason: str) -> None:
        """Counts a failure of the upstream `kubelet` or `apiserver`."""
        self.upstream_errors.labels(upstream, _bounded(reason)).inc()

    def reviewed(self, kind: str, *, allowed: bool) -> None:
        """Counts a review of a `token` or of `access`."""
        self.reviews.labels(kind, "allowed" if allowed else "denied").inc()

    def review_failed(self, kind: str, reason: str) -> None:
        """Counts a review that failed. This is a failure of the API server too."""
        self.reviews.labels(kind, "failed").inc()
        self.upstream_failed("apiserver", reason)

    def watch_restarted(self, reason: str) -> None:
        """Counts the end of a watch."""
        self.watch_restarts.labels(_bounded(reason)).inc()

    def render(self) -> bytes:
        """Returns all metrics as an exposition in text format 0.0.4."""
        return generate_latest(self.registry)


def _bounded(reason: str) -> str:
    return reason if reason in _REASONS else "other"
