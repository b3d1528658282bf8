"""Tables, tiles and marks: the parts of which each page is made.

Knows their HTML, on wide and on narrow screens. Must not know the facts that they show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from kmproxy.status.markup import Child, Markup, element, join, text
from kmproxy.status.words import several, share

MAX_TEXT: Final = 1024
"""Characters of a text that is searched. An owner may be as long as a label's value by default."""

MARKS: Final = {"well": "✓", "failing": "✕", "left": "!", "never": "·", "unready": "!"}
"""The sign of a state. A state is never told by its colour alone."""

_BAR = 4  # width of a scrape in the history, with its gap


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, and whether it holds numbers."""

    name: str
    number: bool = False


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Child]],
    empty: str,
    *,
    kind: str | None = None,
) -> Markup:
    """A table. The first cell of a row names it. On a narrow screen a row becomes a card.

    `kind` chooses the widths of its columns. Without rows the text `empty` is in its place.

    Roles are written out, as some browsers drop them for rows that are no longer laid out as rows.
    """
    heads = (
        element("th", each.name, scope="col", role="columnheader", class_=_kind(each))
        for each in columns
    )
    begins = [_begin(each) for each in columns[1:]]
    body = [_row(begins, cells) for cells in rows]
    if not body:
        return element("p", empty, class_="empty")
    return element(
        "table",
        element("caption", caption, class_="unseen"),
        element("thead", element("tr", join(heads), role="row"), role="rowgroup"),
        element("tbody", join(body), role="rowgroup"),
        role="table",
        class_=kind,
    )


def _begin(column: Column) -> str:
    """The beginning of each cell of a column."""
    kind = ' class="number"' if column.number else ""
    return f'<td role="cell"{kind} data-label="{text(column.name)}"><span>'


def _row(begins: Sequence[str], cells: Sequence[Child]) -> Markup:
    """A row. It is written out here, as a page has hundreds of cells."""
    first, *others = cells
    shown = [f'<tr role="row"><th scope="row" role="rowheader">{text(first or "")}</th>']
    shown += [
        f"{begin}{text(cell)}</span></td>" if cell else '<td role="cell"></td>'
        for begin, cell in zip(begins, others, strict=True)
    ]
    return Markup("".join(shown) + "</tr>")


def _kind(column: Column) -> str | None:
    return "number" if column.number else None


def section(
    ident: str, title: str, *content: Child, live: bool = False, note: Child = None
) -> Markup:
    """A section with its heading. The script renews a live one."""
    heading = element("h2", title, id=f"{ident}-title")
    return element(
        "section",
        element("div", heading, note and element("p", note, class_="note"), class_="heading"),
        *content,
        id=ident,
        class_="card",
        aria_labelledby=f"{ident}-title",
        data_live=live,
    )


def tiles(facts: Iterable[tuple[str, Child, str, str]]) -> Markup:
    """The most important facts: each a name, a value, a remark and a state."""
    shown = (
        element(
            "div",
            element("dt", name),
            element("dd", element("span", value, class_="value"), remark and _remark(remark)),
            class_=f"tile {state}".strip(),
        )
        for name, value, remark, state in facts
    )
    return element("dl", join(shown), class_="tiles", id="tiles", data_live=True)


def _remark(text: str) -> Markup:
    return element("span", text, class_="remark")


def facts(pairs: Iterable[tuple[str, Child]]) -> Markup:
    """Facts, each with its name."""
    shown = (element("div", element("dt", name), element("dd", value)) for name, value in pairs)
    return element("dl", join(shown), class_="facts")


def state(kind: str, word: str) -> Markup:
    """A state: a sign and a word."""
    mark = element("span", MARKS[kind], aria_hidden="true", class_="mark")
    return element("span", mark, word, class_=f"state {kind}")


def history(results: str) -> Markup | None:
    """The results of the last scrapes, the oldest first, as small bars."""
    if not results:
        return None
    bars = []
    for sign, kind in (("+", "well"), ("-", "failing"), ("~", "left")):
        marks = (
            f"M{number * _BAR} {0 if sign != '+' else 4}h3v{14 if sign != '+' else 10}h-3z"
            for number, each in enumerate(results)
            if each == sign
        )
        if drawn := "".join(marks):
            bars.append(element("path", d=drawn, class_=kind))
    failed, left = results.count("-"), results.count("~")
    said = f"{several(len(results), 'scrape')}, {failed} failed" + (f", {left} cut" if left else "")
    width = len(results) * _BAR
    return element(
        "svg",
        join(bars),
        viewBox=f"0 0 {width} 14",
        width=str(width),
        height="14",
        role="img",
        aria_label=said,
        class_="history",
    )


def part(value: float | None) -> Markup | None:
    """A share as a number and as a bar."""
    if value is None:
        return None
    width = str(round(value * 48, 1))
    bar = element(
        "svg",
        element("rect", width="48", height="6", rx="3", class_="all"),
        element("rect", width=width, height="6", rx="3", class_="part"),
        viewBox="0 0 48 6",
        width="48",
        height="6",
        aria_hidden="true",
        class_="share",
    )
    return join((bar, share(value)))


def path_link(path: str, label: Child) -> Markup:
    """A link to a path of this server. Without one if the path has a placeholder or is no path."""
    ours = path.startswith("/") and not path.startswith(("//", "/\\")) and "{" not in path
    return element("a", label, href=path) if ours else element("span", label)


def link(keys: Mapping[str, str], label: Child, anchor: str = "", **attributes: str) -> Markup:
    """A link to this page with another query."""
    pairs = "&".join(
        f"{quote(key)}={quote(value, safe='', errors='replace')}" for key, value in keys.items()
    )
    target = f"?{pairs}" if pairs else "./"
    return element("a", label, href=f"{target}#{anchor}" if anchor else target, **attributes)


def search(
    key: str,
    value: str,
    hint: str,
    anchor: str,
    rest: dict[str, str],
    label: str,
    *more: Child,
) -> Markup:
    """A form that asks the page for a text under `key`, with the `rest` of the query unchanged."""
    field = element(
        "input",
        type="search",
        name=key,
        value=value or None,
        placeholder=hint,
        id=f"search-{key}",
        maxlength=str(MAX_TEXT),
        autocomplete="off",
        spellcheck="false",
    )
    hidden = (element("input", type="hidden", name=name, value=each) for name, each in rest.items())
    return element(
        "form",
        element("label", label, for_=f"search-{key}", class_="unseen"),
        field,
        *more,
        *hidden,
        element("button", "Search", type="submit"),
        action=f"./#{anchor}",
        method="get",
        role="search",
        aria_label=label,
        data_renews=f"found-{anchor}",
    )


def pager(page: int, pages: int, keys: Mapping[str, str], anchor: str) -> Markup | None:
    """The links to the page before and the page after."""
    if pages < 2:
        return None
    rest = {key: value for key, value in keys.items() if key != "page"}
    parts: list[Child] = []
    if page > 1:
        parts.append(link({**rest, "page": str(page - 1)}, "← Previous", anchor, rel="prev"))
    parts.append(element("span", f"Page {page:,} of {pages:,}"))
    if page < pages:
        parts.append(link({**rest, "page": str(page + 1)}, "Next →", anchor, rel="next"))
    return element("nav", *parts, class_="pager", aria_label="Pages of the list")


def shell(
    name: str, version: str, links: Iterable[tuple[str, str]], main: Markup, foot: Markup
) -> Markup:
    """The body of a page: the bar at the top with `links` to sections, the content and the foot."""
    anchors = (element("li", element("a", label, href=f"#{ident}")) for ident, label in links)
    live = element(
        "button", "Refresh: on", type="button", id="refresh", hidden=True, aria_pressed="true"
    )
    bar = element(
        "div",
        element("a", element("b", name), element("span", version), href="./", class_="brand"),
        element("nav", element("ul", join(anchors)), aria_label="Sections"),
        live,
        class_="bar",
    )
    lost = element("p", id="lost", class_="lost", role="alert", hidden=True)
    return join(
        (
            element("a", "Skip to the content", href="#main", class_="skip"),
            element("header", bar),
            element("main", lost, main, id="main", tabindex="-1"),
            element("footer", foot),
        )
    )
