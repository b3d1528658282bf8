"""The parts of every page that are about the process: certificates, settings, version and links.

Must not know which of the daemons the process is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from kmproxy.status import words
from kmproxy.status.markup import Child, Markup, element, join
from kmproxy.status.model import Certificate, Process, Setting
from kmproxy.status.tables import Column, section, table

DOCS: Final = "https://kmproxy.example.com/docs"
"""Where the documentation is published. The alert rules name the same place."""

SOON: Final = 14 * 86400.0
"""Seconds before the end of a certificate at which the page warns. The alert rules do then, too."""


def certificate_tiles(certificates: Iterable[Certificate]) -> Iterator[tuple[str, Child, str, str]]:
    """A tile for each certificate. It warns before the end."""
    for each in certificates:
        left = words.age(each.ends_in) if each.ends_in > 0 else "ended"
        kind = "failing" if each.ends_in <= 0 else "left" if each.ends_in < SOON else ""
        yield "Certificate ends in", left, each.name.replace("_", " "), kind


def process_facts(process: Process) -> list[tuple[str, Child]]:
    """Version, uptime, and where own metrics are."""
    port = process.telemetry.rpartition(":")[2]
    own = element("span", "port ", port, ", /metrics", data_own_metrics=port)
    pairs: list[tuple[str, Child]] = [
        ("Version", process.version),
        ("Up for", words.age(process.up)),
        ("Own metrics", own),
    ]
    if process.revision:
        pairs.insert(1, ("Revision", element("code", process.revision)))
    return pairs


def settings_section(settings: Sequence[Setting]) -> Markup:
    """The effective settings, the ones that differ from their default first."""
    columns = (Column("Setting"), Column("Value"), Column("Set"))
    rows = (
        [
            element("code", each.name),
            join(element("code", line, class_="pair") for line in each.value.split("\n") if line)
            or "none",
            "default" if each.default else "yes",
        ]
        for each in sorted(settings, key=lambda each: each.default)
    )
    changed = sum(not each.default for each in settings)
    shown = table("The effective settings", columns, rows, "None.")
    summary = element("summary", f"{changed} of {len(settings)} settings differ from their default")
    note = "Secrets are not shown."
    return section("settings", "Settings", element("details", summary, shown), note=note)


def foot() -> Markup:
    """Links to the documentation."""
    pages = (
        ("Documentation", f"{DOCS}/getting-started.md"),
        ("This page", f"{DOCS}/status-page.md"),
        ("Runbooks", f"{DOCS}/runbooks.md"),
        ("Troubleshooting", f"{DOCS}/troubleshooting.md"),
        ("Own metrics", f"{DOCS}/operations.md#metrics"),
    )
    links = (
        element("li", element("a", name, href=target, rel="noreferrer")) for name, target in pages
    )
    return element("nav", element("ul", join(links)), aria_label="Documentation")
