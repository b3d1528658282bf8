"""List and watch: turns bytes into events, and decides when to list, to resume or to back off.

Knows the rules of client-go's reflector and the JSON of watch events. Must not know sockets, clocks
or randomness: bytes, seconds and a random source are passed in. Only this module keeps the resource
version from which a watch resumes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from kmproxy.errors import ApiError, UpstreamError
from kmproxy.kube.object_list import MAX_OBJECT
from kmproxy.kube.objects import ObjectMeta, decode, decode_object, parse_status
from kmproxy.kube.outage import TOO_LARGE, is_outage

LIST_ACCEPT = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
WATCH_ACCEPT = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"

PAGE = 500
"""Objects in one page of a list, if the list can be requested in pages. Pages spare the API server.
kmproxy holds no page, so the size of a page does not change its own cost."""

WATCH_TIMEOUT = (300.0, 600.0)
"""The API server is asked to end a watch after a random number of seconds between these two."""

SILENCE = 80.0
"""Seconds without a byte after which a watch counts as dead: a bookmark comes every 60 s."""

SHORT_WATCH = 1.0
"""A watch that ends before this many seconds is a failure, even with events: a back-off follows."""

SILENCES = 2
"""Answered watches in a row that bring no event, after which a list is due."""

RELIST = 3600.0
"""Seconds of watches after which the map is listed again. The list finds changes that the watches
missed without a sign. Such changes happen around the restore of a backup, if the history of the
backup has passed our resource version again."""


PATIENCE = 5
"""Failures in a row that may end by themselves. After more of them a list is due all the same."""


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


_PASSING = frozenset({429, 500, 502, 503, 504})

_EVENT = msgspec.json.Decoder(_Event)


@dataclass(frozen=True, slots=True)
class Change:
    """An object came, changed or went. `raw` is its JSON."""

    kind: Literal["ADDED", "MODIFIED", "DELETED"]
    meta: ObjectMeta
    raw: bytes | msgspec.Raw = field(default=b"", repr=False, compare=False)


class Next(enum.Enum):
    """The next step after a list or a watch: a list or a watch, at once or after a back-off."""

    LIST = enum.auto()
    LIST_AT_ONCE = enum.auto()
    WATCH = enum.auto()
    WATCH_AT_ONCE = enum.auto()

    @property
    def lists(self) -> bool:
        """Whether the next step is a list."""
        return self in {Next.LIST, Next.LIST_AT_ONCE}

    @property
    def at_once(self) -> bool:
        """Whether the next step follows without a wait."""
        return self in {Next.LIST_AT_ONCE, Next.WATCH_AT_ONCE}


class WatchLines:
    """Cuts the bytes of a watch into lines. `unended` are the bytes of the last line so far."""

    __slots__ = ("_parts", "unended")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.unended = 0

    def __repr__(self) -> str:
        return f"<WatchLines {self.unended} bytes>"

    def split(self, data: bytes) -> list[bytes]:
        """Returns the lines that end in this piece. Raises ApiError if one is over `MAX_OBJECT`."""
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join([*self._parts, lines[0]])
            self._parts, self.unended = [], 0
        self._parts.append(rest)
        self.unended += len(rest)
        if max(self.unended, *map(len, lines), 0) > MAX_OBJECT:
            raise ApiError(200, "garbage", f"a watch event is longer than {MAX_OBJECT} bytes")
        return lines


class WatchState:
    """The state of list and watch: the resource version to continue from, and recent failures.

    The resource version is opaque. It is sent back exactly as the API server sent it.
    """

    def __init__(self, *, uniform: Callable[[float, float], float]) -> None:
        self._uniform = uniform
        self._version = "0"  # for the first list, any state of the server's cache is good enough
        self._lines = WatchLines()
        self._open = False  # the present watch has been answered
        self._silences = 0  # answered watches in a row that brought no event
        self._watched = 0.0  # seconds of answered watches since the last list
        self._failures = 0  # failures since the last list or event
        self._outage = False  # the API server has been away since the last list or event

    def __repr__(self) -> str:
        return f"<WatchState at version {self._version or 'latest'}>"

    def list_params(self, token: str = "") -> dict[str, str]:
        """Return the query of a list, or of the page that `token` stands for.

        A resource version together with a limit would ask for exactly that version. The cache of
        the API server does not have it, and the history may never have it. So a list with a version
        is requested without a limit, as in client-go.
        """
        if token:
            return {"limit": str(PAGE), "continue": token}
        if self._version in {"", "0"}:
            return {"limit": str(PAGE), "resourceVersion": self._version}
        return {"resourceVersion": self._version}

    def listed(self, version: str) -> None:
        """Record that a list is complete, with the resource version `version` in its metadata."""
        self._version = version
        self._failures = 0
        self._outage = False
        self._watched = 0.0

    def watch_params(self) -> dict[str, str]:
        """Return the query of the next watch. `feed` then takes its bytes from the first one on."""
        self._lines, self._open = WatchLines(), False
        return {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(round(self._uniform(*WATCH_TIMEOUT))),
        }

    def opened(self) -> None:
        """Record that the watch has been answered. Its events follow."""
        self._open = True

    def feed(self, data: bytes) -> Iterator[Change | None]:
        """Take bytes of a watch; yield a change for each event, and None for each bookmark.

        The resource version advances with each of them. Raises ApiError for an ERROR event, and for
        a line that is not an event.
        """
        for line in self._lines.split(data):
            if line.strip():
                yield self._event(line)

    def _event(self, line: bytes) -> Change | None:
        event = decode(_EVENT, line, "a watch event cannot be read")
        if event.type == "ERROR":
            raise parse_status(500, bytes(event.object))
        meta = decode_object(event.object, "a watch event cannot be read")
        if not meta.resource_version:
            raise ApiError(200, "garbage", f"a watch event {event.type!r} has no resourceVersion")
        self._version = meta.resource_version
        self._failures = self._silences = 0
        self._outage = False
        match event.type:
            case "ADDED" | "MODIFIED" | "DELETED":
                return Change(event.type, meta.kept(), event.object)
            case _:  # BOOKMARK, or a type of event that a later Kubernetes may add
                return None

    def ended(self, lasted: float) -> Next:
        """Return the next step after the API server ended a watch cleanly after `lasted` seconds.

        Raises ApiError if the watch ended at once or in the middle of a line.
        """
        if self._lines.unended:
            raise ApiError(200, "cut", "the watch ended in the middle of an event")
        if lasted < SHORT_WATCH:
            raise ApiError(200, "short", "the watch ended at once")
        self._watched += lasted
        return Next.WATCH_AT_ONCE if self._watched < RELIST else Next.LIST_AT_ONCE

    def failed(self, error: UpstreamError, *, listing: bool, lasted: float = 0.0) -> Next:
        """Return the next step after a list or a watch failed after `lasted` seconds."""
        if not listing and self._open:
            self._watched += lasted
        step = self._step(error, listing=listing)
        return Next.LIST if self._watched >= RELIST and not step.lists else step

    def unreached(self, error: UpstreamError, *, listing: bool) -> bool:
        """Tell whether a list or a watch failed before the API server sent anything.

        If a response breaks off in the middle, the API server was reached.
        """
        if isinstance(error, ApiError) or not is_outage(error):
            return False
        began = {"disconnected", "truncated"} if listing else set()
        return error.reason not in began and (listing or not self._open)

    def _step(self, error: UpstreamError, *, listing: bool) -> Next:
        self._outage = self._outage or is_outage(error)
        if isinstance(error, ApiError):
            return self._refused(error, listing=listing)
        if listing:
            return Next.LIST
        if not self._open:
            return Next.WATCH
        if error.reason == "timeout":
            return self._silent()
        self._failures += 1
        return Next.LIST if self._failures > PATIENCE else Next.WATCH

    def _silent(self) -> Next:
        """Return the next step after a watch that was answered and then was silent for too long.

        The connection may be dead, so at first the watch is repeated. But the API server also
        answers a watch from a resource version that it has not reached yet, and then stays silent,
        as after the restore of a backup. Only a list tells that it does not have this version.
        """
        self._silences += 1
        return Next.WATCH_AT_ONCE if self._silences % SILENCES else Next.LIST_AT_ONCE

    def _refused(self, error: ApiError, *, listing: bool) -> Next:
        if error.code == 410 or TOO_LARGE in str(error):
            # The API server answers, and the next list asks for another version, so it may follow
            # at once. After an outage the wait has come before.
            at_once = self._outage or (listing and self._version)
            self._outage = False  # after another 410 it waits
            self._version = ""  # the next list is read from etcd, not from the cache
            return Next.LIST_AT_ONCE if at_once else Next.LIST
        passing = error.code in _PASSING or error.reason in {"cut", "short"}
        self._failures += error.code != 429  # a list would increase the load that causes a 429
        if listing or not passing or self._failures > PATIENCE:
            return Next.LIST
        return Next.WATCH
