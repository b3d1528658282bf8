"""The facts of the status page: the same for HTML and JSON.

Must not know where the facts come from, or how they are shown. It gets no secret facts. Times are
seconds before the page was made, unless a field says otherwise.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Health = Literal["well", "failing", "waiting", "unready"]
"""`well`: every last scrape gave a whole answer. `failing`: a last scrape failed. `waiting`: there
was no scrape yet. `unready`: kmproxy serves no metrics yet, or no longer."""

ScrapeState = Literal["well", "failing", "left", "never"]
"""The last scrape of a path gave a whole answer, or failed, or its client left before the end, or
there was none."""


class Scrape(msgspec.Struct, frozen=True, kw_only=True):
    """How the last scrapes of a path went.

    `path` is the path as the documentation writes it, and `source` the server behind it. `node` is
    set for the endpoint of one node, `caller` for the scrapes of one tenant. `code` is the last
    status, or `broken`, `gone` or `error`. `ended`, `took`, `samples` and `labelled` are of the
    last scrape: when it ended, its duration in seconds, the samples it has seen, and the ones that
    got labels. `error` is the last failure, and `error_ago` when it was. `failing_for` is the time
    since the first failure after the last whole answer. `history` has a character for each of the
    last scrapes, the oldest first: `+` well, `-` failed, `~` the client left.
    """

    path: str
    source: str
    state: ScrapeState
    node: str = ""
    caller: str = ""
    code: str | None = None
    ended: float | None = None
    took: float | None = None
    samples: int | None = None
    labelled: int | None = None
    error: str | None = None
    error_ago: float | None = None
    failing_for: float | None = None
    history: str = ""

    @property
    def share(self) -> float | None:
        """The share of the samples that got labels, from 0 to 1. None without samples."""
        return (self.labelled or 0) / self.samples if self.samples else None


class Nodes(msgspec.Struct, frozen=True, kw_only=True):
    """The endpoints of nodes that were scraped by name, the worst ones first.

    `total` counts all that are remembered, `failing` the ones whose last scrape failed, `found` the
    ones with the text of the search in their name. `rows` are the worst ones of these.
    """

    total: int
    failing: int
    found: int
    rows: list[Scrape]


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """The namespaces without a value of their own for a label of the rules: how many, and some."""

    label: str
    count: int
    first: list[str]


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """An owner, and the number of its namespaces."""

    name: str
    count: int


class NamespaceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A namespace with labels that its samples get. `more` counts labels that are not shown."""

    name: str
    labels: dict[str, str]
    more: int
    lacking: list[str]


class Namespaces(msgspec.Struct, frozen=True, kw_only=True):
    """The namespaces that the caller may see, and one page of the ones that it asked for.

    `by` is the label that names owners; it is empty without a rule that names a label. `found`
    counts the namespaces on all `pages`.
    """

    total: int
    found: int
    page: int
    pages: int
    by: str
    missing: list[Missing]
    owners: list[Owner]
    owners_total: int
    rows: list[NamespaceRow]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A label rule. An empty `name` stands for every label under its own name."""

    source: str
    key: str
    name: str
    default: str | None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The label snapshot: when it was written, and how often it could not be read or written."""

    file: str
    written: float | None
    read_errors: int
    write_errors: int


class Labels(msgspec.Struct, frozen=True, kw_only=True):
    """Where labels come from, and how old they are.

    `confirmed` is the time since the API server last confirmed them. With `restored` they come from
    the snapshot. `trouble` is the last failure to list or watch namespaces, if the API server has
    not answered since.
    """

    confirmed: float | None
    restored: bool
    trouble: str | None
    on_conflict: str
    rules: list[Rule]
    snapshot: Snapshot | None


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate file of the metrics port. `ends_in` is in seconds, negative after its end."""

    name: str
    ends_in: float


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """An effective setting. `value` holds no secret. `default` tells that it is the default."""

    name: str
    value: str
    default: bool


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """This process. `up` is the time since its start. `telemetry` is the address of own metrics."""

    version: str
    revision: str
    up: float
    telemetry: str


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """All facts of the page. A tenant's page has only its own namespaces and scrapes.

    `problem` is the reason why kmproxy serves no metrics. `mode` is the value of
    `--authorization`. `paths` are the served paths without scrapes. `settings` and `process` are
    None for a tenant.
    """

    health: Health
    problem: str | None
    scrapes: list[Scrape]
    nodes: Nodes | None
    upstreams: list[Scrape]
    namespaces: Namespaces
    labels: Labels
    paths: list[str]
    certificates: list[Certificate]
    process: Process | None
    settings: list[Setting] | None
