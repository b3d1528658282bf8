"""Reads the query of the page. An unknown key or value is an error that names the known ones.

Must not know what is found.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar, cast
from urllib.parse import parse_qs

from kmproxy.exposition.selection import QueryError, check_keys
from kmproxy.status.namespaces import NamespaceQuery, Sort
from kmproxy.status.tables import MAX_TEXT

KEYS: Final = ("q", "owner", "by", "missing", "sort", "page", "node")
"""The keys that the page of the daemon takes."""

MAX_PAGE: Final = 100_000

Answer = Literal["html", "json"]

_JSON: Final = "application/json"

_T = TypeVar("_T", bound=str)


@dataclass(frozen=True, slots=True)
class PageQuery:
    """What the caller looks for: namespaces, and a text in the names of nodes."""

    namespaces: NamespaceQuery
    node: str = ""

    @property
    def keys(self) -> dict[str, str]:
        """The keys and values from which this query was read, without those of defaults."""
        asked = self.namespaces
        values = {
            "q": asked.text,
            "by": asked.by,
            "owner": asked.owner,
            "missing": asked.missing,
            "sort": asked.sort if asked.sort != "name" else "",
            "page": str(asked.page) if asked.page > 1 else "",
            "node": self.node,
        }
        return {key: value for key, value in values.items() if value}


def read_query(raw: str, labels: Collection[str]) -> PageQuery:
    """Read a query as the client sent it. `labels` are the names of the rules.

    Raises QueryError.
    """
    query = parse_qs(raw, keep_blank_values=True)
    check_keys(query, *KEYS)
    return PageQuery(
        NamespaceQuery(
            text=one_text(query, "q").strip(),
            by=_label(query, "by", labels),
            owner=one_text(query, "owner"),
            missing=_label(query, "missing", labels),
            sort=one_of(query, "sort", cast("tuple[Sort, ...]", ("name", "owner"))),
            page=page_number(query),
        ),
        node=one_text(query, "node").strip(),
    )


def one_text(query: Mapping[str, Sequence[str]], key: str) -> str:
    """The text of a key, or empty. Raises QueryError for several values and for a long one."""
    values = query.get(key, ("",))
    if len(values) > 1:
        raise QueryError(f"query key {key!r} may be given once")
    if len(values[0]) > MAX_TEXT:
        raise QueryError(f"the value of query key {key!r} has over {MAX_TEXT} characters")
    return values[0]


def one_of(query: Mapping[str, Sequence[str]], key: str, known: tuple[_T, ...]) -> _T:
    """One of the known values, the first one by default. Raises QueryError for another one."""
    value = one_text(query, key) or known[0]
    for each in known:
        if each == value:
            return each
    raise QueryError(f"query key {key!r} takes one of {', '.join(known)}")


def page_number(query: Mapping[str, Sequence[str]]) -> int:
    """The number of a page, from 1. Raises QueryError for what is no such number."""
    value = one_text(query, "page") or "1"
    if value.isascii() and value.isdecimal() and 1 <= int(value[:9]) <= MAX_PAGE and len(value) < 9:
        return int(value)
    raise QueryError(f"query key 'page' takes a number from 1 to {MAX_PAGE}")


def _label(query: Mapping[str, Sequence[str]], key: str, labels: Collection[str]) -> str:
    value = one_text(query, key)
    if value and value not in labels:
        shown = ", ".join(labels) or "none: no rule names a label"
        raise QueryError(f"query key {key!r} takes a label of the rules: {shown}")
    return value


def wanted(accept: str) -> Answer:
    """Whether an Accept header prefers JSON to HTML. Without a preference it is HTML."""
    weights = {"html": 0.0, "json": 0.0}
    given = {"html": -1, "json": -1}  # how exactly the header names it
    names = {"html": ("*/*", "text/*", "text/html"), "json": ("*/*", "application/*", _JSON)}
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        for answer, known in names.items():
            if media in known and known.index(media) >= given[answer]:
                given[answer] = known.index(media)
                weights[answer] = _weight(parameters)
    return "json" if weights["json"] > weights["html"] else "html"


def _weight(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
