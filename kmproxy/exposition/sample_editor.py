"""The exact rule for one sample: the labels to add to it, and where they stand.

Knows the namespace labels, the pod, and conflicts. Must not know how samples are found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter

from kmproxy.exposition.errors import MAX_REPEATS, require_few_repeats
from kmproxy.exposition.grammar import bare_name, named_pairs, pair_parts, unescape
from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.remembered import MAX_NAMES, RememberedLabels


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The counts of one sample, which are added to the counts of an enricher."""

    samples: int = 0
    enriched: int = 0
    unparsed: int = 0
    conflicts: int = 0
    unknown_pods: int = 0


NOTHING = Outcome()
_UNCHANGED = Outcome(samples=1)
_NOT_UNDERSTOOD = Outcome(unparsed=1)

Edit = tuple[bytes | None, Outcome]
"""The new text in the braces of a sample, or None if the sample is left out; and its counts."""

MAX_SHAPES = 2 << 20
"""Bytes that an editor may remember about shapes and their changes."""

MAX_TEXT = 4096
"""Bytes of the longest text whose shape, change or edit is remembered."""

_LONG = 1 << 16  # bytes of a text whose pairs take too much memory, if all are held

MAX_PREFIXED = 1 << 20
"""Bytes that an editor may remember about labels with prefixes."""

_OVERHEAD = 400  # bytes for a shape, a change or labels besides their texts, approximately

_Labels = tuple[dict[bytes, bytes], bytes]
"""Labels to add: their quoted values by name, and their bytes."""


@lru_cache(maxsize=64)
def _outcome(enriched: int, conflicts: int) -> Outcome:
    """Returns the counts of a sample that was understood, one object for equal ones."""
    return Outcome(samples=1, enriched=enriched, conflicts=conflicts)


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """The change to the samples of one shape that name the same namespaces and pod.

    `replaced` are new values, and `added` is text to append to values, both by place.
    """

    outcome: Outcome
    replaced: list[tuple[int, bytes]]
    added: list[tuple[int, bytes]]

    @property
    def size(self) -> int:
        """Bytes of memory, approximately."""
        return _OVERHEAD + sum(len(new) + 100 for _, new in self.replaced + self.added)


_LEFT_OUT = _Change(Outcome(unknown_pods=1), [], [])


@dataclass(slots=True, eq=False)
class _Shape:
    """The names of the pairs of some samples, and the changes to these samples.

    `naming` are the places of the values that may name a namespace, each with its prefix, in
    order. `pod` is the place of the pod's value, or 0. `key` reads these values of a sample.
    """

    names: list[bytes]
    naming: list[tuple[int, bytes]]
    pod: int
    key: Callable[[list[bytes]], Hashable] | None = None
    changes: dict[Hashable, _Change] = field(default_factory=dict)
    twice: bool = False  # whether a name that counts stands twice


class SampleEditor:
    """Edits the text in the braces of a sample: the namespaces' labels, and the pod's.

    The labels of a pod stand behind the `pod` pair, if the sample names a namespace. A
    sample of a pod that is not known is left out. A sample that bears a namespace
    label twice, or with pods `pod` twice, is not understood.

    Of two labels to add with the same name one is added: that of the pod, else that of
    the namespace whose label comes first in the setting.

    A sample that repeats labels that are overwritten too often raises RepeatedLabelError.

    The text is split into values and the text around them, its shape. The samples of a
    family have few shapes. A shape is read once. Its samples that name the same namespaces
    and pod change alike. Both are remembered, in `MAX_SHAPES` bytes. The time is linear
    in the text and in the labels to add.
    """

    __slots__ = (
        "_labels",
        "_named_in",
        "_names",
        "_overwrite",
        "_prefixed",
        "_prefixed_room",
        "_room",
        "_shapes",
        "_spaces",
    )

    def __init__(
        self, labels: RememberedLabels, spaces: NamespaceLabels, *, overwrite: bool
    ) -> None:
        self._labels = labels
        self._spaces = spaces
        self._overwrite = overwrite
        # Finds the names that count, in any place. A text without them is not changed.
        words = [*spaces.names, *[b"pod"] * labels.pods]
        self._named_in = re.compile(b"|".join(map(re.escape, words))).search
        self._shapes: dict[tuple[bytes, ...], _Shape] = {}
        self._room = MAX_SHAPES
        self._prefixed: dict[tuple[bytes, bytes], _Labels] = {}  # by prefix and bytes without it
        self._prefixed_room = MAX_PREFIXED
        self._names = frozenset(p + name for p in spaces.prefixes for name in labels.names)

    def __repr__(self) -> str:
        return f"<SampleEditor {len(self.names)} names, {len(self._shapes)} shapes>"

    @property
    def names(self) -> frozenset[bytes]:
        """The names of the labels that may be added, known so far, as of `RememberedLabels`."""
        return self._names if self._spaces.prefixes else self._labels.names

    def edit(self, text: bytes) -> Edit:
        """Edits the text in the braces of a sample of any spelling. Raises PodsNeededError."""
        if not self._named_in(text):
            return text, _UNCHANGED
        if len(text) > _LONG:
            return self._edit_long(text)
        parts = pair_parts(text)
        pieces = [b""] * (len(parts) // 2) + parts[-1:]
        before = zip(parts[:-1:4], parts[1::4], parts[2::4], strict=True)
        pieces[:-1:2] = [b"".join(each) for each in before]
        pieces[1::2] = [value[1:-1] for value in parts[3::4]]
        outside = tuple(pieces[::2])
        shape = self._shapes.get(outside)
        if shape is None:
            shape = self._read(outside, [bare_name(name) for name in parts[1::4]])
        return self._edit(text, shape, pieces)

    def edit_plain(self, text: bytes) -> Edit:
        """Edits the pairs of a plain line, which are one at least. Raises PodsNeededError.

        They have no escapes, so every quote begins or ends a value. A split at the quotes gives
        names and values in turn. Each name stands between its comma and its `=`.
        """
        if not self._named_in(text):
            return text, _UNCHANGED
        if len(text) > _LONG:
            return self._edit_long(text)
        pieces = text.split(b'"')
        outside = tuple(pieces[::2])
        shape = self._shapes.get(outside)
        if shape is None:
            names = [piece[1:-1] for piece in outside[1:-1]]
            shape = self._read(outside, [outside[0][:-1], *names])
        return self._edit(text, shape, pieces)

    def _edit_long(self, text: bytes) -> Edit:
        """Edits a long text. Only the pairs that count are held, not all of them."""
        words = {*self._spaces.names, *[b"pod"] * self._labels.pods}
        shape, pieces, _ = self._pairs_in(text, words)
        if shape.key and not shape.twice:
            for _, (added, _) in self._found(shape, pieces) or ():
                words.update(added)
        shape, pieces, spans = self._pairs_in(text, words)
        if shape.key is None or shape.twice:
            return text, _NOT_UNDERSTOOD if shape.twice else _UNCHANGED
        change = self._change(shape, pieces)
        if change is _LEFT_OUT:
            return None, change.outcome
        new = dict(change.replaced)
        for at, more in change.added:
            new[at] = new.get(at, pieces[at]) + more
        passed: list[bytes] = []
        end = 0
        for at in sorted(new):
            start, stop = spans[at // 2]
            passed += text[end:start], new[at]
            end = stop
        return b"".join([*passed, text[end:]]), change.outcome

    def _pairs_in(
        self, text: bytes, words: set[bytes]
    ) -> tuple[_Shape, list[bytes], list[tuple[int, int]]]:
        """Reads the pairs of a text whose names count.

        Returns a shape of them alone, pieces that have their values, and the spans of these. Pairs
        that repeat a name are left out after one more than a sample may have.
        """
        names, pieces, spans = [], [b""], []
        repeats, seen = 0, set[bytes]()
        for pair in named_pairs(text):
            if (name := bare_name(pair[1])) in words:
                repeats += name in seen
                if name in seen and repeats > MAX_REPEATS + 1:
                    continue
                seen.add(name)
                names.append(name)
                start, end = pair.span(3)
                spans.append((start + 1, end - 1))
                pieces += text[start + 1 : end - 1], b""
        return self._shape(names), pieces, spans

    def _read(self, outside: tuple[bytes, ...], names: list[bytes]) -> _Shape:
        """Reads the names of a shape, remembered if it is not too long."""
        shape = self._shape(names)
        size = sum(map(len, outside)) + sum(map(len, names)) + 80 * len(names)
        if size <= MAX_TEXT:
            self._take(2 * size + _OVERHEAD)
            self._shapes[outside] = shape
        return shape

    def _shape(self, names: list[bytes]) -> _Shape:
        """Returns the shape of samples with these names."""
        labels, borne = self._spaces.with_prefixes, set(names)
        searched = [name for name, _ in labels] + [b"pod"] * self._labels.pods
        naming = [(2 * names.index(n) + 1, prefix) for n, prefix in labels if n in borne]
        pod = 2 * names.index(b"pod") + 1 if self._labels.pods and b"pod" in borne else 0
        shape = _Shape(names, naming, pod)
        if len(borne) < len(names):
            shape.twice = any(names.count(name) > 1 for name in searched)
        if naming:
            shape.key = itemgetter(*[at for at, _ in naming], *([pod] if pod else []))
        return shape

    def _take(self, size: int) -> None:
        """Reserves bytes for a shape or a change. Forgets all others if they are too many."""
        if size > self._room:
            self._shapes.clear()
            self._room = MAX_SHAPES
        self._room -= size

    def _edit(self, text: bytes, shape: _Shape, pieces: list[bytes]) -> Edit:
        """Edits a sample that is split at the quotes of its values.

        `pieces` are the text up to a quote and the value behind it, in turn; the last is
        the text behind the last quote.
        """
        if shape.twice:
            return text, _NOT_UNDERSTOOD
        if shape.key is None:
            return text, _UNCHANGED
        key = shape.key(pieces)
        change = shape.changes.get(key)
        if change is None:
            change = self._change(shape, pieces)
            if len(text) <= MAX_TEXT:
                self._take(2 * len(text) + change.size)
                shape.changes[key] = change
        if change is _LEFT_OUT:
            return None, change.outcome
        if not change.outcome.enriched:
            return text, change.outcome
        for at, value in change.replaced:
            pieces[at] = value
        for at, more in change.added:
            pieces[at] += more
        return b'"'.join(pieces), change.outcome

    def _change(self, shape: _Shape, pieces: list[bytes]) -> _Change:
        """Returns the change to a sample, by the values of its namespace labels and its pod."""
        found = self._found(shape, pieces)
        if found is None:
            return _LEFT_OUT
        borne = taken = frozenset(shape.names)
        added: list[tuple[int, bytes]] = []
        conflicts: dict[bytes, bytes] = {}
        for at, (pairs, rendered) in found:
            left = rendered
            if not taken.isdisjoint(pairs):
                both = borne.intersection(pairs) - conflicts.keys()
                conflicts.update((name, pairs[name][1:-1]) for name in both)
                new = [b",%b=%b" % pair for pair in pairs.items() if pair[0] not in taken]
                left = b"".join(new)
            if left:
                # The pairs begin behind a quote. The quote of the last one is there already.
                added.append((at, b'"' + left[:-1]))
            if len(found) > 1:
                taken = taken.union(pairs)
        replaced = []
        if conflicts and self._overwrite:
            require_few_repeats(shape.names, conflicts)
            places = enumerate(shape.names)
            replaced = [(2 * n + 1, conflicts[name]) for n, name in places if name in conflicts]
        enriched = int(bool(added or replaced))
        return _Change(_outcome(enriched, len(conflicts)), replaced, added)

    def _found(self, shape: _Shape, pieces: list[bytes]) -> list[tuple[int, _Labels]] | None:
        """Returns the labels to add by place, in the order in which they take a name.

        Returns None if the sample's pod is not known.
        """
        named = [(at, prefix) for at, prefix in shape.naming if pieces[at]]
        if not self._spaces.prefixes:
            named = named[:1]
        found: list[tuple[int, _Labels]] = []
        if shape.pod and named and (pod := pieces[shape.pod]):
            namespace = unescape(pieces[named[0][0]])
            rendered = self._labels.of_pod(namespace, unescape(pod))
            if rendered is None:
                return None
            found.append((shape.pod, (self._labels.pairs(rendered), rendered)))
        for at, prefix in named:
            rendered = self._labels.of(unescape(pieces[at]))
            found.append((at, self._with_prefix(prefix, rendered)))
        return found

    def _with_prefix(self, prefix: bytes, rendered: bytes) -> _Labels:
        """Returns labels to add, with a prefix to each name: their quoted values, their bytes."""
        if not prefix:
            pairs = self._labels.pairs(rendered)
            known = pairs, rendered
        elif (held := self._prefixed.get((prefix, rendered))) is not None:
            return held
        else:
            pairs = {prefix + name: value for name, value in self._labels.pairs(rendered).items()}
            known = pairs, b"".join([b",%b=%b" % pair for pair in pairs.items()])
            size = 3 * (len(rendered) + len(known[1])) + _OVERHEAD
            if size <= self._prefixed_room:
                self._prefixed[prefix, rendered] = known
                self._prefixed_room -= size
        if self._spaces.prefixes and len(self._names) <= MAX_NAMES:
            self._names = self._names.union(pairs)
        return known
