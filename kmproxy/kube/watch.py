"""List and watch: bytes to events, and when to list, resume or back off.

Knows the rules of client-go's reflector and the JSON of lists and watch events.
Must not know sockets, clocks or randomness: bytes, seconds and a random source
are passed in. The resume version lives here and nowhere else.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec

from kmproxy.config.label_rules import Namespace
from kmproxy.errors import ApiError, UpstreamError
from kmproxy.kube.object_list import MAX_OBJECT, decode, decode_object
from kmproxy.kube.outage import TOO_LARGE, is_outage

LIST_ACCEPT = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
WATCH_ACCEPT = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"

PAGE = 500
"""Objects asked for per page of a list, where pages may be asked for. It spares the server; what a
page costs here does not depend on it, as no page is held."""

WATCH_TIMEOUT = (300.0, 600.0)
"""Seconds after which the server is asked to end a watch: a random value between."""

SILENCE = 80.0
"""Seconds without a byte after which a watch is dead: a bookmark comes every 60."""

SHORT_WATCH = 1.0
"""A watch that ends before this many seconds is a failure, even with events: it is waited out."""

SILENCES = 2
"""Answered watches in a row without a sign of life after which a list is due."""

RELIST = 3600.0
"""Seconds of watches after which the map is listed anew, whatever it has missed without a sign:
what changed around a backup that was restored, if its history has passed our version again."""

RETRY_AFTER_LIMIT = 60.0
"""Seconds that the API server can make us wait, whatever it asks for."""

PATIENCE = 5
"""Failures that may pass by themselves, one after the other, before a list is due all the same."""

BACKOFF_FIRST = 0.8
BACKOFF_LIMIT = 30.0
"""Seconds within which an API server is asked again that answers, but not well."""

PROBE_LIMIT = 8.0
"""Seconds within which one is asked again that could not be reached.

A refused attempt costs nobody anything, so it can be repeated soon: a change shows within these 8
seconds of the server's return, and the time of the list, for one process. Where packets are lost
instead of refused a connection attempt sends its last SYN 1 s before its end, so it is 9 seconds.

5,000 processes make 1,250 attempts a second meanwhile, as an attempt comes 4 s after the one
before it in the mean. When the server is back, 1,170 of them come in the first second, then 1,020,
860, 700, 550, 390, 230 and 80: the time that is left of a delay with full jitter, which is 2.7 s in
the mean. Each makes one handshake and one watch, or one list if the watch is answered by 410.
"""

BACKOFF_RESET = 120.0


class _Details(msgspec.Struct, rename="camel"):
    retry_after_seconds: float = 0


class _Status(msgspec.Struct):
    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


_REASON = re.compile(r"[A-Za-z]{1,40}")
_PASSING = frozenset({429, 500, 502, 503, 504})

_STATUS = msgspec.json.Decoder(_Status)
_EVENT = msgspec.json.Decoder(_Event)


@dataclass(frozen=True, slots=True)
class Change:
    """A namespace came, changed or went."""

    kind: Literal["ADDED", "MODIFIED", "DELETED"]
    namespace: Namespace


class Next(enum.Enum):
    """What to do after a list or a watch has ended, with or without a back-off before."""

    LIST = enum.auto()
    LIST_AT_ONCE = enum.auto()
    WATCH = enum.auto()
    WATCH_AT_ONCE = enum.auto()

    @property
    def lists(self) -> bool:
        """Whether it is a list."""
        return self in {Next.LIST, Next.LIST_AT_ONCE}

    @property
    def at_once(self) -> bool:
        """Whether it is not put off."""
        return self in {Next.LIST_AT_ONCE, Next.WATCH_AT_ONCE}


def parse_status(code: int, body: bytes, retry_after: str | None = None) -> ApiError:
    """The error that an answer other than 200 is; its body is a `Status`, or anything."""
    try:
        status = decode(_STATUS, body, "no Status")
    except ApiError:
        status = _Status()
    seconds = status.details.retry_after_seconds if status.details else 0.0
    if retry_after and retry_after.isdecimal():
        seconds = float(retry_after)
    return ApiError(
        status.code if status.code >= 400 else code,  # of another the message would be our own
        status.reason if _REASON.fullmatch(status.reason) else f"http_{code}",
        status.message or f"HTTP status {code}",
        retry_after=min(seconds, RETRY_AFTER_LIMIT) if seconds > 0 else None,
    )


class WatchState:
    """Where the next list or watch begins, and what a failure means for it.

    The version is opaque: it is taken from what the server sent and given back
    as it came.
    """

    def __init__(self, *, uniform: Callable[[float, float], float]) -> None:
        self._uniform = uniform
        self._version = "0"  # any state of the server's cache will do for a first list
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._open = False  # this watch has been answered
        self._silences = 0  # answered watches without anything, in a row
        self._watched = 0.0  # seconds of answered watches since the last list
        self._failures = 0  # since the last list or event
        self._outage = False  # the API server has been away since then

    def __repr__(self) -> str:
        return f"<WatchState at version {self._version or 'latest'}>"

    def list_params(self, token: str = "") -> dict[str, str]:
        """The query of a list, or of the page that `token` stands for.

        Beside a version a limit would ask for exactly that version, which is not
        in the server's cache and may never be in its history: as client-go, such
        a list is asked for whole.
        """
        if token:
            return {"limit": str(PAGE), "continue": token}
        if self._version in {"", "0"}:
            return {"limit": str(PAGE), "resourceVersion": self._version}
        return {"resourceVersion": self._version}

    def listed(self, version: str) -> None:
        """A list is complete, and its metadata says `version`."""
        self._version = version
        self._failures = 0
        self._outage = False
        self._watched = 0.0

    def watch_params(self) -> dict[str, str]:
        """The query of the next watch, whose bytes `feed` takes from their beginning."""
        self._buffer, self._buffered, self._open = [], 0, False
        return {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(round(self._uniform(*WATCH_TIMEOUT))),
        }

    def opened(self) -> None:
        """The watch has been answered; what comes now are its events."""
        self._open = True

    def feed(self, data: bytes) -> Iterator[Change | None]:
        """Take bytes of a watch; yield a change per event, None per bookmark.

        The version moves on as each is yielded. An ERROR event, or a line that
        is no event, is raised as ApiError.
        """
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join([*self._buffer, lines[0]])
            self._buffer, self._buffered = [], 0
        self._buffer.append(rest)
        self._buffered += len(rest)
        if max(self._buffered, *map(len, lines), 0) > MAX_OBJECT:
            raise ApiError(200, "garbage", f"a watch event is longer than {MAX_OBJECT} bytes")
        for line in lines:
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
                return Change(event.type, meta.namespace())
            case _:  # BOOKMARK, or a kind of event that is still to be invented
                return None

    def ended(self, lasted: float) -> Next:
        """What comes after a watch that the server ended cleanly after `lasted` seconds.

        Raises ApiError if that is no way to end one: at once, or in the middle
        of a line.
        """
        if self._buffered:
            raise ApiError(200, "cut", "the watch ended in the middle of an event")
        if lasted < SHORT_WATCH:
            raise ApiError(200, "short", "the watch ended at once")
        self._watched += lasted
        return Next.WATCH_AT_ONCE if self._watched < RELIST else Next.LIST_AT_ONCE

    def failed(self, error: UpstreamError, *, listing: bool, lasted: float = 0.0) -> Next:
        """What comes after a list or a watch that failed after `lasted` seconds."""
        if not listing and self._open:
            self._watched += lasted
        step = self._step(error, listing=listing)
        return Next.LIST if self._watched >= RELIST and not step.lists else step

    def unreached(self, error: UpstreamError, *, listing: bool) -> bool:
        """Whether a list or a watch failed before the API server said anything.

        What broke off in mid-answer is a failure of a server that is there.
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
        """What comes after a watch that was answered and then brought nothing for too long.

        At first the connection may be dead. But a watch from a version that the
        server has not reached yet, as after a backup was restored, is answered
        and silent as well; only a list says that this version is not to be had.
        """
        self._silences += 1
        return Next.WATCH_AT_ONCE if self._silences % SILENCES else Next.LIST_AT_ONCE

    def _refused(self, error: ApiError, *, listing: bool) -> Next:
        if error.code == 410 or TOO_LARGE in str(error):
            # It answers, and the next question is another. After an outage it has been waited for.
            at_once = self._outage or (listing and self._version)
            self._outage = False  # another 410 waits
            self._version = ""  # read from etcd, whatever the cache holds
            return Next.LIST_AT_ONCE if at_once else Next.LIST
        passing = error.code in _PASSING or error.reason in {"cut", "short"}
        self._failures += error.code != 429  # which a list would make worse
        if listing or not passing or self._failures > PATIENCE:
            return Next.LIST
        return Next.WATCH


class _Bound:
    """What delays are drawn up to: it doubles to its limit with each failure."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._next = BACKOFF_FIRST
        self._failed_at: float | None = None

    def after(self, now: float) -> float:
        """The bound after a failure at `now`; it has started over after `BACKOFF_RESET`."""
        if self._failed_at is not None and now - self._failed_at > BACKOFF_RESET:
            self._next = BACKOFF_FIRST
        self._failed_at = now
        bound = self._next
        self._next = min(bound * 2, self._limit)
        return bound


class Backoff:
    """Full-jitter delays: each is drawn from 0 to a bound that doubles.

    There is one bound for an API server that is not reached, up to
    `PROBE_LIMIT`, and one for a server that answers, up to `BACKOFF_LIMIT`.
    Each starts over after `BACKOFF_RESET` seconds without such a failure. That
    spreads thousands of pods that lost the same API server in the same second.
    """

    def __init__(self, *, uniform: Callable[[float, float], float]) -> None:
        self._uniform = uniform
        self._answered = _Bound(BACKOFF_LIMIT)
        self._unreached = _Bound(PROBE_LIMIT)

    def delay(self, now: float, *, at_least: float = 0.0, unreached: bool = False) -> float:
        """Seconds to wait after a failure at `now`, never less than `at_least`."""
        bound = (self._unreached if unreached else self._answered).after(now)
        return at_least + self._uniform(0.0, bound)
