"""Finds and sorts namespaces by their owners, and first of all the ones without an owner.

Knows the label map, and how a list is searched and divided into pages. Must not know HTML or HTTP.
The work is done in steps, so that the event loop can serve scrapes between them.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

from kmproxy.exposition.grammar import unescape
from kmproxy.labels.label_map import LabelMap
from kmproxy.labels.rendering import read_pairs
from kmproxy.status.model import Missing, NamespaceRow, Namespaces, Owner

PAGE_ROWS: Final = 50
"""Namespaces on one page."""

MOST_OWNERS: Final = 30
"""Owners that are listed at most, the ones with the most namespaces first."""

MOST_MISSING: Final = 12
"""Names of namespaces without an owner that are listed at most."""

MAX_LABELS: Final = 16
"""Labels of one namespace that are shown at most."""

MAX_VALUE: Final = 200
"""Characters of a label's value that are shown at most."""

STEP: Final = 500
"""Sets of labels in which an owner is found in one step. It takes about a millisecond."""

SEARCH_STEP: Final = 100
"""Sets of labels that are read whole in one step. It takes about a millisecond."""

_REST_OF_VALUE = re.compile(rb'((?:[^"\\]++|\\.)*+)"')

Sort = Literal["name", "owner"]
Steps = Generator[None, None, Namespaces]


@dataclass(frozen=True, slots=True)
class NamespaceQuery:
    """A person's question about namespaces.

    `text` is searched in names and values. `owner` is the exact value of the label `by`. `missing`
    is the name of a label without which namespaces are wanted. Empty texts ask for everything. An
    empty `by` stands for the first label of the rules.
    """

    text: str = ""
    by: str = ""
    owner: str = ""
    missing: str = ""
    sort: Sort = "name"
    page: int = 1


def find_namespaces(
    labels: LabelMap, query: NamespaceQuery, seen: Collection[str] | None = None
) -> Steps:
    """Answer a query in steps: the generator returns the answer.

    `seen` are the namespaces that the caller may see; None stands for all. Nothing in the answer
    depends on other namespaces.
    """
    held = labels.held()
    lackers = {name: labels.lackers(name) for name in labels.names}
    if seen is not None:
        visible = {name.encode() for name in seen}
        held = {name: held[name] for name in sorted(visible) if name in held}
        lackers = {
            label: [name for name in names if name in visible] for label, names in lackers.items()
        }
    yield
    by = query.by if query.by in labels.names else next(iter(labels.names), "")
    search = _Search(labels, held, by, frozenset(lackers.get(by, ())))
    yield from search.read_owners()
    names: Iterable[bytes] = held
    if query.missing:
        names = [name for name in lackers.get(query.missing, ()) if name in held]
    if query.owner:
        names = search.of_owner(names, query.owner)
    if query.text:
        names = yield from search.containing(names, query.text)
    found = list(names)
    yield
    pages = max(1, -(-len(found) // PAGE_ROWS))
    page = min(query.page, pages)
    end = page * PAGE_ROWS
    chosen = islice(search.ordered(found, query.sort, end), end - PAGE_ROWS, end)
    return Namespaces(
        total=len(held),
        found=len(found),
        page=page,
        pages=pages,
        by=by,
        missing=[_missing(label, names) for label, names in lackers.items()],
        owners=search.owners(MOST_OWNERS),
        owners_total=len(search.counts),
        rows=[search.row(name) for name in chosen],
    )


def _missing(label: str, names: list[bytes]) -> Missing:
    first = heapq.nsmallest(MOST_MISSING, names)
    return Missing(label=label, count=len(names), first=[name.decode() for name in first])


class _Search:
    """The namespaces that a caller may see, with the label that names their owners."""

    def __init__(
        self, labels: LabelMap, held: dict[bytes, bytes], by: str, without: frozenset[bytes]
    ) -> None:
        self._labels = labels
        self._held = held
        self._by = by
        self._without = without
        self._owner: dict[bytes, bytes] = {}  # labels -> the owner in them
        self.counts: Counter[bytes] = Counter()

    def read_owners(self) -> Generator[None, None, None]:
        """Find the owner in each set of labels, and count the namespaces of each owner.

        Namespaces of one owner mostly have equal labels, so these are read once.
        """
        begin = b',%b="' % self._by.encode()
        counts = Counter(self._held.values())
        counts.subtract(self._held[name] for name in self._without if name in self._held)
        yield
        for number, (labels, count) in enumerate(counts.items(), 1):
            start = labels.find(begin)
            match = _REST_OF_VALUE.match(labels, start + len(begin)) if start >= 0 else None
            if match and count and self._by:
                self._owner[labels] = match[1]
                self.counts[match[1]] += count
            if not number % STEP:
                yield

    def owners(self, most: int) -> list[Owner]:
        """The owners with the most namespaces, at most `most`."""
        chosen = heapq.nsmallest(most, self.counts.items(), key=lambda each: (-each[1], each[0]))
        return [Owner(name=_text(value), count=count) for value, count in chosen]

    def of_owner(self, names: Iterable[bytes], owner: str) -> list[bytes]:
        """The namespaces of an owner."""
        wanted = {labels for labels, value in self._owner.items() if _text(value) == owner}
        held, without = self._held, self._without
        return [name for name in names if held[name] in wanted and name not in without]

    def containing(self, names: Iterable[bytes], text: str) -> Generator[None, None, list[bytes]]:
        """The namespaces whose name, or a value of whose labels, contains a text in any case."""
        wanted, folded = text.lower().encode(errors="replace"), text.lower()
        held = self._held
        matching = set()
        for number, labels in enumerate(set(held.values()), 1):
            if any(folded in value.lower() for value in read_pairs(labels).values()):
                matching.add(labels)
            if not number % SEARCH_STEP:
                yield
        return [name for name in names if wanted in name or held[name] in matching]

    def ordered(self, names: list[bytes], sort: Sort, most: int) -> Iterator[bytes]:
        """The first namespaces in an order, `most` at least.

        By owner, the ones without an owner come first.
        """
        if sort == "name":
            few = most < len(names) // 10
            yield from heapq.nsmallest(most, names) if few else sorted(names)
            return
        owned: dict[bytes, list[bytes]] = {}
        for name in names:
            owner = b"" if name in self._without else self._owner.get(self._held[name], b"")
            owned.setdefault(owner, []).append(name)
        for owner in sorted(owned):  # a page needs the namespaces of few owners in order
            yield from sorted(owned[owner])

    def row(self, name: bytes) -> NamespaceRow:
        """One namespace as it is shown."""
        pairs = read_pairs(self._held[name])
        shown = {label: value[:MAX_VALUE] for label, value in islice(pairs.items(), MAX_LABELS)}
        return NamespaceRow(
            name=name.decode(),
            labels=shown,
            more=len(pairs) - len(shown),
            lacking=list(self._labels.lacking_of(name)),
        )


def _text(value: bytes) -> str:
    return unescape(value).decode()
