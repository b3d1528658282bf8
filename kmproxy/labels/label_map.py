"""The labels of all namespaces, as bytes that a sample gets by one look-up.

Knows how long a deleted namespace is remembered, and how many bytes all of them
may take. Must not know where namespaces come from, what time it is, or what a
sample looks like: it is told the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from kmproxy.config.label_rules import MAX_VALUE, LabelRule, Namespace
from kmproxy.labels.rendering import KnownLabels, Renderer, Rendering

RETENTION = 300.0
"""Seconds for which a deleted namespace keeps its labels."""

MAP_BYTES = 10 << 20
"""Bytes that the labels of all namespaces take at most, with those of deleted ones that are
remembered: 5,000 namespaces may have 2 KB each."""

Limit = Literal["value", "namespace", "map"]
LIMITS: Final[tuple[Limit, ...]] = ("value", "namespace", "map")
"""What a value is left out for: its own length, the bytes of its namespace, the bytes of all."""


@dataclass(slots=True, eq=False)
class Listing:
    """The labels of namespaces, `limit` bytes at most.

    Past that the namespaces with the most bytes get `otherwise` in place of
    their labels, so that none loses labels to one that has more. Room for a
    sixteenth is made at once: to find the largest costs a sort of all.
    """

    otherwise: bytes
    limit: int = MAP_BYTES
    rendered: dict[bytes, bytes] = field(default_factory=dict)
    notes: dict[bytes, Rendering] = field(default_factory=dict)  # without labels; if there are any
    cut: dict[bytes, int] = field(default_factory=dict)  # values left out for the limit
    held: int = 0
    longest: int = 0  # bytes of the most that a namespace has had

    def put(self, name: bytes, rendering: Rendering, *, like: bytes | None = None) -> None:
        """Add or change a namespace. Labels equal to `like` are held as that very object."""
        self.discard(name)
        labels = rendering.labels
        self.rendered[name] = like if like is not None and like == labels else labels
        self.held += len(labels)
        self.longest = max(self.longest, len(labels))
        if rendering.lacking or rendering.too_long or rendering.too_many:
            self.notes[name] = replace(rendering, labels=b"")
        if self.held > self.limit:
            self._make_room()

    def discard(self, name: bytes) -> None:
        """Forget a namespace, if it is there."""
        self.held -= len(self.rendered.pop(name, b""))
        self.discard_notes(name)

    def discard_notes(self, name: bytes) -> None:
        """Keep the labels of a namespace, and no longer count what it lacks."""
        self.notes.pop(name, None)
        self.cut.pop(name, None)

    def _make_room(self) -> None:
        enough = self.limit - self.limit // 16
        for name in sorted(self.rendered, key=lambda name: (-len(self.rendered[name]), name)):
            labels = self.rendered[name]
            if self.held <= enough or len(labels) <= len(self.otherwise):
                return
            self.cut[name] = _count(labels) - _count(self.otherwise)
            self.rendered[name] = self.otherwise
            self.held -= len(labels) - len(self.otherwise)


@dataclass(frozen=True, slots=True)
class Restored:
    """What another map knew, rendered anew; `left` are the seconds of deleted namespaces."""

    listing: Listing
    left: Mapping[bytes, float]


class LabelMap:
    """From a namespace's name to the bytes that its samples get.

    The bytes are rendered once per change, `,team="frontend"`, so that a sample
    costs one look-up. One writer; readers call `lookup`. `replace` swaps the
    whole map, which is never seen half done. Times are seconds on any one
    clock that does not go back. Memory: `MAP_BYTES`, while namespaces are listed
    twice that, and about 300 bytes for each namespace.
    """

    def __init__(
        self,
        rules: Sequence[LabelRule],
        *,
        max_value: int = MAX_VALUE,
        retention: float = RETENTION,
    ) -> None:
        self.renderer = Renderer(rules, max_value=max_value)
        self._retention = retention
        self._unknown = self.render(Namespace("")).labels
        self._held = self.listing()
        self._gone: dict[bytes, float] = {}  # name -> when to forget it
        self._changes = 0

    def __len__(self) -> int:
        """Namespaces that exist: the deleted ones still remembered do not count."""
        return len(self._held.rendered) - len(self._gone)

    def __repr__(self) -> str:
        return f"<LabelMap {len(self)} namespaces, {len(self._gone)} deleted and remembered>"

    @property
    def rules(self) -> tuple[LabelRule, ...]:
        """The rules in the order in which their labels appear."""
        return self.renderer.rules

    @property
    def changes(self) -> int:
        """A number that is another one after every change."""
        return self._changes

    @property
    def names(self) -> tuple[str, ...]:
        """The labels that the rules spell out, in their order: not those of `*`."""
        return tuple(rule.name for rule in self.rules if rule.name in self.renderer.named)

    @property
    def longest(self) -> int:
        """Bytes that a sample gets at most."""
        return max(self._held.longest, len(self._unknown))

    def lacking(self, label: str) -> int:
        """Namespaces that exist and have no value of their own for one of `names`.

        A value that is left out is none.
        """
        return sum(label in notes.lacking for notes in self._held.notes.values())

    def left_out(self, limit: Limit) -> int:
        """Values that are not added now, for this limit."""
        match limit:
            case "value":
                return sum(notes.too_long for notes in self._held.notes.values())
            case "namespace":
                return sum(notes.too_many for notes in self._held.notes.values())
            case "map":
                return sum(self._held.cut.values())

    def existing(self) -> list[str]:
        """The names of the namespaces that exist, without those deleted and remembered."""
        return [name.decode() for name in self._held.rendered if name not in self._gone]

    def lookup(self, namespace: bytes) -> bytes:
        """The pairs to add, each with its leading comma; `b""` where there are none.

        A namespace that is not known has no labels, so it gets the defaults.
        """
        return self._held.rendered.get(namespace, self._unknown)

    def render(self, namespace: Namespace) -> Rendering:
        """What the samples of one namespace get."""
        return self.renderer.render(namespace)

    def listing(self) -> Listing:
        """An empty one, for `collect` and `swap`."""
        return Listing(self._unknown)

    def replace(self, namespaces: Iterable[Namespace], now: float) -> None:
        """Take these for all the namespaces there are; the missing ones were deleted."""
        listing = self.listing()
        self.collect(listing, namespaces)
        self.swap(listing, now)

    def collect(self, listing: Listing, namespaces: Iterable[Namespace]) -> None:
        """Add namespaces to a listing that `swap` is to take: of many, best in several goes."""
        held = self._held.rendered
        for space in namespaces:
            name = space.name.encode()
            listing.put(name, self.render(space), like=held.get(name))

    def swap(self, listing: Listing, now: float) -> None:
        """Take a listing for all the namespaces there are, and own it."""
        before = self._held.rendered
        gone = {}
        for name in before.keys() - listing.rendered.keys():
            forget_at = self._gone.get(name, now + self._retention)
            if forget_at > now:
                gone[name] = forget_at
                listing.put(name, Rendering(before[name]))
        self._changes += (listing.rendered, gone) != (before, self._gone)
        self._held, self._gone = listing, gone

    def put(self, namespace: Namespace) -> None:
        """Add or change one namespace."""
        name = namespace.name.encode()
        before = self._held.rendered.get(name)
        returned = self._gone.pop(name, None) is not None
        self._held.put(name, self.render(namespace))
        self._changes += returned or self._held.rendered[name] != before

    def delete(self, name: str, now: float) -> None:
        """Mark a namespace deleted; its labels stay for the time of retention."""
        key = name.encode()
        if key in self._held.rendered and key not in self._gone:
            self._held.discard_notes(key)
            self._gone[key] = now + self._retention
            self._changes += 1

    def expire(self, now: float) -> None:
        """Forget what was deleted long enough ago."""
        for name in [name for name, forget_at in self._gone.items() if forget_at <= now]:
            self._held.discard(name)
            del self._gone[name]
            self._changes += 1

    def state(self, now: float) -> Iterator[KnownLabels]:
        """All that `rendered_anew` needs, in another process and under the same rules.

        It is of this moment, though it may be read later and in another thread.
        """
        rendered, notes = dict(self._held.rendered), dict(self._held.notes)
        left = {name: forget_at - now for name, forget_at in self._gone.items()}
        none = Rendering(b"")
        return (
            KnownLabels.of(name, replace(notes.get(name, none), labels=labels), left.get(name))
            for name, labels in rendered.items()
        )

    def rendered_anew(self, state: Iterable[KnownLabels]) -> Restored:
        """What another map knew, for `restore`; this map does not change, and any thread may ask.

        Raises SnapshotError for what these rules do not make.
        """
        listing = self.listing()
        left = {}
        for known in state:
            name = known.namespace.encode(errors="replace")
            listing.put(name, self.renderer.render_anew(known))
            if known.deleted is not None:
                left[name] = min(max(known.deleted, 0.0), self._retention)
        return Restored(listing, left)

    def restore(self, restored: Restored, now: float) -> None:
        """Become what another map was, and own it."""
        self._held = restored.listing
        self._gone = {name: now + left for name, left in restored.left.items()}
        self._changes += 1


def _count(labels: bytes) -> int:
    return len(KnownLabels.of(b"", Rendering(labels), None).pairs)
