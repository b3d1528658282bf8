"""The page of `kmproxy logs`, and `/targets` as JSON: containers, how far they are behind, tenants.

Knows which facts come first, and their words. Must not know where the facts come from. It gets no
secret facts, and no text of any log.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from kmproxy.errors import one_line
from kmproxy.status import words
from kmproxy.status.markup import Child, Markup, element, join
from kmproxy.status.model import Certificate, Health, Process, Setting
from kmproxy.status.process_section import (
    certificate_tiles,
    foot,
    process_facts,
    settings_section,
)
from kmproxy.status.tables import (
    Column,
    facts,
    link,
    pager,
    search,
    section,
    shell,
    state,
    table,
    tiles,
)

PAGE_ROWS: Final = 50
"""Containers on one page. `/targets` has all."""

MOST_TENANTS: Final = 30
"""Tenants that are listed at most, the ones with the most containers first."""

KEYS: Final = ("q", "tenant", "sort", "page")
"""The keys that the page takes."""


class Target(msgspec.Struct, frozen=True):
    """A container whose log is read. `last_line` is in seconds since 1970, None without one."""

    namespace: str
    pod: str
    uid: str
    container: str
    instance: int
    labels: dict[str, str]
    tenant: str | None
    position: object
    lag_bytes: int
    last_line: float | None
    last_error: str | None


class TenantSum(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant: its containers, and how many bytes they are behind together."""

    name: str
    containers: int
    lag_bytes: int


class Containers(msgspec.Struct, frozen=True, kw_only=True):
    """All containers in numbers, and one page of the ones that are asked for."""

    total: int
    failing: int
    lag_bytes: int
    found: int
    page: int
    pages: int
    tenants: list[TenantSum]
    tenants_total: int
    rows: list[Target]


class Shipping(msgspec.Struct, frozen=True, kw_only=True):
    """From where and to where lines go. `oldest` is the age of the oldest unsent line."""

    source: str
    reading: str | None
    endpoint: str
    sending: str | None
    held: int
    buffer: int
    oldest: float | None


class LogsStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All facts of the page. `labels_confirmed` is the age of the labels in seconds."""

    health: Health
    problem: str | None
    shipping: Shipping
    containers: Containers
    labels_confirmed: float | None
    certificates: list[Certificate]
    process: Process
    settings: list[Setting]


@dataclass(frozen=True, slots=True)
class TargetQuery:
    """A person's question about containers. `text` is searched in names, labels and tenants."""

    text: str = ""
    tenant: str = ""
    sort: Literal["worst", "name"] = "worst"
    page: int = 1

    @property
    def keys(self) -> dict[str, str]:
        """The keys and values from which this query was read, without those of defaults."""
        sort = "" if self.sort == "worst" else self.sort
        page = str(self.page) if self.page > 1 else ""
        values = {"q": self.text, "tenant": self.tenant, "sort": sort, "page": page}
        return {key: value for key, value in values.items() if value}


def targets_document(targets: Sequence[Target]) -> bytes:
    """Return the targets as JSON."""
    return msgspec.json.encode(targets)


def by_name(targets: Iterable[Target]) -> list[Target]:
    """Return targets in the order of names."""
    return sorted(targets, key=_name)


def choose(targets: Sequence[Target], query: TargetQuery) -> Containers:
    """Choose the containers that a query asks for, one page of them."""
    tenants: dict[str, list[int]] = {}
    for each in targets:
        if each.tenant is not None:
            tenants.setdefault(each.tenant, []).append(each.lag_bytes)
    sums = [
        TenantSum(name=name, containers=len(lags), lag_bytes=sum(lags))
        for name, lags in tenants.items()
    ]
    found = [each for each in targets if _asked_for(each, query)]
    found.sort(key=_name if query.sort == "name" else _worst)
    pages = max(1, -(-len(found) // PAGE_ROWS))
    page = min(query.page, pages)
    return Containers(
        total=len(targets),
        failing=sum(each.last_error is not None for each in targets),
        lag_bytes=sum(each.lag_bytes for each in targets),
        found=len(found),
        page=page,
        pages=pages,
        tenants=sorted(sums, key=lambda each: (-each.containers, each.name))[:MOST_TENANTS],
        tenants_total=len(sums),
        rows=found[(page - 1) * PAGE_ROWS : page * PAGE_ROWS],
    )


def _name(target: Target) -> tuple[str, str, str]:
    return target.namespace, target.pod, target.container


def _worst(target: Target) -> tuple[bool, int, tuple[str, str, str]]:
    """Failing containers first, then the ones that are the most behind."""
    return target.last_error is None, -target.lag_bytes, _name(target)


def _asked_for(target: Target, query: TargetQuery) -> bool:
    if query.tenant and target.tenant != query.tenant:
        return False
    text = query.text.lower()
    shown = (*_name(target), target.tenant or "", *target.labels.values())
    return not text or any(text in each.lower() for each in shown)


def title(status: LogsStatus) -> str:
    """The title of the page: a tab of the browser shows the state."""
    return f"{_headline(status)} · kmproxy logs"


def body(status: LogsStatus, query: TargetQuery) -> Generator[None, None, Markup]:
    """Make the body of the page in steps: the generator returns it."""
    containers = _containers(status.containers, query)
    yield
    pairs: list[tuple[str, Child]] = [
        ("Each container as JSON", element("a", element("code", "/targets"), href="/targets")),
        ("This page as JSON", element("code", "curl -H 'Accept: application/json'")),
        *process_facts(status.process),
    ]
    parts = (
        _banner(status),
        tiles(_tiles(status)),
        containers,
        _shipping(status),
        section("process", "This process", facts(pairs)),
        settings_section(status.settings),
    )
    links = (("containers", "Containers"), ("shipping", "Lines"), ("settings", "Settings"))
    return shell("kmproxy logs", status.process.version, links, join(parts), foot())


def _headline(status: LogsStatus) -> str:
    if status.health == "unready":
        return "Not ready: no line is read"
    if status.shipping.sending:
        return "Lines cannot be sent"
    if status.shipping.reading:
        return "Pods cannot be listed"
    if failing := status.containers.failing:
        return f"{words.several(failing, 'container')} cannot be read"
    return "Every line is read and sent"


def _banner(status: LogsStatus) -> Markup:
    kind = "well" if status.health == "well" else "failing"
    said = (status.problem, status.shipping.sending, status.shipping.reading)
    remarks = (element("p", each) for each in said if each)
    heading = element("h1", state(kind, _headline(status)))
    return element(
        "div", heading, *remarks, class_=f"banner {kind}", id="health", aria_live="polite",
        data_live=True,
    )  # fmt: skip


def _tiles(status: LogsStatus) -> Iterator[tuple[str, Child, str, str]]:
    containers, shipping = status.containers, status.shipping
    failing = f"{containers.failing:,} failing" if containers.failing else "all are read"
    kind = "failing" if containers.failing else ""
    yield "Containers", words.count(containers.total), failing, kind
    yield "Behind", words.size(containers.lag_bytes), "not read yet", ""
    oldest = "none" if shipping.oldest is None else f"{words.age(shipping.oldest)} old"
    yield "Oldest unsent line", oldest, "in memory", "failing" if shipping.sending else ""
    used = f"of {words.size(shipping.buffer)}"
    full = "left" if shipping.held * 10 >= shipping.buffer * 9 else ""
    yield "Held in memory", words.size(shipping.held), used, full
    confirmed = words.ago(status.labels_confirmed, "not yet")
    yield "Labels confirmed", confirmed, "by the API server", ""
    yield from certificate_tiles(status.certificates)
    yield "Up for", words.age(status.process.up), status.process.version, ""


def _containers(containers: Containers, query: TargetQuery) -> Markup:
    options = (
        element("option", label, value=value, selected=query.sort == value)
        for value, label in (("worst", "worst first"), ("name", "by name"))
    )
    select = element("select", join(options), name="sort", id="sort")
    order = join((element("label", "Order", for_="sort", class_="unseen"), select))
    rest = {"tenant": query.tenant} if query.tenant else {}
    label = "Find containers by a part of the name, of a label or of the tenant"
    form = search("q", query.text, "Name, label or tenant", "containers", rest, label, order)
    found = join((_asked(containers, query), _table(containers), pager(
        containers.page, containers.pages, query.keys, "found-containers")))  # fmt: skip
    return section(
        "containers",
        "Containers",
        element("div", _tenants(containers, query), id="owners", data_live=True),
        form,
        element("div", found, id="found-containers", data_live=True),
        note=words.several(containers.total, "container"),
    )


def _tenants(containers: Containers, query: TargetQuery) -> Markup | None:
    if not containers.tenants:
        return None
    chips = []
    for each in containers.tenants:
        behind = f"{each.containers:,}"
        if each.lag_bytes:
            behind += f", {words.size(each.lag_bytes)} behind"
        current = {"aria_current": "true"} if query.tenant == each.name else {}
        name = join((each.name, " ", element("span", behind, class_="amount")))
        chips.append(
            element("li", link({"tenant": each.name}, name, "found-containers", **current))
        )
    if more := containers.tenants_total - len(containers.tenants):
        chips.append(element("li", f"and {more:,} more with fewer: search for them"))
    return join((element("h3", "By tenant"), element("ul", join(chips), class_="chips")))


def _asked(containers: Containers, query: TargetQuery) -> Markup | None:
    if not query.text and not query.tenant:
        return None
    parts = [words.several(containers.found, "container")]
    parts += [f"of tenant {query.tenant}"] if query.tenant else []
    parts += [f"with “{query.text}”"] if query.text else []
    back = link({}, "Show all", "containers")
    return element("p", element("b", " ".join(parts)), " · ", back, class_="asked", role="status")


def _table(containers: Containers) -> Markup:
    columns = (
        Column("Container"),
        Column("State"),
        Column("Stream"),
        Column("Tenant"),
        Column("Behind", number=True),
    )
    rows = map(_row, containers.rows)
    caption = "Containers whose logs are read"
    return table(caption, columns, rows, "No such container.", kind="containers")


def _row(target: Target) -> list[Child]:
    name: list[Child] = [element("code", "/".join(_name(target)))]
    if target.last_error is not None:
        name.append(element("span", one_line(target.last_error), class_="error"))
    pairs = (f'{label}="{value}"' for label, value in target.labels.items())
    kind, word = ("failing", "failing") if target.last_error is not None else ("well", "read")
    if target.last_error is None and target.last_line is None:
        kind, word = "never", "no line yet"
    return [
        join(name),
        state(kind, word),
        join(element("code", pair, class_="pair") for pair in pairs) or None,
        target.tenant,
        words.size(target.lag_bytes),
    ]


def _shipping(status: LogsStatus) -> Markup:
    shipping = status.shipping
    pairs: list[tuple[str, Child]] = [
        ("Logs from", shipping.source),
        ("Trouble with reading", shipping.reading or "none"),
        ("Lines to", shipping.endpoint),
        ("Trouble with sending", shipping.sending or "none"),
    ]
    return section("shipping", "Lines", facts(pairs), live=True)
