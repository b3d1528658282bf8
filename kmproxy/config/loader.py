"""Makes the configuration from layers of values, and reports all problems with them.

Knows how a value is found, read and explained, and which values make no sense
together. Must not know files, environment variables or how a command line is
split: it is given mappings from setting names to values.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from kmproxy.config.contradictions import contradictions, too_many_expressions
from kmproxy.config.label_rules import parse_rules
from kmproxy.config.logs import (
    LOGS_SECTIONS,
    LOKI_KEY,
    NOT_OF_LOGS,
    TENANTS_KEY,
    LogsCommand,
    read_tenants,
)
from kmproxy.config.logs_contradictions import NO_URL, logs_contradictions
from kmproxy.config.pod_labels import read_pod_rules
from kmproxy.config.samples import LabelConfig, SelectionConfig
from kmproxy.config.sections import (
    ACCESS_KEY,
    SECTIONS,
    UPSTREAMS_KEY,
    Config,
    KubeletConfig,
    ServerConfig,
)
from kmproxy.config.settings import Setting, settings
from kmproxy.config.variables import PREFIX, variable
from kmproxy.errors import ConfigError

if TYPE_CHECKING:
    from kmproxy.config.http_options import Access
    from kmproxy.config.upstreams import UpstreamConfig

_T = TypeVar("_T")

_ADDRESSES: Final = ("listen", "telemetry_listen", "web_config_file")
"""Settings of `kmproxy logs` that stand in the daemon's section of the server."""

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


class Layer(NamedTuple):
    """Values from one source. `prefix` before a setting's name gives the user's spelling.

    `lines` finds the line of each key of a YAML file, for messages.
    """

    origin: str
    prefix: str
    values: Mapping[str, Any]
    lines: Callable[[], Mapping[str, int]] = dict

    def spelled(self, name: str) -> str:
        """Returns a setting's name as its user wrote it."""
        return variable(name) if self.prefix == PREFIX else f"{self.prefix}{name}"

    def placed(self, problems: Sequence[str]) -> list[str]:
        """Returns problems with the file and line of the key that each begins with."""
        lines = self.lines() if problems else {}
        placed = []
        for problem in problems:
            path = re.split("[:,]? ", problem.removeprefix("unknown key "), maxsplit=1)[0]
            while path not in lines and "." in path:  # the key is missing: that of its section
                path = path.rpartition(".")[0]
            where = f"{self.origin}, line {lines[path]}" if path in lines else self.origin
            placed.append(f"{problem} ({where})")
        return placed


def load(layers: Sequence[Layer]) -> tuple[Config, list[str]]:
    """Builds the configuration from layers. Later layers win.

    Returns it with a warning line for each setting that is accepted but has no
    effect. Raises ConfigError with every problem found.
    """
    layers, access, wrong_access = _taken(layers, ACCESS_KEY, _read_access)
    layers, upstreams, wrong_upstreams = _taken(layers, UPSTREAMS_KEY, _read_upstreams)
    built, warnings, problems = _build(layers, SECTIONS)
    built["pods"], wrong_pods = read_pod_rules(built["pods"], built["labels"].rules)
    problems += wrong_pods + wrong_access + wrong_upstreams
    config = Config(**built, access=access, upstreams=upstreams or ())
    wrong, unused = contradictions(config)
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


def load_logs(layers: Sequence[Layer]) -> tuple[LogsCommand, list[str]]:
    """Builds the configuration of `kmproxy logs` from layers. Later layers win.

    Returns it with a warning line for each setting that has no effect. Raises ConfigError with
    every problem found.
    """
    layers, access, problems = _taken(layers, ACCESS_KEY, _read_access)
    layers, loki, wrong_loki = _taken(layers, LOKI_KEY, _read_access)
    layers, tenants, wrong_tenants = _taken(layers, TENANTS_KEY, read_tenants)
    built, warnings, wrong = _build(layers, LOGS_SECTIONS, NOT_OF_LOGS)
    built["pods"], wrong_pods = read_pod_rules(built["pods"], built["labels"].rules)
    problems += wrong_loki + wrong_tenants + wrong + wrong_pods
    if not any("loki-url" in layer.values for layer in layers):
        problems.append(NO_URL)
    logs = built.pop("logs")
    addresses = {key: getattr(logs, key) for key in _ADDRESSES}
    config = Config(**built, server=ServerConfig(**addresses), access=access)
    command = LogsCommand(logs, config, loki, tenants or {})
    wrong, unused = contradictions(config)
    wrong_logs, unused_logs = logs_contradictions(command)
    problems += wrong + wrong_logs
    if problems:
        raise ConfigError(problems)
    return command, warnings + unused + unused_logs


def _taken(
    layers: Sequence[Layer], name: str, read: Callable[[Any, str], tuple[_T, list[str]]]
) -> tuple[list[Layer], _T | None, list[str]]:
    """Takes the section `name` out of the YAML layers, and reads it.

    Returns the layers without it, its value in the last layer that has one, and problems.
    """
    rest, problems = [], []
    section = None
    for layer in layers:
        values = dict(layer.values)
        if not layer.prefix and name in values:
            section, wrong = read(values.pop(name), name)
            problems += layer.placed(wrong)
        rest.append(layer._replace(values=values))
    return rest, section, problems


def _read_access(document: Any, path: str) -> tuple[Access, list[str]]:
    from kmproxy.config.http_client import read_access  # noqa: PLC0415 - most files lack such a section

    return read_access(document, path)


def _read_upstreams(document: Any, path: str) -> tuple[tuple[UpstreamConfig, ...], list[str]]:
    from kmproxy.config.upstreams import read_upstreams  # noqa: PLC0415 - most files lack this section

    return read_upstreams(document, path)


def _build(
    layers: Sequence[Layer],
    sections: Mapping[str, type[Any]],
    without: Collection[str] = (),
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Returns the sections by name, warnings and problems. Settings `without` are unknown."""
    warnings: list[str] = []
    problems: list[str] = []
    known = {
        spec.name: spec
        for section in sections.values()
        for spec in settings(section).values()
        if spec.name not in without
    }
    ignored = IGNORED if KubeletConfig in sections.values() and not without else {}
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
            problems += too_many_expressions(built[name])
    return built, warnings, problems


def _with_rules(labels: LabelConfig) -> tuple[LabelConfig, list[str]]:
    rules, problems = parse_rules(labels.label, labels.annotation, labels.label_default)
    return dataclasses.replace(labels, rules=rules), problems


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
            warnings.append(
                f"{shown} has no effect in kmproxy and is ignored: {ignored[name]}{suffix}"
            )
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
