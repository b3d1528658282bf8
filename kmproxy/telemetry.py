"""The registry of kmproxy's own metrics, and the metrics that several folders count.

Knows the process, the build and the bounded reasons of failures. Must not know which code counts.
Each folder declares its other metrics beside the code that counts them, in classes that get the
registry. `kmproxy/daemon/metrics.py` makes an object of each class. No label value contains a
namespace, a node or data from a client.
"""

from __future__ import annotations

import platform

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from kmproxy import __version__
from kmproxy.revision import revision

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

# An upstream chooses the names of its failures freely. Only these names become label values.
_REASONS = frozenset(
    {
        "Expired", "Forbidden", "Gone", "InternalError", "NotFound",
        "ServiceUnavailable", "Timeout", "TooManyRequests", "Unauthorized", "bad_address",
        "content_type",
        "credential", "cut", "disconnected", "encoding", "ended",
        "forbidden", "framing", "garbage", "gzip", "moved", "no_address",
        "no_node", "oauth2", "protocol", "proxy", "redirect", "refused", "repeated_label",
        "series", "short",
        "status", "timeout", "tls", "too_large", "too_many", "truncated",
        "unauthorized", "unreachable", "unresolved", "unreviewed",
    }
)  # fmt: skip


def open_registry(engine: str = "") -> CollectorRegistry:
    """A new registry, with the metrics of the process, of the build and of the engine in use."""
    # They would double the series. The start of the process shows when the counters began.
    disable_created_metrics()  # type: ignore[no-untyped-call] # the library leaves it so
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    build = Info(
        "kmproxy_build", "The versions of kmproxy and Python, and the engine.", registry=registry
    )
    about = {"version": __version__, "revision": revision(), "engine": engine}
    build.info({**about, "python": platform.python_version()})
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """All metrics of a registry, as an exposition in text format 0.0.4."""
    return generate_latest(registry)


def bounded(reason: str) -> str:
    """The reason of a failure as the value of a label: a known reason, or `other`."""
    return reason if reason in _REASONS else "other"


class UpstreamErrors:
    """Counts failures of upstreams, by bounded reason."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._errors = Counter(
            "kmproxy_upstream_errors",
            "Failures of the kubelet, the API server or a configured upstream, by reason.",
            ["upstream", "reason"],
            registry=registry,
        )

    def count(self, upstream: str, reason: str) -> None:
        """Count a failure of `kubelet`, `apiserver` or a configured upstream, by its name."""
        self._errors.labels(upstream, bounded(reason)).inc()


class CredentialErrors:
    """Counts failures to read a credential again."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._errors = Counter(
            "kmproxy_credential_errors",
            "Failures to read a changed token, CA or certificate; the last good one stays in use.",
            ["credential"],
            registry=registry,
        )

    def count(self, credential: str) -> None:
        """Count a failure to read a credential, by its kind, such as `token`."""
        self._errors.labels(credential).inc()
