"""The lines of events that were given out, and the position of the acknowledged ones.

Knows resource versions, lists and marks, and the text form of positions. Must not know requests,
labels or clocks.

Invariants:
- A change of an event is given out once: not if it is at or before the place of its namespace.
- The place of a namespace moves only over acknowledged lines. So a position never passes a line
  that waits, and a namespace whose tenant is slow does not hold the places of others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from kmproxy.errors import PositionsError
from kmproxy.logs.event_text import MAX_COUNT, MAX_FIELD, Event
from kmproxy.logs.lines import Container, Mark
from kmproxy.logs.positions import END_OF_TIME
from kmproxy.logs.progress import Tally

MAX_LISTS: Final = 8
"""Lists without an end that a place remembers. Each began anew before it came as far as the one
before. If there are more, lines of the first one may be repeated."""

MAX_TEXT: Final = 128 << 10
"""Bytes of all positions: a thousand namespaces with lines that wait. Kubernetes takes 256 KiB of
annotations."""

MAX_KEY: Final = MAX_FIELD + 64

_FORMAT: Final = 1


class Begun(msgspec.Struct, frozen=True, array_like=True):
    """A list that was not read to its end: all its events up to `key` were given out."""

    version: int
    key: str


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a namespace stands: all its changes with a version of at most `version` were given out.

    So were those that the lists `begun` have given out. 0 is the place before the first list.
    """

    version: int = 0
    begun: tuple[Begun, ...] = ()

    def has(self, event: Event) -> bool:
        """Tell whether this change of the event was given out before."""
        return event.version <= self.version or any(
            event.version <= each.version and event.key <= each.key for each in self.begun
        )

    def reaching(self, version: int) -> Place:
        """Return the place after a watch has told of all changes up to this version."""
        if version <= self.version:
            return self
        return Place(version, tuple(each for each in self.begun if each.version > version))

    def listing(self, begun: Begun) -> Place:
        """Return the place after a list came so far."""
        rest = [each for each in self.begun if each.key > begun.key]
        return Place(self.version, (*rest[-(MAX_LISTS - 1) :], begun))


class EventPosition(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the reading of events goes on.

    `place` is that of all namespaces but those of `behind`, which have lines that the endpoint has
    not taken.
    """

    place: Place = Place()
    behind: dict[str, Place] = {}
    newest: int = 0
    """The latest time of all events, in nanoseconds since 1970, but no future one."""
    after: int = 0
    """Events of at most this time were sent before the API server was restored from a backup."""

    @property
    def version(self) -> int:
        """The version from which a watch has to go on. 0: a list is needed."""
        return min(self.place.version, *(each.version for each in self.behind.values()), MAX_COUNT)

    def bare(self) -> EventPosition:
        """Return a short position that is not behind this one: some lines may be repeated."""
        return EventPosition(Place(self.version), newest=self.newest, after=self.after)


class EventMark(Mark, frozen=True, gc=False):
    """A mark with the namespace of its line."""

    namespace: str


@dataclass(slots=True, eq=False)
class _Waiting:
    """The lines of a namespace that are not acknowledged: number, place before it, time of read."""

    queue: Container
    lines: deque[tuple[int, Place, float]] = field(default_factory=deque)


@dataclass(slots=True, eq=False)
class EventProgress:
    """Gives marks to the lines of one list of events, and keeps its position.

    `oldest` is in nanoseconds since 1970: without a position, older events are counted and left
    out.
    """

    start: EventPosition
    tally: Tally
    oldest: int
    version: int = field(init=False)
    """The version from which the next watch goes on. 0: a list is needed."""
    found: int = field(init=False, default=0)
    """Changes that the present list had and the watch before it had not given out."""
    _place: Place = field(init=False)
    _behind: dict[str, Place] = field(init=False)
    _newest: int = field(init=False)
    _after: int = field(init=False)
    _given: int = field(init=False, default=0)
    _waiting: dict[str, _Waiting] = field(init=False, default_factory=dict)
    _settled: int = field(init=False)  # from this version on the places are alike
    _list: int = field(init=False, default=0)
    _last: str | None = field(init=False, default="")  # the last key while they are in order
    _begun: Begun | None = field(init=False, default=None)  # how far the present list came

    def __post_init__(self) -> None:
        start = self.start
        self.version = start.version
        self._place, self._behind = start.place, dict(start.behind)
        self._newest, self._after = start.newest, start.after
        self._settled = max(_versions(self._place, *self._behind.values()))

    def __len__(self) -> int:
        """The number of lines that are not acknowledged."""
        return sum(len(each.lines) for each in self._waiting.values())

    @property
    def was_read(self) -> bool:
        """Whether any event was given out before."""
        return bool(self._place.version or self._place.begun or self._begun)

    @property
    def position(self) -> EventPosition:
        """The position of the acknowledged lines."""
        behind = {name: self._now(each) for name, each in self._behind.items()}
        behind |= {name: each.lines[0][1] for name, each in self._waiting.items()}
        return EventPosition(self._now(self._place), behind, self._newest, self._after)

    @property
    def waiting_since(self) -> float | None:
        """The time at which the first line was read that is not acknowledged."""
        return min((each.lines[0][2] for each in self._waiting.values()), default=None)

    def begin_list(self, version: int) -> bool:
        """Begin a list of this version. Return whether it is of another history.

        A list with a version before the place is that of an API server that was restored from a
        backup. Then only times can tell which events were sent.
        """
        self._place = self._now(self._place)
        self._behind = {name: self._now(each) for name, each in self._behind.items()}
        self._settled = max(_versions(self._place, *self._behind.values()))
        restored = version < self._settled
        if restored:
            self._place, self._behind, self._after = Place(), {}, self._newest
            for each in self._waiting.values():  # their places are of no use after a restart
                each.lines = deque((number, Place(), at) for number, _, at in each.lines)
        self._list, self._last, self._begun, self.found = version, "", None, 0
        return restored

    def list_event(self, event: Event, now: float, wall: int) -> tuple[Container, EventMark] | None:
        """Take the next event of the list. Return the queue and the mark if it makes a line."""
        place, made = self._place_of(event.namespace), None
        if not place.has(event) and (place.version or self._is_wanted(event)):
            self.found += 1
            made = self._give(event, place, now, wall)
        if self._last is None or event.key < self._last:
            # Without an order a key says nothing about the events before it.
            self._last = self._begun = None
        else:
            self._last, self._begun = event.key, Begun(self._list, event.key)
        return made

    def end_list(self) -> None:
        """End the list: its version is the place of all namespaces from now on."""
        self.version = self._list
        self._place, self._behind, self._after = Place(self._list), {}, 0
        self._begun = None

    def change(self, event: Event, now: float, wall: int) -> tuple[Container, EventMark] | None:
        """Take the next change of a watch. Return the queue and the mark if it makes a line."""
        place = self._place_of(event.namespace)
        made = None if place.has(event) else self._give(event, place, now, wall)
        self.reach(event.version)
        return made

    def reach(self, version: int) -> None:
        """Move the places: a watch has told of all changes up to this version."""
        self.version = max(self.version, version)
        self._place = self._place.reaching(version)
        if self._behind and version >= self._settled:
            self._behind = {}

    def acknowledge(self, mark: Mark) -> None:
        """Move the place behind a line and all lines of its namespace before it."""
        if not isinstance(mark, EventMark) or (found := self._waiting.get(mark.namespace)) is None:
            return
        while found.lines and found.lines[0][0] <= mark.number:
            found.lines.popleft()
        if not found.lines:
            del self._waiting[mark.namespace]

    def _place_of(self, namespace: str) -> Place:
        return self._behind.get(namespace, self._place)

    def _now(self, place: Place) -> Place:
        """Bring a place up to date: by the version of the watch, or by the present list."""
        place = place.reaching(self.version)
        return place if self._begun is None else place.listing(self._begun)

    def _is_wanted(self, event: Event) -> bool:
        """Tell whether an event of the first list is to be sent."""
        if self._after:
            return event.time is None or event.time > self._after
        if event.time is not None and event.time < self.oldest:
            self.tally.lost["too_old"] += 1
            return False
        return True

    def _give(
        self, event: Event, place: Place, now: float, wall: int
    ) -> tuple[Container, EventMark]:
        self._given += 1
        waiting = self._waiting.get(event.namespace)
        if waiting is None:
            queue = Container("", event.namespace, "", "", "")
            waiting = self._waiting[event.namespace] = _Waiting(queue)
        waiting.lines.append((self._given, self._now(place), now))
        self._newest = max(self._newest, min(event.time or 0, wall))
        self.tally.lines += 1
        self.tally.cut += event.is_cut
        return waiting.queue, EventMark(self._given, event.namespace)


def _versions(*places: Place) -> Iterator[int]:
    for place in places:
        yield place.version
        yield from (each.version for each in place.begun)


class _Document(msgspec.Struct):
    format: int
    positions: dict[str, EventPosition]


_DOCUMENT = msgspec.json.Decoder(_Document)


def encode_positions(positions: Mapping[str, EventPosition]) -> str:
    """Return the text of the positions, by watched namespace; "" stands for all.

    If it is too long, only one version of each is left: a restart may repeat lines. Raises
    PositionsError if this is too long.
    """
    data = msgspec.json.encode(_Document(_FORMAT, dict(positions)))
    if len(data) > MAX_TEXT:
        short = {name: each.bare() for name, each in positions.items()}
        data = msgspec.json.encode(_Document(_FORMAT, short))
    if len(data) > MAX_TEXT:
        raise PositionsError(f"the positions of events take more than {MAX_TEXT} bytes")
    return data.decode()


def decode_positions(text: str) -> dict[str, EventPosition]:
    """Read a text. Raises PositionsError."""
    try:
        document = _DOCUMENT.decode(text.encode(errors="replace"))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PositionsError("it does not hold positions of events") from error
    if document.format != _FORMAT:
        raise PositionsError(f"it has another format than {_FORMAT}")
    if not all(map(_is_possible, document.positions.values())):
        raise PositionsError("it holds an impossible position of events")
    return document.positions


def _is_possible(position: EventPosition) -> bool:
    """Return whether a position can come from this program."""
    latest = END_OF_TIME * 1_000_000_000
    return (
        0 <= position.newest < latest
        and 0 <= position.after < latest
        and _are_possible((position.place, *position.behind.values()))
    )


def _are_possible(places: Iterable[Place]) -> bool:
    return all(
        0 <= place.version < MAX_COUNT
        and len(place.begun) <= MAX_LISTS
        and all(0 < each.version < MAX_COUNT and len(each.key) <= MAX_KEY for each in place.begun)
        for place in places
    )
