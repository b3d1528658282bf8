"""The settings of `kmproxy logs`, and which of them make no sense together.

Knows names, types, defaults and contradictions. Must not know where a value was written, how a log
is read, or how lines are sent. A problem never shows a URL, because its query may hold a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from kmproxy.config.label_rules import WILDCARD, name_problem
from kmproxy.config.pod_labels import PodConfig
from kmproxy.config.sections import (
    ApiServerConfig,
    Config,
    KubeletConfig,
    LabelConfig,
    LimitConfig,
    LogConfig,
)
from kmproxy.config.settings import setting, settings
from kmproxy.config.types import (
    Address,
    one_of,
    parse_address,
    parse_duration,
    parse_file,
    parse_host,
    parse_text,
    parse_word,
    shown_key,
)

if TYPE_CHECKING:
    from kmproxy.config.http_options import Access

OF_LINES: Final = ("namespace", "container", "stream", "pod", "node")
"""The names that --stream-label always knows. It knows those of labels of pods, too. The label
rules' names are always labels of streams."""

ALWAYS_KNOWN: Final = ("namespace", "container", "stream")
"""The labels of a stream without --stream-label, besides those of the label rules."""

OWN_NAMES: Final = frozenset((*OF_LINES, "instance"))
"""The names that kmproxy gives to labels and structured metadata."""

NO_URL: Final = "--loki-url is missing: a push endpoint, such as http://HOST:PORT/loki/api/v1/push"

MAX_STREAM_LABELS: Final = 15
"""Labels of a stream. Loki refuses more, unless its `max_label_names_per_series` was raised."""

USUAL_PATH: Final = "/loki/api/v1/push"

_SIZE = re.compile(r"([0-9]{1,18})(B|[KMG]i?B)?", re.ASCII)
_FACTORS: Final[Mapping[str, int]] = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
}  # fmt: skip
_SHARD = re.compile(r"([0-9]{1,4})/([0-9]{1,4})", re.ASCII)
_URL_TEXT = re.compile(r"[!-\[\]-~]+")  # printable ASCII without a blank and a backslash
_TENANT = re.compile(r"[a-zA-Z0-9!_.*'()-]{1,150}", re.ASCII)
_ACCOUNT = re.compile(r"([0-9]{1,10})(?::([0-9]{1,10}))?", re.ASCII)
_TENANT_HEADER = "x-scope-orgid"


class Size(int):
    """A number of bytes. Its text has the largest unit that divides it."""

    def __str__(self) -> str:
        for unit in ("GiB", "MiB", "KiB"):
            if self and self % _FACTORS[unit] == 0:
                return f"{int(self) // _FACTORS[unit]}{unit}"
        return str(int(self))


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `of` processes that share the pods. `number` counts from 0."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse_size(text: str) -> Size:
    """Reads a number of bytes, more than 0, with or without a unit such as KiB or MB."""
    match = _SIZE.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{text[:40]!r} is not a size such as 1048576, 512KiB or 16MiB")
    return Size(int(match[1]) * _FACTORS[match[2] or "B"])


def size_between(least: int, most: int) -> Callable[[str], Size]:
    """Returns a parser of sizes within these bounds."""

    def parse(text: str) -> Size:
        size = parse_size(text)
        if not least <= size <= most:
            raise ValueError(f"{text!r} is not between {Size(least)} and {Size(most)}")
        return size

    return parse


def parse_shard(text: str) -> Shard:
    """Reads I/N: this process is number I, counted from 0, of N processes."""
    match = _SHARD.fullmatch(text)
    if match is None or not int(match[1]) < int(match[2]):
        raise ValueError(f"{text[:40]!r} is not I/N with I less than N, such as 0/3")
    return Shard(int(match[1]), int(match[2]))


def parse_push_url(text: str) -> str:
    """Reads the URL of a push endpoint. Raises ValueError without the URL."""
    problem = f"it is not a URL such as http://loki-gateway.monitoring.svc{USUAL_PATH}"
    if not _URL_TEXT.fullmatch(text):
        raise ValueError(problem)
    try:
        parts = urlsplit(text)
        port = parts.port
        parse_host(parts.hostname or "")
    except ValueError:
        raise ValueError(problem) from None
    if parts.scheme not in {"http", "https"} or port == 0 or "%" in parts.netloc:
        raise ValueError(problem)
    if "@" in parts.netloc:
        raise ValueError("a user or password has no place in a URL: see loki.basic_auth")
    if "#" in text:
        raise ValueError("a fragment (#) has no place in it")
    if parts.path in {"", "/"}:
        raise ValueError(f"it has no path: the usual path of a push endpoint is {USUAL_PATH}")
    return parts._replace(netloc=parts.netloc.lower()).geturl()


def parse_tenant(text: str) -> str:
    """Reads a tenant as Loki accepts it, or as VictoriaLogs does."""
    if is_account(text):
        return text
    if not _TENANT.fullmatch(text) or text in {".", ".."}:
        raise ValueError(f"{text[:60]!r} is no tenant: at most 150 of a-z A-Z 0-9 ! _ . * ' ( ) -")
    return text


def parse_external_label(text: str) -> tuple[str, str]:
    """Reads NAME=VALUE, a label of every stream."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text[:80]!r} is not NAME=VALUE")
    if name in ALWAYS_KNOWN:
        raise ValueError(f"{name!r} is a label that kmproxy makes")
    if problem := name_problem(name):
        raise ValueError(problem)
    return name, parse_text(value)


def parse_stream_label(text: str) -> str:
    """Reads the name of a label. Which names there are depends on other settings."""
    if problem := None if text == "namespace" else name_problem(text[:80]):
        raise ValueError(problem)
    return text


def is_account(tenant: str) -> bool:
    """Tells whether VictoriaLogs takes this tenant: ACCOUNT or ACCOUNT:PROJECT, as numbers."""
    match = _ACCOUNT.fullmatch(tenant)
    return match is not None and all(int(part or 0) < 1 << 32 for part in match.groups())


@dataclass(frozen=True, slots=True)
class LogsConfig:
    """Which logs are read, where their lines are sent, and with which labels."""

    loki_url: str | None = setting(
        "loki-url", parse_push_url, None, "URL",
        f"the push endpoint, such as http://HOST:PORT{USUAL_PATH}; needed",
    )  # fmt: skip
    source: str = setting(
        "source", one_of("files", "api"), "files", "files|api",
        "the log files of the node's kubelet, or the API server's pods/log",
    )  # fmt: skip
    namespace: tuple[str, ...] = setting(
        "namespace", parse_word, (), "GLOB",
        "only logs of these namespaces", repeatable=True,
    )  # fmt: skip
    exclude_namespace: tuple[str, ...] = setting(
        "exclude-namespace", parse_word, (), "GLOB",
        "no logs of these namespaces", repeatable=True,
    )  # fmt: skip
    container: tuple[str, ...] = setting(
        "container", parse_word, (), "GLOB",
        "only logs of containers with these names", repeatable=True,
    )  # fmt: skip
    exclude_container: tuple[str, ...] = setting(
        "exclude-container", parse_word, (), "GLOB",
        "no logs of containers with these names", repeatable=True,
    )  # fmt: skip
    stream_label: tuple[str, ...] = setting(
        "stream-label", parse_stream_label, ALWAYS_KNOWN, "NAME",
        "the labels of streams besides those of --label: namespace, container, stream, pod, node, "
        "and with --workload workload and workload_type, or a name of --pod-label, such as app",
        repeatable=True,
    )  # fmt: skip
    external_label: tuple[tuple[str, str], ...] = setting(
        "external-label", parse_external_label, (), "NAME=VALUE",
        "a label of every stream", repeatable=True,
    )  # fmt: skip
    tenant_label: str | None = setting(
        "tenant-label", parse_word, None, "NAME",
        "the label of a stream whose value is its tenant (X-Scope-OrgID)",
    )  # fmt: skip
    default_tenant: str | None = setting(
        "default-tenant", parse_tenant, None, "TENANT",
        "the tenant of other streams",
    )  # fmt: skip
    positions: str = setting(
        "positions", parse_file, "/var/lib/kmproxy/positions.json", "FILE",
        "where reading goes on after a restart",
    )  # fmt: skip
    positions_damaged: str = setting(
        "positions-damaged", one_of("stop", "begin"), "stop", "stop|begin",
        "if --positions is damaged or another user's: end with an error, or begin anew, which may "
        "send lines again",
    )  # fmt: skip
    max_age: float = setting(
        "max-age", parse_duration, 86400.0, "DURATION",
        "older lines of containers seen for the first time are not sent",
    )  # fmt: skip
    batch_bytes: int = setting(
        "batch-bytes", size_between(1 << 10, 64 << 20), Size(1 << 20), "SIZE",
        "a push is sent when it has so many bytes, before compression",
    )  # fmt: skip
    batch_wait: float = setting(
        "batch-wait", parse_duration, 1.0, "DURATION",
        "a push is sent when its oldest line has waited so long",
    )  # fmt: skip
    max_buffer_bytes: int = setting(
        "max-buffer-bytes", size_between(1 << 20, 4 << 30), Size(16 << 20), "SIZE",
        "lines held in memory, all streams together; beyond it reading waits",
    )  # fmt: skip
    max_line_bytes: int = setting(
        "max-line-bytes", size_between(64, 64 << 20), Size(256 << 10), "SIZE",
        "a longer line is cut there, and counted",
    )  # fmt: skip
    shard: Shard = setting(
        "shard", parse_shard, Shard(0, 1), "I/N",
        "this process reads the pods whose UID hashes to I, of 0 to N-1",
    )  # fmt: skip
    listen: Address = setting(
        "listen", parse_address, Address("127.0.0.1", 8080), "ADDR:PORT",
        "a status page, and /targets as JSON",
    )  # fmt: skip
    telemetry_listen: Address = setting(
        "telemetry-listen", parse_address, Address("", 8081), "ADDR:PORT",
        "/healthz, /readyz and kmproxy's own /metrics",
        aliases={"health-probe-bind-address": "{}"},
    )  # fmt: skip
    web_config_file: str | None = setting(
        "web-config-file", parse_text, None, "FILE",
        "TLS, client certificates and basic auth on --listen, in the exporters' common format",
        aliases={"web.config.file": "{}"},
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LogsCommand:
    """Everything that configures `kmproxy logs`.

    `config` holds the sections that it shares with the daemon, with the addresses of `logs`.
    `loki` is the HTTP client of the push endpoint, None without such a section. `tenants` maps
    values of --tenant-label to tenants.
    """

    logs: LogsConfig = field(default_factory=LogsConfig)
    config: Config = field(default_factory=Config)
    loki: Access | None = None
    tenants: Mapping[str, str] = field(default_factory=dict)


LOKI_KEY: Final = "loki"
"""The key of a YAML file whose value is `LogsCommand.loki` instead of a setting."""

TENANTS_KEY: Final = "tenants"
"""The key of a YAML file whose value is `LogsCommand.tenants` instead of a setting."""

LOGS_SECTIONS: Final[Mapping[str, type[Any]]] = {
    "logs": LogsConfig,
    "labels": LabelConfig,
    "pods": PodConfig,
    "kubelet": KubeletConfig,
    "apiserver": ApiServerConfig,
    "limits": LimitConfig,
    "log": LogConfig,
}
"""The sections of `kmproxy logs`, in order. Those but the first are sections of the daemon."""

NOT_OF_LOGS: Final = frozenset(
    {
        "on-conflict", "all-nodes", "node-cadvisor-path", "max-response-bytes", "share-reads",
        "share-reads-max-bytes", "max-label-age", "peers", "unknown-pod",
    }
)  # fmt: skip
"""Settings in these sections that only the daemon has: they are about metrics or replicas."""


def read_tenants(document: Any, path: str) -> tuple[dict[str, str], list[str]]:
    """Reads the section at `path`. Returns it with a line for each problem."""
    if not isinstance(document, Mapping):
        return {}, [f"{path}: a mapping from values of --tenant-label to tenants is expected"]
    tenants, problems = {}, []
    for value, tenant in document.items():
        shown = f"{path}.{shown_key(value)}"
        if not isinstance(value, str) or not isinstance(tenant, str):
            problems.append(f"{shown}: one text is expected; put both in quotes")
            continue
        try:
            tenants[value] = parse_tenant(tenant)
        except ValueError as error:
            problems.append(f"{shown}: {error}")
    return tenants, problems


def logs_contradictions(given: LogsCommand) -> tuple[list[str], list[str]]:
    """Returns problems and warnings about values that make no sense together."""
    logs = given.logs
    problems = [*_endpoint_problems(given), *_label_problems(given), *_tenant_problems(given)]
    if logs.source == "api":
        problems += _kubelet_problems(given.config)
    if logs.batch_bytes > logs.max_buffer_bytes:
        problems.append("--batch-bytes is more than --max-buffer-bytes")
    if logs.max_line_bytes > logs.batch_bytes:
        problems.append("--max-line-bytes is more than --batch-bytes")
    warnings = []
    if given.config.kubelet.scheme == "http" and logs.source == "files":
        problems.append("--kubelet-scheme=http: the read-only port serves no logs; leave it out")
    if given.tenants and logs.tenant_label is None:
        warnings.append(f"{TENANTS_KEY} has no effect without --tenant-label")
    return problems, warnings


def _endpoint_problems(given: LogsCommand) -> list[str]:
    """Returns a line for each key of `loki` that makes no sense beside the URL."""
    url, access = given.logs.loki_url, given.loki
    problems: list[str] = []
    if access is None or url is None:
        return problems
    if access.follow_redirects:
        why = "no redirect of a push is followed: write the URL that it leads to"
        problems.append(f"{LOKI_KEY}.follow_redirects: {why}")
    if url.startswith("http:"):
        if access.identifies or access.headers:
            why = "no credential and none of http_headers is sent over plain http"
            problems.append(f"--loki-url: {why}: write an https URL, or leave them out")
        if access.tls != type(access.tls)():
            problems.append(f"{LOKI_KEY}.tls_config: plain http has no certificate to verify")
    return problems


def _label_problems(given: LogsCommand) -> list[str]:
    """Returns a line for each label of streams that stands twice, and for too many labels."""
    logs, rules, pods = given.logs, given.config.labels.rules, given.config.pods
    own = "a label or metadata that kmproxy makes"
    problems = [
        f"--label: the label {rule.name!r} is {own}: write --label {rule.key}=NAME"
        for rule in rules
        if rule.name in OWN_NAMES
    ]
    problems += [
        f"--pod-label: the label {name!r} is {own}: write KEY=NAME"
        for name in pods.names
        if name in OWN_NAMES
    ]
    taken = {rule.name: "made by a label rule" for rule in rules if rule.name}
    externals = dict.fromkeys(OWN_NAMES, own) | dict.fromkeys(pods.names, "a label of pods") | taken
    for name, _ in logs.external_label:
        if (other := externals.get(name)) is not None:
            problems.append(f"--external-label: {name!r} is {other}")
        externals[name] = taken[name] = "given twice"
    known = (*OF_LINES, *pods.names)
    problems += [
        f"--stream-label: {name!r} is not one of {', '.join(known)}; other labels come by --label, "
        "--workload and --pod-label"
        for name in logs.stream_label
        if name not in known
    ]
    problems += [
        f"--stream-label: {name!r} is given twice"
        for name in dict.fromkeys(logs.stream_label)
        if logs.stream_label.count(name) > 1
    ]
    names = {*logs.stream_label, *taken}
    if len(names) > MAX_STREAM_LABELS:
        what = f"{len(names)} labels of a stream, at most {MAX_STREAM_LABELS}"
        problems.append(f"--label, --annotation, --stream-label, --external-label: {what}")
    return problems


def _tenant_problems(given: LogsCommand) -> list[str]:
    """Returns a line for each tenant that cannot be one, and for a label that no stream has."""
    logs, rules = given.logs, given.config.labels.rules
    problems = []
    names = [*logs.stream_label, *(rule.name for rule in rules if rule.name)]
    names += [name for name, _ in logs.external_label]
    wildcard = any(rule.key == WILDCARD for rule in rules)
    if logs.tenant_label is not None and logs.tenant_label not in names and not wildcard:
        known = ", ".join(names)
        what = f"no stream has the label {logs.tenant_label[:60]!r} (they have {known})"
        problems.append(f"--tenant-label: {what}")
    path = urlsplit(logs.loki_url or "").path
    if path.startswith("/insert/"):
        wanted = "VictoriaLogs takes ACCOUNT or ACCOUNT:PROJECT, numbers below 2^32"
        if logs.default_tenant is not None and not is_account(logs.default_tenant):
            problems.append(f"--default-tenant: {wanted}")
        problems += [
            f"{TENANTS_KEY}.{shown_key(value)}: {wanted}"
            for value, tenant in given.tenants.items()
            if not is_account(tenant)
        ]
    if logs.tenant_label is None and logs.default_tenant is None:
        return problems
    if given.loki and any(name.lower() == _TENANT_HEADER for name, _ in given.loki.headers):
        problems.append(
            f"{LOKI_KEY}.http_headers: X-Scope-OrgID is set by --tenant-label, --default-tenant"
        )
    return problems


def only_node(config: Config) -> str | None:
    """Returns the name of the node whose pods --source=api reads, or None for all nodes."""
    node = config.kubelet.node
    return None if node == KubeletConfig().node else node


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _kubelet_problems(config: Config) -> list[str]:
    """Returns a line for each setting of kubelets: the API server's pods/log asks no kubelet."""
    why = "makes no sense beside --source=api, which asks no kubelet itself"
    blank = KubeletConfig()
    given = [
        f"--{spec.name}"
        for key, spec in settings(KubeletConfig).items()
        if key != "node" and getattr(config.kubelet, key) != getattr(blank, key)
    ]
    problems = [f"{', '.join(given)} {why}"] if given else []
    if _is_address(only_node(config) or ""):
        what = "an address, but --source=api selects the pods of a node by its name"
        problems.append(f"--node-name-or-ip: {what} (spec.nodeName)")
    if config.access is not None:
        problems.append(f"kubelet: the section {why}")
    return problems
