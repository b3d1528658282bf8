"""The sections of scrapes: of paths, of nodes and of upstreams.

Knows their columns and words. Must not know how outcomes are remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from kmproxy.status import words
from kmproxy.status.markup import Child, Markup, element, join
from kmproxy.status.model import Nodes, Scrape
from kmproxy.status.query import PageQuery
from kmproxy.status.tables import Column, history, part, path_link, search, section, state, table

_STATES: Final = {"well": "well", "failing": "failing", "left": "cut", "never": "never scraped"}
_ORDER: Final = ("failing", "left", "well", "never")


def scrape_table(caption: str, scrapes: Sequence[Scrape], empty: str = "No path.") -> Markup:
    """A table of scrapes, the failing ones first. `empty` is shown without any."""
    columns = (
        Column("Path"),
        Column("State"),
        Column("Last scrape"),
        Column("Duration", number=True),
        Column("Samples", number=True),
        Column("With labels", number=True),
        Column("History"),
    )
    rows = sorted(scrapes, key=lambda each: _ORDER.index(each.state))
    return table(caption, columns, map(_scrape, rows), empty, kind="scrapes")


def _scrape(scrape: Scrape) -> list[Child]:
    name: list[Child] = [_path(scrape)]
    origin = " ".join(filter(None, (scrape.source, scrape.caller and f"for {scrape.caller}")))
    if origin:
        name.append(element("span", origin, class_="origin"))
    if scrape.error is not None:
        said = [] if scrape.error_ago is None else [words.ago(scrape.error_ago)]
        if scrape.failing_for is not None and scrape.failing_for >= 1:
            said.append(f"failing for {words.age(scrape.failing_for)}")
        when = element("span", ", ".join(said), class_="when")
        kind = "error" if scrape.state == "failing" else "error past"
        name.append(element("span", scrape.error, " ", when, class_=kind))
    last = None
    if scrape.ended is not None:
        code = scrape.code if scrape.code not in {None, "200"} else None
        last = join((words.ago(scrape.ended), code and element("span", code, class_="code")))
    return [
        join(name),
        state(scrape.state, _STATES[scrape.state]),
        last,
        None if scrape.took is None else words.duration(scrape.took),
        words.count(scrape.samples) if scrape.samples else None,
        part(scrape.share),
        history(scrape.history),
    ]


def _path(scrape: Scrape) -> Markup:
    if not scrape.node:
        return path_link(scrape.path, element("code", scrape.path))
    endpoint = element("code", scrape.path.partition("/proxy")[2])
    target = scrape.path.replace("{node}", quote(scrape.node, safe="", errors="replace"))
    return join((element("b", scrape.node), " ", path_link(target, endpoint)))


def nodes_section(nodes: Nodes, query: PageQuery) -> Markup:
    """The section of nodes, with a search by name."""
    rest = {key: value for key, value in query.keys.items() if key not in {"node", "page"}}
    form = search(
        "node", query.node, "Name of a node", "nodes", rest, "Find nodes by a part of the name"
    )
    found = scrape_table(
        "How the last scrapes of each node went, the worst ones first",
        nodes.rows,
        "No such node was scraped by its name." if query.node else "No node was scraped yet.",
    )
    hidden = nodes.found - len(nodes.rows)
    more = hidden > 0 and element(
        "p", f"… and {words.count(hidden)} that are not worse", class_="more"
    )
    live = element("div", found, more or None, id="found-nodes", data_live=True)
    note = f"{words.count(nodes.failing)} of {words.several(nodes.total, 'endpoint')} failing"
    return section("nodes", "Nodes", form, live, note=f"{note}, the worst ones first")


def scrapes_section(scrapes: Sequence[Scrape], *, own: bool) -> Markup:
    """The section of paths. The ones without a scrape share a line. `own` are one tenant's."""
    scraped = [each for each in scrapes if each.state != "never"]
    never = [element("li", _path(each)) for each in scrapes if each.state == "never"]
    shown = scrape_table(
        "How the last scrapes of each path went", scraped, "Nothing was scraped yet."
    )
    rest = None
    if never:
        rest = join((element("h3", "Never scraped"), element("ul", join(never), class_="names")))
    note = "Your own scrapes." if own else None
    return section("scrapes", "Scrapes", shown, rest, live=True, note=note)
