"""The settings of `kmproxy logs`.

Knows names, types and defaults. Must not know which values contradict each other, how a log is
read, or how lines are sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kmproxy.config.logs_values import (
    ALWAYS_KNOWN,
    USUAL_PATH,
    LeaseName,
    Shard,
    Size,
    parse_external_label,
    parse_lease,
    parse_push_url,
    parse_shard,
    parse_stream_label,
    parse_tenant,
    size_between,
)
from kmproxy.config.pod_labels import PodConfig
from kmproxy.config.samples import LabelConfig
from kmproxy.config.sections import (
    ApiServerConfig,
    Config,
    KubeletConfig,
    LimitConfig,
    LogConfig,
    ServerConfig,
)
from kmproxy.config.settings import same_setting, setting
from kmproxy.config.types import (
    Address,
    one_of,
    parse_address,
    parse_bool,
    parse_duration,
    parse_file,
    parse_word,
    shown_key,
)

if TYPE_CHECKING:
    from kmproxy.config.http_options import Access

OF_LINES: Final = ("namespace", "container", "stream", "pod", "node")
"""The names that --stream-label always knows. It knows those of labels of pods, too. The label
rules' names are always labels of streams."""

OWN_NAMES: Final = (*OF_LINES, "instance")
"""The names of labels and of structured metadata that each line has a value for. `instance` is
never a label of a stream: each restart of a container would make another stream."""


@dataclass(frozen=True, slots=True)
class LogsConfig:
    """Which logs are read, where their lines are sent, and with which labels."""

    loki_url: str | None = setting(
        "loki-url", parse_push_url, None, "URL",
        f"the push endpoint, such as http://HOST:PORT{USUAL_PATH}; needed",
    )  # fmt: skip
    source: str = setting(
        "source", one_of("files", "api", "none"), "files", "files|api|none",
        "the log files of the node's kubelet, the API server's pods/log, or no container's log",
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
        "if the file of --positions is damaged or belongs to another user: stop with an error, or "
        "read the logs from the beginning, which may send lines twice",
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
    events: bool = setting(
        "events", parse_bool, False, "",
        "also send the events of the cluster, from one process of all that have this flag",
    )  # fmt: skip
    events_lease: LeaseName = setting(
        "events-lease", parse_lease, LeaseName("kmproxy-logs-events"), "[NAMESPACE/]NAME",
        "the Lease by which the processes find the one that sends events, and that keeps their "
        "position; in the pod's own namespace unless another one is given",
    )  # fmt: skip
    listen: Address = setting(
        "listen", parse_address, Address("127.0.0.1", 8080), "ADDR:PORT",
        "a status page, and /targets as JSON",
    )  # fmt: skip
    telemetry_listen: Address = same_setting(ServerConfig, "telemetry_listen")
    web_config_file: str | None = same_setting(ServerConfig, "web_config_file")


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


def only_node(config: Config) -> str | None:
    """Returns the name of the node whose pods --source=api reads, or None for all nodes."""
    node = config.kubelet.node
    return None if node == KubeletConfig().node else node
