"""The stream of a line: its labels, its structured metadata and its tenant.

Knows the names that Loki accepts and its limits, and which labels come from the namespace, the pod
and the container. Must not know batches, requests or the source of labels: two look-ups give the
rendered bytes of a namespace and of a pod.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from kmproxy.bounded_cache import BoundedCache
from kmproxy.config.logs import OWN_NAMES
from kmproxy.config.logs_values import ALWAYS_KNOWN, MAX_STREAM_LABELS, is_account, is_tenant
from kmproxy.exposition.grammar import PAIR, unquote
from kmproxy.logs.lines import NO_INSTANCE, Container

MAX_VALUE: Final = 2048
"""Bytes of a stream label's value that Loki takes by default."""

_CACHE_ENTRIES: Final = 8192
_CACHE_BYTES: Final = 4 << 20

Pairs = tuple[tuple[str, str], ...]
Lookup = Callable[[bytes], bytes | None]
"""Returns the rendered labels of a namespace, or None while the namespace is not known."""

PodLookup = Callable[[bytes, bytes], bytes | None]
"""Returns the rendered labels of a pod of a namespace, or None while the pod is not known."""


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The settings that decide the stream of a line.

    `external` labels are on each stream. `tenants` maps a value of `tenant_label` to its tenant; a
    value that it does not name is the tenant itself. With `accounts`, a tenant is
    `account:project`, as VictoriaLogs wants it.
    """

    labels: tuple[str, ...] = ALWAYS_KNOWN
    external: Pairs = ()
    tenant_label: str | None = None
    tenants: Mapping[str, str] = field(default_factory=dict)
    default_tenant: str | None = None
    accounts: bool = False


@dataclass(frozen=True, slots=True)
class Rendering:
    """The rendered labels of a container's namespace and pod, each pair with a leading comma."""

    namespace: bytes
    pod: bytes = b""


@dataclass(frozen=True, slots=True)
class Stream:
    """Labels and structured metadata of lines, each a JSON object, and the tenant to send them as.

    `metadata` is empty if there is none.
    """

    labels: bytes
    metadata: bytes
    tenant: str | None


class StreamLabels:
    """Makes the streams of lines.

    `unknown` is the rendering for a namespace that does not exist. A label that Loki would refuse
    for its number or its length becomes structured metadata instead, so that no line is refused for
    the labels of its namespace. `external` labels and `--stream-label` go before the labels of
    rules. A label of a `*` rule with a name of `OWN_NAMES` or of the pod's labels is left out.
    """

    def __init__(
        self,
        options: StreamOptions,
        namespaces: Lookup,
        *,
        unknown: bytes = b"",
        pods: PodLookup | None = None,
    ) -> None:
        self._options = options
        self._namespaces = namespaces
        self._unknown = unknown
        self._pods = pods
        self._parsed: BoundedCache[bytes, Pairs] = BoundedCache(
            _CACHE_ENTRIES, size=_CACHE_BYTES, weigh=_weigh
        )

    def __repr__(self) -> str:
        return f"<StreamLabels {', '.join(self._options.labels)}, {len(self._parsed)} renderings>"

    def find(self, container: Container) -> Rendering | None:
        """The present labels of a container. None while its namespace or pod is not known."""
        namespace = container.namespace.encode(errors="replace")
        labels = self._namespaces(namespace)
        if labels is None:
            return None
        if self._pods is None:
            return Rendering(labels)
        pod = self._pods(namespace, container.pod.encode(errors="replace"))
        return None if pod is None else Rendering(labels, pod)

    def assumed(self, container: Container) -> Rendering:
        """The labels of a container whose namespace or pod does not exist: those that are known."""
        namespace = container.namespace.encode(errors="replace")
        labels = self._namespaces(namespace)
        pod = self._pods and self._pods(namespace, container.pod.encode(errors="replace"))
        return Rendering(self._unknown if labels is None else labels, pod or b"")

    def stream(
        self, container: Container, instance: int, stream: str, rendering: Rendering
    ) -> Stream:
        """The stream of the lines that one instance of a container wrote to `stream`."""
        options = self._options
        pod = dict(self._pairs(rendering.pod))
        values = {
            **pod,
            "namespace": container.namespace,
            "container": container.name,
            "stream": stream,
            "pod": container.pod,
            "node": container.node,
            "instance": "" if instance == NO_INSTANCE else str(instance),
        }
        chosen = [(name, values[name]) for name in options.labels if name in values]
        chosen += [pair for pair in self._pairs(rendering.namespace) if pair[0] not in values]
        labels = dict(options.external)
        metadata: dict[str, str] = {}
        for name, value in chosen:
            if not value or name in labels or name in metadata:
                continue
            fits = (
                len(labels) < MAX_STREAM_LABELS and len(value.encode(errors="replace")) <= MAX_VALUE
            )
            (labels if fits else metadata)[name] = value
        for name in (*OWN_NAMES, *pod):
            if values[name] and name not in labels:
                metadata.setdefault(name, values[name])
        encode = msgspec.json.encode
        return Stream(encode(labels), encode(metadata) if metadata else b"", self._tenant(labels))

    def _tenant(self, labels: Mapping[str, str]) -> str | None:
        options = self._options
        value = labels.get(options.tenant_label) if options.tenant_label else None
        if value is not None:
            tenant = options.tenants.get(value, value)
            if _is_tenant(tenant, accounts=options.accounts):
                return tenant
        return options.default_tenant

    def _pairs(self, rendered: bytes) -> Pairs:
        if not rendered:
            return ()
        pairs = self._parsed.get(rendered)
        if pairs is None:
            pairs = tuple(
                (pair["name"].decode(), unquote(pair["value"]).decode(errors="replace"))
                for pair in PAIR.finditer(rendered)
            )
            self._parsed.put(rendered, pairs)
        return pairs


def _weigh(rendered: bytes, pairs: Pairs) -> int:
    return 400 + len(rendered) + sum(200 + 4 * len(name) + 4 * len(value) for name, value in pairs)


def _is_tenant(tenant: str, *, accounts: bool) -> bool:
    """Whether the endpoint takes this tenant."""
    if accounts:
        return is_account(tenant)
    return is_tenant(tenant)
