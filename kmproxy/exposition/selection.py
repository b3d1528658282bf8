"""A selection of samples: by metric and namespace, without some labels or timestamps.

Knows names and globs, and how a query narrows a selection. Must not know lines, HTTP,
configuration or where a query comes from.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

MAX_NAME = 1024
"""Characters of the longest name that expressions are tried on. A longer name matches none. A trial
takes time in proportion to the name's length times the expression's, and a name may fill a line."""


MAX_GLOBS = 64
"""Globs of one kind in one query, at most."""

MAX_GLOB = 256
"""Characters of the longest glob in a query."""


class QueryError(ValueError):
    """A path does not accept a query. The message is a plain line with the reason."""


def check_keys(query: Mapping[str, Sequence[str]], *known: str) -> None:
    """Raises QueryError, which lists the known keys, if a query has another key."""
    if unknown := query.keys() - set(known):
        takes = f"the known keys are {', '.join(known)}" if known else "this path takes no query"
        raise QueryError(f"query key {min(unknown)[:60]!r} is not known: {takes}")


@dataclass(frozen=True, slots=True)
class Globs:
    """Alternative globs: a name matches if one of them matches the whole name.

    A match takes time linear in the name for each character of the glob: a star is
    not tried again once the text that follows it was found.
    """

    any_of: tuple[str, ...]
    patterns: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        patterns = tuple(re.compile(fnmatch.translate(pattern)) for pattern in self.any_of)
        object.__setattr__(self, "patterns", patterns)

    @classmethod
    def of_query(cls, globs: Sequence[str]) -> Globs:
        """Reads the globs of a query. Raises QueryError for too many or too long globs."""
        if len(globs) > MAX_GLOBS:
            raise QueryError(f"the query has {len(globs)} globs of a kind: at most {MAX_GLOBS}")
        if any(len(glob) > MAX_GLOB for glob in globs):
            raise QueryError(f"the query has a glob of over {MAX_GLOB} characters")
        return cls(tuple(globs))

    def match(self, name: str) -> bool:
        """Whether the whole name matches one of the patterns."""
        if len(name) <= MAX_NAME:
            for pattern in self.patterns:  # a loop is faster than `any`
                if pattern.match(name) is not None:
                    return True
        return False


class Matcher(Protocol):
    """Tells which names match, in time linear in the name."""

    @property
    def match(self) -> Callable[[str], bool]:
        """Whether a whole name matches."""


def _one_matches(patterns: Iterable[Matcher], names: Iterable[str]) -> bool:
    """Whether one of the names matches one of the patterns."""
    for pattern in patterns:  # loops are faster than `any`
        for name in names:
            if pattern.match(name):
                return True
    return False


@dataclass(frozen=True, slots=True)
class Selection:
    """The parts of an exposition that are served. The default serves all of it.

    Regular expressions and globs match a whole name, as Prometheus anchors
    them. A name of over `MAX_NAME` characters matches none. Each element of
    `keep_metrics` holds alternatives. A metric must match one alternative of each
    element, and none of `drop_metrics`. Likewise, a namespace must match each of
    `namespaces`, and not `exclude_namespaces`. The HELP and TYPE lines of a family
    pass or not by the family's name. `cluster_samples` decides about samples
    without a namespace.
    """

    keep_metrics: tuple[tuple[Matcher, ...], ...] = ()
    drop_metrics: tuple[Matcher, ...] = ()
    namespaces: tuple[Globs, ...] = ()
    exclude_namespaces: Globs = Globs(())
    cluster_samples: bool = True
    drop_labels: frozenset[bytes] = frozenset()
    strip_timestamps: bool = False

    @property
    def everything(self) -> bool:
        """Whether nothing is left out or removed."""
        return self == Selection()

    @property
    def by_metric(self) -> bool:
        """Whether some metrics may not pass."""
        return bool(self.keep_metrics or self.drop_metrics)

    @property
    def by_namespace(self) -> bool:
        """Whether samples of some namespaces, or without one, may not pass."""
        globs = self.namespaces or self.exclude_namespaces.any_of
        return bool(globs) or not self.cluster_samples

    def narrow(self, query: Mapping[str, Sequence[str]]) -> Selection:
        """Returns this selection narrowed by a request's query.

        The keys `namespace` and `metric` take globs and may repeat. `cluster-samples`
        with the value `drop` leaves out samples without a namespace. A query can leave
        out more, and never bring back samples. Raises QueryError for another key or value,
        and for too many or too long globs.
        """
        check_keys(query, "namespace", "metric", "cluster-samples")
        narrowed = self
        if spaces := query.get("namespace", ()):
            globs = Globs.of_query(spaces)
            narrowed = replace(narrowed, namespaces=(*narrowed.namespaces, globs))
        if metrics := query.get("metric", ()):
            globs = Globs.of_query(metrics)
            narrowed = replace(narrowed, keep_metrics=(*narrowed.keep_metrics, (globs,)))
        values = query.get("cluster-samples", ())
        if wrong := set(values) - {"keep", "drop"}:
            raise QueryError(f"cluster-samples={min(wrong)[:60]!r} is neither 'keep' nor 'drop'")
        if "drop" in values:
            narrowed = replace(narrowed, cluster_samples=False)
        return narrowed

    def wants_metric(self, names: Iterable[str]) -> bool:
        """Whether a metric passes that has these names: its own and its family's."""
        names = [name for name in names if len(name) <= MAX_NAME]
        if _one_matches(self.drop_metrics, names):
            return False
        return all(_one_matches(patterns, names) for patterns in self.keep_metrics)

    def wants_namespace(self, namespace: str) -> bool:
        """Whether samples of a namespace pass. An empty name stands for no namespace."""
        if not namespace:
            return self.cluster_samples
        if self.exclude_namespaces.match(namespace):
            return False
        for globs in self.namespaces:  # noqa: SIM110 - a loop is faster than `all`
            if not globs.match(namespace):
                return False
        return True
