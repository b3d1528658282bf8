"""Renders the labels of one namespace by the label rules, as bytes, within limits.

Knows escaping, and how many bytes a value and a namespace may take. Must not know where namespaces
come from, or the form of a sample.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kmproxy.config.label_rules import (
    LAST_APPLIED,
    MAX_VALUE,
    NAME_LABEL,
    WILDCARD,
    LabelRule,
    label_name,
    name_problem,
)
from kmproxy.errors import SnapshotError
from kmproxy.exposition.grammar import escape, unescape
from kmproxy.kube.objects import ObjectMeta

NAMESPACE_BYTES = 8192
"""The most bytes that the labels of one namespace take, or eight of the longest values if that is
more. This bounds the cost of a sample: 4,000 samples of 100 bytes, 400 KB, become 33 MB at worst. A
namespace may have 256 KiB of annotations. Without the bound, a rule with `*` could turn the same
samples into 1 GB."""

MAX_NAME = 253
"""Characters of the longest name of any Kubernetes object. The name of a namespace has at most
63."""

NOT_BY_WILDCARD = frozenset({NAME_LABEL, LAST_APPLIED})
"""Keys that `*` leaves out."""

_PAIR = re.compile(rb',([a-zA-Z0-9_]++)="((?:[^"\\]++|\\.)*+)"')


@dataclass(frozen=True, slots=True)
class Rendering:
    """The labels that the samples of one namespace get, and counts of the values left out.

    `lacking` are the labels that the rules name, but for which no value of the namespace is added.
    `too_long` counts the values left out for their own length. `too_many` counts the values left
    out for the bytes of all labels of the namespace together.
    """

    labels: bytes
    lacking: tuple[str, ...] = ()
    too_long: int = 0
    too_many: int = 0


@dataclass(frozen=True, slots=True)
class KnownLabels:
    """The labels of one namespace as text, to be stored elsewhere and rendered again.

    `deleted` is the number of seconds for which a deleted namespace is still remembered. It is
    None for a namespace that exists.
    """

    namespace: str
    pairs: Mapping[str, str]
    lacking: tuple[str, ...] = ()
    too_long: int = 0
    too_many: int = 0
    deleted: float | None = None

    @classmethod
    def of(cls, name: bytes, rendering: Rendering, deleted: float | None) -> KnownLabels:
        """Return the names and values from which a rendering was made."""
        known = (
            name.decode(),
            read_pairs(rendering.labels),
            rendering.lacking,
            rendering.too_long,
            rendering.too_many,
        )
        return cls(*known, deleted)


@dataclass(slots=True)
class Choice:
    """The pairs of one namespace, while they are chosen.

    A value has at most `max_value` bytes. Further pairs may take `left` bytes, as rendered.
    """

    max_value: int
    left: int
    pairs: dict[str, str] = field(default_factory=dict)
    lacking: list[str] = field(default_factory=list)
    too_long: int = 0
    too_many: int = 0

    def admits(self, name: str, value: str) -> bool:
        """Tell whether a pair is within the limits. If so, take its bytes; else count it."""
        if _length(value) > self.max_value:
            self.too_long += 1
            return False
        size = _size(name, value)
        if size > self.left:
            self.too_many += 1
            return False
        self.left -= size
        return True


def label_bytes(max_value: int) -> int:
    """Return the most bytes that the labels of one namespace, or of one pod, take.

    `max_value` are the bytes of the longest value.
    """
    return max(NAMESPACE_BYTES, 8 * max_value)


class Renderer:
    """Renders the labels of namespaces by the label rules.

    A value of more than `max_value` bytes of UTF-8 counts as missing: the label gets its default,
    or is not added. The same holds for a value that would make the labels of the namespace longer
    than `budget` bytes. Rules with a name take their bytes first, in their order. Then the rules
    with `*` take theirs, in sorted order of the keys. A pair that does not fit takes no bytes, and
    a shorter one after it may still fit. Defaults come from the configuration and are not limited.
    The names in `reserved` belong to labels of pods, or are namespace labels of upstreams: the
    rules with `*` do not make them.
    """

    def __init__(
        self,
        rules: Sequence[LabelRule],
        *,
        max_value: int = MAX_VALUE,
        reserved: frozenset[str] = frozenset(),
    ) -> None:
        self.rules = tuple(rules)
        self.reserved = reserved
        self.max_value = max_value
        self.budget = label_bytes(max_value)
        self.named = frozenset(rule.name for rule in rules if rule.key and rule.name)
        self._defaults = {rule.name: rule.default for rule in rules if rule.default}
        self._wild = any(rule.key == WILDCARD for rule in rules)

    def __repr__(self) -> str:
        return f"<Renderer of {len(self.rules)} rules>"

    def render(self, namespace: ObjectMeta) -> Rendering:
        """Render the pairs of one namespace, in the order of the rules."""
        chosen = self.choose(namespace)
        return Rendering(
            render_pairs(chosen.pairs), tuple(chosen.lacking), chosen.too_long, chosen.too_many
        )

    def choose(self, namespace: ObjectMeta) -> Choice:
        """Choose the pairs of one namespace by the rules, in the order of the rules."""
        chosen = Choice(self.max_value, self.budget)
        named: dict[str, str] = {}
        for rule in self.rules:
            if rule.name in self.named:
                value = _metadata(namespace, rule).get(rule.key)
                if value and chosen.admits(rule.name, value):
                    named[rule.name] = value
                else:
                    chosen.lacking.append(rule.name)
        for rule in self.rules:
            if rule.key == WILDCARD:
                self._choose_all(_metadata(namespace, rule), chosen)
            elif value := named.get(rule.name) or rule.default:
                chosen.pairs.setdefault(rule.name, value)
        return chosen

    def _choose_all(self, metadata: Mapping[str, str], chosen: Choice) -> None:
        for key in sorted(metadata.keys() - NOT_BY_WILDCARD):
            name, value = label_name(key), metadata[key]
            if not value or name in self.named or name in chosen.pairs or name_problem(name):
                continue
            if name not in self.reserved and chosen.admits(name, value):
                chosen.pairs[name] = value

    def render_anew(self, known: KnownLabels) -> Rendering:
        """Render the pairs of one namespace from labels that were stored elsewhere.

        Raises SnapshotError for labels that these rules do not make.
        """
        where = f"of the namespace {known.namespace[:80]!r}"
        if len(known.namespace) > MAX_NAME:
            raise SnapshotError(f"the file holds labels {where}..., which is not a valid name")
        chosen = Choice(self.max_value, self.budget)
        pairs = {name: value for name, value in known.pairs.items() if name not in self.reserved}
        for name, value in pairs.items():
            if value == self._defaults.get(name):
                continue
            if name not in self.named and (not self._wild or name_problem(name)):
                raise SnapshotError(f"no rule makes the file's label {name[:80]!r} {where}")
            if not value or not chosen.admits(name, value):
                raise SnapshotError(f"the file's label {name[:80]!r} {where} is empty or too long")
        if not self.named.issuperset(known.lacking) or min(known.too_long, known.too_many) < 0:
            raise SnapshotError(f"the file's counts of missing labels are wrong, {where}")
        return Rendering(render_pairs(pairs), known.lacking, known.too_long, known.too_many)


def _length(value: str) -> int:
    """Return the number of bytes of a value as UTF-8."""
    return len(_utf8(value))


def _metadata(namespace: ObjectMeta, rule: LabelRule) -> Mapping[str, str]:
    return namespace.labels if rule.source == "label" else namespace.annotations


def render_pairs(pairs: Mapping[str, str]) -> bytes:
    """Return pairs in the form of a sample's labels, each with its leading comma."""
    return b"".join(
        b',%b="%b"' % (_utf8(name), escape(_utf8(value))) for name, value in pairs.items()
    )


def read_pairs(labels: bytes) -> dict[str, str]:
    """Return the names and values of pairs that `render_pairs` has made."""
    return {label.decode(): unescape(value).decode() for label, value in _PAIR.findall(labels)}


def _utf8(text: str) -> bytes:
    """Return UTF-8 that is valid even if the text holds a lone surrogate."""
    return text.encode(errors="replace")


def _size(name: str, value: str) -> int:
    """Return the number of bytes of a pair, as rendered."""
    return len(name) + 4 + _length(value) + sum(map(value.count, '\\"\n'))
