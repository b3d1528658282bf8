"""Reads values of the settings of `kmproxy logs` from text: sizes, shards, URLs, tenants, labels.

Must not know which settings exist. A problem never shows a URL, because its query may hold a
secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from kmproxy.config.label_rules import name_problem
from kmproxy.config.types import (
    parse_http_url,
    parse_text,
)

ALWAYS_KNOWN: Final = ("namespace", "container", "stream")
"""The labels of a stream without --stream-label, besides those of the label rules."""

MAX_STREAM_LABELS: Final = 15
"""Labels of a stream. Loki refuses more, unless its `max_label_names_per_series` was raised."""

USUAL_PATH: Final = "/loki/api/v1/push"

_SIZE = re.compile(r"([0-9]{1,18})(B|[KMG]i?B)?", re.ASCII)

_FACTORS: Final[Mapping[str, int]] = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
}  # fmt: skip

_SHARD = re.compile(r"([0-9]{1,4})/([0-9]{1,4})", re.ASCII)

_LEASE = re.compile(
    r"(?:([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)/)?([a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?)",
    re.ASCII,
)

_TENANT = re.compile(r"[a-zA-Z0-9!_.*'()-]{1,150}", re.ASCII)

_ACCOUNT = re.compile(r"([0-9]{1,10})(?::([0-9]{1,10}))?", re.ASCII)


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


@dataclass(frozen=True, slots=True)
class LeaseName:
    """The name of a Lease. Without a namespace it is in that of the pod."""

    name: str
    namespace: str | None = None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def parse_lease(text: str) -> LeaseName:
    """Reads the name of a Lease, with its namespace or without."""
    match = _LEASE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:80]!r} is not NAME or NAMESPACE/NAME of a Lease")
    return LeaseName(match[2], match[1])


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
    example = f"http://loki-gateway.monitoring.svc{USUAL_PATH}"
    url = parse_http_url(text, example=example, credentials="loki.basic_auth")
    if url.path in {"", "/"}:
        raise ValueError(f"the URL has no path: the usual path of a push endpoint is {USUAL_PATH}")
    return url.geturl()


def parse_tenant(text: str) -> str:
    """Reads a tenant as Loki accepts it, or as VictoriaLogs does."""
    if not is_account(text) and not is_tenant(text):
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


def is_tenant(text: str) -> bool:
    """Tells whether Loki takes this tenant."""
    return text not in {".", ".."} and _TENANT.fullmatch(text) is not None


def is_account(tenant: str) -> bool:
    """Tells whether VictoriaLogs takes this tenant: ACCOUNT or ACCOUNT:PROJECT, as numbers."""
    match = _ACCOUNT.fullmatch(tenant)
    return match is not None and all(int(part or 0) < 1 << 32 for part in match.groups())
