"""The findings of a preflight, shown as text and as one JSON document.

Knows results, their table, and the rules that missing permissions need. Must not know
how anything is found out. Texts of servers are made printable here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kmproxy.kube.permissions import Permission, rules, rules_yaml

Result = Literal["ok", "warning", "failed", "skipped"]

Pinned = Literal["verified", "pinned", "same", "refused"]
"""The result of `--kubelet-tls-pin` for a certificate."""

MARKS: dict[Result, str] = {"ok": "✓", "warning": "!", "failed": "✗", "skipped": "-"}
PLAIN_MARKS: dict[Result, str] = MARKS | {"ok": "+", "failed": "x"}
"""The marks for an output that has only the characters of ASCII."""

SHOWN_NAMESPACES = 10
"""Namespaces that the text names for each rule. The JSON document names all."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A row of the table. `check` is from a fixed set. `subject` is the thing that was checked."""

    check: str
    subject: str
    result: Result
    message: str


@dataclass(frozen=True, slots=True)
class Access:
    """The API server's answer about a permission. `allowed` is None if there was no answer."""

    permission: Permission
    needed: bool
    allowed: bool | None


@dataclass(frozen=True, slots=True)
class Certificate:
    """The certificate that a server shows.

    `subject` and `issuer` are written as in RFC 4514, times as ISO 8601 in UTC. `names` are the
    subject's alternative names: host names and addresses.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: str
    not_after: str
    self_signed: bool


@dataclass(frozen=True, slots=True)
class Trusted:
    """Whether a server's certificate is accepted as configured, and how else it would be.

    `insecure` tells that the configuration does not verify the certificate. `problem` says why the
    certificate cannot be verified, and is empty if it can, also with `insecure`. `accepted_by`
    holds the alternatives, each with its flag. `digest` is the SHA-256 of the certificate. `pin` is
    the result of `--kubelet-tls-pin`, None without that flag: the certificate is `verified` by a
    CA, would be `pinned` as the first one, is the `same` as the pinned one, or is `refused`.
    """

    name: str
    server: str
    certificate: Certificate
    verified: bool
    insecure: bool
    problem: str
    accepted_by: tuple[str, ...]
    digest: str = ""
    pin: Pinned | None = None

    @property
    def verdict(self) -> tuple[Result, str]:
        """The result and the message of its row in the table."""
        if self.verified:
            return "ok", "verified"
        if self.pin == "same":
            return "ok", "no CA verifies it, but it is pinned"
        if self.pin == "pinned":
            digest = f"SHA-256 {self.digest}"
            return "warning", f"no CA verifies it: kmproxy would pin it, {digest}"
        if not self.insecure:
            return "failed", self.problem
        if self.problem:
            return "warning", "not verified: kmproxy would accept any server at its address"
        flag = "--kubelet-insecure-tls" if self.name == "kubelet" else "insecure_skip_verify"
        return "warning", f"not verified, but a CA verifies it: leave out {flag}"

    def document(self) -> dict[str, Any]:
        """The result as one JSON object, with the certificate's fields on the same level."""
        own = dataclasses.asdict(self)
        shown: dict[str, Any] = own.pop("certificate")
        return shown | own

    def lines(self) -> Iterator[str]:
        """The result as lines of text."""
        shown = self.certificate
        yield f"shown by  {self.server}"
        yield f"subject   {shown.subject or 'none'}"
        yield f"issuer    {'itself (self-signed)' if shown.self_signed else shown.issuer}"
        yield f"names     {', '.join(shown.names) or 'none'}"
        yield f"valid     {shown.not_before} to {shown.not_after}"
        why = self.problem or "verification is off"
        yield f"SHA-256   {self.digest}"
        yield f"verified  {'yes' if self.verified else f'no: {why}'}"
        if self.pin is not None and not self.verified:
            said = {"pinned": "not yet", "same": "yes", "refused": "no, but another one"}
            yield f"pinned    {said[self.pin]}"
        for flag in self.accepted_by:
            yield f"would be accepted {flag}"


@dataclass(frozen=True, slots=True)
class Metrics:
    """The result of one fetch: decoded bytes, counts, and enriched samples as examples."""

    url: str
    bytes: int
    samples: int
    enriched: int
    unparsed: int
    conflicts: int
    examples: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """The result as lines of text."""
        yield self.url
        yield (
            f"{self.bytes:,} bytes, {self.samples:,} samples, {self.enriched:,} of them enriched, "
            f"{self.conflicts:,} label conflicts, {self.unparsed:,} lines not understood"
        )
        yield from self.examples


@dataclass(frozen=True, slots=True)
class Coverage:
    """The namespaces that have no value for a label rule. `total` counts all namespaces."""

    rule: str
    label: str
    default: str
    total: int
    without: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """The result as text: the first namespaces without a value, and the number of others."""
        if not self.without:
            yield f"{self.rule}: every namespace has a value"
            return
        more = len(self.without) - SHOWN_NAMESPACES
        names = ", ".join(self.without[:SHOWN_NAMESPACES]) + (
            f" and {more} more" if more > 0 else ""
        )
        gets = f"get the default {self.default!r}" if self.default else "have no value"
        yield f"{self.rule}: {len(self.without)} of {self.total} {gets}: {names}"


@dataclass(slots=True)
class Upstream:
    """The results about one upstream. `namespace_labels` counts the samples that bear each label.

    A part that could not be found out is None.
    """

    name: str
    certificate: Trusted | None = None
    metrics: Metrics | None = None
    namespace_labels: Mapping[str, int] | None = None

    def document(self) -> dict[str, Any]:
        """The results as one JSON object."""
        return {
            "name": self.name,
            "certificate": self.certificate and self.certificate.document(),
            "metrics": self.metrics and dataclasses.asdict(self.metrics),
            "namespace_labels": self.namespace_labels,
        }


@dataclass(slots=True)
class Report:
    """All results of a preflight. A part that could not be found out is None or empty."""

    version: str
    api_server: str = ""
    identity: str = ""
    node: str | None = None
    findings: list[Finding] = field(default_factory=list)
    access: list[Access] = field(default_factory=list)
    certificate: Trusted | None = None
    metrics: Metrics | None = None
    namespaces: int | None = None
    coverage: list[Coverage] = field(default_factory=list)
    upstreams: list[Upstream] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(finding.result != "failed" for finding in self.findings)

    @property
    def missing(self) -> list[Permission]:
        """The permissions that must be granted: they are needed and not allowed."""
        return [each.permission for each in self.access if each.needed and each.allowed is False]

    @property
    def missing_in(self) -> dict[str, list[Permission]]:
        """The permissions that must be granted in single namespaces."""
        found: dict[str, list[Permission]] = {}
        for each in self.missing:
            if each.namespace:
                found.setdefault(each.namespace, []).append(each)
        return found

    def add(self, check: str, subject: str, result: Result, message: str) -> None:
        """Add a row to the table."""
        self.findings.append(Finding(check, subject, result, message))

    def table(self, marks: Mapping[Result, str] = MARKS) -> str:
        """The rows with their marks, and the rules that must be added to a ClusterRole."""
        width = max((len(finding.subject) for finding in self.findings), default=0)
        lines = [
            f"{marks[row.result]} {row.subject:<{width}}  {row.message}" for row in self.findings
        ]
        if missing := [each for each in self.missing if not each.namespace]:
            lines += ["", "Add to the rules of the ClusterRole of this identity:", ""]
            lines += rules_yaml(missing).splitlines()
        for namespace, missing in self.missing_in.items():
            where = f"the Role of this identity in the namespace {namespace}"
            lines += ["", f"Add to the rules of {where}:", "", *rules_yaml(missing).splitlines()]
        return "\n".join(map(printable, lines))

    def document(self) -> dict[str, Any]:
        """The report as one JSON document. docs/install.md describes its keys."""
        return {
            "version": self.version,
            "ok": self.ok,
            "api_server": self.api_server,
            "identity": self.identity,
            "checks": [dataclasses.asdict(finding) for finding in self.findings],
            "permissions": [
                dataclasses.asdict(each.permission)
                | {"needed": each.needed, "allowed": each.allowed}
                for each in self.access
            ],
            "rules_to_add": rules(each for each in self.missing if not each.namespace),
            "role_rules_to_add": {name: rules(each) for name, each in self.missing_in.items()},
            "node": self.node,
            "certificate": self.certificate and self.certificate.document(),
            "metrics": self.metrics and dataclasses.asdict(self.metrics),
            "namespaces": self.namespaces,
            "labels": [dataclasses.asdict(each) for each in self.coverage],
            "upstreams": [each.document() for each in self.upstreams],
        }


def indented(lines: Iterable[str]) -> str:
    """The text of a section's body: each line printable and indented."""
    return "\n".join(f"  {printable(line)}" for line in lines)


def printable(text: str) -> str:
    """Replaces characters that are not printable, so a server's text cannot move the cursor."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
