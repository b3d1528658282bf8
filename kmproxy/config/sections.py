"""The configuration: every setting once, with its flag, YAML key, help and default.

Knows names, types and defaults, in frozen sections. Must not know where values
come from, or which values contradict each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kmproxy.config.pod_labels import PodConfig
from kmproxy.config.samples import LabelConfig, SelectionConfig
from kmproxy.config.settings import setting
from kmproxy.config.types import (
    Address,
    Resource,
    duration_up_to,
    one_of,
    parse_address,
    parse_bool,
    parse_count,
    parse_duration,
    parse_file,
    parse_host,
    parse_path,
    parse_peers,
    parse_port,
    parse_resource,
    parse_server,
    parse_text,
    parse_word,
)

if TYPE_CHECKING:
    from kmproxy.config.http_options import Access
    from kmproxy.config.upstreams import UpstreamConfig

LOCALHOST: Final = "localhost"

MAX_SHARED: Final = 60.0
"""Seconds for which a read may be shared, at most.

A scrape interval is seldom longer. If a read were shared for longer than the interval, a scraper
would get the same samples again instead of new ones.
"""


@dataclass(frozen=True, slots=True)
class KubeletConfig:
    """Which kubelets are asked, and how they are reached and verified."""

    node: str = setting(
        "node-name-or-ip", parse_host, LOCALHOST, "HOST",
        "the node of /metrics...; with --all-nodes, localhost means no node",
        aliases={"node-ip": "{}"},
    )  # fmt: skip
    port: int | None = setting(
        "node-port", parse_port, None, "PORT",
        "the kubelet's port (10250); with --kube-apiserver, the API server's (443)",
    )  # fmt: skip
    apiserver: str | None = setting(
        "kube-apiserver", parse_server, None, "HOST[:PORT]|URL",
        "fetch through the API server's node proxy instead of the kubelet",
    )  # fmt: skip
    all_nodes: bool = setting(
        "all-nodes", parse_bool, False, "",
        "also serve every node of the cluster by name: /api/v1/nodes/{node}/proxy/metrics...",
    )  # fmt: skip
    cadvisor_path: str = setting(
        "node-cadvisor-path", parse_path, "/metrics/cadvisor", "PATH",
        "path of the cAdvisor metrics on the kubelet",
    )  # fmt: skip
    scheme: str = setting(
        "kubelet-scheme", one_of("https", "http"), "https", "https|http",
        "http is for the read-only port; kmproxy sends no credential over http",
    )  # fmt: skip
    insecure_tls: bool = setting(
        "kubelet-insecure-tls", parse_bool, False, "",
        "do not verify the kubelet's serving certificate",
    )  # fmt: skip
    ca_file: str | None = setting(
        "kubelet-ca-file", parse_text, None, "FILE",
        "CA that verifies the kubelet's certificate, instead of the cluster's CA",
    )  # fmt: skip
    server_name: str | None = setting(
        "kubelet-server-name", parse_host, None, "NAME",
        "name that the kubelet's certificate must have, instead of the address",
    )  # fmt: skip
    tls_pin: bool = setting(
        "kubelet-tls-pin", parse_bool, False, "",
        "accept a kubelet's certificate that no CA verifies if this kubelet showed no other one "
        "before",
    )  # fmt: skip
    max_response_bytes: int = setting(
        "max-response-bytes", parse_count, 512 << 20, "N",
        "a scrape fails if the kubelet's answer, decompressed, is larger",
    )  # fmt: skip
    share_reads: float | None = setting(
        "share-reads", duration_up_to(MAX_SHARED), None, "DURATION",
        "how long one read of a kubelet's cAdvisor or resource metrics serves all scrapes: less "
        "than the scrape interval, more than half of it",
    )  # fmt: skip
    share_reads_max_bytes: int = setting(
        "share-reads-max-bytes", parse_count, 16 << 20, "N",
        "memory for the reads that scrapes share, of all nodes together, compressed as received",
    )  # fmt: skip

    @property
    def has_node(self) -> bool:
        """Whether a configured node exists, for the paths that name no node.

        With --all-nodes, kmproxy runs in a pod of its own, whose localhost has no kubelet.
        """
        return not self.all_nodes or self.node != LOCALHOST

    @property
    def kubelet_port(self) -> int:
        """The port of a kubelet whose Node object names no port."""
        return self.port if self.port and not self.apiserver else 10250


@dataclass(frozen=True, slots=True)
class ApiServerConfig:
    """The API server that lists the namespaces, the identity for it, and the age of labels."""

    kubeconfig: str | None = setting(
        "kubeconfig", parse_text, None, "FILE",
        "the API server and the identity (in a pod its service account, "
        "else $KUBECONFIG, else ~/.kube/config)",
    )  # fmt: skip
    service_account_dir: str = setting(
        "service-account-dir", parse_text,
        "/var/run/secrets/kubernetes.io/serviceaccount", "DIR",
        "directory of a pod's token and ca.crt",
    )  # fmt: skip
    cache_sync_timeout: float = setting(
        "cache-sync-timeout", parse_duration, 30.0, "DURATION",
        "how long the first load of namespaces may take",
    )  # fmt: skip
    max_label_age: float | None = setting(
        "max-label-age", parse_duration, None, "DURATION",
        "not ready if the API server's last confirmation of the labels is older, while one of "
        "--peers has newer labels",
    )  # fmt: skip
    peers: Address | None = setting(
        "peers", parse_peers, None, "HOST:PORT",
        "the --telemetry-listen of all replicas, under one name such as a headless Service's",
    )  # fmt: skip
    label_snapshot: str | None = setting(
        "label-snapshot", parse_file, None, "FILE",
        "file that keeps the labels, for a start while the API server is away",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The addresses that kmproxy listens on, their TLS, and the limits of scrapes."""

    listen: Address = setting(
        "listen", parse_address, Address("", 8080), "ADDR:PORT",
        "the enriched metrics", aliases={"metrics-port": ":{}"},
    )  # fmt: skip
    telemetry_listen: Address = setting(
        "telemetry-listen", parse_address, Address("", 8081), "ADDR:PORT",
        "/healthz, /readyz and kmproxy's own /metrics",
        aliases={"health-probe-bind-address": "{}"},
    )  # fmt: skip
    web_config_file: str | None = setting(
        "web-config-file", parse_text, None, "FILE",
        "TLS, client certificates and passwords of --listen, in the Prometheus exporters' format",
        aliases={"web.config.file": "{}"},
    )  # fmt: skip
    metrics_cert_path: str | None = setting(
        "metrics-cert-path", parse_text, None, "DIR",
        "serve --listen over TLS, with the certificate and key in this directory",
    )  # fmt: skip
    metrics_cert_name: str = setting(
        "metrics-cert-name", parse_text, "tls.crt", "NAME",
        "file name of the certificate in --metrics-cert-path",
    )  # fmt: skip
    metrics_cert_key: str = setting(
        "metrics-cert-key", parse_text, "tls.key", "NAME",
        "file name of its key in --metrics-cert-path",
    )  # fmt: skip
    metrics_secure: bool | None = setting(
        "metrics-secure", parse_bool, None, "",
        "false: plain HTTP in spite of --metrics-cert-path; true needs --metrics-cert-path",
    )  # fmt: skip
    max_concurrency: int = setting(
        "max-concurrency", parse_count, 5, "N",
        "requests to kubelets that run at the same time",
    )  # fmt: skip
    max_scrape_time: float = setting(
        "max-scrape-time", parse_duration, 120.0, "DURATION",
        "how long a scrape may take, even if its scraper allows more",
    )  # fmt: skip
    enable_http2: bool = setting(
        "enable-http2", parse_bool, False, "",
        "must be false: Prometheus scrapes over HTTP/1.1",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DiscoveryConfig:
    """Whether pods are served as scrape targets, which pods, and how old they may be."""

    enabled: bool = setting(
        "discovery", parse_bool, False, "",
        "serve the node's pods as scrape targets: /sd/pods; with --all-nodes also /sd/nodes",
    )  # fmt: skip
    namespace: tuple[str, ...] = setting(
        "discovery-namespace", parse_word, (), "NAME",
        "serve only pods of these namespaces (globs)", repeatable=True,
    )  # fmt: skip
    refresh_interval: float = setting(
        "discovery-refresh-interval", parse_duration, 5.0, "DURATION",
        "shortest time between two requests for a kubelet's pods",
    )  # fmt: skip
    max_age: float = setting(
        "discovery-max-age", parse_duration, 300.0, "DURATION",
        "how long kmproxy serves the last pods while the kubelet fails",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class AuthorizationConfig:
    """Which callers may scrape."""

    mode: str = setting(
        "authorization", one_of("none", "kubernetes", "tenant"), "none", "none|kubernetes|tenant",
        "which callers may scrape: all; with kubernetes, those that the API server allows; with "
        "tenant, each sees the samples of its own namespaces",
    )  # fmt: skip
    audience: tuple[str, ...] = setting(
        "authorization-audience", parse_text, (), "AUDIENCE",
        "accept tokens for one of these audiences only, instead of the API server's",
        repeatable=True,
    )  # fmt: skip
    tenant_resource: Resource = setting(
        "tenant-resource", parse_resource, Resource("pods", "metrics", "metrics.k8s.io"),
        "RESOURCE[/SUBRESOURCE][.GROUP]",
        "with --authorization=tenant: what a caller must be allowed to get in a namespace",
    )  # fmt: skip
    attributes: str = setting(
        "authorization-attributes", one_of("path", "nodes/metrics"), "path", "path|nodes/metrics",
        "with --authorization=kubernetes: what a caller must be allowed to get: the path, as a "
        "non-resource URL, or the resource",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LimitConfig:
    """The limits for the clients of each of the two ports."""

    max_connections: int = setting(
        "max-connections", parse_count, 128, "N",
        "open connections on each port; at the limit, one of an unknown caller is closed first",
    )  # fmt: skip
    max_header_bytes: int = setting(
        "max-header-bytes", parse_count, 16384, "N",
        "longest head of a request: its request line and at most 64 headers together",
    )  # fmt: skip
    header_timeout: float = setting(
        "header-timeout", parse_duration, 10.0, "DURATION",
        "how long a TLS handshake may take, and how long the head of a request",
    )  # fmt: skip
    idle_timeout: float = setting(
        "idle-timeout", parse_duration, 120.0, "DURATION",
        "how long a connection stays open between two requests",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LogConfig:
    """The level and the format of the log."""

    level: str = setting(
        "log-level", one_of("debug", "info", "warning", "error"), "info",
        "LEVEL", "debug, info, warning or error",
    )  # fmt: skip
    format: str = setting(
        "log-format", one_of("text", "json"), "text", "text|json",
        "one line of text or one JSON object per record",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration. A class receives its section, never the whole.

    `access` is the `kubelet` section of the YAML file, or None without such a section. `upstreams`
    is the section of that name.
    """

    labels: LabelConfig = field(default_factory=LabelConfig)
    pods: PodConfig = field(default_factory=PodConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    kubelet: KubeletConfig = field(default_factory=KubeletConfig)
    apiserver: ApiServerConfig = field(default_factory=ApiServerConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    discovery: DiscoveryConfig = field(default_factory=DiscoveryConfig)
    authorization: AuthorizationConfig = field(default_factory=AuthorizationConfig)
    limits: LimitConfig = field(default_factory=LimitConfig)
    log: LogConfig = field(default_factory=LogConfig)
    access: Access | None = None
    upstreams: tuple[UpstreamConfig, ...] = ()


ACCESS_KEY: Final = "kubelet"
"""The key of a YAML file whose value is the section `Config.access` instead of a setting."""

UPSTREAMS_KEY: Final = "upstreams"
"""The key of a YAML file whose value is `Config.upstreams` instead of a setting."""

SECTIONS: Final[Mapping[str, type[Any]]] = {
    "labels": LabelConfig,
    "pods": PodConfig,
    "selection": SelectionConfig,
    "kubelet": KubeletConfig,
    "apiserver": ApiServerConfig,
    "server": ServerConfig,
    "discovery": DiscoveryConfig,
    "authorization": AuthorizationConfig,
    "limits": LimitConfig,
    "log": LogConfig,
}
"""The sections of `Config`, in order."""
