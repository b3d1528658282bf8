"""The labels of all namespaces, as bytes that one look-up finds for a sample.

Knows how long a deleted namespace is remembered, and how many bytes the labels of all namespaces
may take. Must not know where namespaces come from, or the form of a sample. It reads no clock:
callers pass the time in.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from kmproxy.config.label_rules import MAX_VALUE, LabelRule
from kmproxy.kube.objects import ObjectMeta
from kmproxy.labels.rendering import KnownLabels, Renderer, Rendering

RETENTION = 300.0
"""Seconds for which a deleted namespace keeps its labels."""

MAP_BYTES = 10 << 20
"""The most bytes that the labels of all namespaces take, including deleted namespaces that are
still remembered: 5,000 namespaces may have 2 KB each."""

Limit = Literal["value", "namespace", "map"]
LIMITS: Final[tuple[Limit, ...]] = ("value", "namespace", "map")
"""The limits for which a value is left out: the length of the value, the bytes of its namespace,
the bytes of the whole map."""


@dataclass(slots=True, eq=False)
class Listing:
    """The labels of namespaces, with at most `limit` bytes.

    Beyond the limit, the namespaces with the most bytes get `otherwise` in place of their labels.
    So no namespace loses its labels to one that has more. A sixteenth of the limit is freed at
    once. The namespaces with the most bytes are found in a heap, which is made when the limit is
    reached. So a change costs the logarithm of the number of namespaces, also if nothing more can
    be freed.
    """

    otherwise: bytes
    limit: int = MAP_BYTES
    rendered: dict[bytes, bytes] = field(default_factory=dict)
    notes: dict[bytes, Rendering] = field(default_factory=dict)  # missing values; labels are empty
    cut: dict[bytes, int] = field(default_factory=dict)  # values left out for `limit`
    held: int = 0
    longest: int = 0  # the most bytes that one namespace has had
    heap: list[tuple[int, bytes]] | None = None  # less the bytes, and the name; some are outdated

    def put(self, name: bytes, rendering: Rendering, *, like: bytes | None = None) -> None:
        """Add or change a namespace. If its labels equal `like`, the object `like` is kept."""
        self.discard(name)
        labels = rendering.labels
        self.rendered[name] = like if like is not None and like == labels else labels
        self.held += len(labels)
        self.longest = max(self.longest, len(labels))
        if rendering.lacking or rendering.too_long or rendering.too_many:
            self.notes[name] = replace(rendering, labels=b"")
        if self.heap is not None and len(labels) > len(self.otherwise):
            heapq.heappush(self.heap, (-len(labels), name))
            if len(self.heap) > 2 * len(self.rendered) + 64:  # most are outdated
                self.heap = None
        if self.held > self.limit:
            self._make_room()

    def discard(self, name: bytes) -> None:
        """Forget a namespace, if the listing has it."""
        self.held -= len(self.rendered.pop(name, b""))
        self.discard_notes(name)

    def discard_notes(self, name: bytes) -> None:
        """Keep the labels of a namespace, but no longer count its missing values."""
        self.notes.pop(name, None)
        self.cut.pop(name, None)

    def _make_room(self) -> None:
        if (heap := self.heap) is None:
            sizes = ((-len(labels), name) for name, labels in self.rendered.items())
            self.heap = heap = [entry for entry in sizes if -entry[0] > len(self.otherwise)]
            heapq.heapify(heap)
        enough = self.limit - self.limit // 16
        while heap and self.held > enough:
            size, name = heapq.heappop(heap)
            labels = self.rendered.get(name, b"")
            if len(labels) != -size:  # changed, shortened or gone since
                continue
            self.cut[name] = _count(labels) - _count(self.otherwise)
            self.rendered[name] = self.otherwise
            self.held -= len(labels) - len(self.otherwise)


@dataclass(frozen=True, slots=True)
class Restored:
    """The labels of another map, rendered again by the rules of this one.

    `left` holds, for each deleted namespace, the seconds for which it is still remembered.
    """

    listing: Listing
    left: Mapping[bytes, float]


class LabelMap:
    """Maps the name of a namespace to the bytes that its samples get.

    The bytes, such as `,team="frontend"`, are rendered once per change, so a sample costs one
    look-up. There is one writer; readers call `lookup`. `swap` exchanges the whole map at once, so
    no reader sees a half of it. Times are seconds of one clock that does not go back. Memory:
    `MAP_BYTES`, twice that while namespaces are listed, and for each namespace about 300 bytes, 500
    once the limit was reached.
    """

    def __init__(
        self,
        rules: Sequence[LabelRule],
        *,
        max_value: int = MAX_VALUE,
        retention: float = RETENTION,
        reserved: frozenset[str] = frozenset(),
    ) -> None:
        self.renderer = Renderer(rules, max_value=max_value, reserved=reserved)
        self._retention = retention
        self._unknown = self.render(ObjectMeta("")).labels
        self._held = self.listing()
        self._gone: dict[bytes, float] = {}  # name -> when to forget it
        self._changes = 0
        self.loaded = False
        """Whether a listing of all namespaces was swapped in."""

    def __len__(self) -> int:
        """The number of namespaces that exist, without deleted ones that are still remembered."""
        return len(self._held.rendered) - len(self._gone)

    def __repr__(self) -> str:
        return f"<LabelMap {len(self)} namespaces, {len(self._gone)} deleted and remembered>"

    @property
    def rules(self) -> tuple[LabelRule, ...]:
        """The rules in the order in which their labels appear."""
        return self.renderer.rules

    @property
    def changes(self) -> int:
        """A number that differs after every change of the map."""
        return self._changes

    @property
    def names(self) -> tuple[str, ...]:
        """The labels that the rules name, in the order of the rules, without those of `*`."""
        return tuple(rule.name for rule in self.rules if rule.name in self.renderer.named)

    @property
    def longest(self) -> int:
        """The most bytes that a sample gets."""
        return max(self._held.longest, len(self._unknown))

    def lacking(self, label: str) -> int:
        """Count the existing namespaces without a value of their own for `label`, one of `names`.

        A value that is left out counts as missing.
        """
        return sum(label in notes.lacking for notes in self._held.notes.values())

    def left_out(self, limit: Limit) -> int:
        """Count the values that this limit now leaves out."""
        match limit:
            case "value":
                return sum(notes.too_long for notes in self._held.notes.values())
            case "namespace":
                return sum(notes.too_many for notes in self._held.notes.values())
            case "map":
                return sum(self._held.cut.values())

    def existing(self) -> list[str]:
        """Return the names of the namespaces that exist, without deleted ones still remembered."""
        return [name.decode() for name in self._held.rendered if name not in self._gone]

    def held(self) -> dict[bytes, bytes]:
        """Return the labels of the namespaces that exist, as `lookup` returns them, by name."""
        held = dict(self._held.rendered)
        for name in self._gone:
            held.pop(name, None)
        return held

    def lacking_of(self, namespace: bytes) -> tuple[str, ...]:
        """Return the labels of `names` for which a namespace has no value of its own."""
        notes = self._held.notes.get(namespace)
        return notes.lacking if notes else ()

    def lackers(self, label: str) -> list[bytes]:
        """Return the existing namespaces that `lacking` counts, in no order."""
        return [name for name, notes in self._held.notes.items() if label in notes.lacking]

    def lookup(self, namespace: bytes) -> bytes:
        """Return the pairs to add to a sample, each with its leading comma, or `b""` for no pairs.

        An unknown namespace has no labels, so its samples get the defaults.
        """
        return self._held.rendered.get(namespace, self._unknown)

    def find(self, namespace: bytes) -> bytes | None:
        """Return the pairs as `lookup`, or None for an unknown namespace."""
        return self._held.rendered.get(namespace)

    @property
    def unknown(self) -> bytes:
        """The pairs of the samples of an unknown namespace: the defaults."""
        return self._unknown

    def render(self, namespace: ObjectMeta) -> Rendering:
        """Render the labels that the samples of one namespace get."""
        return self.renderer.render(namespace)

    def listing(self) -> Listing:
        """Return an empty listing, for `collect` and `swap`."""
        return Listing(self._unknown)

    def replace(self, namespaces: Iterable[ObjectMeta], now: float) -> None:
        """Replace the whole map with these namespaces. The other namespaces were deleted."""
        listing = self.listing()
        self.collect(listing, namespaces)
        self.swap(listing, now)

    def collect(self, listing: Listing, namespaces: Iterable[ObjectMeta]) -> None:
        """Add namespaces to a listing for `swap`. Many namespaces are best added in portions."""
        held = self._held.rendered
        for space in namespaces:
            name = space.name.encode()
            listing.put(name, self.render(space), like=held.get(name))

    def swap(self, listing: Listing, now: float) -> None:
        """Replace the whole map with `listing`, and own it. The other namespaces were deleted."""
        before = self._held.rendered
        gone = {}
        for name in before.keys() - listing.rendered.keys():
            forget_at = self._gone.get(name, now + self._retention)
            if forget_at > now:
                gone[name] = forget_at
                listing.put(name, Rendering(before[name]))
        self._changes += (listing.rendered, gone) != (before, self._gone)
        self._held, self._gone = listing, gone
        self.loaded = True

    def put(self, namespace: ObjectMeta) -> None:
        """Add or change one namespace."""
        name = namespace.name.encode()
        before = self._held.rendered.get(name)
        returned = self._gone.pop(name, None) is not None
        self._held.put(name, self.render(namespace))
        self._changes += returned or self._held.rendered[name] != before

    def delete(self, name: str, now: float) -> None:
        """Mark a namespace as deleted. Its labels stay for the time of retention."""
        key = name.encode()
        if key in self._held.rendered and key not in self._gone:
            self._held.discard_notes(key)
            self._gone[key] = now + self._retention
            self._changes += 1

    def expire(self, now: float) -> None:
        """Forget the deleted namespaces whose time of retention is over."""
        for name in [name for name, forget_at in self._gone.items() if forget_at <= now]:
            self._held.discard(name)
            del self._gone[name]
            self._changes += 1

    def state(self, now: float) -> Iterator[KnownLabels]:
        """Yield the labels of all namespaces, as `rendered_anew` needs them.

        They are good for another process with the same rules. They show the map as it is at the
        call, even if they are read later or in another thread.
        """
        rendered, notes = dict(self._held.rendered), dict(self._held.notes)
        left = {name: forget_at - now for name, forget_at in self._gone.items()}
        none = Rendering(b"")
        return (
            KnownLabels.of(name, replace(notes.get(name, none), labels=labels), left.get(name))
            for name, labels in rendered.items()
        )

    def rendered_anew(self, state: Iterable[KnownLabels]) -> Restored:
        """Render the labels of another map again, for `restore`.

        This map does not change, so any thread may call it. Raises SnapshotError for labels that
        these rules do not make.
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
        """Replace the whole map with the labels of another map, and own them."""
        self._held = restored.listing
        self._gone = {name: now + left for name, left in restored.left.items()}
        self._changes += 1


def _count(labels: bytes) -> int:
    return len(KnownLabels.of(b"", Rendering(labels), None).pairs)
