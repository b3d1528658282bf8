"""The page of the daemon: how scrapes went, who owns what, and how kmproxy is set up.

Knows which facts come first, and their words. Must not know where the facts come from.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Final

from kmproxy.status import words
from kmproxy.status.markup import Child, Markup, element, join
from kmproxy.status.model import Labels, Namespaces, Scrape, Status
from kmproxy.status.namespace_section import namespaces_section
from kmproxy.status.process_section import certificate_tiles, foot, process_facts, settings_section
from kmproxy.status.query import PageQuery
from kmproxy.status.scrape_section import nodes_section, scrape_table, scrapes_section
from kmproxy.status.tables import (
    Column,
    facts,
    path_link,
    section,
    shell,
    state,
    table,
    tiles,
)

OLD: Final = 300.0
"""Seconds after which labels that nobody confirmed are old. Bookmarks confirm them every minute."""


def body(status: Status, query: PageQuery) -> Generator[None, None, Markup]:
    """Make the body of the page in steps: the generator returns it."""
    parts: list[Child] = [
        _banner(status),
        tiles(_tiles(status)),
        scrapes_section(status.scrapes, own=status.process is None),
    ]
    links = [("scrapes", "Scrapes")]
    yield
    if status.nodes is not None:
        parts.append(nodes_section(status.nodes, query))
        links.append(("nodes", "Nodes"))
        yield
    if status.upstreams:
        shown = scrape_table("How the last scrapes of each upstream went", status.upstreams)
        parts.append(section("upstreams", "Upstreams", shown, live=True))
        links.append(("upstreams", "Upstreams"))
    parts += [namespaces_section(status.namespaces, query), _labels(status.labels), _paths(status)]
    links += [("namespaces", "Namespaces"), ("labels", "Labels")]
    yield
    if status.settings is not None:
        parts.append(settings_section(status.settings))
        links.append(("settings", "Settings"))
    version = status.process.version if status.process else ""
    return shell("kmproxy", version, links, join(parts), foot())


def title(status: Status) -> str:
    """The title of the page: a tab of the browser shows the state."""
    return f"{_headline(status)} · kmproxy"


def _failing(status: Status) -> list[Scrape]:
    rows = [*status.scrapes, *status.upstreams]
    return [each for each in rows if each.state == "failing"]


def _headline(status: Status) -> str:
    scraped = [each for each in (*status.scrapes, *status.upstreams) if each.state != "never"]
    match status.health:
        case "unready":
            return "Not ready: no metrics are served"
        case "waiting":
            return "Ready, nothing was scraped yet"
        case "failing" if failing := len(_failing(status)):
            return f"{failing} of {words.several(len(scraped), 'scraped path')} failing"
        case "failing" if status.nodes is not None:
            return f"{words.several(status.nodes.failing, 'endpoint')} of nodes failing"
        case _:
            return "Every scrape is well"


def _banner(status: Status) -> Markup:
    kind = {"well": "well", "failing": "failing", "waiting": "never", "unready": "failing"}
    remarks: list[Child] = []
    if status.problem:
        remarks.append(element("p", status.problem))
    for each in _failing(status)[:3]:
        name = element("code", each.path)
        remarks.append(element("p", name, " ", each.error or each.code))
    if status.labels.trouble and not status.problem:
        remarks.append(element("p", "Namespaces: ", status.labels.trouble))
    heading = element("h1", state(kind[status.health], _headline(status)))
    return element(
        "div",
        heading,
        *remarks,
        class_=f"banner {kind[status.health]}",
        id="health",
        data_live=True,
    )


def _tiles(status: Status) -> Iterator[tuple[str, Child, str, str]]:
    scraped = [each for each in (*status.scrapes, *status.upstreams) if each.state != "never"]
    bad = sum(each.state == "failing" for each in scraped)
    last = min((each.ended for each in scraped if each.ended is not None), default=None)
    remark = f"last one {words.ago(last)}" if scraped else "point Prometheus here"
    yield "Paths well", f"{len(scraped) - bad} of {len(scraped)}", remark, "failing" if bad else ""
    if (nodes := status.nodes) is not None and nodes.total:
        well = f"{words.count(nodes.total - nodes.failing)} of {words.count(nodes.total)}"
        yield "Node scrapes well", well, "scraped by name", "failing" if nodes.failing else ""
    yield _namespace_tile(status.namespaces)
    yield _label_tile(status.labels)
    yield from certificate_tiles(status.certificates)
    if status.process is not None:
        yield "Up for", words.age(status.process.up), status.process.version, ""


def _namespace_tile(namespaces: Namespaces) -> tuple[str, Child, str, str]:
    unowned = next((each for each in namespaces.missing if each.label == namespaces.by), None)
    if unowned is None:
        return "Namespaces", words.count(namespaces.total), "", ""
    remark = (
        f"{words.count(unowned.count)} without {unowned.label}" if unowned.count else "all owned"
    )
    return "Namespaces", words.count(namespaces.total), remark, "left" if unowned.count else ""


def _label_tile(labels: Labels) -> tuple[str, Child, str, str]:
    kind = "left" if labels.restored or labels.confirmed is None else ""
    if labels.confirmed is not None and labels.confirmed > OLD:
        kind = "left"
    remark = "from the snapshot" if labels.restored else "by the API server"
    return "Labels confirmed", words.ago(labels.confirmed, "not yet"), remark, kind


def _labels(labels: Labels) -> Markup:
    columns = (Column("Metric label"), Column("From the namespace's"), Column("Default"))
    rows = []
    for rule in labels.rules:
        name: Child = element("code", rule.name) if rule.name else "its own name"
        key: Child = join((rule.source, " ", element("code", rule.key)))
        if not rule.key:
            key = "no key, only the default"
        if rule.key == "*":
            key = f"every {rule.source}"
        rows.append([name, key, rule.default])
    pairs: list[tuple[str, Child]] = [
        ("Labels from", "the snapshot, until the first list" if labels.restored else "the cluster"),
        ("Confirmed by the API server", words.ago(labels.confirmed)),
        ("Trouble", labels.trouble or "none"),
        (
            "Labels that samples already have",
            "are kept" if labels.on_conflict == "keep" else "are overwritten",
        ),
    ]
    if (snapshot := labels.snapshot) is not None:
        failures = ""
        if snapshot.write_errors or snapshot.read_errors:
            failures = (
                f", {snapshot.write_errors} failed writes, {snapshot.read_errors} failed reads"
            )
        pairs.append(("Snapshot written", words.ago(snapshot.written, "not yet") + failures))
        pairs.append(("Snapshot", element("code", snapshot.file)))
    none = "None: samples are served as the kubelet sends them."
    shown = table("The label rules", columns, rows, none)
    return section("labels", "Labels", facts(pairs), shown, live=True)


def _paths(status: Status) -> Markup:
    shown = [element("li", path_link(path, element("code", path))) for path in status.paths]
    pairs: list[tuple[str, Child]] = []
    if shown:
        pairs.append(("Served besides", element("ul", join(shown), class_="names")))
    pairs.append(("This page as JSON", element("code", "curl -H 'Accept: application/json'")))
    if (process := status.process) is not None:
        pairs += process_facts(process)
    return section("process", "This process", facts(pairs))
