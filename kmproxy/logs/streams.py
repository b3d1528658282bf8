"""The stream of a line: its labels, its structured metadata and its tenant.

Knows the names that Loki accepts and its limits, and which labels come from the namespace, the pod
and the container. Must not know batches, requests or the source of labels: two look-ups give the
rendered bytes of a namespace and of a pod.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from kmproxy.bounded_cache import BoundedCache
from kmproxy.config.label_rules import WILDCARD, LabelRule
from kmproxy.exposition.grammar import PAIR, unquote
from kmproxy.logs.lines import Container

DEFAULT_LABELS: Final = ("namespace", "container", "stream")
"""The stream labels without `--stream-label`."""

OF_LINES: Final = (*DEFAULT_LABELS, "pod", "node", "instance")
"""The names that each line has a value for. `instance` is never a stream label: each restart of a
container would make another stream."""

OF_PODS: Final = ("workload", "workload_type", "app")
"""The names of labels that come from pods."""

CHOICES: Final = (*DEFAULT_LABELS, "pod", "node", *OF_PODS)
"""The names that `--stream-label` takes."""

MAX_LABELS: Final = 15
"""Labels of a stream that Loki takes by default. It refuses a line with more."""

MAX_VALUE: Final = 2048
"""Bytes of a stream label's value that Loki takes by default."""

MAX_TENANT: Final = 150

_CACHE_ENTRIES: Final = 8192
_CACHE_BYTES: Final = 4 << 20

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_TENANT = re.compile(r"[a-zA-Z0-9!_.*'()-]+", re.ASCII)
_ACCOUNT = re.compile(r"([0-9]{1,10})(?::([0-9]{1,10}))?", re.ASCII)
_UINT32 = 1 << 32

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

    labels: tuple[str, ...] = DEFAULT_LABELS
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
    rules. A label of a `*` rule with a name of `OF_LINES` or of the pod's labels is left out.
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
            "instance": str(instance),
        }
        chosen = [(name, values[name]) for name in options.labels if name in values]
        chosen += [pair for pair in self._pairs(rendering.namespace) if pair[0] not in values]
        labels = dict(options.external)
        metadata: dict[str, str] = {}
        for name, value in chosen:
            if not value or name in labels or name in metadata:
                continue
            fits = len(labels) < MAX_LABELS and len(value.encode(errors="replace")) <= MAX_VALUE
            (labels if fits else metadata)[name] = value
        for name in (*OF_LINES, *pod):
            if values[name] and name not in labels:
                metadata.setdefault(name, values[name])
        encode = msgspec.json.encode
        return Stream(encode(labels), encode(metadata) if metadata else b"", self._tenant(labels))

    def _tenant(self, labels: Mapping[str, str]) -> str | None:
        options = self._options
        value = labels.get(options.tenant_label) if options.tenant_label else None
        if value is not None:
            tenant = options.tenants.get(value, value)
            if tenant_problem(tenant, accounts=options.accounts) is None:
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


def tenant_problem(tenant: str, *, accounts: bool) -> str | None:
    """Returns why a tenant cannot be sent, or None if it can."""
    if accounts:
        match = _ACCOUNT.fullmatch(tenant)
        if match and all(int(number or "0") < _UINT32 for number in match.groups()):
            return None
        return "VictoriaLogs takes account:project, two numbers, such as 12:0"
    if tenant in {".", ".."} or len(tenant) > MAX_TENANT or not _TENANT.fullmatch(tenant):
        return f"Loki takes letters, digits and !-_.*'() only, at most {MAX_TENANT} of them"
    return None


def stream_problems(
    options: StreamOptions, rules: Sequence[LabelRule], of_pods: Iterable[str] = ()
) -> list[str]:
    """Returns a line for each problem of the settings of streams and tenants.

    `of_pods` are the names of the labels that the configuration adds from pods.
    """
    of_pods = tuple(of_pods)
    given = options.labels != DEFAULT_LABELS
    problems = []
    sources = [
        *(
            (name, f"--stream-label {name}" if given else "a stream label")
            for name in options.labels
        ),
        *((name, f"the label rule for {name!r}") for name in _rule_names(rules)),
        *((name, f"--external-label {name}") for name, _ in options.external),
    ]
    taken: dict[str, str] = {}
    for name, source in sources:
        if problem := _name_problem(name):
            problems.append(f"{source}: {problem}")
        if name in taken:
            problems.append(f"{source}: the label is already made by {taken[name]}")
        taken.setdefault(name, source)
    for name in options.labels:
        if name not in CHOICES and name not in of_pods:
            why = f"it is not one of {', '.join(CHOICES)}; other labels come by --label"
            problems.append(f"--stream-label {name}: {why}")
        elif name in OF_PODS and name not in of_pods:
            problems.append(f"--stream-label {name}: no setting makes this label of pods")
    problems += [
        f"the label rule for {name!r}: each line has another value of this name"
        for name in _rule_names(rules)
        if name not in options.labels and (name in OF_LINES or name in of_pods)
    ]
    for name, value in options.external:
        if not 1 <= len(value.encode(errors="replace")) <= MAX_VALUE:
            why = f"its value has to have 1 to {MAX_VALUE} bytes"
            problems.append(f"--external-label {name}: {why}")
    if len(taken) > MAX_LABELS:
        names = ", ".join(taken)
        problems.append(f"{len(taken)} stream labels, and Loki takes {MAX_LABELS}: {names}")
    wildcard = any(rule.key == WILDCARD for rule in rules)
    return problems + _tenant_problems(options, taken, wildcard=wildcard)


def _rule_names(rules: Sequence[LabelRule]) -> Iterable[str]:
    """The names of the labels of rules. A rule and a default of the same name make one label."""
    return dict.fromkeys(rule.name for rule in rules if rule.name)


def _tenant_problems(options: StreamOptions, labels: Iterable[str], *, wildcard: bool) -> list[str]:
    problems = []
    label = options.tenant_label
    if label is None and options.tenants:
        problems.append("tenants: they are chosen by a label: give --tenant-label")
    if label is not None and label not in labels and not (wildcard and _NAME.fullmatch(label)):
        problems.append(f"--tenant-label {label}: it is not a label of the streams")
    given = [(f"tenants.{value}", tenant) for value, tenant in options.tenants.items()]
    if options.default_tenant is not None:
        given.append(("--default-tenant", options.default_tenant))
    for where, tenant in given:
        if problem := tenant_problem(tenant, accounts=options.accounts):
            problems.append(f"{where}: {tenant[:80]!r}: {problem}")
    return problems


def _name_problem(name: str) -> str | None:
    if not _NAME.fullmatch(name):
        return "it is not a label name of Loki: [a-zA-Z_][a-zA-Z0-9_]*"
    if name.startswith("__"):
        return "it begins with two underscores, which Loki keeps for itself"
    return None
