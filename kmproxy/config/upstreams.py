"""The `upstreams` section of the YAML file: other exporters whose metrics are enriched.

Knows the keys of an entry, and which entries contradict one another or the label rules. Must not
know files, connections or lines of metrics. A problem never shows a URL, because its query may hold
a secret.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from kmproxy.config.http_client import read_access
from kmproxy.config.http_options import Access, TlsOptions
from kmproxy.config.label_rules import WILDCARD, LabelRule, name_problem
from kmproxy.config.types import Address, is_numeric_name, parse_http_url

MAX_UPSTREAMS: Final = 64
"""Entries of the section. Each may have `--max-concurrency` scrapes under way."""

MAX_LABELS: Final = 16
"""Namespace labels of one entry."""

MAX_NAME: Final = 256
"""Characters of the longest namespace label, and of the longest prefix."""

OWN_KEYS: Final = ("name", "url", "namespace-labels", "format")
"""The keys of an entry, besides those of its HTTP client."""

RESERVED: Final = frozenset({"kubelet", "apiserver"})
"""Names of other upstreams in kmproxy's own metrics."""

NAMESPACE: Final = "namespace"

_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_PREFIX = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)

_UNDERSCORES = "begins with two underscores, which Prometheus keeps for itself"
_EXAMPLE = "http://kube-state-metrics.monitoring.svc:8080/metrics"


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """An entry of the section.

    The first of `namespace_labels` that a sample bears, not empty, names its namespace. With
    `prefixes`, as many as labels, each label adds the labels of its own namespace, with its prefix
    before each name.
    """

    name: str
    url: str = field(repr=False)  # its query may hold a key
    namespace_labels: tuple[str, ...] = (NAMESPACE,)
    prefixes: tuple[str, ...] = ()
    openmetrics: bool = False
    access: Access = field(default_factory=Access)

    @property
    def place(self) -> str:
        """Host and port of the URL, with the port of its scheme if the URL names none."""
        parts = urlsplit(self.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return str(Address(parts.hostname or "", port))

    @property
    def shown(self) -> str:
        """The URL without its query, for a person."""
        return urlsplit(self.url)._replace(query="").geturl()


def read_upstreams(document: Any, path: str) -> tuple[tuple[UpstreamConfig, ...], list[str]]:
    """Reads the section at `path`. Returns its entries with a line for each problem.

    The entries may be used only if there is no problem.
    """
    if not isinstance(document, list) or not document:
        return (), [f"{path}: a list of upstreams is expected here, each with name and url"]
    if len(document) > MAX_UPSTREAMS:
        return (), [f"{path}: {len(document)} upstreams, at most {MAX_UPSTREAMS}"]
    problems: list[str] = []
    entries = []
    first: dict[str, int] = {}
    for number, each in enumerate(document, 1):
        entry = _read_entry(each, path, number, problems)
        if entry is None:
            continue
        entries.append(entry)
        if (other := first.setdefault(entry.name, number)) != number:
            problems.append(
                f"{path}[{entry.name}].name: entries {other} and {number} have this name"
            )
    return tuple(entries), problems


def _read_entry(
    document: Any, section: str, number: int, problems: list[str]
) -> UpstreamConfig | None:
    """Reads one entry. Adds a line for each problem. None if the entry has no usable name.

    A line shows the name of its entry, or its number, counted from 1.
    """
    shown = document.get("name") if isinstance(document, Mapping) else None
    usable = isinstance(shown, str) and _NAME.fullmatch(shown)
    path = f"{section}[{shown if usable else number}]"
    access, wrong = read_access(document, path, OWN_KEYS)
    problems += wrong
    if not isinstance(document, Mapping):
        return None

    def read(key: str, parse: Any, default: Any = None) -> Any:
        if key not in document:
            if default is None:
                problems.append(f"{path}: {key} is missing")
            return default
        try:
            return parse(document[key])
        except ValueError as error:
            problems.append(f"{path}.{key}: {error}")
            return default

    name = read("name", _parse_name)
    url = read("url", parse_url)
    labels, prefixes = read("namespace-labels", _parse_labels, ((NAMESPACE,), ()))
    openmetrics = read("format", _parse_format, False)
    if url is not None:
        problems += _beside_url(url, access, path)
    if name is None:
        return None
    return UpstreamConfig(name, url or "", labels, prefixes, openmetrics, access)


def _parse_name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("the value is not [a-z0-9]([-a-z0-9]*[a-z0-9])? of at most 63 characters")
    if value in RESERVED:
        raise ValueError(f"{value!r} is the name of another upstream in kmproxy's own metrics")
    return value


def parse_url(value: Any) -> str:
    """Reads an http or https URL without a user, a password and a fragment.

    Returns the URL with scheme and host in lower case. Raises ValueError for other values, without
    the value.
    """
    text = value if isinstance(value, str) else ""
    url = parse_http_url(text, example=_EXAMPLE, credentials="basic_auth")
    if problem := _host_problem(url.hostname or ""):
        raise ValueError(problem)
    return url.geturl()


def _host_problem(host: str) -> str | None:
    try:
        address = ip_address(host)
    except ValueError:
        return (
            "the host is neither a host name nor an IP address" if is_numeric_name(host) else None
        )
    if address.is_unspecified or address.is_multicast:
        return "the host is an address that no exporter can have"
    return None


def _parse_format(value: Any) -> bool:
    if not isinstance(value, str) or value not in {"text", "openmetrics"}:
        raise ValueError("the value is neither 'text' nor 'openmetrics'")
    return bool(value == "openmetrics")


def _parse_labels(value: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Reads a list of labels, or a mapping of labels to prefixes. Returns both."""
    if not isinstance(value, list | Mapping):
        what = "a list of labels is expected, or a mapping of labels to prefixes"
        raise ValueError(what)  # noqa: TRY004 - a value of the user, as all others
    if not value:
        raise ValueError("the value is empty: leave the key out, or name a label")
    labels = _read_labels(list(value))
    return labels, tuple(_read_prefixes(value)) if isinstance(value, Mapping) else ()


def _read_labels(names: Sequence[Any]) -> tuple[str, ...]:
    if len(names) > MAX_LABELS:
        raise ValueError(f"{len(names)} labels, at most {MAX_LABELS}")
    for name in names:
        if not isinstance(name, str):
            raise ValueError("a label is one text; put it in quotes")  # noqa: TRY004 - as above
        if len(name) > MAX_NAME:
            raise ValueError(f"{name[:80]!r}... has over {MAX_NAME} characters")
        if name != NAMESPACE and (problem := name_problem(name)):
            raise ValueError(problem)
        if names.count(name) > 1:
            raise ValueError(f"the list repeats {name!r}")
    return tuple(names)


def _read_prefixes(prefixes: Mapping[str, Any]) -> dict[str, str]:
    """Returns the label of each prefix."""
    read: dict[str, str] = {}
    for label, prefix in prefixes.items():
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise ValueError(f"the prefix of {label} is not [a-zA-Z_][a-zA-Z0-9_]*")
        if len(prefix) > MAX_NAME:
            raise ValueError(f"the prefix of {label} has over {MAX_NAME} characters")
        if prefix.startswith("__"):
            raise ValueError(f"the prefix of {label} {_UNDERSCORES}")
        if (other := read.setdefault(prefix, label)) != label:
            raise ValueError(f"{other} and {label} have the same prefix {prefix[:80]!r}")
    return read


def _beside_url(url: str, access: Access, path: str) -> list[str]:
    """Returns a line for each key of the HTTP client that makes no sense beside the URL."""
    problems = []
    if access.follow_redirects:
        why = "no redirect of an upstream is followed: write the URL that it leads to"
        problems.append(f"{path}.follow_redirects: {why}")
    if url.startswith("https:"):
        return problems
    if access.identifies or access.headers:
        why = "no credential and none of http_headers is sent over plain http"
        problems.append(f"{path}.url: {why}: write an https URL, or leave them out")
    if access.tls != TlsOptions():
        problems.append(f"{path}.tls_config: plain http has no certificate to verify")
    return problems


def label_collisions(
    upstreams: Sequence[UpstreamConfig], rules: Sequence[LabelRule], section: str
) -> list[str]:
    """Returns a line for each label that a sample of an upstream could get twice, or lose.

    A rule must not make a namespace label. A prefix before the name of a rule must not make the
    label of another rule or of another prefix.
    """
    names = [rule.name for rule in rules if rule.name]
    wildcard = any(rule.key == WILDCARD for rule in rules)
    problems = []
    for each in upstreams:
        where = f"{section}[{each.name}].namespace-labels"
        taken = dict.fromkeys((NAMESPACE, *each.namespace_labels), "a namespace label")
        if each.prefixes:
            taken |= {name: f"the label of the rule for {name!r}" for name in names}
        for prefix in each.prefixes or ("",):
            for name in names:
                label, what = prefix + name, f"{prefix!r} before {name!r}" if prefix else "a rule"
                if label in taken:
                    problems.append(f"{where}: {what} makes {label!r}, which is {taken[label]}")
                elif label.startswith("__"):
                    problems.append(f"{where}: {what} makes {label!r}, which {_UNDERSCORES}")
                taken.setdefault(label, f"made by {what}, too")
        if wildcard:
            problems += _open_collisions(each, where)
    return problems


def dropped_labels(
    upstreams: Sequence[UpstreamConfig], dropped: Collection[str], section: str
) -> list[str]:
    """Returns a line for each label of a list of namespace labels that `--drop-label` removes."""
    return [
        f"--drop-label {label}: {section}[{each.name}].namespace-labels has it in a list: without "
        "it the next label of the list would name another namespace"
        for each in upstreams
        if len(each.namespace_labels) > 1 and not each.prefixes
        for label in each.namespace_labels
        if label in dropped
    ]


def reserved_names(upstreams: Sequence[UpstreamConfig]) -> frozenset[str]:
    """Returns the names that `*` must not make: alone or behind a prefix, a namespace label."""
    return frozenset(
        label.removeprefix(prefix)
        for each in upstreams
        for label in (NAMESPACE, *each.namespace_labels)
        for prefix in each.prefixes or ("",)
        if label.startswith(prefix)
    )


def _open_collisions(each: UpstreamConfig, where: str) -> list[str]:
    """Returns a line for each pair of prefixes that can make one label of any label's names."""
    problems = [f"{where}: with '*', '_' may make a label that {_UNDERSCORES}"] * (
        "_" in each.prefixes
    )
    return problems + [
        f"{where}: with '*', labels of {one!r} and of {other!r} may have one name: "
        "let no prefix begin with another"
        for one in each.prefixes
        for other in each.prefixes
        if one != other and other.startswith(one)
    ]
