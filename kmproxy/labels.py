"""Rules from namespace metadata to metric labels, and the map that applies them.

Knows label names, their order, escaping and how long a deleted namespace is
remembered. Must not know where namespaces come from, what time it is, or what
a sample looks like: `LabelMap` renders ready-made bytes, and is told the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Source = Literal["label", "annotation"]

WILDCARD = "*"
NAME_LABEL = "kubernetes.io/metadata.name"
"""On every namespace, and equal to its name: `*` leaves it out."""

RETENTION = 300.0
"""Seconds for which a deleted namespace keeps its labels."""

_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_OUTSIDE_NAME = re.compile(r"[^a-zA-Z0-9_]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Namespace:
    """What matters of a namespace: its name, its labels, its annotations."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LabelRule:
    """Namespace metadata `key` becomes metric label `name`.

    With the key `*`, `name` is empty and every key of the source makes its own.
    `default` is the value where the namespace has none; empty means no label.
    """

    source: Source
    key: str
    name: str
    default: str = ""


def label_name(key: str) -> str:
    """The metric label name that a metadata key becomes when none is given."""
    name = _OUTSIDE_NAME.sub("_", key)
    return "_" + name if name[:1].isdigit() else name


def name_problem(name: str) -> str | None:
    """Why `name` cannot be the name of an added label, or None where it can."""
    if not _LABEL_NAME.fullmatch(name):
        return f"{name!r} is not a label name: [a-zA-Z_][a-zA-Z0-9_]*"
    if name.startswith("__"):
        return f"{name!r} begins with two underscores, which Prometheus keeps for itself"
    if name == "namespace":
        return "'namespace' is the label that the others are looked up by"
    return None


def parse_rules(
    labels: Sequence[str], annotations: Sequence[str], defaults: Sequence[str]
) -> tuple[tuple[LabelRule, ...], list[str]]:
    """Read `KEY[=NAME]` and `NAME=VALUE` specifications.

    Returns the rules in the order given, labels before annotations, and a line
    for each problem. The rules are of use only where there is no problem.
    """
    problems: list[str] = []
    values = _parse_defaults(defaults, problems)
    rules: list[LabelRule] = []
    taken: dict[str, str] = {}
    specifications: list[tuple[Source, str]] = [("label", text) for text in labels]
    specifications += [("annotation", text) for text in annotations]
    for source, text in specifications:
        key, equals, name = text.partition("=")
        if not key or (equals and not name):
            problems.append(f"--{source}: {text!r} is not KEY or KEY=NAME")
            continue
        if key == WILDCARD:
            if name:
                problems.append(f"--{source}: '*' stands for many labels and takes no name")
                continue
        else:
            name = name or label_name(key)
            if problem := name_problem(name):
                problems.append(f"--{source} {text}: {problem}")
                continue
        spelling = f"--{source} {text}"
        if (other := taken.setdefault(name or f"{source} {key}", spelling)) is not spelling:
            what = f"the label {name!r}" if name else "'*'"
            problems.append(f"{spelling}: {what} is already made by {other}")
            continue
        rules.append(LabelRule(source, key, name, values.pop(name, "") if name else ""))
    rules += _default_rules(rules, values, problems)
    return tuple(rules), problems


def _parse_defaults(defaults: Sequence[str], problems: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for text in defaults:
        name, equals, value = text.partition("=")
        if not equals:
            problems.append(f"--label-default: {text!r} is not NAME=VALUE")
        elif problem := name_problem(name):
            problems.append(f"--label-default {text}: {problem}")
        elif name in values:
            problems.append(f"--label-default {text}: {name!r} has a default already")
        else:
            values[name] = value
    return values


def _default_rules(
    rules: Sequence[LabelRule], values: Mapping[str, str], problems: list[str]
) -> list[LabelRule]:
    """Defaults for names that no rule spells out: right only where `*` may make them."""
    if any(rule.key == WILDCARD for rule in rules):
        return [LabelRule("label", "", name, value) for name, value in values.items()]
    known = ", ".join(rule.name for rule in rules) or "none"
    problems += [
        f"--label-default {name}={value}: no rule makes the label {name!r} (made: {known})"
        for name, value in values.items()
    ]
    return []


@dataclass(frozen=True, slots=True)
class LabelState:
    """What a label map holds, to be kept elsewhere: text, and seconds from now.

    `rendered` are the pairs of every namespace, `deleted` the seconds for which
    those of them that were deleted are still to be remembered.
    """

    rendered: Mapping[str, str]
    deleted: Mapping[str, float]


@dataclass(slots=True, eq=False)
class Listing:
    """Every namespace there is, collected for a label map that is to take them at once."""

    rendered: dict[bytes, bytes] = field(default_factory=dict)
    lacking: dict[str, tuple[str, ...]] = field(default_factory=dict)


class LabelMap:
    """From a namespace's name to the bytes that its samples get.

    The bytes are rendered once per change, `,team="frontend"`, so that a sample
    costs one look-up. One writer; readers call `lookup`. `replace` swaps the
    whole map, which is never seen half done. Times are seconds on any one
    clock that does not go back.
    """

    def __init__(self, rules: Sequence[LabelRule], *, retention: float = RETENTION) -> None:
        self._rules = tuple(rules)
        self._named = frozenset(rule.name for rule in rules if rule.key and rule.name)
        self._retention = retention
        self._unknown = self.render(Namespace(""))
        self._rendered: dict[bytes, bytes] = {}
        self._lacking: dict[str, tuple[str, ...]] = {}  # existing namespace -> labels, if any
        self._gone: dict[bytes, float] = {}  # name -> when to forget it
        self._changes = 0

    def __len__(self) -> int:
        """Namespaces that exist: the deleted ones still remembered do not count."""
        return len(self._rendered) - len(self._gone)

    def __repr__(self) -> str:
        return f"<LabelMap {len(self)} namespaces, {len(self._gone)} deleted and remembered>"

    @property
    def rules(self) -> tuple[LabelRule, ...]:
        """The rules in the order in which their labels appear."""
        return self._rules

    @property
    def changes(self) -> int:
        """A number that is another one after every change."""
        return self._changes

    @property
    def names(self) -> tuple[str, ...]:
        """The labels that the rules spell out, in their order: not those of `*`."""
        return tuple(rule.name for rule in self._rules if rule.name in self._named)

    def lacking(self, label: str) -> int:
        """Namespaces that exist and have no value of their own for one of `names`.

        What was restored is not counted: it says nothing of values that are defaults.
        """
        return sum(label in labels for labels in self._lacking.values())

    def existing(self) -> list[str]:
        """The names of the namespaces that exist, without those deleted and remembered."""
        return [name.decode() for name in self._rendered if name not in self._gone]

    def lookup(self, namespace: bytes) -> bytes:
        """The pairs to add, each with its leading comma; `b""` where there are none.

        A namespace that is not known has no labels, so it gets the defaults.
        """
        return self._rendered.get(namespace, self._unknown)

    def replace(self, namespaces: Iterable[Namespace], now: float) -> None:
        """Take these for all the namespaces there are; the missing ones were deleted."""
        listing = Listing()
        self.collect(listing, namespaces)
        self.swap(listing, now)

    def collect(self, listing: Listing, namespaces: Iterable[Namespace]) -> None:
        """Add namespaces to a listing that `swap` is to take: of many, best in several goes."""
        for space in namespaces:
            listing.rendered[space.name.encode()] = self.render(space)
            if lacks := self._lacked(space):
                listing.lacking[space.name] = lacks

    def swap(self, listing: Listing, now: float) -> None:
        """Take a listing for all the namespaces there are, and own it."""
        rendered = listing.rendered
        gone = {}
        for name in self._rendered.keys() - rendered.keys():
            forget_at = self._gone.get(name, now + self._retention)
            if forget_at > now:
                gone[name] = forget_at
                rendered[name] = self._rendered[name]
        self._changes += (rendered, gone) != (self._rendered, self._gone)
        self._rendered, self._gone, self._lacking = rendered, gone, listing.lacking

    def put(self, namespace: Namespace) -> None:
        """Add or change one namespace."""
        name = namespace.name.encode()
        labels = self.render(namespace)
        returned = self._gone.pop(name, None) is not None
        self._changes += returned or self._rendered.get(name) != labels
        self._rendered[name] = labels
        self._lacking.pop(namespace.name, None)
        if lacks := self._lacked(namespace):
            self._lacking[namespace.name] = lacks

    def delete(self, name: str, now: float) -> None:
        """Mark a namespace deleted; its labels stay for the time of retention."""
        key = name.encode()
        self._lacking.pop(name, None)
        if key in self._rendered and key not in self._gone:
            self._gone[key] = now + self._retention
            self._changes += 1

    def expire(self, now: float) -> None:
        """Forget what was deleted long enough ago."""
        for name in [name for name, forget_at in self._gone.items() if forget_at <= now]:
            del self._rendered[name], self._gone[name]
            self._changes += 1

    def state(self, now: float) -> LabelState:
        """All that `restore` needs, in another process and under the same rules."""
        return LabelState(
            {name.decode(): labels.decode() for name, labels in self._rendered.items()},
            {name.decode(): forget_at - now for name, forget_at in self._gone.items()},
        )

    def restore(self, state: LabelState, now: float) -> None:
        """Become what another map was: only right under the rules which that one had."""
        self._rendered = {name.encode(): labels.encode() for name, labels in state.rendered.items()}
        self._gone = {
            name.encode(): now + min(left, self._retention)
            for name, left in state.deleted.items()
            if name in state.rendered
        }
        self._changes += 1

    def render(self, namespace: Namespace) -> bytes:
        """The pairs of one namespace, in the order of the rules."""
        pairs = self.pairs(namespace)
        text = "".join(f',{name}="{_escape(value)}"' for name, value in pairs.items())
        return text.encode(errors="replace")  # a lone surrogate would be invalid UTF-8

    def pairs(self, namespace: Namespace) -> dict[str, str]:
        """What the rules make of one namespace, in their order."""
        pairs: dict[str, str] = {}
        for rule in self._rules:
            metadata = _metadata(namespace, rule)
            if rule.key == WILDCARD:
                self._render_all(metadata, pairs)
            elif value := metadata.get(rule.key) or rule.default:
                pairs.setdefault(rule.name, value)
        return pairs

    def _lacked(self, namespace: Namespace) -> tuple[str, ...]:
        return tuple(
            rule.name
            for rule in self._rules
            if rule.name in self._named and not _metadata(namespace, rule).get(rule.key)
        )

    def _render_all(self, metadata: Mapping[str, str], pairs: dict[str, str]) -> None:
        for key in sorted(metadata):
            name, value = label_name(key), metadata[key]
            if value and key != NAME_LABEL and name not in self._named and not name_problem(name):
                pairs.setdefault(name, value)


def _metadata(namespace: Namespace, rule: LabelRule) -> Mapping[str, str]:
    return namespace.labels if rule.source == "label" else namespace.annotations


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
