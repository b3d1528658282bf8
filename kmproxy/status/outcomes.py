"""Remembers how the last scrapes went, for each path and for each node.

Knows which ends of a scrape are failures. Must not know how a scrape is answered, nor HTML. Times
are seconds of one clock that does not go back.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from kmproxy.bounded_cache import ENTRY, BoundedCache
from kmproxy.errors import one_line
from kmproxy.status.model import ScrapeState

HISTORY: Final = 20
"""The number of scrapes whose result is remembered for each path and node."""

MAX_ENTRIES: Final = 20_480
"""Entries of paths at most, and of endpoints of nodes."""

NODE_BYTES: Final = 8 << 20
"""Bytes of all entries of nodes: two endpoints of 5,000 nodes, which is as many as Kubernetes
supports, and some more. Beyond, the entries that were not scraped for the longest time are dropped.
"""

PATH_BYTES: Final = 1 << 20
"""Bytes of all entries of paths: 1,000 tenants have one of each path that they scrape."""

MAX_ERROR: Final = 300
"""Characters of an error that are remembered."""

GONE: Final = "gone"
"""The code of a scrape whose client left before the end."""

_OK, _FAILED, _LEFT = "+", "-", "~"
_NOT_KEPT: Final = frozenset({"400", "404"})
"""Statuses of requests for what does not exist. Any client can cause them at any time, for any
number of names, and they say nothing about a source."""


class Scraped(NamedTuple):
    """The subject of an entry: a path as the documentation writes it, and more where there is more.

    `node` is the name of an existing node, for the paths that name one. `caller` is the name of a
    tenant, which sees a part of the samples, or empty for everybody else.
    """

    path: str
    node: str = ""
    caller: str = ""


@dataclass(slots=True)
class Attempt:
    """A scrape under way. `samples` and `labelled` count the samples that it has seen.

    `node` is the name of the node whose kubelet was asked, once it is found. `error` is the message
    of a failure.
    """

    samples: int = 0
    labelled: int = 0
    node: str = ""
    error: str = ""


@dataclass(slots=True)
class Outcome:
    """How the last scrapes of a subject went. The counts are of the last one.

    `code` is its status, or `broken`, `gone` or `error`. `ended_at` is the time of its end, and
    `seconds` is its duration. `error_at` is the time of the last failure, if there was one.
    `history` has a character for each scrape, the oldest first: `+` for a whole answer, `-` for a
    failure, `~` for a client that left. `failing_since` is the time of the first failure after the
    last whole answer.
    """

    code: str
    ended_at: float
    seconds: float
    samples: int
    labelled: int
    error: str = ""
    error_at: float | None = None
    history: str = ""
    failing_since: float | None = None

    @property
    def failing(self) -> bool:
        """Whether the last scrape failed. A client that left is no failure of the source."""
        return self.history.endswith(_FAILED)

    @property
    def state(self) -> ScrapeState:
        """The state of the last scrape."""
        if self.failing:
            return "failing"
        return "left" if self.history.endswith(_LEFT) else "well"


class Outcomes:
    """The outcomes of the last scrapes, at most `number` of paths and of nodes, and in bytes."""

    def __init__(
        self,
        number: int = MAX_ENTRIES,
        *,
        node_bytes: int = NODE_BYTES,
        path_bytes: int = PATH_BYTES,
    ) -> None:
        self._nodes: BoundedCache[Scraped, Outcome] = BoundedCache(
            number, size=node_bytes, weigh=_weigh
        )
        self._paths: BoundedCache[Scraped, Outcome] = BoundedCache(
            number, size=path_bytes, weigh=_weigh
        )

    def __repr__(self) -> str:
        return f"<Outcomes of {len(self._paths)} paths and {len(self._nodes)} endpoints of nodes>"

    def note(
        self, subject: Scraped, attempt: Attempt, code: str, *, now: float, took: float
    ) -> None:
        """Remember the end of a scrape that took `took` seconds and ended at the time `now`.

        A node that fails does not change the outcome of the path that all nodes share.
        """
        if code in _NOT_KEPT:
            return
        if subject.node:
            self._note(self._nodes, subject, attempt, code, now, took)
            if code != "200":
                return
            subject = subject._replace(node="")
        self._note(self._paths, subject, attempt, code, now, took)

    def of(self, subject: Scraped) -> Outcome | None:
        """The outcome of a path, or None if it was not scraped."""
        return self._paths.get(subject)

    def tenants(self, path: str) -> Iterator[tuple[str, Outcome]]:
        """The outcomes of a path for tenants, by the name of the caller."""
        return (
            (subject.caller, outcome)
            for subject, outcome in self._paths.items()
            if subject.caller and subject.path == path
        )

    def nodes(self) -> list[tuple[Scraped, Outcome]]:
        """The outcomes of all endpoints of nodes, in no order."""
        return list(self._nodes.items())

    @staticmethod
    def _note(
        cache: BoundedCache[Scraped, Outcome],
        subject: Scraped,
        attempt: Attempt,
        code: str,
        now: float,
        took: float,
    ) -> None:
        last = cache.get(subject)
        sign = _OK if code == "200" else _LEFT if code == GONE else _FAILED
        error, error_at, since = "", None, None
        if last is not None:
            error, error_at, since = last.error, last.error_at, last.failing_since
        if sign == _FAILED:
            text = one_line(attempt.error or "kmproxy itself failed: its log says how")
            error, error_at = text[:MAX_ERROR], now
            since = now if since is None else since
        elif sign == _OK:
            since = None
        history = ((last.history if last else "") + sign)[-HISTORY:]
        cache.put(
            subject,
            Outcome(
                code, now, took, attempt.samples, attempt.labelled, error, error_at, history, since
            ),
        )


@dataclass(frozen=True, slots=True)
class Survey:
    """The outcomes of nodes, divided: `counts` and `failing_of` are numbers of nodes by path."""

    failing: list[tuple[Scraped, Outcome]]
    others: list[tuple[Scraped, Outcome]]
    counts: Counter[str]
    failing_of: Counter[str]

    @classmethod
    def of(cls, outcomes: list[tuple[Scraped, Outcome]]) -> Survey:
        """Divide outcomes into failing ones and others."""
        failing = [each for each in outcomes if each[1].history[-1] == _FAILED]
        others = [each for each in outcomes if each[1].history[-1] != _FAILED]
        counts = Counter([subject.path for subject, _ in outcomes])
        return cls(failing, others, counts, Counter([subject.path for subject, _ in failing]))

    def worst(self, most: int, least: int) -> list[tuple[Scraped, Outcome]]:
        """The outcomes to look at first: at most `most` failing ones, then the slowest others.

        The ones that fail for the longest time come first. Others make it `least` together.
        """
        chosen = heapq.nsmallest(
            most, self.failing, key=lambda each: (each[1].failing_since, each[0])
        )
        wanted = max(0, least - len(chosen))
        return chosen + heapq.nlargest(wanted, self.others, key=lambda each: each[1].seconds)


def _weigh(subject: Scraped, outcome: Outcome) -> int:
    """The bytes of an entry, approximately: 680 for a node without an error."""
    text = sum(map(len, subject)) + len(outcome.error) + len(outcome.history)
    wide = 4 if not outcome.error.isascii() else 1
    return ENTRY + 300 + text * wide
