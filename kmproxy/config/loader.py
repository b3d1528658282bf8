"""Makes the configuration from layers of values, and reports all problems with them.

Knows how a value is found, read and explained, and which values make no sense
together. Must not know files, environment variables or how a command line is
split: it is given mappings from setting names to values.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kmproxy.config.expressions import MAX_EXPRESSIONS
from kmproxy.config.label_rules import parse_rules
from kmproxy.config.pod_labels import read_pod_rules, unused_pod_settings
from kmproxy.config.sections import (
    SECTIONS,
    AuthorizationConfig,
    Config,
    DiscoveryConfig,
    KubeletConfig,
    LabelConfig,
    SelectionConfig,
    ServerConfig,
)
from kmproxy.config.settings import Setting, settings
from kmproxy.config.variables import PREFIX, variable
from kmproxy.errors import ConfigError

if TYPE_CHECKING:
    from kmproxy.config.http_client import Access

SECTION: Final = "kubelet"
"""The key of a YAML file whose value is a section of its own instead of a setting."""

_OWN_METRICS = "kmproxy's own metrics are on --telemetry-listen, over plain HTTP"
_WEBHOOK = "kmproxy has no webhook"
_LOGGING = "use --log-level and --log-format"

IGNORED: Final[Mapping[str, str]] = {
    "metrics-bind-address": _OWN_METRICS,
    "webhook-cert-path": _WEBHOOK,
    "webhook-cert-name": _WEBHOOK,
    "webhook-cert-key": _WEBHOOK,
    "zap-devel": _LOGGING,
    "zap-encoder": _LOGGING,
    "zap-log-level": _LOGGING,
    "zap-stacktrace-level": _LOGGING,
    "zap-time-encoding": _LOGGING,
}
"""Flags of kubelet-meta-proxy that have no meaning here, each with the reason."""

_WITH_AUTHORIZATION: Final[Mapping[str, tuple[str, ...]]] = {
    "audience": ("kubernetes", "tenant"),
    "attributes": ("kubernetes",),
    "tenant_resource": ("tenant",),
}
"""The settings of authorization, each with the modes in which it has an effect."""


class Layer(NamedTuple):
    """Values from one source. `prefix` before a setting's name gives the user's spelling."""

    origin: str
    prefix: str
    values: Mapping[str, Any]

    def spelled(self, name: str) -> str:
        """Returns a setting's name as its user wrote it."""
        return variable(name) if self.prefix == PREFIX else f"{self.prefix}{name}"


def load(layers: Sequence[Layer]) -> tuple[Config, list[str]]:
    """Builds the configuration from layers. Later layers win.

    Returns it with a warning line for each setting that is accepted but has no
    effect. Raises ConfigError with every problem found.
    """
    layers, access, wrong_access = _without_access(layers)
    built, warnings, problems = _build(layers, SECTIONS)
    built["pods"], wrong_pods = read_pod_rules(built["pods"], built["labels"].rules)
    problems += wrong_pods
    problems += wrong_access
    config = Config(**built, access=access)
    wrong, unused = _contradictions(config)
    problems += wrong
    if problems:
        raise ConfigError(problems)
    return config, warnings + unused


def load_sections(layers: Sequence[Layer], *sections: type[Any]) -> list[Any]:
    """Builds these sections only. Raises ConfigError with every problem found."""
    built, _, problems = _build(layers, {section.__name__: section for section in sections})
    if problems:
        raise ConfigError(problems)
    return list(built.values())


def _without_access(layers: Sequence[Layer]) -> tuple[list[Layer], Access | None, list[str]]:
    """Returns the layers without their `kubelet` sections, the last such section, and problems."""
    rest, problems = [], []
    access = None
    for layer in layers:
        values = dict(layer.values)
        if not layer.prefix and SECTION in values:
            from kmproxy.config.http_client import read_access  # noqa: PLC0415 - most files lack this section

            access, wrong = read_access(values.pop(SECTION), SECTION)
            problems += [f"{problem} ({layer.origin})" for problem in wrong]
        rest.append(layer._replace(values=values))
    return rest, access, problems


def _build(
    layers: Sequence[Layer], sections: Mapping[str, type[Any]]
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Returns the sections by name, warnings and problems."""
    warnings: list[str] = []
    problems: list[str] = []
    known = {
        spec.name: spec for section in sections.values() for spec in settings(section).values()
    }
    ignored = IGNORED if KubeletConfig in sections.values() else {}
    values: dict[str, Any] = {}
    for layer in layers:
        values |= _read_layer(layer, known, ignored, problems, warnings)
    built: dict[str, Any] = {}
    for name, section in sections.items():
        chosen = {
            key: values[spec.name] for key, spec in settings(section).items() if spec.name in values
        }
        built[name] = section(**chosen)
        if isinstance(built[name], LabelConfig):
            built[name], wrong = _with_rules(built[name])
            problems += wrong
        if isinstance(built[name], SelectionConfig):
            problems += _too_many_expressions(built[name])
    return built, warnings, problems


def _with_rules(labels: LabelConfig) -> tuple[LabelConfig, list[str]]:
    rules, problems = parse_rules(labels.label, labels.annotation, labels.label_default)
    return dataclasses.replace(labels, rules=rules), problems


def _too_many_expressions(selection: SelectionConfig) -> list[str]:
    count = len(selection.keep_metric) + len(selection.drop_metric)
    if count <= MAX_EXPRESSIONS:
        return []
    advice = f"at most {MAX_EXPRESSIONS}: join some of them with |"
    return [f"--keep-metric, --drop-metric: {count} regular expressions, {advice}"]


def _read_layer(
    layer: Layer,
    known: Mapping[str, Setting],
    ignored: Mapping[str, str],
    problems: list[str],
    warnings: list[str],
) -> dict[str, Any]:
    aliases = {alias: (s, form) for s in known.values() for alias, form in s.aliases.items()}
    suffix = f" ({layer.origin})" if not layer.prefix else ""
    read: dict[str, Any] = {}
    for name, value in layer.values.items():
        shown = layer.spelled(name)
        setting, form = aliases.get(name, (known.get(name), "{}"))
        if name in ignored:
            warnings.append(f"{shown} has no meaning here and is ignored: {ignored[name]}{suffix}")
        elif setting is None:
            nearest = difflib.get_close_matches(name, [*known, *aliases], 1)
            hint = f", did you mean {layer.prefix}{nearest[0]}?" if nearest else ""
            what = "flag" if layer.prefix else "key"
            problems.append(f"unknown {what} {shown}{hint}{suffix}")
        elif name in aliases and setting.name in layer.values:
            warnings.append(f"{shown} is ignored beside {layer.prefix}{setting.name}{suffix}")
        else:
            try:
                read[setting.name] = _parse(setting, value, form)
            except ValueError as error:
                problems.append(f"{shown}: {error}{suffix}")
    return read


def _parse(setting: Setting, value: Any, form: str) -> Any:
    """Reads a value of YAML, or a tuple of the values that a command line gave.

    If the setting is not repeatable, the last value of the tuple counts.
    """
    if isinstance(value, list) and not setting.repeatable:
        raise ValueError("one value is expected, not a list")
    parsed = [
        setting.parse(form.format(_text(item)))
        for item in (value if isinstance(value, list | tuple) else [value])
    ]
    if not parsed:
        if setting.repeatable and isinstance(value, list):
            return ()  # `label: []` in YAML: no rule at all
        raise ValueError("the value is missing")
    return tuple(parsed) if setting.repeatable else parsed[-1]


def _text(value: Any) -> str:
    """Returns a scalar as a command line would spell it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError("the value is missing" if value is None else "the value is not text")


def _contradictions(config: Config) -> tuple[list[str], list[str]]:
    """Returns problems and warnings.

    A problem is a value that makes no sense, alone or beside another. A warning is a
    value that has no effect beside another.
    """
    problems, warnings = [], []
    if config.server.enable_http2:
        problems.append("--enable-http2=true: HTTP/1.1 is what Prometheus scrapes; leave it out")
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
        problems.append("--kubelet-scheme=http: with --kube-apiserver, give http://HOST there")
    elif kubelet.apiserver and unused:
        reason = "with --kube-apiserver, that is who connects to the kubelet"
        warnings.append(f"{unused} has no effect: {reason}")
    elif kubelet.scheme == "http" and unused:
        warnings.append(f"{unused} has no effect: plain http has no certificate to verify")
    discovery = config.discovery
    if discovery.max_age < discovery.refresh_interval:
        problems.append("--discovery-max-age is less than --discovery-refresh-interval")
    if (config.apiserver.max_label_age is None) != (config.apiserver.peers is None):
        warnings.append("--max-label-age and --peers have no effect without one another")
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
    return problems + wrong, warnings


def _certificate_contradictions(server: ServerConfig) -> tuple[list[str], list[str]]:
    """Returns problems and warnings about the settings of the serving certificate."""
    if server.web_config_file and server.metrics_cert_path:
        return ["--web-config-file and --metrics-cert-path both say what TLS is served"], []
    if server.metrics_cert_path and server.metrics_secure is False:
        return [], ["--metrics-cert-path has no effect beside --metrics-secure=false"]
    if server.metrics_secure and not (server.metrics_cert_path or server.web_config_file):
        why = "no certificate is made up, the enriched metrics are served over plain HTTP"
        return [], [f"--metrics-secure has no effect without --metrics-cert-path: {why}"]
    return [], []


def _without_authorization(config: AuthorizationConfig) -> list[str]:
    """Returns a warning for each setting that has no effect in this mode of authorization."""
    warnings = []
    for key, modes in _WITH_AUTHORIZATION.items():
        changed = getattr(config, key) != getattr(AuthorizationConfig(), key)
        if changed and config.mode not in modes:
            name = settings(AuthorizationConfig)[key].name
            reason = f"it is for --authorization={' or '.join(modes)}"
            warnings.append(f"--{name} has no effect: {reason}")
    return warnings


def _access_contradictions(kubelet: KubeletConfig, access: Access) -> list[str]:
    """Returns a problem for each flag that contradicts the `kubelet` section."""
    problems = []
    senseless = "the section makes no sense beside"
    if kubelet.apiserver:
        why = "it is the API server that connects to the kubelet, and --kubeconfig says who we are"
        problems.append(f"{SECTION}: {senseless} --kube-apiserver: {why}")
    elif kubelet.scheme == "http":
        why = "no credential is sent over plain http, and nothing verified"
        problems.append(f"{SECTION}: {senseless} --kubelet-scheme=http: {why}")
    tls = access.tls
    pairs = {
        "--kubelet-insecure-tls": (kubelet.insecure_tls, tls.insecure, "insecure_skip_verify"),
        "--kubelet-ca-file": (kubelet.ca_file, tls.ca, "ca or ca_file"),
        "--kubelet-server-name": (kubelet.server_name, tls.server_name, "server_name"),
    }
    problems += [
        f"{flag} is in {SECTION}.tls_config as {key}, too: give one of them"
        for flag, (given, there, key) in pairs.items()
        if given and there
    ]
    insecure, also = "insecure_skip_verify", "makes no sense beside a CA or a server name"
    if kubelet.insecure_tls and (tls.ca or tls.server_name):
        problems.append(f"--kubelet-insecure-tls {also} in {SECTION}.tls_config")
    if tls.insecure and kubelet.tls_pin:
        problems.append(f"{SECTION}.tls_config.{insecure} makes no sense beside --kubelet-tls-pin")
    if tls.insecure and (kubelet.ca_file or kubelet.server_name):
        problems.append(f"{SECTION}.tls_config.{insecure} {also} in a flag")
    return problems
