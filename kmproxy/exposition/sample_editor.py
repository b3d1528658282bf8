"""The exact rule for one sample: the labels to add to it, and where they stand.

Knows the namespace labels, the pod, and conflicts. Must not know how samples are found.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from kmproxy.exposition.grammar import bare_name, pair_parts, unquote
from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.remembered import RememberedLabels


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What one sample adds to the counts of an enricher."""

    samples: int = 0
    enriched: int = 0
    unparsed: int = 0
    conflicts: int = 0
    unknown_pods: int = 0


NOTHING = Outcome()
_UNCHANGED = Outcome(samples=1)
_NOT_UNDERSTOOD = Outcome(unparsed=1)
_UNKNOWN_POD = Outcome(unknown_pods=1)

MAX_PREFIXED = 1 << 20
"""Bytes that an editor may remember about labels with prefixes."""

_OVERHEAD = 400  # bytes for the labels of a namespace besides names and values, approximately

Edit = tuple[bytes | None, Outcome]
"""The new text in the braces of a sample, or None if the sample is left out; and its counts."""

_Added = tuple[int, dict[bytes, bytes], bytes]
"""The place of a pair, and the labels to add behind it: their quoted values, and their bytes."""


@lru_cache(maxsize=64)
def outcome_of(enriched: int, conflicts: int) -> Outcome:
    """Returns the counts of a sample that was understood, one object for equal ones."""
    return Outcome(samples=1, enriched=enriched, conflicts=conflicts)


class SampleEditor:
    """Edits the text in the braces of a sample: the namespaces' labels, and the pod's.

    The labels of a pod stand behind the `pod` pair, if the sample names a namespace. A
    sample of a pod that is not known is left out. A sample that bears a namespace
    label twice, or with pods `pod` twice, is not understood.

    Of two labels to add with the same name one is added: that of the pod, else that of
    the namespace whose label comes first in the setting. The time is linear in the text and in
    the labels to add.

    It remembers at most `MAX_PREFIXED` bytes of labels with prefixes.
    """

    __slots__ = ("_labels", "_names", "_overwrite", "_prefixed", "_room", "_searched", "_spaces")

    def __init__(
        self, labels: RememberedLabels, spaces: NamespaceLabels, *, overwrite: bool
    ) -> None:
        self._labels = labels
        self._spaces = spaces
        self._overwrite = overwrite
        self._searched = frozenset(spaces.names) | ({b"pod"} if labels.pods else set())
        # (prefix, bytes to add) -> the same with the prefix
        self._prefixed: dict[tuple[bytes, bytes], tuple[dict[bytes, bytes], bytes]] = {}
        self._room = MAX_PREFIXED
        self._names = frozenset(p + name for p in spaces.prefixes for name in labels.names)

    def __repr__(self) -> str:
        return f"<SampleEditor {len(self.names)} names, {self._labels!r}>"

    @property
    def names(self) -> frozenset[bytes]:
        """The names of the labels that may be added, known so far."""
        return self._names if self._spaces.prefixes else self._labels.names

    def edit(self, text: bytes) -> Edit:
        """Edits the text in the braces of a sample of any spelling. Raises PodsNeededError."""
        parts = pair_parts(text)
        names = [bare_name(name) for name in parts[1::4]]
        pieces = [b""] * (2 * len(names)) + parts[-1:]
        before = zip(parts[:-1:4], parts[1::4], parts[2::4], strict=True)
        pieces[:-1:2] = [b"".join(each) for each in before]
        pieces[1::2] = [value[1:-1] for value in parts[3::4]]
        return self._edit(text, names, pieces)

    def edit_plain(self, text: bytes) -> Edit:
        """Edits the pairs of a plain line, which are one at least. Raises PodsNeededError.

        They have no escapes, so every quote begins or ends a value. A split at the quotes gives
        names and values in turn. Each name stands between its comma and its `=`.
        """
        pieces = text.split(b'"')
        names = [piece[1:-1] for piece in pieces[2:-1:2]]
        names.insert(0, pieces[0][:-1])
        return self._edit(text, names, pieces)

    def _edit(self, text: bytes, names: list[bytes], pieces: list[bytes]) -> Edit:
        """Edits a sample that is split at the quotes of its values.

        `pieces` are the text up to a quote and the value behind it, in turn; the last is
        the text behind the last quote.
        """
        borne = set(names)
        if len(borne) < len(names) and any(names.count(name) > 1 for name in self._searched):
            return text, _NOT_UNDERSTOOD
        found = self._added(borne, names, pieces)
        if found is None:
            return None, _UNKNOWN_POD
        added, replaced = self._resolve(found, borne)
        conflicts = len(replaced)
        if not self._overwrite:
            replaced.clear()
        for at, name in enumerate(names if replaced else ()):
            if (value := replaced.get(name)) is not None:
                pieces[2 * at + 1] = value
        for at, rendered in added:
            # The pairs begin behind a quote. The quote of the last one is there already.
            pieces[at] += b'"' + rendered[:-1]
        if not added and not replaced:
            return text, outcome_of(0, conflicts) if conflicts else _UNCHANGED
        return b'"'.join(pieces), outcome_of(1, conflicts)

    @staticmethod
    def _resolve(
        found: list[_Added], borne: set[bytes]
    ) -> tuple[list[tuple[int, bytes]], dict[bytes, bytes]]:
        """Separates the labels to add from those that the sample bears already.

        Returns the places and bytes to add, which are not empty, and the names that conflict
        with the new values, as they are written.
        """
        taken = borne
        added: list[tuple[int, bytes]] = []
        conflicts: dict[bytes, bytes] = {}
        for at, pairs, rendered in found:
            left = rendered
            if not taken.isdisjoint(pairs):
                both = borne.intersection(pairs) - conflicts.keys()
                conflicts.update((name, pairs[name][1:-1]) for name in both)
                new = [b",%b=%b" % pair for pair in pairs.items() if pair[0] not in taken]
                left = b"".join(new)
            if left:
                added.append((at, left))
            if len(found) > 1:
                taken = taken.union(pairs)
        return added, conflicts

    def _added(
        self, borne: set[bytes], names: list[bytes], pieces: list[bytes]
    ) -> list[_Added] | None:
        """Returns the labels to add, in the order in which they take a name.

        Returns None if the sample's pod is not known.
        """
        if borne.isdisjoint(self._spaces.names):
            return []
        named = []
        for label, prefix in self._spaces.with_prefixes:
            if label in borne and (value := pieces[at := 2 * names.index(label) + 1]):
                named.append((at, prefix, _unescaped(value)))
                if not self._spaces.prefixes:
                    break
        found = []
        if self._labels.pods and named and b"pod" in borne:
            at = 2 * names.index(b"pod") + 1
            if pod := _unescaped(pieces[at]):
                rendered = self._labels.of_pod(named[0][2], pod)
                if rendered is None:
                    return None
                found.append((at, self._labels.pairs(rendered), rendered))
        for at, prefix, namespace in named:
            rendered = self._labels.of(namespace)
            found.append((at, *self._with_prefix(prefix, rendered)))
        return found

    def _with_prefix(self, prefix: bytes, rendered: bytes) -> tuple[dict[bytes, bytes], bytes]:
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
            if size <= self._room:
                self._prefixed[prefix, rendered] = known
                self._room -= size
        if self._spaces.prefixes and not self._names.issuperset(pairs):
            self._names = self._names.union(pairs)
        return known


def _unescaped(value: bytes) -> bytes:
    """Returns the text of a value as a sample writes it, without quotes."""
    return unquote(b'"%b"' % value) if b"\\" in value else value
