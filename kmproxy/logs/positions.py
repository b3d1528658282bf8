"""Positions: where the reading of each container's log goes on, and their text form.

Knows points in log files, and the text of the positions file. Must not know files on disk,
requests, labels or clocks. A position belongs to a pod's UID and a container's name, never to
labels: a namespace that moves to another team changes no position.

The text has one head line with the format, its version and the SHA-256 of the rest. The rest is a
JSON document. It holds no text of any log.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection

import msgspec

from kmproxy.errors import PositionsError
from kmproxy.logs.lines import Container

MAX_BYTES = 4 << 20
"""Bytes of the longest text: about 10,000 containers."""

MAX_BACK = 32 << 10
"""Bytes at most of the evidence before a place. A line that a runtime writes is shorter."""

KEPT = 24 * 3600.0
"""Seconds for which the position of a container that is gone is kept."""

END_OF_TIME = 253_402_300_800
"""Seconds since 1970 of the year 10,000, which no time in a request can name."""

_FORMAT = b"kmproxy-positions"
_VERSION = b"1"
_LONGEST_NAME = 300
_PART_OF_A_PATH = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,127}", re.ASCII)


class Point(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place in the log of one instance, with the evidence that finds it again after a rotation.

    The file is named by the rotated file before it, because that name does not change when the
    file itself is renamed. `back` and `crc` are the length and the CRC-32 of the bytes before the
    place: of the last line, which bears its time. A point at the beginning has no evidence.
    """

    after: str = ""
    """The time in the name of the rotated file before, or "" for the instance's first file."""
    offset: int = 0
    """Bytes before the place, in the file as it was written, not as it may be compressed."""
    back: int = 0
    crc: int = 0

    @property
    def order(self) -> tuple[str, int]:
        """Places of an instance compare by it, unless a file was truncated between them."""
        return self.after, self.offset


class Open(msgspec.Struct, frozen=True):
    """What stands open after a line: lines of which parts were read, but not the last one."""

    start: Point | None = None
    """Before the first part of the earliest open line. None if no line is open."""
    skipping: tuple[str, ...] = ()
    """Streams of which the rest of a line is left out, because the line was cut."""


class FilePosition(msgspec.Struct, frozen=True, omit_defaults=True, tag="file"):
    """Where reading goes on in the kubelet's files.

    All lines that end at or before `done` are acknowledged. If `start` is given, an open line
    begins there: it is read again from there, and lines that end before `done` are left out.
    """

    instance: int
    done: Point
    start: Point | None = None
    skipping: tuple[str, ...] = ()


class ApiPosition(msgspec.Struct, frozen=True, omit_defaults=True, tag="api"):
    """Where reading goes on in the API server's pods/log.

    A request can name no place in a log, only a whole second. So the position has the number and
    the checksum of the acknowledged lines from the second `since` on, in the order of the log: they
    are read again and left out.
    """

    instance: int
    since: int = 0
    """Seconds since 1970: the second before that of the newest line, or later."""
    lines: int = 0
    crc: int = 0
    newest: int = 0
    """The latest time of all acknowledged lines, in nanoseconds since 1970."""
    ended: bool = False
    """Whether the instance was read to its end."""
    behind: bool = False
    """Whether a line was older than `since`: the node's clock went back."""


Position = FilePosition | ApiPosition
"""The positions that the file can hold: a union with one tagged class for each source."""

_NOWHERE = FilePosition(0, Point())

Key = tuple[str, str]
"""A pod's UID and a container's name."""


class _Entry(msgspec.Struct, omit_defaults=True):
    uid: str
    container: str
    seen: int  # seconds since 1970 when the container was last known to exist
    position: Position
    namespace: str = ""
    pod: str = ""
    node: str = ""
    is_over: bool = False
    is_behind: bool = False
    is_new: bool = False  # no line was sent yet: the position is none


_ENTRIES = msgspec.json.Decoder(list[_Entry])


class PositionBook:
    """The positions of all containers, at most `max_bytes` as text.

    A container that is gone keeps its position for `kept` seconds. After a restart, `gone` sets
    this time back to its beginning. If the text is over its bound, the positions of the containers
    that were seen longest ago are left out.
    """

    def __init__(self, *, kept: float = KEPT, max_bytes: int = MAX_BYTES) -> None:
        self._kept = kept
        self._max_bytes = max_bytes
        self._entries: dict[Key, _Entry] = {}
        self._is_current = True
        self.changed = False
        """Whether a position has moved since the last `encode`."""
        self.left_out = 0
        """Positions that the last text had no room for."""

    def __repr__(self) -> str:
        return f"<PositionBook {len(self._entries)} containers>"

    def get(self, key: Key) -> Position | None:
        """Return the position of a container, or None if it is not known."""
        entry = self._entries.get(key)
        return entry.position if entry and not entry.is_new else None

    def is_behind(self, key: Key) -> bool:
        """Return whether bytes of a container were known that its position had not passed."""
        entry = self._entries.get(key)
        return entry is None or entry.is_behind

    def set(self, key: Key, position: Position, now: float) -> None:
        """Keep the position of a container that exists at `now`, in seconds since 1970."""
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _Entry(*key, int(now), position)
        elif entry.position == position:
            entry.seen = int(now)
            return
        else:
            entry.seen, entry.position = int(now), position
        self.changed = True

    def keep(
        self,
        container: Container,
        position: Position | None,
        now: float,
        *,
        is_over: bool,
        is_behind: bool,
    ) -> None:
        """Keep the position of a container, and what `gone` and `is_behind` tell of it.

        `is_over`: all that it ever writes was read. `is_behind`: not all that was known was sent. A
        container without a position yet is kept, too, so that `gone` knows of it.
        """
        key = container.uid, container.name
        self.set(key, position or _NOWHERE, now)
        entry = self._entries[key]
        before = (
            entry.namespace,
            entry.pod,
            entry.node,
            entry.is_over,
            entry.is_behind,
            entry.is_new,
        )
        state = is_over, is_behind, position is None
        now_is = container.namespace, container.pod, container.node, *state
        if before != now_is:
            entry.namespace, entry.pod, entry.node = now_is[:3]
            entry.is_over, entry.is_behind, entry.is_new = state
            self.changed = True

    def gone(self, known: Collection[str], now: float) -> list[tuple[Container, Position | None]]:
        """Return the containers whose end was not read, of pods whose UID is not among `known`.

        It is called once, when the pods were listed after a restart.
        """
        self._is_current = True
        found: list[tuple[Container, Position | None]] = []
        for each in self._entries.values():
            each.seen = max(each.seen, int(now))
            if each.namespace and not each.is_over and each.uid not in known:
                owner = Container(each.uid, each.namespace, each.pod, each.container, each.node)
                found.append((owner, None if each.is_new else each.position))
        return found

    def encode(self, now: float) -> bytes:
        """Return the text, without the containers that were gone for too long at `now`."""
        oldest = int(now - self._kept)
        if self._is_current:  # else nobody knows which of them are gone
            for key in [key for key, each in self._entries.items() if each.seen < oldest]:
                del self._entries[key]
        room = self._max_bytes - 200
        lines = []
        for entry in sorted(self._entries.values(), key=lambda each: -each.seen):
            line = msgspec.json.encode(entry)
            room -= len(line) + 2
            if room < 0:
                break
            lines.append(line)
        self.left_out = len(self._entries) - len(lines)
        self.changed = False
        rest = b"[" + b",\n".join(lines) + b"]\n"
        return b"%s %s %s\n%s" % (_FORMAT, _VERSION, _digest(rest), rest)

    def restore(self, data: bytes) -> None:
        """Replace all positions by those of a text. Raises PositionsError and changes nothing."""
        self._entries = {(each.uid, each.container): each for each in decode(data)}
        self._is_current, self.changed = False, False


def decode(data: bytes) -> list[_Entry]:
    """Read a text. Raises PositionsError."""
    head, _, rest = data.partition(b"\n")
    words = head.split(b" ")
    if len(words) != 3 or words[0] != _FORMAT:
        raise PositionsError("it is not a positions file of kmproxy")
    if words[1] != _VERSION:
        version = words[1][:20].decode("ascii", "replace")
        raise PositionsError(f"it has the version {version} of the format, not 1")
    if words[2] != _digest(rest):
        raise PositionsError("it is damaged: its checksum does not fit")
    try:
        entries = _ENTRIES.decode(rest)
    except msgspec.DecodeError as error:
        raise PositionsError("it is damaged: it does not hold positions") from error
    if not all(map(_is_possible, entries)):
        raise PositionsError("it is damaged: it holds an impossible position")
    return entries


def _is_possible(entry: _Entry) -> bool:
    """Return whether an entry can come from this program."""
    position = entry.position
    if not (
        0 < len(entry.uid) <= _LONGEST_NAME
        and 0 < len(entry.container) <= _LONGEST_NAME
        and position.instance >= 0
        and _is_named(entry)
    ):
        return False
    if isinstance(position, ApiPosition):
        return (
            0 <= position.since < END_OF_TIME
            and position.lines >= 0
            and 0 <= position.crc < 1 << 32
            and position.newest >= 0
        )
    points = [position.done, *([position.start] if position.start else [])]
    return (
        all(
            0 <= each.back <= min(each.offset, MAX_BACK) and bool(each.back) == bool(each.offset)
            for each in points
        )
        and (not position.start or position.start.order <= position.done.order)
        and set(position.skipping) <= {"stdout", "stderr"}
    )


def _is_named(entry: _Entry) -> bool:
    """Return whether a path can be made of the names of an entry, or it has none."""
    if not entry.namespace:
        return not entry.pod
    names = entry.namespace, entry.pod, entry.container
    return (
        all(map(_PART_OF_A_PATH.fullmatch, names))
        and _UID.fullmatch(entry.uid) is not None
        and ".." not in entry.pod
    )


def _digest(rest: bytes) -> bytes:
    return hashlib.sha256(rest).hexdigest().encode()
