"""The section of namespaces: who owns what, and first of all the ones without an owner.

Knows its words and its links. Must not know how namespaces are found.
"""

from __future__ import annotations

from typing import Final

from kmproxy.status import words
from kmproxy.status.markup import Child, Markup, element, join
from kmproxy.status.model import Namespaces
from kmproxy.status.namespaces import NamespaceQuery
from kmproxy.status.query import PageQuery
from kmproxy.status.tables import Column, link, pager, search, section, state, table

MOST_COLUMNS: Final = 3
"""Labels that have a column of their own."""


def namespaces_section(namespaces: Namespaces, query: PageQuery) -> Markup:
    """The section: who owns nothing first, then owners, then a search and its result."""
    asked = query.namespaces
    keys = {key: value for key, value in query.keys.items() if key not in {"q", "page", "sort"}}
    order: Child = None
    if namespaces.by:
        options = (
            element("option", label, value=value, selected=asked.sort == value)
            for value, label in (("name", "by name"), ("owner", f"by {namespaces.by}"))
        )
        select = element("select", join(options), name="sort", id="sort")
        order = join((element("label", "Order", for_="sort", class_="unseen"), select))
    form = search(
        "q",
        asked.text,
        "Name or owner",
        "namespaces",
        keys,
        "Find namespaces by a part of the name or of a label",
        order,
    )
    return section(
        "namespaces",
        "Namespaces",
        element(
            "div",
            _unowned(namespaces, query),
            _owners(namespaces, query),
            id="owners",
            data_live=True,
        ),
        form,
        element("div", _found(namespaces, query), id="found-namespaces", data_live=True),
        note=words.several(namespaces.total, "namespace"),
    )


def _unowned(namespaces: Namespaces, query: PageQuery) -> Markup:
    """The namespaces without an owner, for each label of the rules."""
    boxes = []
    for each in namespaces.missing:
        label = element("code", each.label)
        if not each.count:
            mark = state("well", "Every namespace has a value of its own for")
            boxes.append(element("p", mark, " ", label, class_="owned"))
            continue
        rest = {"missing": each.label} | ({"node": query.node} if query.node else {})
        heading = element(
            "h3",
            state("left", f"{words.several(each.count, 'namespace')} without"),
            " ",
            label,
        )
        names = [element("li", element("code", name)) for name in each.first]
        if each.count > len(each.first):
            shown = link(rest, f"all {words.count(each.count)}", "found-namespaces")
            names.append(element("li", shown))
        boxes.append(
            element("div", heading, element("ul", join(names), class_="names"), class_="unowned")
        )
    return join(boxes)


def _owners(namespaces: Namespaces, query: PageQuery) -> Markup | None:
    if not namespaces.by or not namespaces.owners:
        return None
    asked = query.namespaces
    chips = []
    for each in namespaces.owners:
        rest = {"by": namespaces.by, "owner": each.name}
        rest |= {"node": query.node} if query.node else {}
        number = element("span", words.count(each.count), class_="amount")
        current = {"aria_current": "true"} if asked.owner == each.name else {}
        chips.append(
            element("li", link(rest, join((each.name, " ", number)), "found-namespaces", **current))
        )
    more = namespaces.owners_total - len(namespaces.owners)
    if more:
        chips.append(element("li", f"and {words.count(more)} more with fewer: search for them"))
    others = [
        link({"by": each.label}, element("code", each.label), "namespaces")
        for each in namespaces.missing
        if each.label != namespaces.by
    ]
    switch: Child = None
    if others:
        apart = [join((each, " ")) for each in others]
        switch = element("p", "Owners by another label: ", *apart, class_="note")
    heading = element("h3", "By ", element("code", namespaces.by))
    return join((heading, switch, element("ul", join(chips), class_="chips")))


def _found(namespaces: Namespaces, query: PageQuery) -> Markup:
    names = [each.label for each in namespaces.missing][:MOST_COLUMNS]
    columns = [Column("Namespace"), *(Column(each) for each in names), Column("Other labels")]
    rows = []
    for each in namespaces.rows:
        cells: list[Child] = [element("code", each.name)]
        for label in names:
            own = each.labels.get(label)
            if label in each.lacking:
                own = f"none (default {own})" if own else "none"
                cells.append(element("span", own, class_="none"))
            else:
                cells.append(own)
        pairs = [f'{name}="{value}"' for name, value in each.labels.items() if name not in names]
        if each.more:
            pairs.append(f"and {each.more} more")
        cells.append(join(element("span", pair, class_="pair") for pair in pairs) or None)
        rows.append(cells)
    if all(cells[-1] is None for cells in rows):
        columns, rows = columns[:-1], [cells[:-1] for cells in rows]
    shown = table("Namespaces and the labels of their samples", columns, rows, "No such namespace.")
    return join((_asked(namespaces, query), shown, pager(
        namespaces.page, namespaces.pages, query.keys, "found-namespaces")))  # fmt: skip


def _asked(namespaces: Namespaces, query: PageQuery) -> Markup | None:
    """The question that the list answers, and the way back to the whole list."""
    asked = query.namespaces
    if asked == NamespaceQuery(by=asked.by, sort=asked.sort, page=asked.page):
        return None
    parts = [words.several(namespaces.found, "namespace")]
    if asked.missing:
        parts.append(f"without {asked.missing}")
    if asked.owner:
        parts.append(f"with {namespaces.by}={asked.owner}")
    if asked.text:
        parts.append(f"with “{asked.text}”")
    rest = {"node": query.node} if query.node else {}
    back = link(rest, "Show all", "namespaces")
    return element("p", element("b", " ".join(parts)), " · ", back, class_="asked", role="status")
