"""Values of settings that make no sense together, and values that have no effect beside others.

Knows the sections, each read by itself. Must not know where a value was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from kmproxy.config.expressions import MAX_EXPRESSIONS
from kmproxy.config.pod_labels import unused_pod_settings
from kmproxy.config.samples import SelectionConfig
from kmproxy.config.sections import (
    ACCESS_KEY,
    UPSTREAMS_KEY,
    AuthorizationConfig,
    Config,
    DiscoveryConfig,
    KubeletConfig,
    ServerConfig,
)
from kmproxy.config.settings import settings

if TYPE_CHECKING:
    from kmproxy.config.http_options import Access

_WITH_AUTHORIZATION: Final[Mapping[str, tuple[str, ...]]] = {
    "audience": ("kubernetes", "tenant"),
    "attributes": ("kubernetes",),
    "tenant_resource": ("tenant",),
}
"""The settings of authorization, each with the modes in which it has an effect."""


def contradictions(config: Config) -> tuple[list[str], list[str]]:
    """Returns problems and warnings.

    A problem is a value that makes no sense, alone or beside another. A warning is a
    value that has no effect beside another.
    """
    problems, warnings = [], []
    if config.server.enable_http2:
        problems.append("--enable-http2=true: Prometheus scrapes over HTTP/1.1; leave the flag out")
    kubelet = config.kubelet
    verifying = [
        f"--{spec.name}"
        for key, spec in settings(KubeletConfig).items()
        if key in {"insecure_tls", "ca_file", "server_name", "tls_pin"} and getattr(kubelet, key)
    ]
    if config.access:
        problems += _access_contradictions(kubelet, config.access)
    if kubelet.insecure_tls and len(verifying) > 1:
        problems.append("--kubelet-insecure-tls makes no sense beside " + ", ".join(verifying[1:]))
    unused = ", ".join(verifying)
    if kubelet.apiserver and kubelet.scheme == "http":
        problems.append(
            "--kubelet-scheme=http: for --kube-apiserver, write http://HOST in its value"
        )
    elif kubelet.apiserver and unused:
        reason = "with --kube-apiserver, the API server connects to the kubelet"
        warnings.append(f"{unused} has no effect: {reason}")
    elif kubelet.scheme == "http" and unused:
        warnings.append(f"{unused} has no effect: plain http has no certificate to verify")
    discovery = config.discovery
    if discovery.max_age < discovery.refresh_interval:
        problems.append("--discovery-max-age is less than --discovery-refresh-interval")
    if (config.apiserver.max_label_age is None) != (config.apiserver.peers is None):
        warnings.append("--max-label-age and --peers have no effect without each other")
    if not discovery.enabled and discovery != DiscoveryConfig():
        unused = ", ".join(
            f"--{spec.name}"
            for key, spec in settings(DiscoveryConfig).items()
            if getattr(discovery, key) != getattr(DiscoveryConfig(), key)
        )
        warnings.append(f"{unused} has no effect without --discovery")
    warnings += unused_pod_settings(config.pods, config.selection.drop_label)
    wrong, unused_certificate = _certificate_contradictions(config.server)
    warnings += unused_certificate + _without_authorization(config.authorization)
    wrong_reads, unused_reads = _read_contradictions(kubelet, config.selection)
    return problems + wrong + wrong_reads + _label_collisions(config), warnings + unused_reads


def _read_contradictions(
    kubelet: KubeletConfig, selection: SelectionConfig
) -> tuple[list[str], list[str]]:
    """Returns problems and warnings about the settings of shared reads."""
    if kubelet.share_reads is None:
        if kubelet.share_reads_max_bytes != KubeletConfig().share_reads_max_bytes:
            return [], ["--share-reads-max-bytes has no effect without --share-reads"]
        return [], []
    if selection.timestamps == "strip":
        why = "without its timestamp, an old sample looks new"
        return [f"--share-reads makes no sense beside --timestamps=strip: {why}"], []
    return [], []


def _label_collisions(config: Config) -> list[str]:
    """Returns a problem for each label that a sample of an upstream could get twice, or lose."""
    if not config.upstreams:
        return []
    from kmproxy.config.upstreams import (  # noqa: PLC0415 - most files lack upstreams
        dropped_labels,
        label_collisions,
    )

    return [
        *label_collisions(config.upstreams, config.labels.rules, UPSTREAMS_KEY),
        *dropped_labels(config.upstreams, config.selection.drop_label, UPSTREAMS_KEY),
    ]


def too_many_expressions(selection: SelectionConfig) -> list[str]:
    """Returns a problem if there are more regular expressions than `MAX_EXPRESSIONS`."""
    count = len(selection.keep_metric) + len(selection.drop_metric)
    if count <= MAX_EXPRESSIONS:
        return []
    advice = f"at most {MAX_EXPRESSIONS}: join some of them with |"
    return [f"--keep-metric, --drop-metric: {count} regular expressions, {advice}"]


def _certificate_contradictions(server: ServerConfig) -> tuple[list[str], list[str]]:
    """Returns problems and warnings about the settings of the serving certificate."""
    if server.web_config_file and server.metrics_cert_path:
        return [
            "--web-config-file and --metrics-cert-path both set the TLS of --listen: give one"
        ], []
    if server.metrics_cert_path and server.metrics_secure is False:
        return [], ["--metrics-cert-path has no effect beside --metrics-secure=false"]
    if server.metrics_secure and not (server.metrics_cert_path or server.web_config_file):
        why = "kmproxy makes no certificate, so --listen serves plain HTTP"
        return [], [f"--metrics-secure has no effect without --metrics-cert-path: {why}"]
    return [], []


def _without_authorization(config: AuthorizationConfig) -> list[str]:
    """Returns a warning for each setting that has no effect in this mode of authorization."""
    warnings = []
    for key, modes in _WITH_AUTHORIZATION.items():
        changed = getattr(config, key) != getattr(AuthorizationConfig(), key)
        if changed and config.mode not in modes:
            name = settings(AuthorizationConfig)[key].name
            needed = f"--authorization={' or '.join(modes)}"
            warnings.append(f"--{name} has no effect without {needed}")
    return warnings


def _access_contradictions(kubelet: KubeletConfig, access: Access) -> list[str]:
    """Returns a problem for each flag that contradicts the `kubelet` section."""
    problems = []
    senseless = "the section makes no sense beside"
    if kubelet.apiserver:
        why = "the API server connects to the kubelet, and --kubeconfig sets kmproxy's identity"
        problems.append(f"{ACCESS_KEY}: {senseless} --kube-apiserver: {why}")
    elif kubelet.scheme == "http":
        why = "over plain http kmproxy sends no credential and verifies nothing"
        problems.append(f"{ACCESS_KEY}: {senseless} --kubelet-scheme=http: {why}")
    tls = access.tls
    pairs = {
        "--kubelet-insecure-tls": (kubelet.insecure_tls, tls.insecure, "insecure_skip_verify"),
        "--kubelet-ca-file": (kubelet.ca_file, tls.ca, "ca or ca_file"),
        "--kubelet-server-name": (kubelet.server_name, tls.server_name, "server_name"),
    }
    problems += [
        f"{flag} and {ACCESS_KEY}.tls_config.{key} exclude each other: give one of them"
        for flag, (given, there, key) in pairs.items()
        if given and there
    ]
    insecure, also = "insecure_skip_verify", "makes no sense beside a CA or a server name"
    if kubelet.insecure_tls and (tls.ca or tls.server_name):
        problems.append(f"--kubelet-insecure-tls {also} in {ACCESS_KEY}.tls_config")
    if tls.insecure and kubelet.tls_pin:
        problems.append(
            f"{ACCESS_KEY}.tls_config.{insecure} makes no sense beside --kubelet-tls-pin"
        )
    if tls.insecure and (kubelet.ca_file or kubelet.server_name):
        problems.append(f"{ACCESS_KEY}.tls_config.{insecure} {also} in a flag")
    return problems
